"""Reduced decoding of JPEGs: when it happens, and that what it gives lies where a full decode puts it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glassnet.data.decoding import open_reduced
from glassnet.data.images import UnreadableImageError, open_image, pillow_warnings
from glassnet.data.preprocessing import Preprocessing

WIDTH, HEIGHT = 203, 117
"""No multiples of 8, so that reduced images end within a pixel."""


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Smooth noise in which every place looks different."""
    values = np.random.default_rng(0).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, orientation: int = 1, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, quality=95, exif=exif, **options)
    return path


def record(size: tuple[int, int], **values: object) -> Preprocessing:
    given = {"class_names": ("a",), "mode": "RGB", "mean": (0.0,) * 3, "std": (1.0,) * 3, "fit": "stretch"}
    return Preprocessing(**{**given, "size": size, **values})


@pytest.mark.parametrize(
    ("shrinkage", "size"),
    [(1.0, (203, 117)), (2.82, (203, 117)), (2.83, (102, 59)), (5.66, (51, 30)), (11.4, (26, 15)), (99.0, (26, 15))],
)
def test_a_jpeg_is_reduced_as_long_as_two_pixels_are_left_for_each(
    tmp_path: Path, shrinkage: float, size: tuple[int, int]
) -> None:
    image, box, _ = open_reduced(save(tmp_path / "a.jpg", picture()), "RGB", 0, lambda width, height: shrinkage)
    factor = {203: 1, 102: 2, 51: 4, 26: 8}[size[0]]
    assert image.size == size
    assert box == (0, 0, WIDTH / factor, HEIGHT / factor)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_lies_where_the_whole_one_does_however_it_is_turned(
    tmp_path: Path, orientation: int, fit: str
) -> None:
    one = record((10, 12), fit=fit, fill=128)
    path = save(tmp_path / "a.jpg", picture(), orientation, subsampling=0)
    whole = one.fit_image(open_image(path, "RGB")).double()
    reduced = one.fit_image(path).double()
    assert (whole != reduced).any()  # it was reduced
    assert (whole - reduced).abs().mean() < 2.5
    image, _, _ = open_reduced(path, "RGB", 0, one._shrinkage)
    misplaced = one.fit_image(image).double()  # as if the whole of the last pixels were picture
    assert (whole - reduced).abs().mean() < (whole - misplaced).abs().mean()


def test_nearest_takes_single_pixels_and_is_never_reduced(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture())
    one = record((8, 8), interpolation="nearest")
    assert (one.fit_image(path) == one.fit_image(open_image(path, "RGB"))).all()


@pytest.mark.parametrize("kind", ["L", "CMYK", "progressive", "MPO"])
def test_other_kinds_of_jpeg_are_reduced_too(tmp_path: Path, kind: str) -> None:
    path, options = tmp_path / "a.jpg", {"progressive": True} if kind == "progressive" else {}
    if kind == "MPO":
        picture().save(path, "MPO", quality=95, save_all=True, append_images=[picture()])
    else:
        save(path, picture().convert(kind if kind in ("L", "CMYK") else "RGB"), **options)
    image, _, _ = open_reduced(path, "RGB", 0, lambda width, height: 5.0)
    assert image.size == (102, 59)
    one = record((12, 21))
    difference = one.fit_image(path).double() - one.fit_image(open_image(path, "RGB")).double()
    assert 0 < difference.abs().mean() < 2


def test_an_extremely_thin_jpeg_is_taken_whole(tmp_path: Path) -> None:
    image, box, _ = open_reduced(save(tmp_path / "a.jpg", picture(300, 1)), "RGB", 0, lambda width, height: 30.0)
    assert image.size == (300, 1)
    assert box == (0, 0, 300, 1)


def test_a_jpeg_too_long_to_be_read_at_once_gives_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.jpg", picture())
    expected = record((10, 12)).fit_image(path)
    read: list[object] = []
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda source: (read.append(source), opened(source))[1])
    monkeypatch.setattr("glassnet.data.decoding.LARGEST_READ_BYTES", path.stat().st_size - 1)
    assert (record((10, 12)).fit_image(path) == expected).all()
    assert read == [path]


def test_an_unread_pillow_image_gives_the_pixels_of_its_file_and_stays_unread(tmp_path: Path) -> None:
    path, one = save(tmp_path / "a.jpg", picture(), 6), record((12, 12))
    expected = one.fit_image(path)
    with Image.open(path) as by_name, Image.open(io.BytesIO(path.read_bytes())) as from_memory:
        for opened in (by_name, from_memory):
            assert (one.fit_image(opened) == expected).all()
            assert opened.size == (WIDTH, HEIGHT)
            assert (np.asarray(opened) == np.asarray(Image.open(path))).all()


def test_a_pillow_image_that_is_read_is_taken_as_it_is(tmp_path: Path) -> None:
    path, one = save(tmp_path / "a.jpg", picture()), record((12, 12))
    with Image.open(path) as opened:
        opened.load()
        assert (one.fit_image(opened) == one.fit_image(open_image(path, "RGB"))).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "gif"])
def test_other_formats_are_opened_as_they_always_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(path, **({} if suffix == "gif" else {"exif": exif}))
    image, box, _ = open_reduced(path, "RGB", 0, lambda width, height: 8.0)
    assert np.array_equal(np.asarray(image), np.asarray(open_image(path, "RGB")))
    assert box == (0, 0, *image.size)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty file"),
        (b"words", "another kind of file"),
        (b"\xff\xd8\xff\xe0", "kind of file"),
    ],
)
def test_what_is_no_image_is_refused_in_the_usual_words(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        open_reduced(tmp_path / "a.jpg", "RGB", 0, lambda width, height: 8.0)


def test_a_truncated_jpeg_is_refused_also_when_reduced(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImageError, match="truncated"):
        open_reduced(path, "RGB", 0, lambda width, height: 8.0)


def test_a_decompression_bomb_is_refused_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.jpg", picture())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        open_reduced(path, "RGB", 0, lambda width, height: 8.0)


def test_the_filters_for_warnings_are_put_back() -> None:
    before = list(warnings.filters)
    with pillow_warnings():
        assert list(warnings.filters) != before
    assert list(warnings.filters) == before
