"""Data sets of Hugging Face: their images are those of a folder, bit for bit, and only two columns are looked at."""

from __future__ import annotations

import builtins
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import glassnet as gn
from glassnet._errors import UsageError, WorkError
from glassnet.data.checks import check_dataset
from glassnet.data.content import Content
from glassnet.data.examples import Dataset
from glassnet.data.hub import Address, parse_address
from glassnet.data.image_files import ImageFiles
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.sources import load_data

RECORD = Preprocessing(class_names=("cat", "dog"), mode="RGB", size=(12, 10), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others warn of when they are imported is not ours
        found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


def content(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed % 5, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


def table(library: Any, count: int, first: int = 0, **more: Any) -> Any:
    """Return a table of images with alternating labels, and whatever columns come as (feature, values)."""
    features = {"image": library.Image(), "label": library.ClassLabel(names=["dog", "cat"])}
    values: dict[str, Any] = {
        "image": [{"bytes": content(seed), "path": None} for seed in range(first, first + count)],
        "label": [seed % 2 for seed in range(first, first + count)],
    }
    for name, (feature, column) in more.items():
        features[name], values[name] = feature, column
        if feature is None:
            del features[name], values[name]
    return library.Dataset.from_dict(values, features=library.Features(features))


def sizes(data: Dataset) -> list[int]:
    return [len(split) for split in (data.train, data.validation, data.test)]


def reasons(data: Dataset) -> dict[str, str]:
    return {item.source: item.reason for item in data.set_aside}


def offered(library: Any, monkeypatch: pytest.MonkeyPatch, found: Any) -> list[dict[str, Any]]:
    """Have `load_dataset` return, or raise, `found`; return what it was called with."""
    calls: list[dict[str, Any]] = []

    def load_dataset(path: str, **options: Any) -> Any:
        calls.append({"path": path, **options})
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(library, "load_dataset", load_dataset)
    return calls


# Addresses


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("hf:mnist", Address(name="mnist")),
        ("hf:a/b", Address(name="a/b")),
        ("hf:a/b/c d", Address(name="a/b", config="c d")),
        ("hf:a/b@refs/convert/parquet", Address(name="a/b", revision="refs/convert/parquet")),
        ("hf:a/b/c@v1?streaming", Address(name="a/b", config="c", revision="v1", is_streamed=True)),
        ("hf:/x/y", Address(name="/x/y", folder=Path("/x/y"))),
    ],
)
def test_an_address_says_owner_name_config_revision_and_streaming(source: str, address: Address) -> None:
    assert parse_address(source) == address


@pytest.mark.parametrize("source", ["hf:", "hf:a/b/c/d", "hf:a/b?stream", "hf:a b/c", "hf:a/../b", "hf:a/b@"])
def test_an_address_that_is_none_gets_the_grammar(source: str) -> None:
    with pytest.raises(UsageError, match=r"Expected hf:OWNER/NAME.*got 'hf:"):
        load_data(source)


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    really_import = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
        return really_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'glassnet\[hf\]'"):
        load_data("hf:a/b")


# Loading


