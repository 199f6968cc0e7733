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

from glassnet import build_model, cli, load_data, open_run
from glassnet.command_words import configured, listed_recipe_for
from glassnet.data.augmentation import augmentation_sheet, parse_augmentation
from glassnet.data.examples import Dataset
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.recipes import NAMED_RECIPES, Recipe
from glassnet.runs import Run
from glassnet.training.config import TrainConfig


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
    for verb in ("train", "lr-range", "compare", "evaluate", "predict", "report", "summary", "models", "datasets"):
        assert verb in found.stdout


def test_train_writes_a_run_and_says_where_it_is(tmp_path: Path) -> None:
    result = call("train", "digits", "--epochs", "1", "--out", tmp_path / "run", "--set", "max_shift=0")
    assert result.returncode == 0
    assert "Training on 1,295 examples, 143 held out, 1 epoch," in result.stderr
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
    assert "Set aside: 1\n  1  expected an image that Pillow can read" in out
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


def test_the_sheet_shows_what_training_with_the_same_words_does(glassnet, photos: Path) -> None:  # type: ignore[no-untyped-def]
    for index, words in enumerate(([], ["--fit", "pad", "--augment", "none"], ["--size", "20", "--model", "mlp"])):
        sheet, run = photos.parent / f"{index}.png", photos.parent / f"run {index}"
        code, _, err = glassnet("data", photos, *words, "--show-augmented", sheet, "--seed", "3")
        assert code == 0, err
        assert glassnet("train", photos, *words, "--epochs", "1", "--out", run, "--quiet")[0] == 0
        opened = open_run(run)
        assert isinstance(opened.preprocessing, Preprocessing)
        shift = opened.config.max_shift
        changes = f"RandomShift(max_shift={shift})" if shift else opened.config.augment
        assert changes == ("none" if index == 1 else "RandomShift(max_shift=1)")
        shown = augmentation_sheet(
            load_data(photos, seed=3).train,
            parse_augmentation(changes),
            record=opened.preprocessing,
            seed=3,
        )
        with Image.open(sheet) as picture:
            assert picture.tobytes() == shown.tobytes()


def test_the_changes_that_are_announced_are_those_that_were_made(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for index in range(24):
        folder = tmp_path / "pets" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (index * 10, 80, 120 * (index % 2))).save(folder / f"{index}.png")
    words = ("train", tmp_path / "pets", "--epochs", "1", "--set", "model.widths=[4, 4, 4]", "--out", tmp_path / "run")
    code, out, err = glassnet(*words)
    assert code == 0, err
    changes = "RandomCrop(padding=4, padding_mode=reflect), flips that alternate"
    assert f"Training images are changed at random: {changes}; --augment none leaves them." in err
    assert f"Augmentation   {changes}\n" in out
    config = open_run(tmp_path / "run").config
    assert (config.augment, config.alternating_flip) == ("RandomCrop(padding=4, padding_mode=reflect)", True)


