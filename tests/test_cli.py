"""The command line as a user types it, in processes of its own where exit codes and streams matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glassnet import build_model, cli, open_run
from glassnet.data.examples import Dataset
from glassnet.runs import Run


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "glassnet", *map(str, words)], capture_output=True, text=True)


def call_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple:
    """Run a command in this process: `(exit code, standard output, standard error)`."""
    monkeypatch.setattr(sys, "argv", ["glassnet", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


@pytest.fixture
def glassnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    return lambda *words: call_here(monkeypatch, capsys, *words)


@pytest.fixture
def digit_file(digits: Dataset, tmp_path: Path) -> Path:
    """A file with the first test digit, drawn large."""
    image = Image.fromarray(digits.test.inputs[0, 0].numpy()).resize((80, 80), Image.Resampling.NEAREST)
    image.save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_help_loads_neither_torch_nor_any_other_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['glassnet', '--help']\n"
        "from glassnet import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'numpy', 'PIL', 'sklearn', 'yaml'} & set(sys.modules), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "set()"
    for verb in ("train", "evaluate", "predict", "report", "summary", "models", "datasets"):
        assert verb in found.stdout


def test_train_writes_a_run_and_says_where_it_is(tmp_path: Path) -> None:
    result = call("train", "digits", "--epochs", "1", "--out", tmp_path / "run", "--set", "max_shift=0")
    assert result.returncode == 0
    assert "Training on 1,295 examples, 143 held out, 1 epochs" in result.stderr
    assert "epoch 1/1" in result.stderr
    assert "Test accuracy" in result.stdout
    assert str(tmp_path / "run") in result.stdout
    assert (tmp_path / "run" / "report.html").is_file()
    assert "max_shift: 0" in (tmp_path / "run" / "config.yaml").read_text()


def test_train_as_json_prints_nothing_else(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("train", "--model", "softmax", "--epochs", "1", "--out", tmp_path / "run", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["run"] == str(tmp_path / "run")
    assert 0 <= result["test_accuracy"] <= 1


def test_every_flag_reaches_the_config(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    flags = "--epochs 1 --batch-size 50 --lr 0.5 --optimizer sgd --seed 7 --device cpu --precision fp32"
    settings = ("--set", "momentum=0.25", "--set", "patience=none")
    glassnet("train", "--model", "softmax", "--out", tmp_path / "run", *flags.split(), *settings)
    text = (tmp_path / "run" / "config.yaml").read_text()
    for line in (
        "epochs: 1\n",
        "batch_size: 50\n",
        "learning_rate: 0.5\n",
        "optimizer: sgd\n",
        "seed: 7\n",
        "device: cpu\n",
        "precision: fp32\n",
        "momentum: 0.25\n",
        "patience: null\n",
    ):
        assert f"  {line}" in text


def test_predict_answers_every_kind_of_image_and_names_the_broken_one(
    digits_run: Run, digit_file: Path, glassnet
) -> None:  # type: ignore[no-untyped-def]
    image = Image.open(digit_file)
    image.convert("RGBA").save(digit_file.with_name("rgba.png"))
    image.convert("RGB").quantize(16).save(digit_file.with_name("palette.gif"))
    digit_file.with_name("broken.png").write_bytes(b"broken")
    names = ("digit.png", "rgba.png", "broken.png", "palette.gif")
    code, out, err = glassnet("predict", digits_run.path, *(digit_file.with_name(name) for name in names))
    assert code == 1
    assert [Path(line.split()[0]).name for line in out.splitlines()[1:]] == ["digit.png", "rgba.png", "palette.gif"]
    assert "broken.png: expected an image" in err
    assert "1 of 4 not read." in err


def test_predict_as_json_holds_answers_and_failures(digits_run: Run, digit_file: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("predict", digits_run.path, digit_file, "absent.png", "--top", "2", "--json")
    result = json.loads(out)
    assert code == 1
    assert len(result["predictions"][0]["top"]) == 2
    assert result["set_aside"] == [{"source": "absent.png", "reason": "no such file"}]


def test_predict_takes_a_folder_of_images(digits_run: Run, digit_file: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    (digit_file.parent / "notes.txt").write_text("not an image, and not asked for")
    code, out, _ = glassnet("predict", digits_run.path, digit_file.parent)
    assert code == 0
    assert len(out.splitlines()) == 2
    (digit_file.parent / "none").mkdir()
    code, out, err = glassnet("predict", digits_run.path, digit_file, digit_file.parent / "none")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "none: expected an image file, got a folder" in err


def test_evaluate_prints_the_runs_figures(digits_run: Run, glassnet) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("evaluate", digits_run.path)
    accuracy = digits_run.record["result"]["test_accuracy"]
    assert code == 0
    assert f"accuracy {accuracy:.2%}" in out
    assert "precision" in out
    assert "confusion" in out
    code, out, _ = glassnet("evaluate", digits_run.path, "--split", "validation", "--json")
    assert json.loads(out)["num_examples"] == 143


def test_report_writes_the_same_report_again(digits_run: Run, glassnet) -> None:  # type: ignore[no-untyped-def]
    before = digits_run.report_path.read_text()
    code, out, _ = glassnet("report", digits_run.path)
    assert code == 0
    assert "report.html" in out
    assert digits_run.report_path.read_text() == before


def test_summary_takes_a_name_or_a_run(digits_run: Run, glassnet) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("summary", "lenet5")
    assert code == 0
    assert "61,706" in out
    assert glassnet("summary", digits_run.path)[1] == out
    code, out, _ = glassnet("summary", "softmax", "--input", "3x10x10", "--classes", "7", "--json")
    assert json.loads(out)["num_parameters"] == 300 * 7 + 7


def test_arithmetic_prints_the_formula_with_its_numbers(glassnet) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("arithmetic", "--input", "224x224x3", "--kernel", "3", "--filters", "32")
    assert code == 0
    assert "floor((224 + 0 + 0 - 3) / 1) + 1 = 222" in out
    assert "output: 222x222x32" in out
    assert "parameters: (3*3*3 + 1) * 32 = 896" in out
    assert "fully connected parameters: (224*224*3 + 1) * 222*222*32 = 237,397,479,552" in out
    words = ["--input", "32x32x3", "--kernel", "3x5", "--filters", "4", "--stride", "2", "--padding", "0x2", "--json"]
    assert json.loads(glassnet("arithmetic", *words)[1])["output_shape"] == [15, 16, 4]


def test_filter_writes_the_filtered_image(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    picture = Image.new("RGBA", (9, 7), (100, 50, 10, 200))
    picture.putpixel((4, 3), (0, 0, 0, 200))
    picture.save(tmp_path / "in.png")
    words = ("filter", tmp_path / "in.png", "--kernel", "mean", "--where-zero", "-o", tmp_path / "out.png")
    code, out, _ = glassnet(*words)
    assert code == 0
    assert "(9x7, RGBA)" in out
    repaired = Image.open(tmp_path / "out.png")
    assert repaired.getpixel((4, 3)) == repaired.getpixel((0, 0)) == (100, 50, 10, 200)
    (tmp_path / "text.png").write_text("no image")
    code, _, err = glassnet("filter", tmp_path / "text.png", "--kernel", "edge", "-o", tmp_path / "x.png")
    assert (code, "Could not read" in err) == (1, True)
    code, _, err = glassnet("filter", tmp_path / "in.png", "--kernel", "edge", "-o", tmp_path / "no" / "x.png")
    assert (code, "Could not write" in err) == (1, True)


def test_weights_of_another_number_of_classes_start_a_network(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    published = build_model("lenet5", num_classes=7, seed=3)
    torch.save(published.state_dict(), tmp_path / "published.pth")
    flags = ("--epochs", "1", "--lr", "1e-12", "--optimizer", "sgd", "--set", "weight_decay=0")
    code, _, err = glassnet("train", "--out", tmp_path / "run", "--weights", tmp_path / "published.pth", *flags)
    assert code == 0
    assert "10 tensors" in err or "8 tensors" in err
    assert "left as built: output.weight, output.bias" in err
    assert torch.allclose(open_run(tmp_path / "run").model.c1.weight, published.c1.weight, atol=1e-6)


def test_an_option_of_the_network_is_set_by_name(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("train", "--model", "mlp", "--epochs", "1", "--size", "10", "--set", "model.hidden=[7, 5]")
    code, _, _ = glassnet(*words, "--out", tmp_path / "run")
    assert code == 0
    assert open_run(tmp_path / "run").model.hidden1.weight.shape == (7, 100)


@pytest.fixture
def photos(digits: Dataset, tmp_path: Path) -> Path:
    """A folder of photos: two classes of twenty, of two sizes, and a broken file."""
    for index, (pixels, label) in enumerate(zip(digits.train.inputs, digits.train.labels.tolist(), strict=True)):
        folder = tmp_path / "photos" / f"digit {label}"
        if label < 2 and (not folder.exists() or len(list(folder.iterdir())) < 20):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0].numpy()).resize((40 + index % 2, 40)).save(folder / f"{index}.png")
    (tmp_path / "photos" / "digit 0" / "broken.png").write_bytes(b"broken")
    return tmp_path / "photos"


def test_a_folder_of_photos_is_understood_trained_on_and_predicted(glassnet, photos: Path) -> None:  # type: ignore[no-untyped-def]
    sheet = photos.parent / "sheet.png"
    code, out, _ = glassnet("data", photos, "--check", "--show-augmented", sheet)
    assert code == 0
    assert "photos: 40 images, 2 classes" in out
    assert "Set aside: 1 files" in out
    with Image.open(sheet) as picture:
        assert picture.width > 100
    run = photos.parent / "run"
    code, out, err = glassnet("train", photos, "--model", "lenet5", "--epochs", "6", "--out", run)
    assert code == 0
    assert "photos: 40 images, 2 classes" in err
    assert "(4 of 4 right)" in out
    assert glassnet("evaluate", run)[0] == 0
    code, out, err = glassnet("predict", run, photos / "digit 1")
    assert code == 0
    assert all("digit 1" in line for line in out.splitlines()[1:])
    assert glassnet("train", photos, "--strict", "--out", photos.parent / "strict")[0] == 1
    assert "Removed" in glassnet("data", "--clear-cache")[1]


def test_a_table_an_array_and_a_toy_are_trained_on(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [f"{x},{'red' if x % 2 else 'blue'},{2 * x + x % 2}" for x in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["x,colour,y", *rows]))
    np.savez(tmp_path / "series.npz", x=np.random.default_rng(0).random((40, 1, 30), np.float32), y=np.arange(40) % 2)
    for source, model, figure in (
        (tmp_path / "table.csv", "linear-regression", "Test error"),
        (tmp_path / "series.npz", "cnn1d", "Test accuracy"),
        ("circle", "mlp", "Test accuracy"),
    ):
        code, out, err = glassnet("train", source, "--model", model, "--epochs", "2", "--out", tmp_path / "run")
        assert code == 0, err
        assert figure in out
        code, out, _ = glassnet("evaluate", out.split("Run folder")[1].split()[0])
        assert code == 0


def test_numbers_get_a_network_for_numbers_where_none_is_named(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("train", "circle", "--epochs", "1", "--out", tmp_path / "run")
    assert code == 0
    assert "Test accuracy" in out
    assert "name: mlp" in (tmp_path / "run" / "config.yaml").read_text()


def test_models_and_datasets_list_what_there_is(glassnet) -> None:  # type: ignore[no-untyped-def]
    assert "lenet5" in glassnet("models")[1]
    assert {row["name"] for row in json.loads(glassnet("models", "--json")[1])} >= {"softmax", "mlp", "lenet5"}
    assert "comes with scikit-learn" in glassnet("datasets")[1]
    names = {row["name"] for row in json.loads(glassnet("datasets", "--json")[1])}
    assert names > {"digits", "mnist", "fashion-mnist", "cifar10", "shapes", "gate-xor", "spiral"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("train digitz", 2, "Unknown data set 'digitz'. Did you mean 'digits'"),
        ("train --model lenet", 2, "Unknown model 'lenet'. Did you mean 'lenet5'"),
        ("train --epochs 0", 2, "epochs must be at least 1; got 0"),
        ("train --batch-size 5000", 2, "at most the 1295 training examples; got 5000"),
        ("train --set epoch=3", 2, "Unknown config field 'epoch'. Did you mean 'epochs'"),
        ("train --set epochs", 2, "--set takes FIELD=VALUE"),
        ("train --device cuda:9", 2, "Device 'cuda:9' was asked for"),
        ("train --device gpu", 2, "Unknown device 'gpu'"),
        ("train --precision int8", 2, "Unknown precision 'int8'"),
        ("train --root /absent/folder", 2, "/absent/folder"),
        ("evaluate absent-run", 2, "Expected a run folder at absent-run; there is nothing"),
        ("predict absent-run x.png", 2, "Expected a run folder at absent-run"),
        ("summary lenet6", 2, "Unknown model 'lenet6'"),
        ("summary lenet5 --input 1xbx3", 2, "--input takes sizes joined by x"),
        ("summary lenet5 --input 1x20x20", 2, "at least 32x32 pixels"),
        ("summary lenet5 --classes 0", 2, "num_classes must be a whole number of at least 1; got 0"),
        ("train --model mlp --set model.hiden=3", 2, "Unknown option of model 'mlp' 'hiden'. Did you mean 'hidden'"),
        ("train --weights absent.pth", 1, "Expected a file of weights at absent.pth; there is none"),
        ("arithmetic --input 8x8x3 --kernel 9 --filters 3", 2, "8 + 2*0 - 9 = -1 < 0"),
        ("arithmetic --input 8x8x3 --kernel x --filters 3", 2, "'x'"),
        ("filter a.png --kernel egde -o b.png", 2, "Unknown kernel 'egde'. Did you mean 'edge'"),
        ("frobnicate", 2, "No such command 'frobnicate'"),
    ],
)
def test_a_users_mistake_ends_with_one_message_and_its_exit_code(
    words: str, code: int, message: str, glassnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    found, out, err = glassnet(*words.split())
    assert found == code
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_work_that_failed(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    code, _, err = glassnet("train", "--epochs", "1", "--out", tmp_path / "file" / "run")
    assert code == 1
    assert "Could not make the run folder" in err


def test_the_version_is_the_packages(glassnet) -> None:  # type: ignore[no-untyped-def]
    from glassnet._version import __version__

    assert glassnet("--version")[1] == f"glassnet {__version__}\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin1"])
def test_a_name_that_the_terminal_cannot_write_is_no_reason_to_fail(
    digits_run: Run, digit_file: Path, encoding: str
) -> None:
    odd = digit_file.rename(digit_file.with_name("sp ace é 漢.png"))
    words = [sys.executable, "-m", "glassnet", "predict", str(digits_run.path), str(odd)]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0
    assert b"sp ace" in done.stdout


def test_a_full_device_behind_the_output_is_a_message() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "glassnet", "models"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_a_loss_that_the_networks_outputs_do_not_fit_is_refused_before_any_work(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("train", "--set", "loss=negative-log-likelihood", "--out", tmp_path / "run")
    code, _, err = glassnet(*words)
    assert code == 2
    assert "Loss 'negative-log-likelihood' does not fit what the model gives: Log-probabilities must be" in err
    assert not (tmp_path / "run").exists()


def test_a_summary_comes_as_a_table_markdown_a_lecture_or_json(glassnet) -> None:  # type: ignore[no-untyped-def]
    assert glassnet("summary", "lenet5", "--format", "markdown")[1].startswith("| layer | kind | input |")
    lecture = glassnet("summary", "alexnet", "--format", "lecture")[1].splitlines()
    assert lecture[1].split() == ["conv1", "227x227", "55x55", "11x11", "4", "0", "3", "->", "96", "34,944"]
    assert lecture[-1].split() == ["total", "62,378,344"]
    assert json.loads(glassnet("summary", "lenet5", "--format", "json")[1])["num_additions"] == 416_520
    code, _, err = glassnet("summary", "lenet5", "--format", "html")
    assert (code, "Unknown format 'html'" in err) == (2, True)
