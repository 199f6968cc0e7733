from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassnet._errors import WorkError
from glassnet.data.cifar import TRAIN_BATCHES, Batch, check_cifar, decode_batch, read_cifar
from glassnet.data.fetch import BrokenFileError

PATH = Path("cifar-10-python.tar.gz")


class Payload:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that make the file `marker` when an unpickler obeys them, by how they name the function."""
    touch = f"open({str(marker)!r}, 'w').close()"
    by_protocol = {f"exec, protocol {number}": pickle.dumps(Payload(exec, touch), number) for number in range(6)}
    text = touch.encode()
    return by_protocol | {
        "INST opcode": b"(S" + repr(touch).encode() + b"\nibuiltins\nexec\n.",
        "OBJ opcode": b"(cbuiltins\nexec\nX" + len(text).to_bytes(4, "little") + text + b"o.",
        "dotted name": b"\x80\x04\x8c\x02io\x8c\x0eopen.__class__\x93.",
        "among the parts of a batch": b"\x80\x02}(U\x04datacbuiltins\nexec\nU" + bytes([len(text)]) + text + b"\x85Ru.",
    }


def unpack(archive: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder / "cifar-10-batches-py"


def is_same(first: tuple[Batch, Batch], second: tuple[Batch, Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels) for a, b in pairs)


def test_a_row_is_the_red_then_the_green_then_the_blue_plane(batch_pickle: Callable[..., bytes]) -> None:
    row = np.zeros((1, 3072), np.uint8)
    row[0, 0] = 1  # red, top left
    row[0, 1024 + 31] = 2  # green, top right
    row[0, 2048 + 32 * 31] = 3  # blue, bottom left
    batch = decode_batch(batch_pickle(row, [9]), PATH, "test_batch")
    assert batch.images.shape == (1, 3, 32, 32)
    found = {tuple(map(int, at)): int(batch.images[tuple(at)]) for at in np.argwhere(batch.images)}
    assert found == {(0, 0, 0, 0): 1, (0, 1, 0, 31): 2, (0, 2, 31, 0): 3}
    assert batch.labels.dtype == np.int64
    assert batch.labels.tolist() == [9]


@pytest.mark.parametrize("is_unpacked", [False, True], ids=["archive", "folder"])
def test_training_batches_come_in_the_order_of_their_numbers(cifar: Any, is_unpacked: bool, tmp_path: Path) -> None:
    path = tmp_path / PATH.name
    path.write_bytes(cifar.archive)
    train, test = read_cifar(unpack(cifar.archive, tmp_path) if is_unpacked else path, cifar.md5)
    assert np.array_equal(train.images.reshape(-1, 3072), np.concatenate([cifar.rows[name] for name in TRAIN_BATCHES]))
    assert train.labels.tolist() == [label for name in TRAIN_BATCHES for label in cifar.labels[name]]
    assert np.array_equal(test.images.reshape(-1, 3072), cifar.rows["test_batch"])
    assert test.labels.tolist() == cifar.labels["test_batch"]
    assert train.images.flags.writeable
    assert test.images.flags.writeable


def test_the_archive_is_not_unpacked_beside_itself(cifar: Any, tmp_path: Path) -> None:
    path = tmp_path / PATH.name
    path.write_bytes(cifar.archive)
    read_cifar(path, cifar.md5)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", list(hostile_pickles(Path("marker"))))
def test_a_pickle_that_calls_a_function_is_refused_and_nothing_runs(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    content = hostile_pickles(marker)[kind]
    with pytest.raises(WorkError, match=r"test_batch: expected a batch .* asks for '(\w+\.exec|io\.open.*)'.*not run"):
        decode_batch(content, PATH, "test_batch")
    assert not marker.exists()


@pytest.mark.parametrize("kind", [kind for kind in hostile_pickles(Path("marker")) if kind != "dotted name"])
def test_the_same_pickle_does_run_in_an_unpickler_that_obeys(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(hostile_pickles(marker)[kind])  # the text is ours: it makes an empty file
    assert marker.exists()


def test_a_hostile_batch_inside_an_archive_is_refused_even_with_a_digest_that_fits(
    cifar: Any, cifar_archive: Callable[..., bytes], batch_pickle: Callable[..., bytes], tmp_path: Path
) -> None:
    marker, path = tmp_path / "marker", tmp_path / PATH.name
    call = b"cos\nsystem\nU" + bytes([len(f"touch {marker}")]) + f"touch {marker}".encode() + b"\x85R0"
    hostile = batch_pickle(cifar.rows["data_batch_3"], cifar.labels["data_batch_3"], before=call)
    path.write_bytes(cifar_archive(cifar.pickles | {"data_batch_3": hostile}))
    digests = cifar.md5 | {"data_batch_3": hashlib.md5(hostile).hexdigest()}
    check_cifar(path, digests)  # the digests alone decode nothing
    with pytest.raises(WorkError, match=r"data_batch_3: .*'os\.system', which was not run"):
        read_cifar(path, digests)
    assert not marker.exists()
    with pytest.raises(BrokenFileError, match=r"data_batch_3 as published with MD5"):
        read_cifar(path, cifar.md5)


@pytest.mark.parametrize(
    "name",
    ["_codecs.encode", "numpy.load", "numpy.core.multiarray.scalar", "builtins.getattr", "copyreg._reconstructor"],
)
def test_a_function_that_batches_do_not_need_is_refused_by_name(name: str) -> None:
    module, _, function = name.rpartition(".")
    with pytest.raises(WorkError, match=re.escape(f"asks for '{name}'")):
        decode_batch(b"\x80\x02c" + f"{module}\n{function}\n".encode() + b".", PATH, "test_batch")


@pytest.mark.parametrize(
    ("found", "replaced"),
    [
        (b"U\x02u1", b"U\x01O"),  # objects: the bytes would be taken for addresses
        (b"U\x02u1", b"U\x02f8"),
        (b"\x89T", b"\x88T"),  # Fortran order
        (b"J\x00\x0c\x00\x00\x86", b"J\x01\x0c\x00\x00\x86"),  # rows of 3073
        (b"J\x00\x0c\x00\x00\x86", b"J\x00\x06\x00\x00\x86"),  # rows of 1536
        (b"U\x04data", b"U\x04date"),
        (b"U\x06labels", b"U\x06labelz"),
    ],
)
def test_an_array_of_another_kind_or_size_is_refused(
    found: bytes, replaced: bytes, batch_pickle: Callable[..., bytes]
) -> None:
    content = batch_pickle(np.zeros((2, 3072), np.uint8), [1, 2])
    assert content.count(found) == 1
    with pytest.raises(BrokenFileError, match=r"test_batch as a pickled batch|test_batch with images of 3,072"):
        decode_batch(content.replace(found, replaced), PATH, "test_batch")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([1], r"2 labels, one for each image; got 1 labels"),
        ([1, 2, 3], r"2 labels, one for each image; got 3 labels"),
        ([1, 10], r"labels in 0\.\.9; got label 10"),
        ([-1, 1], r"labels in 0\.\.9; got label -1"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_refused(
    labels: list[int], told: str, batch_pickle: Callable[..., bytes]
) -> None:
    with pytest.raises(BrokenFileError, match=told):
        decode_batch(batch_pickle(np.zeros((2, 3072), np.uint8), labels), PATH, "test_batch")


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02N.", b"\x80\x02Pid\n.", b"\x80\x02]."])
def test_what_is_no_batch_at_all_is_refused(content: bytes) -> None:
    with pytest.raises(BrokenFileError, match=r"expected data_batch_2 as a pickled batch; got"):
        decode_batch(content, PATH, "data_batch_2")


@pytest.mark.parametrize("data", [b"}", b"]", b"N", b"U\x03abc"])
def test_data_that_is_no_array_is_refused(data: bytes) -> None:
    content = b"\x80\x02}(U\x06labels]U\x04data" + data + b"u."
    with pytest.raises(BrokenFileError, match=r"test_batch with images of 3,072 values in a row; got data of shape"):
        decode_batch(content, PATH, "test_batch")


def test_a_pickle_cut_anywhere_is_refused(batch_pickle: Callable[..., bytes]) -> None:
    content = batch_pickle(np.zeros((1, 3072), np.uint8), [4])
    for length in [*range(300), *range(300, len(content), 61), len(content) - 1]:
        with pytest.raises(BrokenFileError, match="as a pickled batch"):
            decode_batch(content[:length], PATH, "test_batch")


def test_an_archive_cut_anywhere_is_refused(cifar: Any, tmp_path: Path) -> None:
    path, archive = tmp_path / PATH.name, cifar.archive
    last_kept = len(archive) - 200  # the rest is the padding and the check sum of the archive; the batches are whole
    for length in [*range(60), *range(60, last_kept, last_kept // 60)]:
        path.write_bytes(archive[:length])
        with pytest.raises(BrokenFileError, match=re.escape(str(path))):
            read_cifar(path, cifar.md5)


def test_an_archive_with_one_byte_changed_is_refused_or_reads_the_same(cifar: Any, tmp_path: Path) -> None:
    path, archive = tmp_path / PATH.name, cifar.archive
    path.write_bytes(archive)
    published = read_cifar(path, cifar.md5)
    num_refused, positions = 0, range(0, len(archive), len(archive) // 120)
    for position in positions:
        path.write_bytes(archive[:position] + bytes([archive[position] ^ 0x5A]) + archive[position + 1 :])
        try:
            batches = read_cifar(path, cifar.md5)
        except BrokenFileError:
            num_refused += 1
        else:
            assert is_same(batches, published), f"byte {position} changed the examples"
    assert num_refused > 0.9 * len(positions)


def test_tar_headers_that_lie_are_refused_or_read_the_same(cifar: Any, tmp_path: Path) -> None:
    path, plain = tmp_path / PATH.name, bytearray(gzip.decompress(cifar.archive))
    path.write_bytes(cifar.archive)
    published = read_cifar(path, cifar.md5)
    start = plain.index(b"cifar-10-batches-py/test_batch\0")
    num_refused = 0
    for position in range(start, start + 512, 7):
        kept = plain[position]
        plain[position] ^= 0xFF
        path.write_bytes(gzip.compress(bytes(plain), 1))
        plain[position] = kept
        try:
            batches = read_cifar(path, cifar.md5)
        except BrokenFileError:
            num_refused += 1
        else:
            assert is_same(batches, published)
    assert num_refused > 50


def test_a_member_that_claims_gigabytes_is_refused_unread(cifar: Any, tmp_path: Path) -> None:
    path, header = tmp_path / PATH.name, tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    header.size = 1 << 32
    path.write_bytes(gzip.compress(header.tobuf() + b"\0" * 1024))
    with pytest.raises(BrokenFileError, match=r"data_batch_1 of at most 67,108,864 bytes; got 4,294,967,296 bytes"):
        read_cifar(path, cifar.md5)


def test_a_link_with_the_name_of_a_batch_is_not_followed(cifar: Any, tmp_path: Path) -> None:
    path, link = tmp_path / PATH.name, tarfile.TarInfo("cifar-10-batches-py/test_batch")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    path.write_bytes(gzip.compress(link.tobuf() + b"\0" * 1024))
    with pytest.raises(BrokenFileError, match=r"expected the six batches.*got no data_batch_1, .*test_batch"):
        read_cifar(path, cifar.md5)


@pytest.mark.parametrize("raw", [b"", b"<html>no such page</html>", gzip.compress(b"no tar" * 100, mtime=0)])
def test_a_file_that_is_no_archive_is_refused(raw: bytes, cifar: Any, tmp_path: Path) -> None:
    path = tmp_path / PATH.name
    path.write_bytes(raw)
    with pytest.raises(BrokenFileError, match=r"expected a whole \.tar\.gz archive; got .*Delete it"):
        read_cifar(path, cifar.md5)


def test_a_missing_batch_is_named_in_archive_and_folder(
    cifar: Any, cifar_archive: Callable[..., bytes], tmp_path: Path
) -> None:
    path = tmp_path / PATH.name
    some = {name: content for name, content in cifar.pickles.items() if name not in {"data_batch_2", "data_batch_5"}}
    path.write_bytes(cifar_archive(some))
    for place in (path, unpack(path.read_bytes(), tmp_path)):
        for work in (read_cifar, check_cifar):
            with pytest.raises(BrokenFileError, match=f"{re.escape(str(place))}: .*no data_batch_2, data_batch_5"):
                work(place, cifar.md5)


def test_an_altered_batch_is_refused_by_its_digest_in_archive_and_folder(cifar: Any, tmp_path: Path) -> None:
    path = tmp_path / PATH.name
    path.write_bytes(cifar.archive)
    for place in (path, unpack(cifar.archive, tmp_path)):
        for work in (read_cifar, check_cifar):
            with pytest.raises(BrokenFileError, match=f"test_batch as published with MD5 {'0' * 32}; got .* bytes"):
                work(place, cifar.md5 | {"test_batch": "0" * 32})


def test_a_batch_that_is_a_folder_says_that_it_cannot_be_read(cifar: Any, tmp_path: Path) -> None:
    folder = unpack(cifar.archive, tmp_path)
    (folder / "data_batch_4").unlink()
    (folder / "data_batch_4").mkdir()
    with pytest.raises(WorkError, match=r"data_batch_4: expected a file that can be read; got"):
        read_cifar(folder, cifar.md5)
