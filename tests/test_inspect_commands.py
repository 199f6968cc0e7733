"""`glassnet inspect` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import glassnet as gn
from glassnet import cli
from glassnet.data.examples import Dataset
from glassnet.runs import Run


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a command in this process: `(exit code, standard output, standard error)`."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glassnet", "inspect", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def digit_file(digits: Dataset, tmp_path: Path) -> Path:
    Image.fromarray(digits.test.inputs[0, 0].numpy()).resize((80, 80)).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_features_of_the_runs_own_data_are_a_sentence_a_picture_and_numbers(
    digits_run: Run, digits: Dataset, inspect, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = inspect("features", digits_run.path, "--layer", "act3", "--out", tmp_path / "out", "--count", "40")
    found = gn.feature_maps(digits_run, digits.test[:40], "act3")
    assert code == 0
    assert out.splitlines()[0] == str(found)
    assert "on these 40 images" in out
    assert [line.strip() for line in out.splitlines()[1:]] == [
        str(tmp_path / "out" / "features-act3.png"),
        str(tmp_path / "out" / "features-act3.json"),
    ]
    with Image.open(tmp_path / "out" / "features-act3.png") as picture:
        assert picture.width > 400
    assert json.loads((tmp_path / "out" / "features-act3.json").read_text())["dead"] == list(found.dead)


def test_features_of_images_have_a_picture_each_and_name_what_cannot_be_read(
    digits_run: Run, digit_file: Path, inspect, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    words = (
        "features",
        digits_run.path,
        digit_file,
        digit_file,
        "absent.png",
        "--layer",
        "c1",
        "--out",
        tmp_path / "o",
    )
    code, out, err = inspect(*words, "--sort", "variance", "--scale", "own")
    assert code == 1
    assert "on these 2 images" in out
    assert "Set aside: absent.png: no such file" in err
    names = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert names == ["features-c1-1.png", "features-c1-2.png", "features-c1.json"]


def test_filters_of_a_run_say_how_far_training_moved_them(digits_run: Run, inspect, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = inspect("filters", digits_run.path, "--layer", "c3", "--out", tmp_path, "--json")
    result = json.loads(out)
    assert code == 0
    expected = gn.filters(digits_run.model, "c3", initial=gn.build_model("lenet5")).change
    assert result["change"] == pytest.approx(expected.tolist())
    assert "since the start" in result["finding"]
    assert result["files"] == [str(tmp_path / "filters-c3.png"), str(tmp_path / "filters-c3.json")]


def test_receptive_fields_need_no_run_and_no_weights(inspect, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("receptive-field", "vgg11", "--input", "3x32x32", "--layer", "features.2", "--unit", "0,15")
    code, out, err = inspect(*words, "--out", tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith(
        "A unit of features.2 sees 4x4 of 32x32 pixels; those of the first unit start at -1, -1, those of neighbours "
        "lie 2 apart."
    )
    assert "Unit 0,15: pixels -1 to 2, 29 to 32, some of them padding." in out
    result = json.loads((tmp_path / "receptive-field-features.2.json").read_text())
    assert result["chosen"]["padding"] == [[1, 0], [0, 1]]


def test_an_effective_field_is_measured_on_an_image(digits_run: Run, digit_file: Path, inspect, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("receptive-field", digits_run.path, "--layer", "c3", "--effective", "--image", digit_file)
    code, out, _ = inspect(*words, "--out", tmp_path / "out")
    assert code == 0
    assert "over 1 image." in out
    assert (tmp_path / "out" / "receptive-field-c3.png").is_file()


def test_top_images_come_from_the_runs_data(digits_run: Run, digits: Dataset, inspect, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = inspect("top-images", digits_run.path, "--unit", "output:7", "-n", "4", "--out", tmp_path, "--json")
    found = gn.top_images(digits_run, digits.test, "output:7", n=4)
    result = json.loads(out)
    assert code == 0
    assert [row["position"] for row in result["images"]] == [entry.position for entry in found]
    assert {row["class_name"] for row in result["images"]} == {"7"}
    assert (tmp_path / "top-images-output-7.png").is_file()


def test_ablation_prints_what_matters_and_the_forms_of_a_convolution(digits_run: Run, inspect) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = inspect("ablation", digits_run.path, "--layer", "c3", "--channels", "0,3", "--count", "100")
    assert code == 0
    assert out.startswith("Without c3 ")
    assert "of 2 channels" in out
    assert "locally connected" in out
    code, out, _ = inspect("ablation", digits_run.path, "--layer", "act3", "--channels", "", "--count", "50", "--json")
    result = json.loads(out)
    assert (result["rows"], result["connectivity"], result["num_examples"]) == ([], None, 50)


def test_a_network_without_a_run_takes_weights_and_data(digits_run: Run, inspect, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    torch.save(digits_run.model.state_dict(), tmp_path / "weights.pth")
    words = ("lenet5", "--weights", tmp_path / "weights.pth", "--data", "digits", "--count", "60")
    code, out, err = inspect("ablation", *words, "--layer", "act3", "--channels", "1")
    assert code == 0
    assert "of 60 are right" in out
    assert "no run says how images are prepared" in err
    code, out, err = inspect("top-images", "lenet5", "--data", "digits", "--unit", "c1:0", "--count", "30")
    assert code == 0
    assert "The 9 images of 30 that excite" in out
    assert "its weights are untrained" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("features RUN --layer act4", "Unknown layer 'act4'. Did you mean 'act"),
        ("features RUN", "Say which layer: --layer NAME."),
        ("features RUN --layer c1 --split tset", "Unknown split 'tset'. Did you mean 'test'"),
        ("features RUN --layer c1 --count 0", "--count must be at least 1; got 0"),
        ("features RUN --layer c1 --sort size", "Unknown sort 'size'"),
        ("features RUN --layer c1 --input 1x32x32", "A run's network is as it was trained"),
        ("features lenet5 --layer c1", "lenet5 is no run and has no data of its own"),
        ("features RUN --layer c1 --most 0", "--most must be at least 1; got 0"),
        ("filters RUN --layer c1 --most -1", "--most must be at least 1; got -1"),
        ("receptive-field RUN --layer c1 --unit a,b", "channel@row,col or channel, such as 3,5 or 12@3,5; got 'a,b'"),
        ("receptive-field RUN --layer f6 --unit 3,3", "a feature has no position; got 3,3"),
        ("visualize RUN --unit class:eleven", "Unknown class 'eleven'"),
        ("filters RUN --layer f6", "Unknown convolution 'f6'"),
        ("receptive-field RUN --layer c1 --unit 28,0", "a position is 0 to 27; got 28"),
        ("top-images RUN --unit c1", "Expected one channel of 'c1', such as 'c1:0'"),
        ("ablation RUN --layer c1 --channels 6", "Layer 'c1' has the channels 0 to 5; got 6"),
        ("ablation RUN --layer c1 --channels x", "--channels takes numbers joined by commas"),
        ("ablation absent/run --layer c1", "Expected a run folder at absent/run; there is nothing"),
    ],
)
def test_a_users_mistake_is_one_message(words: str, message: str, digits_run: Run, inspect, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = inspect(*words.replace("RUN", str(digits_run.path)).split(), "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert (out, "Traceback" in err) == ("", False)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_and_unreadable_images_are_work_that_failed(
    digits_run: Run, inspect, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    code, _, err = inspect("filters", digits_run.path, "--out", tmp_path / "file" / "sub")
    assert (code, "Could not write to" in err) == (1, True)
    code, _, err = inspect("features", digits_run.path, "absent.png", "--layer", "c1")
    assert (code, "None of the images can be read: absent.png: no such file" in err) == (1, True)
