"""Two thousand image files, damaged at random in many ways: each is used with its own label, or set aside by name."""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glassnet.data.examples import Dataset
from glassnet.data.images import SetAside
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.data.sources import load_data
from glassnet.data.splits import SPLITS

NUM_FILES = 2000
CLASSES = ("ant", "bee", "cat", "dog")
CPU = torch.device("cpu")
SUFFIXES = (".jpg", ".PNG", ".gif", ".bmp", ".webp", ".tif", ".ppm", ".jpeg", ".txt", "")

Random = np.random.Generator


def picture(random: Random, mode: str = "RGB") -> Image.Image:
    """Smooth noise of 5 to 48 pixels a side."""
    height, width = random.integers(5, 49, 2)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    image = coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return image.convert("F").point(lambda value: value / 255)
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(image.getchannel(0))
        return image
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(image: Image.Image, kind: str, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **options)


def several(random: Random, kind: str, mode: str, **options: object) -> bytes:
    """An animation or a file of pages, whose pictures differ in size where the format lets them."""
    first = picture(random, mode)
    more = [picture(random, mode).resize(first.size) for _ in range(2)]
    return encoded(first, kind, save_all=True, append_images=more, **options)


def plain_ppm(random: Random) -> bytes:
    values = random.integers(0, 256, 48)
    return b"P3\n# words\n4 4\n255\n" + b" ".join(str(value).encode() for value in values) + b"\n"