def test_images_have_the_pixels_that_they_have_in_a_folder(library: Any, tmp_path: Path) -> None:
    for seed in range(20):
        path = tmp_path / "folder" / ("dog", "cat")[seed % 2] / f"{seed:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(seed))
    table(library, 20).save_to_disk(str(tmp_path / "saved"))
    found = {}
    for name in ("folder", "saved"):
        data = load_data(tmp_path / name)
        found[name] = {}
        for split in (data.train, data.validation, data.test):
            assert isinstance(split.inputs, ImageFiles)
            for digest, row, label in zip(
                split.inputs.digests, RECORD.fit_inputs(split.inputs), split.labels.tolist(), strict=True
            ):
                found[name][digest] = (row.numpy().tobytes(), split.class_names[label])
    assert len(found["saved"]) == 20
    assert found["saved"] == found["folder"]


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_saved_splits_are_taken_by_name_and_found_again_from_anywhere(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    splits = {"train": table(library, 8), "dev": table(library, 4, 20), "test": table(library, 6, 30)}
    library.DatasetDict({**splits, "unlabelled": table(library, 2, 50)}).save_to_disk(str(tmp_path / "saved"))
    monkeypatch.chdir(tmp_path)
    data = load_data(f"{prefix}./saved")
    assert sizes(data) == [8, 4, 6]
    assert data.class_names == ("dog", "cat")  # in the order of the data set, not of the alphabet
    assert reasons(data) == {"unlabelled": "a split beside train, validation and test: not used"}
    assert data.source == f"{prefix}{tmp_path / 'saved'}"
    monkeypatch.chdir("/")
    assert load_data(data.source).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_hub_is_asked_for_what_the_address_says(
    library: Any, monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    splits = {"train": table(library, 12), "test": table(library, 4, 20)}
    kept = library.DatasetDict(splits)
    streamed = {name: split.to_iterable_dataset() for name, split in splits.items()}
    calls = offered(library, monkeypatch, library.IterableDatasetDict(streamed) if is_streamed else kept)
    source = "hf:a/b/c@v1" + ("?streaming" if is_streamed else "")
    data = load_data(source, validation_share=0.2)
    assert calls == [{"path": "a/b", "name": "c", "revision": "v1", "streaming": is_streamed}]
    assert (data.name, data.source) == ("a/b", source)
    assert sizes(data) == [10, 2, 4]
    assert isinstance(data.test.inputs, ImageFiles)
    assert [str(path) for path in data.test.inputs.paths] == [f"test[{row}]" for row in range(4)]
    assert [path.read() for path in data.test.inputs.paths if isinstance(path, Content)] == [
        content(seed) for seed in range(20, 24)
    ]
    assert RECORD.fit_inputs(data.train.inputs).shape == (10, 3, 12, 10)
    assert not check_dataset(data).findings


def test_streamed_and_stored_give_the_same_data(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = table(library, 20)
    prints = []
    for found in (library.DatasetDict({"train": whole}), {"train": whole.to_iterable_dataset()}):
        offered(library, monkeypatch, found)
        streaming = "?streaming" if prints else ""
        prints.append(load_data(f"hf:a/b{streaming}").fingerprint())
    assert prints[0] == prints[1]


def test_images_may_be_files_that_the_table_names(library: Any, tmp_path: Path) -> None:
    paths = []
    for seed in range(6):
        path = tmp_path / f"{seed}.jpg"
        path.write_bytes(content(seed))
        paths.append(str(path))
    values = {"picture": [*paths, str(tmp_path / "gone.jpg"), None], "species": ["ant", "bee"] * 4}
    features = library.Features({"picture": library.Image(), "species": library.Value("string")})
    found = library.Dataset.from_dict(values, features=features)
    with pytest.MonkeyPatch.context() as patch:
        offered(library, patch, found)
        data = load_data("hf:a/b", target="species")
    assert data.target == "species"
    assert data.class_names == ("ant", "bee")
    assert sum(sizes(data)) == 6
    assert reasons(data) == {"train[6]": "no such file", "train[7]": "no image in this row"}


# Columns


def test_several_columns_of_labels_are_listed_and_the_target_chooses(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = (library.ClassLabel(names=["x", "y", "z"]), [0, 0, 1, 1] * 3)
    offered(library, monkeypatch, library.DatasetDict({"train": table(library, 12, coarse=coarse)}))
    with pytest.raises(UsageError, match=r"got several, 'label', 'coarse'\. Choose with --target COLUMN"):
        load_data("hf:a/b")
    assert load_data("hf:a/b", target="coarse").class_names == ("x", "y")  # no image of z
    with pytest.raises(UsageError, match=r"Unknown column 'coarsee'.*Did you mean 'coarse'"):
        load_data("hf:a/b", target="coarsee")
    with pytest.raises(UsageError, match="Expected a column of classes, text or whole numbers; got 'image'"):
        load_data("hf:a/b", target="image")


def test_a_column_of_numbers_by_name_is_the_label_in_the_order_of_the_numbers(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = (library.Value("int32"), [10, 9, 2] * 4)
    found = table(library, 12, target=numbers, size=(library.Value("float32"), [0.5] * 12)).remove_columns("label")
    offered(library, monkeypatch, found)
    assert load_data("hf:a/b").class_names == ("2", "9", "10")


def test_a_table_without_images_says_what_to_do(library: Any, tmp_path: Path) -> None:
    library.Dataset.from_dict({"x": [0.5, 1.5], "y": [1, 2]}).save_to_disk(str(tmp_path / "t"))
    with pytest.raises(UsageError, match=r"Expected a column of images.*'x' \(float64\), 'y' \(int64\).*to_csv"):
        load_data(tmp_path / "t")


def test_rows_without_a_label_or_an_image_are_set_aside(library: Any, tmp_path: Path) -> None:
    whole = table(library, 12).to_dict()
    whole["label"][3], whole["label"][4] = None, -1
    whole["image"][5] = {"bytes": b"no image", "path": None}
    found = library.Dataset.from_dict(whole, features=table(library, 1).features)
    found.save_to_disk(str(tmp_path / "t"))
    data = load_data(tmp_path / "t")
    assert sum(sizes(data)) == 9
    assert {name: reason for name, reason in reasons(data).items() if "label" in reason} == {
        "train[3]": "no label",
        "train[4]": "no label",
    }
    assert "another kind of file" in reasons(data)["train[5]"]


def test_a_test_split_without_labels_is_cut_off_train(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = table(library, 4, 50).to_dict() | {"label": [-1] * 4}
    hidden_table = library.Dataset.from_dict(hidden, features=table(library, 1).features)
    offered(library, monkeypatch, library.DatasetDict({"train": table(library, 20), "test": hidden_table}))
    data = load_data("hf:a/b")
    assert sizes(data) == [16, 2, 2]
    assert len(data.set_aside) == 4


def test_splits_without_train_are_refused(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(library, monkeypatch, library.DatasetDict({"one": table(library, 4), "two": table(library, 4)}))
    with pytest.raises(UsageError, match="Expected one split train.*got 'one', 'two'"):
        load_data("hf:a/b")


# What fails


@pytest.mark.parametrize("error", [ConnectionError("no route"), FileNotFoundError("a/b"), ValueError("no config 'c'")])
def test_what_the_hub_refuses_is_told_without_a_traceback(
    library: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    offered(library, monkeypatch, error)
    with pytest.raises(WorkError, match=r"Expected the data set 'a/b' of the Hugging Face hub; got .*Check the name"):
        load_data("hf:a/b")


def test_a_folder_of_the_name_is_not_mistaken_for_the_hub(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    calls = offered(library, monkeypatch, None)
    with pytest.raises(UsageError, match="there is also a file or folder 'a/b' here"):
        load_data("hf:a/b")
    assert not calls


def test_a_saved_folder_that_is_damaged_is_told(library: Any, tmp_path: Path) -> None:
    table(library, 6).save_to_disk(str(tmp_path / "t"))
    for path in (tmp_path / "t").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WorkError, match=r"Expected the data set .*/t; got .*Save it again"):
        load_data(tmp_path / "t")
    with pytest.raises(WorkError, match="Expected the data set"):
        load_data(f"hf:{tmp_path}/nowhere")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_network_trains_on_it_and_the_run_finds_it_again(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    splits = {"train": table(library, 24), "test": table(library, 8, 50)}
    offered(
        library,
        monkeypatch,
        {name: split.to_iterable_dataset() for name, split in splits.items()} if is_streamed else splits,
    )
    data = load_data("hf:a/b" + ("?streaming" if is_streamed else ""), target="label")
    model = gn.build_model("lenet5", input_shape=(3, 32, 32), num_classes=2)
    run = gn.train(model, data, gn.TrainConfig(epochs=1, batch_size=8), out=tmp_path / "run", progress=False)
    assert run.load_data().fingerprint() == data.fingerprint()
    evaluation = run.evaluate()
    assert evaluation.num_examples == 8
    assert "data:image" in run.report_path.read_text()
    assert torch.isfinite(torch.tensor(evaluation.loss))  # type: ignore[union-attr]
