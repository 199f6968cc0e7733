from __future__ import annotations

import gzip
import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from glassnet._errors import WorkError
from glassnet.data.fetch import BrokenFileError
from glassnet.data.idx import parse_idx, read_idx

Writer = Callable[[NDArray[np.uint8]], bytes]
PATH = Path("some/images-idx3-ubyte")


def images(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def test_a_file_written_out_by_hand_reads_as_its_two_rows_of_three() -> None:
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 20, 30, 40, 50, 255])
    assert parse_idx(content, PATH).tolist() == [[10, 20, 30], [40, 50, 255]]


@pytest.mark.parametrize("shape", [(5,), (3, 4, 6), (0, 28, 28), (2, 1, 1, 7)])
@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_values_and_sizes_come_back_as_written(
    name: str, shape: tuple[int, ...], idx_bytes: Writer, tmp_path: Path
) -> None:
    path, written = tmp_path / name, images(*shape)
    content = idx_bytes(written)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    values = read_idx(path)
    assert values.dtype == np.uint8
    assert values.shape == shape
    assert np.array_equal(values, written)
    assert values.flags.writeable


def test_a_file_cut_anywhere_is_refused_by_its_path(idx_bytes: Writer, tmp_path: Path) -> None:
    path, content = tmp_path / "images-idx3-ubyte", idx_bytes(images(3, 4, 6))
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(BrokenFileError, match=re.escape(str(path))):
            read_idx(path)


def test_an_archive_cut_anywhere_is_refused_by_its_path(idx_bytes: Writer, tmp_path: Path) -> None:
    path, raw = tmp_path / "images-idx3-ubyte.gz", gzip.compress(idx_bytes(images(3, 4, 6)))
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(BrokenFileError, match=re.escape(str(path))):
            read_idx(path)


def test_an_archive_with_any_one_byte_changed_is_refused_or_reads_the_same(idx_bytes: Writer, tmp_path: Path) -> None:
    path, written = tmp_path / "images-idx3-ubyte.gz", images(3, 4, 6)
    content = idx_bytes(written)
    raw, digest, num_refused = gzip.compress(content), hashlib.md5(content).hexdigest(), 0
    for position in range(len(raw)):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 0x41]) + raw[position + 1 :])
        try:
            values = read_idx(path, content_md5=digest)
        except BrokenFileError:
            num_refused += 1
        else:
            assert np.array_equal(values, written), f"byte {position} changed the values"
    assert num_refused > len(raw) * 0.9, "only the time stamp and the like may change unseen"


def test_fewer_bytes_than_the_header_says_are_told_with_the_product() -> None:
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, 60_000, 28, 28) + b"\0" * 100
    with pytest.raises(BrokenFileError, match=r"expected 60000 x 28 x 28 = 47,040,000 bytes .*; got 100 bytes"):
        parse_idx(content, PATH)


def test_more_bytes_than_the_header_says_are_refused(idx_bytes: Writer) -> None:
    with pytest.raises(BrokenFileError, match=r"expected 2 x 3 = 6 bytes after the idx header; got 7 bytes"):
        parse_idx(idx_bytes(images(2, 3)) + b"\0", PATH)


def test_sizes_whose_product_overflows_64_bits_are_refused_not_wrapped() -> None:
    content = struct.pack(">BBBB4I", 0, 0, 8, 4, *[1 << 16] * 4)  # 2**64 values; 0 in 64 bits
    with pytest.raises(BrokenFileError, match=r"= 18,446,744,073,709,551,616 bytes"):
        parse_idx(content, PATH)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<!DOCTYPE html>", r"got a file that begins 3c 21 44 4f"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", r"unsigned bytes.*got a file that begins 00 00 0d 01"),
        (b"\0\0\x08\0", r"got a file that begins 00 00 08 00"),
        (b"\0\0\x08", r"got a file that begins 00 00 08"),
        (b"", r"got an empty file"),
    ],
)
def test_a_file_that_is_no_idx_of_bytes_is_told_by_how_it_begins(content: bytes, told: str) -> None:
    with pytest.raises(BrokenFileError, match=told):
        parse_idx(content, PATH)


@pytest.mark.parametrize(("raw", "told"), [(b"<html>", "begins 3c 68 74 6d"), (b"", "an empty file")])
def test_a_gz_name_over_something_else_says_that_it_is_no_gzip(raw: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(raw)
    with pytest.raises(BrokenFileError, match=f"expected a gzip file, which begins 1f 8b; got .*{told}.*Delete it"):
        read_idx(path)


def test_the_content_digest_holds_for_an_archive_that_was_compressed_again(idx_bytes: Writer, tmp_path: Path) -> None:
    path, content = tmp_path / "labels.gz", idx_bytes(images(9))
    for level in (1, 9):
        path.write_bytes(gzip.compress(content, level, mtime=level))
        assert len(read_idx(path, content_md5=hashlib.md5(content).hexdigest())) == 9


def test_the_archive_digest_refuses_an_archive_that_was_compressed_again(idx_bytes: Writer, tmp_path: Path) -> None:
    path, content = tmp_path / "labels.gz", idx_bytes(images(9))
    published = gzip.compress(content, mtime=1)
    path.write_bytes(published)
    digest = hashlib.md5(published).hexdigest()
    assert len(read_idx(path, archive_md5=digest)) == 9
    again = gzip.compress(content, mtime=2)
    path.write_bytes(again)
    told = (
        f"the archive as published with MD5 {digest}; got {len(again)} bytes with MD5 {hashlib.md5(again).hexdigest()}"
    )
    with pytest.raises(BrokenFileError, match=told):
        read_idx(path, archive_md5=digest)


def test_other_content_of_the_same_sizes_is_refused_by_its_digest(idx_bytes: Writer, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(images(9)))
    with pytest.raises(BrokenFileError, match=f"the content as published with MD5 {'0' * 32}; got 17 bytes with MD5"):
        read_idx(path, content_md5="0" * 32)


def test_a_path_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"expected a file that can be read; got Is a directory|got Permission denied"):
        read_idx(tmp_path)