MAKERS: tuple[Callable[[Random], bytes], ...] = (
    *(lambda r, mode=mode: encoded(picture(r, mode), "JPEG") for mode in ("L", "RGB", "CMYK")),
    lambda r: encoded(picture(r), "JPEG", progressive=True, quality=95, subsampling=0),
    lambda r: encoded(picture(r), "JPEG", restart_marker_blocks=2, subsampling="4:2:2"),
    lambda r: turned(picture(r), "JPEG", int(r.integers(0, 10))),
    lambda r: several(r, "MPO", "RGB"),
    *(lambda r, mode=mode: encoded(picture(r, mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    lambda r: encoded(picture(r, "P"), "PNG", transparency=bytes(r.integers(0, 256, 40, dtype=np.uint8))),
    lambda r: encoded(picture(r, "L"), "PNG", transparency=int(r.integers(0, 256))),
    lambda r: turned(picture(r), "PNG", int(r.integers(0, 10))),
    lambda r: several(r, "PNG", "RGBA"),
    lambda r: encoded(picture(r, "P"), "GIF", interlace=bool(r.integers(2))),
    lambda r: encoded(picture(r, "P"), "GIF", transparency=int(r.integers(0, 256))),
    lambda r: several(r, "GIF", "P", duration=40, loop=0),
    *(lambda r, mode=mode: encoded(picture(r, mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
    lambda r: encoded(picture(r), "WEBP"),
    lambda r: encoded(picture(r, "RGBA"), "WEBP", lossless=True),
    lambda r: turned(picture(r), "WEBP", int(r.integers(0, 10))),
    lambda r: several(r, "WEBP", "RGB", duration=40),
    *(
        lambda r, mode=mode: encoded(picture(r, mode), "TIFF")
        for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F")
    ),
    *(
        lambda r, how=how: encoded(picture(r), "TIFF", compression=how)
        for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ),
    lambda r: turned(picture(r), "TIFF", int(r.integers(0, 10))),
    lambda r: several(r, "TIFF", "RGB"),
    *(lambda r, mode=mode: encoded(picture(r, mode), "PPM") for mode in ("1", "L", "RGB", "I;16")),
    plain_ppm,
)
"""Sound files of each format, with what is odd about some of them."""


def flipped(content: bytes, random: Random, first: int, last: int, count: int) -> bytes:
    damaged = bytearray(content)
    for position in random.integers(first, max(first + 1, min(last, len(content))), count):
        damaged[min(position, len(content) - 1)] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def zeroed(content: bytes, random: Random) -> bytes:
    start, length = random.integers(len(content)), random.integers(1, 64)
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def shifted(content: bytes, random: Random) -> bytes:
    """With some bytes twice, or without some."""
    start, stop = sorted(random.integers(0, len(content), 2))
    return content[:stop] + content[start:] if random.integers(2) else content[:start] + content[stop:]


def giant(content: bytes, random: Random) -> bytes:
    """With a header that claims a huge picture; checksums are mended."""
    side = int(random.choice([0, 1, 7000, 60_000, 2**31 - 1]))
    if content.startswith(b"\x89PNG"):
        header = struct.pack(">II", side, side) + content[24:29]
        return content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    if content.startswith(b"BM"):
        return content[:18] + struct.pack("<ii", side, side) + content[26:]
    if content.startswith(b"GIF"):
        return content[:6] + struct.pack("<HH", side % 2**16, side % 2**16) + content[10:]
    if content.startswith(b"P6"):
        return b"P6\n%d %d\n255\n" % (side, side) + content[15:]
    return content[: random.integers(1, len(content))]


DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "sound": lambda content, random: content,
    "truncated": lambda content, random: content[: random.integers(len(content))],
    "a little short": lambda content, random: content[: -int(random.integers(1, 12))],
    "a bit of the header": lambda content, random: flipped(content, random, 0, 64, 1),
    "bits of the header": lambda content, random: flipped(content, random, 2, 400, 6),
    "a bit of the body": lambda content, random: flipped(content, random, 64, len(content), 1),
    "bits of the body": lambda content, random: flipped(content, random, 64, len(content), 20),
    "zeros": zeroed,
    "shifted": shifted,
    "appended": lambda content, random: content + random.bytes(int(random.integers(1, 300))),
    "another beginning": lambda content, random: random.bytes(4) + content[4:],
    "a foreign beginning": lambda content, random: b"\xff\xd8\xff\xe0" + content[4:],
    "nothing": lambda content, random: b"",
    "only zeros": lambda content, random: bytes(len(content)),
    "words": lambda content, random: b"Not an image.\r\n" * 9,
    "giant": giant,
}
WEIGHTS = {"nothing": 0.2, "only zeros": 0.2, "words": 0.3, "giant": 0.5}
"""How often a damage occurs beside the others; 1 where none is given."""


def write_files(root: Path, seed: int) -> Counter[str]:
    """Write the files into a folder for each class; return how many there are of each damage."""
    random = np.random.default_rng(seed)
    shares = np.array([WEIGHTS.get(name, 1.0) for name in DAMAGES])
    names = random.choice(list(DAMAGES), NUM_FILES, p=shares / shares.sum())
    for index, name in enumerate(names):
        content = DAMAGES[name](MAKERS[index % len(MAKERS)](random), random)
        folder = root / CLASSES[random.integers(len(CLASSES))]
        folder.mkdir(exist_ok=True)
        (folder / f"{index:04} {name}{random.choice(SUFFIXES)}").write_bytes(content)
    return Counter(names.tolist())


def used_in(data: Dataset, record: Preprocessing) -> tuple[dict[Path, str], list[SetAside]]:
    """Put each split on the device; check its pixels; return the label of each file used, and what was set aside."""
    used, set_aside = {}, []
    for name in SPLITS:
        examples = getattr(data, name)
        on_device = to_device(examples, record, CPU)
        present = on_device.present(examples)
        assert len(present) == len(on_device) == len(on_device.inputs) == len(examples) - len(on_device.set_aside)
        assert torch.equal(present.labels, on_device.labels)
        for path, label, pixels in zip(present.inputs.paths, present.labels.tolist(), on_device.inputs, strict=True):
            assert path not in used
            used[path] = data.class_names[label]
            assert torch.equal(record.fit_image(path), pixels), path
            assert torch.equal(record.fit_image(io_image(path)), pixels), path
        set_aside += on_device.set_aside
    return used, set_aside


def io_image(path: Path) -> Image.Image:
    """The image as a user opens it from memory, unread."""
    return Image.open(io.BytesIO(path.read_bytes()))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")
def test_each_of_many_damaged_files_is_used_with_its_own_label_or_set_aside_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "animals"
    root.mkdir()
    kinds = write_files(root, seed=0)
    assert set(kinds) == set(DAMAGES)
    data = load_data(root)
    used, later = used_in(data, make_preprocessing(data.train, (24, 20)))
    assert all(label == path.parent.name for path, label in used.items())
    unused = {str(root / item.source) for item in data.set_aside} | {item.source for item in later}
    assert len(data.set_aside) + len(later) == len(unused)
    assert all(item.reason for item in (*data.set_aside, *later))
    everything = {str(path) for path in root.glob("*/*")}
    assert unused | set(map(str, used)) == everything
    assert len(unused) + len(used) == len(everything) == NUM_FILES
    by_kind = Counter(path.stem.partition(" ")[2] for path in used)
    moving = [Path(item.source) for item in data.set_aside if "got an animation" in item.reason]
    by_kind_moving = Counter(path.stem.partition(" ")[2] for path in moving)
    assert 0 < by_kind_moving["sound"] == kinds["sound"] - by_kind["sound"]
    assert by_kind["appended"] + by_kind_moving["appended"] > 0.9 * kinds["appended"]
    for hopeless in ("nothing", "only zeros", "words"):
        assert by_kind[hopeless] == 0
