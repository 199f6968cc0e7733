"""Reading images: each mode's pixels are known beforehand, so a wrong conversion shows as a wrong number."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from glassnet.data.decoding import open_reduced
from glassnet.data.images import UnreadableImageError, open_image, open_picture, pillow_warnings

GREY = np.array([[0, 64, 128], [192, 255, 10]], dtype=np.uint8)


def grey(path: Path, background: int = 0) -> np.ndarray:
    return np.array(open_image(path, "L", background))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif", "pgm", "webp"])
def test_grey_pixels_survive_every_lossless_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(GREY).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert (grey(path) == GREY).all()


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.tif")
    assert (grey(tmp_path / "deep.png") == GREY).all()
    assert (grey(tmp_path / "deep.tif") == GREY).all()


def test_a_dark_16_bit_png_is_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 200, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert (grey(tmp_path / "dark.png") == 1).all()  # 200 / 257, rounded


@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_float_images_in_0_to_1_or_0_to_255_are_understood(tmp_path: Path, scale: float) -> None:
    Image.fromarray(GREY.astype(np.float32) * scale).save(tmp_path / "float.tif")
    assert (grey(tmp_path / "float.tif") == GREY).all()


@pytest.mark.parametrize(("value", "text"), [(-3.0, r"got -3\.\."), (1000.0, r"\.\.1000"), (np.nan, "not finite")])
def test_float_images_out_of_range_are_refused_with_the_range(tmp_path: Path, value: float, text: str) -> None:
    values = GREY.astype(np.float32)
    values[0, 0] = value
    Image.fromarray(values).save(tmp_path / "float.tif")
    with pytest.raises(UnreadableImageError, match=text):
        grey(tmp_path / "float.tif")


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(rgb).quantize(8).save(tmp_path / "palette.png")
    assert (np.array(open_image(tmp_path / "palette.png", "RGB")) == rgb).all()


def test_a_bilevel_image_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "bits.png")
    assert (grey(tmp_path / "bits.png") == np.where(GREY > 100, 255, 0)).all()


@pytest.mark.parametrize("background", [0, 255])
def test_transparent_pixels_show_the_background(tmp_path: Path, background: int) -> None:
    alpha = np.array([[0, 255, 255], [255, 255, 255]], dtype=np.uint8)
    Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(alpha))).save(tmp_path / "alpha.png")
    expected = GREY.copy()
    expected[0, 0] = background
    assert (grey(tmp_path / "alpha.png", background) == expected).all()


def test_a_palette_with_a_transparent_colour_shows_the_background(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 200, 200, 50, 50, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "clear.png", transparency=0)
    assert grey(tmp_path / "clear.png", 255).tolist() == [[255, 50]]


def test_half_transparent_colour_is_mixed_with_the_background(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (200, 100, 0, 128)).save(tmp_path / "half.png")
    mixed = np.array(open_image(tmp_path / "half.png", "RGB", 0))[0, 0]
    assert np.allclose(mixed, np.array([200, 100, 0]) * 128 / 255, atol=1)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGB"])
def test_colour_models_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(tmp_path / "white.tif")
    assert (np.array(open_image(tmp_path / "white.tif", "RGB")) >= 254).all()


def test_a_photo_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    assert (grey(tmp_path / "turned.png") == np.rot90(GREY, k=-1)).all()


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (grey(tmp_path / "moving.gif") == 10).all()


def test_what_is_no_image_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image at all")
    for path, text in (
        (tmp_path / "empty.png", r"empty file \(0 bytes\)"),
        (tmp_path / "text.png", "another kind of file"),
        (tmp_path / "absent.png", "no such file"),
        (tmp_path, "got a folder"),
    ):
        with pytest.raises(UnreadableImageError, match=text):
            open_image(path, "L")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for read in (lambda path: open_image(path, "L"), lambda path: open_reduced(path, "L", 0, lambda w, h: 1.0)):
        with pytest.raises(UnreadableImageError, match="expected an image file, got neither a file nor a folder"):
            read(tmp_path / "pipe.png")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_image_is_refused_not_guessed(tmp_path: Path, kept: float) -> None:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    (tmp_path / "cut.png").write_bytes(content.getvalue()[: int(len(content.getvalue()) * kept)])
    with pytest.raises(UnreadableImageError, match="damaged"):
        open_image(tmp_path / "cut.png", "L")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (2000, 2000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000_000)
    with pytest.raises(UnreadableImageError, match="more than 3 million pixels"):
        open_image(tmp_path / "bomb.png", "L")


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    content = {}
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(buffer, kind)
        content[kind] = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    path = tmp_path / "damaged"
    for _ in range(40):
        for original in content.values():
            damaged = original.copy()
            places = generator.integers(0, len(damaged), 8)
            damaged[places] = generator.integers(0, 256, 8)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(UnreadableImageError):
                assert open_image(path, "RGB").mode == "RGB"


def test_a_damaged_tiff_gives_the_same_pixels_from_its_path_and_from_memory(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((5, 4), 65535, dtype=np.uint16)).save(stream, "TIFF")
    rows_per_strip = b"\x16\x01\x04\x00\x01\x00\x00\x00"  # tag 278, one number of 32 bits
    content = stream.getvalue().replace(rows_per_strip + b"\x05", rows_per_strip + b"\x04")
    assert content != stream.getvalue()
    path = tmp_path / "short.tif"
    path.write_bytes(content + bytes(range(200, 240)))
    expected = np.array(open_image(Image.open(io.BytesIO(path.read_bytes())), "L"))
    assert (grey(path) == expected).all()
    assert expected.tolist() == [[255] * 4] * 4 + [[0] * 4]  # and nothing from beyond the strip


def test_what_is_in_lab_colours_is_not_called_damaged(tmp_path: Path) -> None:
    Image.new("LAB", (2, 2)).save(tmp_path / "a.tif")
    for read in (lambda path: open_image(path, "RGB"), open_picture):
        with pytest.raises(UnreadableImageError, match=r"^expected grey, RGB or CMYK, got LAB; convert"):
            read(tmp_path / "a.tif")


def test_an_image_that_needs_no_change_is_not_copied() -> None:
    image = Image.fromarray(GREY)
    assert open_image(image, "L") is image
    assert open_image(image, "RGB") is not image


@pytest.mark.parametrize("orientation", [0, 1, 6, 8, 9])
@pytest.mark.parametrize("how", ["exif", "xmp"])
def test_a_jpeg_stands_upright_wherever_its_header_says_so(tmp_path: Path, how: str, orientation: int) -> None:
    tall = Image.fromarray(np.zeros((8, 16), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    tall.save(tmp_path / "a.jpg", **({"exif": exif} if how == "exif" else {"xmp": packet}))
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")).size
    assert open_image(tmp_path / "a.jpg", "L").size == expected
    assert expected == ((8, 16) if orientation in (6, 8) else (16, 8))


def test_threads_share_the_filters_for_warnings_and_the_last_to_leave_puts_them_back() -> None:
    before = list(warnings.filters)
    first, second = pillow_warnings(), pillow_warnings()
    first.__enter__()
    inside = list(warnings.filters)
    second.__enter__()
    first.__exit__(None, None, None)
    assert list(warnings.filters) == inside != before
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before
