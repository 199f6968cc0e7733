"""The same photo gives the same pixels by whatever way it comes in, and what is asked of the fit stays with the run."""

from __future__ import annotations

import ast
import contextlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import glassnet as gn
import glassnet.evaluation.prediction
import glassnet.report
import glassnet.runs
from glassnet.data.images import UnreadableImageError
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.evaluation.inputs import gather_inputs
from glassnet.report import rewrite_report
from glassnet.views.contents import ReportContents

CPU = torch.device("cpu")
QUICK = gn.TrainConfig(epochs=1, batch_size=2, precision="fp32")


def picture(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return a soft random picture `(H, W, channels)`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return smooth if channels == 3 else np.dstack([smooth, smooth[:, :, 0]])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split each of two classes: a large turned JPEG, a PNG with transparency, a deep grey PNG, a wide JPEG."""
    root = tmp_path_factory.mktemp("photos")
    for split in ("train", "validation", "test"):
        for label in ("ant", "bee"):
            folder = root / split / label
            folder.mkdir(parents=True)
            seed = 10 * len(split) + 100 * (label == "ant")
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(picture(seed, 333, 402)).save(folder / "turned.jpg", exif=exif)
            Image.fromarray(picture(seed + 1, 50, 31, 4)).save(folder / "clear.png")
            grey = (picture(seed + 2, 40, 40)[:, :, 0].astype(np.uint16) * 257) ^ 3
            Image.fromarray(grey).save(folder / "deep.png")
            Image.fromarray(picture(seed + 3, 30, 90)).save(folder / "wide.jpg")
    return root


class Seen:
    """Keeps the inputs that a network was judged on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: list[torch.Tensor] = []
        real = glassnet.evaluation.prediction.predict_outputs

        def spy(model: Any, inputs: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
            self.inputs.append(inputs.clone())
            return real(model, inputs, *args, **options)

        for module in (glassnet.evaluation.prediction, glassnet.runs, glassnet.report):
            monkeypatch.setattr(module, "predict_outputs", spy)


@pytest.mark.parametrize("interpolation", ["bilinear", "lanczos"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_same_photo_gives_the_same_pixels_by_every_way(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: str, interpolation: str
) -> None:
    data = gn.load_data(photos, fit=fit, interpolation=interpolation)
    model = gn.build_model("softmax", num_classes=2, input_shape=(3, 20, 24))
    run = gn.train(model, data, QUICK, out=tmp_path / "run", progress=False)
    record = run.preprocessing
    assert isinstance(record, Preprocessing)
    assert (record.fit, record.interpolation, record.size) == (fit, interpolation, (20, 24))
    paths = data.test.inputs.paths  # type: ignore[union-attr]
    expected = torch.stack([record.fit_image(path) for path in paths])
    assert expected.flatten(1).unique(dim=0).shape[0] == len(paths) == 8

    for path, pixels in zip(paths, expected, strict=True):
        with Image.open(path) as opened:
            assert torch.equal(record.fit_image(opened), pixels)
    for budget in (None, 0):
        assert torch.equal(to_device(data.test, record, CPU, budget).inputs, expected)
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path / "another cache"))
    assert torch.equal(record.fit_inputs(data.test.inputs), expected)

    seen = Seen(monkeypatch)
    run.predict(list(paths))
    with contextlib.ExitStack() as stack:
        run.predict([stack.enter_context(Image.open(path)) for path in paths])
    run.evaluate()
    run.evaluate(gn.load_data(photos).test)  # another fit, which is not the network's
    rewrite_report(run)
    assert len(seen.inputs) == 5
    assert all(torch.equal(inputs, expected) for inputs in seen.inputs)
    assert gn.open_run(run.path).load_data().framing == data.framing


class Watched:
    """Keeps what a network is fed, `float32 (1, C, H, W)` each, apart for training."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.trained: list[torch.Tensor] = []
        self.asked: list[torch.Tensor] = []
        model.register_forward_pre_hook(self._keep)

    def _keep(self, model: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        (self.trained if model.training else self.asked).extend(arguments[0].detach().clone().split(1))


def as_set(inputs: Any) -> set[bytes]:
    return {part.numpy().tobytes() for part in inputs}


def test_the_network_gets_the_same_numbers_in_training_and_ever_after(photos: Path, tmp_path: Path) -> None:
    data = gn.load_data(photos)
    model = gn.build_model("softmax", num_classes=2, input_shape=(3, 20, 24))
    watched = Watched(model)
    run = gn.train(model, data, QUICK, out=tmp_path / "run", progress=False)
    record = run.preprocessing
    assert isinstance(record, Preprocessing)

    def expected(split: gn.ExampleSet) -> list[torch.Tensor]:
        return [record.normalise(record.fit_image(path)[None]) for path in split.inputs.paths]  # type: ignore[union-attr]

    assert as_set(watched.trained) == as_set(expected(data.train))
    assert len(watched.trained) == len(as_set(watched.trained)) == 8
    assert as_set(watched.asked) >= as_set(expected(data.validation)) | as_set(expected(data.test))

    paths = list(data.test.inputs.paths)  # type: ignore[union-attr]
    opened = gn.open_run(run.path)
    asked = Watched(opened.model).asked
    for path in paths:
        opened.predict(path)
    opened.predict(paths)
    opened.evaluate()
    for index, part in enumerate(asked):
        assert torch.equal(part, expected(data.test)[index % len(paths)])
    assert len(asked) == 3 * len(paths)


def test_pixels_in_memory_are_those_of_the_file(photos: Path) -> None:
    data = gn.load_data(photos)
    record = make_preprocessing(data.train, (20, 24), data.framing)
    path = photos / "test" / "ant" / "wide.jpg"  # too small to be decoded reduced
    with Image.open(path) as opened:
        array = np.asarray(opened).transpose(2, 0, 1)
    expected = record.fit_image(path)
    batch = np.stack([array, array])
    tensors = torch.from_numpy(batch.copy())
    for given, count in (
        (array, 1),
        (batch, 2),
        (tensors, 2),
        ([array, path], 2),
        (Image.fromarray(array.transpose(1, 2, 0)), 1),
    ):
        found = gather_inputs(given, record).inputs
        assert len(found) == count
        assert all(torch.equal(pixels, expected) for pixels in found)


def test_photos_packed_into_an_archive_or_streamed_have_the_pixels_of_the_files(photos: Path, tmp_path: Path) -> None:
    data = gn.load_data(photos)
    record = make_preprocessing(data.train, (20, 24), data.framing)
    archive = tmp_path / "test.tar"
    with tarfile.open(archive, "w") as packed:
        for index, path in enumerate(data.test.inputs.paths):  # type: ignore[union-attr]
            label = io.BytesIO(path.parent.name.encode())
            packed.add(path, f"{index}{path.suffix}")
            member = tarfile.TarInfo(f"{index}.cls")
            member.size = len(label.getvalue())
            packed.addfile(member, label)
    expected = to_device(data.test, record, CPU)
    for source in (archive, f"pipe:cat '{archive}'"):
        found = to_device(gn.load_data(source, record=record).test, record, CPU)
        assert torch.equal(found.inputs, expected.inputs)
        assert torch.equal(found.labels, expected.labels)


def test_files_are_opened_and_fitted_in_one_place() -> None:
    package = Path(gn.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if path.parent.name == "data":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                name = f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else node.attr
                assert name != "Image.open", f"{path}: images are opened in data/ alone"
                assert name != "thumbnail", f"{path}: images are fitted by the record alone"
            if isinstance(node, ast.ImportFrom):
                assert "ImageOps" not in {alias.name for alias in node.names}, f"{path}: fitted by the record alone"


def test_each_fit_and_interpolation_gives_other_pixels(photos: Path) -> None:
    examples = gn.load_data(photos).train
    found = []
    for fit in ("crop", "pad", "stretch"):
        for interpolation in ("nearest", "bilinear", "bicubic", "lanczos"):
            framing = gn.load_data(photos, fit=fit, interpolation=interpolation).framing
            record = make_preprocessing(examples, (20, 24), framing)
            found.append(record.fit_inputs(examples.inputs).clone())
    assert all(not torch.equal(a, b) for index, a in enumerate(found) for b in found[:index])


def test_a_folder_is_cropped_a_standard_set_stretched_and_an_unknown_word_refused(photos: Path) -> None:
    assert gn.load_data(photos).framing.fit == "crop"
    digits = gn.load_data("digits", fit="pad")
    assert (gn.load_data("digits").framing.fit, digits.framing.fit) == ("stretch", "pad")
    assert digits.framing.margin == gn.load_data("digits").framing.margin
    with pytest.raises(gn.UsageError, match="Unknown fit 'padd'. Did you mean 'pad'"):
        gn.load_data("nothing here", fit="padd")
    with pytest.raises(gn.UsageError, match="Unknown interpolation 'cubic'. Did you mean 'bicubic'"):
        gn.load_data("nothing here", interpolation="cubic")
    with pytest.raises(gn.UsageError, match="fit and interpolation are for images; the inputs of 'circle'"):
        gn.load_data("circle", fit="pad")


def test_the_run_and_its_report_say_what_a_crop_threw_away(photos: Path, tmp_path: Path) -> None:
    reports = {}
    for fit, share in (("crop", 0.3), ("pad", 0.0)):
        data = gn.load_data(photos, fit=fit)
        model = gn.build_model("softmax", num_classes=2, input_shape=(3, 16, 16))
        run = gn.train(model, data, QUICK, out=tmp_path / fit, progress=False)
        reports[fit] = run.report_path.read_text()
        # The turned JPEG is 402x333 upright; a square keeps the shorter side of each.
        whole, kept = (402 * 333 + 50 * 31 + 40 * 40 + 30 * 90), (333**2 + 31**2 + 40**2 + 30**2)
        assert run.record["data"]["cropped_share"] == pytest.approx((1 - kept / whole) * (share > 0))
    assert "Cropping the images" in reports["crop"]
    assert "What was left out" not in reports["pad"]


def test_worst_errors_are_shown_rightly_where_a_test_file_cannot_be_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, count in (("train", 8), ("validation", 4), ("test", 12)):
        for index in range(2 * count):
            folder = tmp_path / "data" / split / ("ant" if index % 2 else "bee")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(1000 * count + index, 16, 16)).save(folder / f"{index:02}.png")
    bad = tmp_path / "data" / "test" / "ant" / "05.png"
    data = gn.load_data(tmp_path / "data")
    real = glassnet.data.preprocessing.open_reduced  # type: ignore[attr-defined]

    def refusing(source: Any, *args: Any) -> Any:
        if Path(source) == bad:
            raise UnreadableImageError("the image is damaged: by this test")
        return real(source, *args)

    monkeypatch.setattr("glassnet.data.preprocessing.open_reduced", refusing)
    contents: list[ReportContents] = []
    render = glassnet.report.render_report
    monkeypatch.setattr("glassnet.report.render_report", lambda c: contents.append(c) or render(c))
    model = gn.build_model("softmax", num_classes=2, input_shape=(3, 8, 8))
    run = gn.train(model, data, QUICK, out=tmp_path / "run", progress=False)
    rewrite_report(run)
    paths, position = data.test.inputs.paths, data.test.inputs.paths.index(bad)  # type: ignore[union-attr]
    for said in contents:
        assert said.test is not None
        assert said.test.num_examples == 23
        indices = [error.index for error in said.worst_errors]
        assert len(indices) == said.test.num_errors > 0
        assert position not in indices
        assert max(indices) > position
        for error in said.worst_errors:
            assert error.true_class == paths[error.index].parent.name
            assert np.array_equal(error.image, run.preprocessing.fit_image(paths[error.index]).numpy())
    page = run.report_path.read_text()
    assert len(contents) == 2
    assert run.record["data"]["num_set_aside"] == 1
    assert f"{bad}: the image is damaged: by this test" in page
    assert "1 part of the data could not be used" in page


def test_a_batch_of_all_examples_shrinks_with_a_file_that_is_set_aside(tmp_path: Path) -> None:
    for index in range(8):
        folder = tmp_path / "data" / "train" / ("ant" if index % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(index, 16, 16)).save(folder / f"{index}.png")
    data = gn.load_data(tmp_path / "data", validation_share=0)
    assert len(data.train) == 8
    (tmp_path / "data" / "train" / "ant" / "1.png").write_bytes(b"")
    model = gn.build_model("softmax", num_classes=2, input_shape=(3, 8, 8))
    run = gn.train(model, data, gn.TrainConfig(epochs=1, batch_size=8), out=tmp_path / "run", progress=False)
    assert run.config.batch_size == 7
    assert run.record["data"]["num_set_aside"] == 1
    assert run.record["data"]["set_aside"][0].endswith("1.png: expected an image, got an empty file (0 bytes)")