def test_the_sheet_shows_what_the_recipe_of_the_data_does(
    glassnet, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    fast = Recipe(model="mlp", config=TrainConfig(max_shift=3, alternating_flip=True))
    monkeypatch.setitem(NAMED_RECIPES, ("digits", "fast"), fast)
    record = make_preprocessing(digits.train[:64], (8, 8), digits.framing)
    for words, shift in (((), 3), (("--model", "mlp"), 0)):
        sheet = tmp_path / f"{shift}.png"
        assert glassnet("data", "digits", *words, "--show-augmented", sheet)[0] == 0
        changes = f"RandomHorizontalFlip, RandomShift(max_shift={shift})" if shift else "none"
        drawn = parse_augmentation(changes)
        with Image.open(sheet) as picture:
            assert picture.tobytes() == augmentation_sheet(digits.train, drawn, record=record, seed=0).tobytes()


def test_a_file_that_was_set_aside_is_named_at_the_end_of_training(glassnet, photos: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("train", photos, "--epochs", "1", "--out", photos.parent / "run", "--quiet")
    assert code == 0
    assert "Set aside      1 not used, such as digit 0/broken.png: expected an image that Pillow can read" in out
    words = ("train", photos, "--epochs", "1", "--out", photos.parent / "run", "--json", "--fit", "pad")
    result = json.loads(glassnet(*words)[1])
    assert (result["num_set_aside"], result["cropped_share"]) == (1, 0)
    assert result["set_aside"][0].startswith("digit 0/broken.png: ")


def test_a_hostile_folder_is_trained_on_and_its_names_harm_nothing(glassnet, photos: Path) -> None:  # type: ignore[no-untyped-def]
    (photos / "digit 0").rename(photos / "zero\n\x1b[31m 日本")
    (photos / "digit 1").rename(photos / "œuf & <b>one")
    held = photos / "œuf & <b>one"
    for index, path in enumerate(sorted(held.iterdir())[:8]):
        path.rename(held / f"a \u202e{index}\n.PNG")
    (held / ".hidden.png").write_bytes(b"x")
    (held / "round").symlink_to(photos)
    (photos / "only broken").mkdir()
    (photos / "only broken" / "1.JPG").write_bytes(b"\xff\xd8\xff")
    os.mkfifo(held / "pipe.png")
    run = photos.parent / "run"
    code, out, err = glassnet("train", photos, "--epochs", "1", "--out", run)
    assert code == 0, err
    assert "No image could be used of: 'only broken'" in err
    assert len(open_run(run).class_names) == 2
    assert "Set aside      4 not used" in out
    code, predicted, told = glassnet("predict", run, held)
    assert code == 1
    assert len(predicted.splitlines()) == 21
    assert "1 of 21 not read" in told
    code, figures, _ = glassnet("evaluate", run)
    assert code == 0
    for text in (out, err, predicted, told, figures):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    page = (run / "report.html").read_text()
    assert "&lt;b&gt;one" in page
    assert "<b>one" not in page
    assert "\x1b" not in page


def test_a_disk_without_room_for_the_images_is_said_and_the_next_attempt_works(
    glassnet, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    run = photos.parent / "run"
    words = ("train", photos, "--epochs", "1", "--out", run)
    monkeypatch.setenv("GLASSNET_CACHE", str(photos.parent / "cache"))
    with monkeypatch.context() as full:
        full.setattr("glassnet.data.image_cache._free_bytes", lambda folder: 1000)
        code, out, err = glassnet(*words)
    assert (code, out) == (1, "")
    assert "The decoded images need" in err
    assert "set GLASSNET_CACHE to a folder that can be written and has room" in err
    assert not run.exists()
    assert glassnet(*words)[0] == 0
    opened = open_run(run)
    data = opened.load_data()
    assert isinstance(opened.preprocessing, Preprocessing)
    pixels = [opened.preprocessing.fit_image(path) for path in data.train.inputs.paths]  # type: ignore[union-attr]
    assert torch.equal(opened.preprocessing.fit_inputs(data.train.inputs), torch.stack(pixels))


def test_a_misspelt_folder_here_is_found(glassnet, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(photos.parent)
    code, _, err = glassnet("data", "photoz")
    assert code == 2
    assert "Unknown data set 'photoz'" in err
    assert "the nearest is ./photos." in err


def test_a_path_that_is_not_there_is_no_misspelt_data_set(glassnet, photos: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = glassnet("data", f"{photos}x")
    assert code == 2
    assert f"there is nothing at {photos}x. Did you mean {photos}" in err


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
        ("train --epochs 0", 2, "epochs must be above 0; got 0"),
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


def test_lr_range_draws_the_curve_says_what_to_try_and_writes_the_page(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("lr-range", "digits", "--model", "softmax", "--optimizer", "adam", "--steps", "40", "--seed", "3")
    page = tmp_path / "page.html"
    code, out, _ = glassnet(*words, "--out", page)
    assert code == 0
    (sentence,) = (line for line in out.splitlines() if line.startswith("Try --lr"))
    assert out.count("<- ") == 2
    assert sentence in page.read_text()
    code, text, _ = glassnet(
        *words, "--out", page, "--json", "--high", "1", "--batch-size", "50", "--set", "max_shift=1"
    )
    result = json.loads(text)
    assert code == 0
    assert (result["optimizer"], result["batch_size"], result["page"]) == ("adam", 50, str(page))
    assert result["learning_rates"][-1] <= 1
    again = json.loads(glassnet(*words, "--out", page, "--json")[1])
    assert f"Try --lr {again['suggestion']:.2g}:" in sentence


def test_another_optimizer_than_the_recipes_gets_its_own_usual_figures() -> None:
    base = TrainConfig(optimizer="muon", learning_rate=0.1, momentum=0.6, other_learning_rate=0.05, weight_decay=0.0)
    config = configured(base, {"optimizer": "adamw"}, {}).resolved()
    assert config == TrainConfig(optimizer="adamw").resolved()
    assert configured(base, {"optimizer": "sgd", "learning_rate": 0.3}, {}).learning_rate == 0.3
    assert configured(base, {"optimizer": None, "epochs": 2}, {}).learning_rate == 0.1


def test_an_augmentation_that_is_asked_for_replaces_all_that_a_recipe_does_to_images() -> None:
    base = TrainConfig(augment="RandomRotation(degrees=5)", max_shift=2, alternating_flip=True)
    config = configured(base, {"augment": "none"}, {})
    assert (config.augment, config.max_shift, config.alternating_flip) == ("none", 0, False)
    config = configured(base, {"augment": "MixUp"}, {"alternating_flip": "true"})
    assert (config.augment, config.max_shift, config.alternating_flip) == ("MixUp", 0, True)
    assert configured(base, {"augment": None}, {}) == base


def test_lr_range_takes_a_network_and_a_loss_of_ones_own(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = tmp_path / "net.py"
    source.write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
        "def tripled(outputs, labels):\n    return 3 * nn.functional.cross_entropy(outputs, labels)\n"
    )
    words = ("lr-range", "digits", "--model", f"{source}:Net", "--steps", "20", "--high", "1e-4", "--json", "--quiet")
    first = {}
    for name, more in {"own": ("--loss", f"{source}:tripled"), "plain": ()}.items():
        code, out, _ = glassnet(*words, *more, "--out", tmp_path / "page.html")
        assert code == 0
        first[name] = json.loads(out)["losses"][0]
    assert first["own"] == pytest.approx(3 * first["plain"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "learning_rate=0.1"), "--set learning_rate has no effect here: the test raises it itself"),
        (("--set", "epochs=3"), "--set epochs has no effect here: the test takes --steps steps"),
        (("--set", "ema=0.9"), "--set ema has no effect here"),
        (("--set", "momentums=1"), "Unknown config field 'momentums'. Did you mean 'momentum'"),
        (("--steps", "5"), "num_steps (--steps) must be a whole number of at least 20; got 5"),
        (("--model", "lenet55"), "Unknown model 'lenet55'"),
        (("--batch-size", "100000"), "batch_size must be at most"),
    ],
)
def test_lr_range_answers_a_wrong_word_with_one_message(  # type: ignore[no-untyped-def]
    glassnet, words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    code, out, error = glassnet("lr-range", "digits", *words, "--out", tmp_path / "page.html")
    assert (code, out, list(tmp_path.iterdir())) == (2, "", [])
    assert message in error


def test_train_writes_events_for_tensorboard_where_they_are_asked_for(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    words = ("train", "digits", "--model", "softmax", "--epochs", "1", "--quiet")
    code, out, _ = glassnet(*words, "--out", tmp_path / "with", "--tensorboard")
    assert code == 0
    assert f"tensorboard --logdir {tmp_path / 'with'}" in out
    assert list((tmp_path / "with" / "tensorboard").glob("events.out.tfevents.*"))
    assert glassnet(*words, "--out", tmp_path / "without")[0] == 0
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_train_without_the_package_tensorboard_says_what_to_install(  # type: ignore[no-untyped-def]
    glassnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, error = glassnet("train", "no-such-data", "--tensorboard", "--out", tmp_path / "run")
    assert code == 2
    assert "Run: pip install 'glassnet[tensorboard]'" in error
    assert not (tmp_path / "run").exists()


def test_lr_range_refuses_a_page_that_cannot_be_written_before_the_work(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for out in (tmp_path, tmp_path / "nowhere" / "page.html"):
        code, _, error = glassnet("lr-range", "no-such-data", "--out", out)
        assert code == 2
        assert "--out names a page to write" in error
    code, _, error = glassnet("lr-range", "digits", "--low", "1", "--high", "0.1", "--out", tmp_path / "page.html")
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "low must be above 0 and below high" in error


def test_compare_sets_runs_side_by_side(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name in ("mlp", "softmax"):
        words = ("--epochs", "1", "--quiet", "--out", tmp_path / name)
        assert glassnet("train", "digits", "--model", name, *words)[0] == 0
    page = tmp_path / "compare.html"
    runs = (tmp_path / "softmax", tmp_path / "mlp")
    code, out, _ = glassnet("compare", *runs, "--sort", "name", "--out", page)
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:3]] == [["A", "mlp", "mlp"], ["B", "softmax", "softmax"]]
    assert "has the lowest hold-out loss of 2 runs" in out
    assert "Comparison of runs" in page.read_text()
    code, out, error = glassnet("compare", *runs, tmp_path / "nothing", "--json", "--out", page)
    result = json.loads(out)
    assert code == 1, "one of the paths is no run"
    assert result["differences"] == {"model.name": ["softmax", "mlp"]}
    assert "nothing: expected a run folder; there is nothing" in error
    for words, message in {
        (runs[0],): "at least two runs",
        (*runs, "--sort", "los"): "Unknown order 'los'. Did you mean 'loss'",
        (*runs, "--out", str(tmp_path)): "--out names a page to write",
    }.items():
        code, out, error = glassnet("compare", *words)
        assert (code, out) == (2, "")
        assert message in error


def test_a_summary_comes_as_a_table_markdown_a_lecture_or_json(glassnet) -> None:  # type: ignore[no-untyped-def]
    assert glassnet("summary", "lenet5", "--format", "markdown")[1].startswith("| layer | kind | input |")
    lecture = glassnet("summary", "alexnet", "--format", "lecture")[1].splitlines()
    assert lecture[1].split() == ["conv1", "227x227", "55x55", "11x11", "4", "0", "3", "->", "96", "34,944"]
    assert lecture[-1].split() == ["total", "62,378,344"]
    assert json.loads(glassnet("summary", "lenet5", "--format", "json")[1])["num_additions"] == 416_520
    code, _, err = glassnet("summary", "lenet5", "--format", "html")
    assert (code, "Unknown format 'html'" in err) == (2, True)


def test_words_for_a_recipes_own_optimizer_are_taken_with_it(glassnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("--recipe", "fast", "--epochs", "1", "--set", "other_learning_rate=0.1", "--quiet", "--json")
    assert glassnet("train", "digits", *words, "--out", tmp_path / "run")[0] == 0
    assert open_run(tmp_path / "run").config.other_learning_rate == 0.1
    own = listed_recipe_for("mnist", None, None)
    assert own is NAMED_RECIPES["mnist", "fast"]


def test_a_recipe_says_how_many_examples_are_held_out_unless_the_user_does(
    glassnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    fast = Recipe(model="softmax", validation_share=0.3, config=TrainConfig(epochs=1))
    monkeypatch.setitem(NAMED_RECIPES, ("digits", "fast"), fast)
    for index, (words, share) in enumerate((((), 0.3), (("--set", "data.validation_share=0.2"), 0.2))):
        run = tmp_path / str(index)
        assert glassnet("train", "digits", "--recipe", "fast", *words, "--out", run, "--quiet")[0] == 0
        data = open_run(run).record["data"]
        assert data["validation_share"] == share
        assert data["num_validation"] == pytest.approx(share * (data["num_train"] + data["num_validation"]), abs=10)


def test_other_images_are_trained_by_the_fast_recipe(glassnet, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("--epochs", "1", "--set", "other_learning_rate=0.04", "--quiet")
    assert glassnet("train", photos, *words, "--out", tmp_path / "run")[0] == 0
    run = open_run(tmp_path / "run")
    assert (run.record["model"]["name"], run.config.keep, run.config.other_learning_rate) == ("speednet", "last", 0.04)
    assert (
        glassnet("train", photos, "--epochs", "40", "--set", "patience=2", "--out", tmp_path / "p", "--quiet")[0] == 0
    )
    stopped = open_run(tmp_path / "p")
    assert (stopped.config.keep, stopped.config.validate_every) == ("best", 1)
    code, _, err = glassnet("train", photos, "--set", "plateau_patience=3")
    assert (code, "plateau_patience has no effect" in err) == (2, True)
