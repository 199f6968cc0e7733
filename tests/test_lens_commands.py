from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from glassnet.cli import app
from glassnet.data.examples import Dataset
from glassnet.runs import Run


def called(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["inspect", *map(str, words)])
    return found.exit_code, found.output


@pytest.fixture(scope="module")
def photo(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "digit.png"
    Image.fromarray(digits.test.inputs[0, 0].numpy()).resize((40, 30)).save(path)
    return path


@pytest.mark.parametrize(
    ("words", "finding", "name"),
    [
        (["attribute", "RUN", "PHOTO", "--set", "steps=16"], "sum up to", "attribution-integrated_gradients-digit"),
        (["attribute", "RUN", "PHOTO", "--method", "saliency", "--target", "3"], "'3'", "attribution-saliency-digit"),
        (["visualize", "RUN", "--unit", "c3:2", "--steps", "2"], "in 2 steps", "visualization-c3-2"),
        (["similarity", "RUN", "--layer", "c3", "--count", "4"], "most alike", "similarity-c3-cosine"),
        (["nearest", "RUN", "PHOTO", "--layer", "act5", "--count", "50"], "nearest are", "nearest-act5-digit"),
        (["project", "RUN", "--layer", "act5", "--count", "30"], "of the variance", "projection-act5-pca"),
        (["equivariance", "RUN", "--amounts", "1,2", "--count", "5"], "exactly equivariant", "equivariance-translate"),
        (
            ["equivariance", "RUN", "--transform", "translate-down", "--count", "5"],
            "exactly equivariant",
            "equivariance-translate-down",
        ),
        (["separation", "RUN", "--layer", "c1,act5", "--count", "30"], "tells 10 objects apart", "separation-cosine"),
        (["composition", "RUN", "PHOTO", "PHOTO", "PHOTO"], "those of the two alone", "composition-digit"),
    ],
)
def test_each_verb_says_its_finding_and_writes_picture_and_numbers(
    words: list[str], finding: str, name: str, digits_run: Run, photo: Path, tmp_path: Path
) -> None:
    places = {"RUN": str(digits_run.path), "PHOTO": str(photo)}
    filled = [places.get(word, word) for word in words]
    code, text = called(*filled, "--out", tmp_path)
    assert code == 0, text
    assert finding in text
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 300
    assert isinstance(json.loads((tmp_path / f"{name}.json").read_text()), dict)
    code, text = called(*filled, "--json")
    assert code == 0
    assert finding in json.loads(text)["finding"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attribute", "RUN", "PHOTO", "--method", "salency"], "Did you mean 'saliency'?"),
        (["attribute", "RUN", "PHOTO", "--set", "steps"], "--set takes OPTION=VALUE"),
        (["attribute", "RUN", "PHOTO", "--set", "stepps=3"], "Did you mean 'steps'?"),
        (["visualize", "RUN", "--unit", "c3:2", "--colours", "imagenet"], "Grey images have no colours"),
        (["equivariance", "RUN", "--amounts", "a"], "--amounts takes numbers"),
        (["similarity", "RUN", "--layer", "act4"], "Unknown layer 'act4'"),
        (["separation", "RUN", "--layer", "act4"], "Unknown layer 'act4'"),
        (["separation", "RUN", "--layer", " , "], "--layer takes names of layers"),
        (["separation", "RUN", "nowhere"], "there is none called nowhere"),
        (["separation", "RUN", "nowhere", "--data", "digits"], "Leave one out"),
        (["composition", "RUN", "PHOTO", "PHOTO", "nowhere.png"], "nowhere.png: no such file"),
    ],
)
def test_what_was_off_is_said_without_a_traceback(words: list[str], said: str, digits_run: Run, photo: Path) -> None:
    places = {"RUN": str(digits_run.path), "PHOTO": str(photo)}
    found = CliRunner().invoke(app, ["inspect", *[places.get(word, word) for word in words]])
    assert found.exit_code != 0
    assert said in str(found.exception) + found.output


def test_folders_are_objects_and_what_cannot_be_read_is_named(digits_run: Run, digits: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    for place, name in enumerate(("zero", "zero", "one", "one", "one")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.test.inputs[place, 0].numpy()).save(folder / name / f"{place}.png")
    words = ("separation", digits_run.path, folder, "--layer", "act5", "--measure", "euclidean", "--json")
    code, text = called(*words)
    assert code == 0, text
    assert json.loads(text)["objects"] == ["one"] * 3 + ["zero"] * 2
    (folder / "one" / "broken.png").write_bytes(b"no picture")
    (folder / "empty").mkdir()
    (folder / ".hidden").mkdir()
    found = CliRunner().invoke(app, ["inspect", *map(str, words)])
    assert found.exit_code == 1
    assert json.loads(found.stdout)["objects"] == ["one"] * 3 + ["zero"] * 2
    assert f"Set aside: {folder / 'one' / 'broken.png'}" in found.stderr
    assert f"Set aside: {folder / 'empty'}" in found.stderr
    assert found.stderr.count("Set aside") == 2


def test_a_folder_without_folders_is_explained(digits_run: Run, photo: Path) -> None:
    found = CliRunner().invoke(app, ["inspect", "separation", str(digits_run.path), str(photo.parent)])
    assert "it holds no folder. Sort the images into folders" in str(found.exception)


def test_a_visualisation_takes_the_colours_of_other_data() -> None:
    words = ("visualize", "cnn2d", "--input", "3x32x32", "--unit", "conv1:0", "--steps", "1", "--json")
    code, text = called(*words, "--data", "shapes")
    assert code == 0, text
    assert '"colours": "240 images given"' in text
    code, text = called(*words)
    assert '"colours": "ImageNet"' in text
