from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from glassnet._errors import UsageError, WorkError
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.fetch import BrokenFileError
from glassnet.data.splits import stratified_cut
from glassnet.data.standard import STANDARD_SETS, StandardSet, load_set, load_standard, locate

NUM_TRAIN, NUM_TEST = 40, 10
ARCHIVES = tuple(file.name for file in STANDARD_SETS["mnist"].files)

MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def load(data_set: StandardSet, root: Path | None = None, download: bool = False, seed: int = 0) -> Dataset:
    return load_set(data_set, root, seed=seed, validation_share=0.1, download=download)


def rows(examples: ExampleSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in examples.inputs}


class Small:
    """A set in the format of MNIST with 40 training and 10 test images of 5 x 4, and its four files as published."""

    def __init__(self, idx_bytes: Callable[..., bytes], base: str = "http://example.invalid") -> None:
        generator = np.random.default_rng(5)
        self.images = generator.integers(0, 256, (NUM_TRAIN + NUM_TEST, 5, 4), dtype=np.uint8)
        self.labels = np.arange(NUM_TRAIN + NUM_TEST, dtype=np.uint8) % 10
        parts = [part[cut] for cut in (slice(NUM_TRAIN), slice(NUM_TRAIN, None)) for part in (self.images, self.labels)]
        self.contents = dict(zip(ARCHIVES, map(idx_bytes, parts), strict=True))
        self.archives = {name: gzip.compress(content) for name, content in self.contents.items()}
        self.base = base

    def record(self, of_archive: bool = False) -> StandardSet:
        """Return the record of this set, with digests of its content, or of its archives."""
        digests = {name: md5(content) for name, content in (self.archives if of_archive else self.contents).items()}
        base = STANDARD_SETS["fashion-mnist" if of_archive else "mnist"]
        kind = "archive_md5" if of_archive else "content_md5"
        files = tuple(
            replace(file, url=f"{self.base}/{file.name}", **{kind: digests[file.name]}) for file in base.files
        )
        return replace(base, input_shape=(1, 5, 4), num_train=NUM_TRAIN, num_test=NUM_TEST, files=files)

    def put(self, folder: Path, *, unpacked: bool = False, without: str | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.contents:
            if name != without:
                path = folder / (name.removesuffix(".gz") if unpacked else name)
                path.write_bytes(self.contents[name] if unpacked else self.archives[name])
        return folder


@pytest.fixture
def small(idx_bytes: Callable[..., bytes], no_data: Path) -> Small:
    return Small(idx_bytes)


def test_the_sets_are_listed_by_the_names_that_load_them() -> None:
    assert list(STANDARD_SETS) == ["digits", "mnist", "fashion-mnist", "cifar10"]
    assert [data_set.name for data_set in STANDARD_SETS.values()] == list(STANDARD_SETS)


@pytest.mark.parametrize("name", list(STANDARD_SETS))
def test_every_record_is_complete(name: str) -> None:
    data_set = STANDARD_SETS[name]
    assert data_set.num_classes == len(set(data_set.class_names)) == 10
    assert data_set.title
    assert data_set.description.endswith(".")
    assert data_set.source
    assert data_set.licence
    for file in data_set.files:
        assert file.url.endswith(f"/{file.name}")
        digests = [file.content_md5, file.archive_md5, *file.member_md5.values()]
        given = [digest for digest in digests if digest is not None]
        assert given
        assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in given)
        assert (file.archive_md5 is not None) == (file.unpacked is None), "unpacked, an archive has no digest"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Unknown data set 'minst'. Did you mean 'mnist'"):
        load_standard("minst")
    with pytest.raises(UsageError, match=r"Unknown data set 'CIFAR-10'. Did you mean 'cifar10'"):
        locate("CIFAR-10")
    with pytest.raises(UsageError, match=r"Choose one of: cifar10, digits, fashion-mnist, mnist\."):
        load_standard("zzzzz")


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused_before_any_work(share: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"validation_share must be at least 0 and below 1; got {share}"):
        load_standard("mnist", tmp_path, validation_share=share)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_does_not_exist_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    for name in list(STANDARD_SETS):
        with pytest.raises(UsageError, match="root must be a folder that exists"):
            load_standard(name, tmp_path / "nowhere")
        with pytest.raises(UsageError, match="root must be a folder that exists"):
            locate(name, tmp_path / "nowhere")


def test_digits_are_the_counts_of_scikit_learn_spread_over_a_byte() -> None:
    data, source = load_standard("digits"), load_digits()
    assert (len(data.train), len(data.validation), len(data.test)) == (1295, 143, 359)
    assert len(data.train) + len(data.validation) == STANDARD_SETS["digits"].num_train
    assert len(data.test) == STANDARD_SETS["digits"].num_test
    assert data.train.input_shape == STANDARD_SETS["digits"].input_shape == (1, 8, 8)
    assert data.framing == Framing("stretch", margin=1 / 8)
    spread = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]  # round(v * 255 / 16)
    expected = sorted(
        bytes(spread[int(v)] for v in image.flatten()) + bytes([label])
        for image, label in zip(source.images, source.target, strict=True)
    )
    got = [
        image.numpy().tobytes() + bytes([label])
        for split in (data.train, data.validation, data.test)
        for image, label in zip(split.inputs, split.labels.tolist(), strict=True)
    ]
    assert sorted(got) == expected


def test_the_test_split_of_digits_is_a_fifth_of_each_class_whatever_the_seed() -> None:
    first, second = load_standard("digits", seed=1), load_standard("digits", seed=2, validation_share=0.3)
    assert torch.equal(first.test.inputs, second.test.inputs)
    assert first.test.class_counts() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    source = load_digits()
    _, cut = stratified_cut(torch.from_numpy(source.target), 0.2, 0, "digits test")
    counts = first.test.inputs[:, 0].double() * 16 / 255
    assert np.array_equal(counts.round().numpy(), source.images[cut.numpy()]), "every version has the same test split"
    assert not torch.equal(first.validation.inputs, load_standard("digits", seed=2).validation.inputs)
    assert first.fingerprint() == load_standard("digits", seed=1).fingerprint()


@pytest.mark.parametrize("place", ["mnist", "", "MNIST/raw"], ids=["own folder", "directly", "as torchvision"])
@pytest.mark.parametrize("is_unpacked", [False, True], ids=["gzipped", "unpacked"])
def test_a_set_loads_from_each_place_and_form(small: Small, tmp_path: Path, place: str, is_unpacked: bool) -> None:
    small.put(tmp_path / "sets" / place, unpacked=is_unpacked)
    data = load(small.record(), tmp_path / "sets")
    assert data.name == "mnist"
    assert data.framing == Framing("stretch", margin=1 / 16)
    assert np.array_equal(data.test.inputs.numpy()[:, 0], small.images[NUM_TRAIN:])
    assert np.array_equal(data.test.labels.numpy(), small.labels[NUM_TRAIN:])
    assert data.test.inputs.shape == (NUM_TEST, 1, 5, 4)
    assert rows(data.train) | rows(data.validation) == {image.tobytes() for image in small.images[:NUM_TRAIN]}
    assert (len(data.train), len(data.validation)) == (40, 0), "a tenth of 4 per class rounds to none"


def test_each_image_keeps_its_label_through_the_cut(small: Small, tmp_path: Path) -> None:
    small.put(tmp_path)
    data = load_set(small.record(), tmp_path, seed=3, validation_share=0.5, download=False)
    label_of = {image.tobytes(): int(label) for image, label in zip(small.images, small.labels, strict=True)}
    assert data.validation.class_counts() == [2] * 10
    for split in (data.train, data.validation, data.test):
        assert [label_of[image.numpy().tobytes()] for image in split.inputs] == split.labels.tolist()
    assert not rows(data.train) & rows(data.validation)


def test_the_seed_moves_the_validation_split_and_never_the_test_split(small: Small, tmp_path: Path) -> None:
    small.put(tmp_path)
    loaded = [load_set(small.record(), tmp_path, seed=s, validation_share=0.5, download=False) for s in (0, 1, 0)]
    assert torch.equal(loaded[0].test.inputs, loaded[1].test.inputs)
    assert rows(loaded[0].validation) != rows(loaded[1].validation)
    assert loaded[0].fingerprint() == loaded[2].fingerprint()
    assert [data.seed for data in loaded] == [0, 1, 0]


def test_the_named_folder_comes_before_the_cache_and_root_excludes_both(
    small: Small, no_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, root = tmp_path / "named", tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("GLASSNET_DATA", str(named))
    assert locate("mnist") is None
    small.put(no_data / "mnist")
    assert locate("mnist") == no_data / "mnist"
    small.put(named / "MNIST" / "raw", without=ARCHIVES[3])
    assert load(small.record()).test.class_counts() == [1] * 10, "the missing one is found in the cache"
    small.put(named / "mnist", unpacked=True)
    assert locate("mnist") == named / "mnist"
    assert locate("mnist", root) is None
    with pytest.raises(WorkError, match="download is off"):
        load(small.record(), root)


def test_locate_finds_the_folder_of_an_unpacked_cifar10_and_no_files_of_digits(no_data: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert locate("cifar10", tmp_path) == tmp_path
    assert locate("digits", tmp_path) is None


def test_a_missing_file_with_download_off_says_what_to_put_where(small: Small, no_data: Path) -> None:
    small.put(no_data / "mnist", without=ARCHIVES[1])
    with pytest.raises(WorkError) as caught:
        load(small.record())
    assert str(caught.value) == (
        "MNIST: expected train-labels-idx1-ubyte.gz; got no such file, and download is off. Download by hand and put "
        "it there, or set GLASSNET_DATA to a folder that has it:\n  http://example.invalid/train-labels-idx1-ubyte.gz "
        f"-> {no_data / 'mnist' / 'train-labels-idx1-ubyte.gz'}"
    )


def test_without_a_network_all_missing_files_are_listed(
    small: Small, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(WorkError, match=r"MNIST, train-images-idx3-ubyte.gz: expected to download") as caught:
        load(small.record(), download=True)
    lines = str(caught.value).splitlines()[1:]
    assert lines == [f"  http://example.invalid/{name} -> {no_data / 'mnist' / name}" for name in ARCHIVES]
    assert not (no_data / "mnist").exists()


def test_only_what_is_missing_is_fetched_and_only_once(small: Small, server: Any, tmp_path: Path) -> None:
    small.base = server.base
    server.files |= {f"/{name}": content for name, content in small.archives.items()}
    small.put(tmp_path / "mnist", without=ARCHIVES[2])
    (tmp_path / "mnist" / ARCHIVES[1]).unlink()
    first = load(small.record(), tmp_path, download=True)
    assert server.asked == [f"/{ARCHIVES[1]}", f"/{ARCHIVES[2]}"]
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(ARCHIVES)
    assert load(small.record(), tmp_path, download=True).fingerprint() == first.fingerprint()
    assert len(server.asked) == 2


def test_a_set_is_fetched_into_its_folder_in_the_cache(small: Small, server: Any, no_data: Path) -> None:
    small.base = server.base
    server.files |= {f"/{name}": content for name, content in small.archives.items()}
    assert len(load(small.record(), download=True).test) == NUM_TEST
    assert sorted(path.name for path in (no_data / "mnist").iterdir()) == sorted(ARCHIVES)


def test_a_fetched_file_with_other_content_is_never_kept(small: Small, server: Any, tmp_path: Path) -> None:
    small.base = server.base
    server.files |= {f"/{name}": gzip.compress(content[:-1] + b"\7") for name, content in small.contents.items()}
    with pytest.raises(WorkError, match=r"was refused: expected the content as published with MD5 .*\. Try again"):
        load(small.record(), tmp_path, download=True)
    assert list(tmp_path.rglob("*")) == []


def test_cifar10_is_fetched_checked_and_loaded(cifar: Any, server: Any, no_data: Path) -> None:
    record = STANDARD_SETS["cifar10"]
    file = replace(record.files[0], url=f"{server.base}/{record.files[0].name}", member_md5=cifar.md5)
    server.files[f"/{file.name}"] = cifar.archive
    data = load(replace(record, files=(file,)), download=True)
    assert data.test.inputs.shape == (2, 3, 32, 32)
    assert np.array_equal(data.test.inputs.numpy().reshape(2, -1), cifar.rows["test_batch"])
    assert data.test.labels.tolist() == cifar.labels["test_batch"]
    assert len(data.train) + len(data.validation) == 10
    assert data.framing == Framing("stretch", margin=0.0)
    altered = replace(file, member_md5=cifar.md5 | {"data_batch_1": "0" * 32})
    (no_data / "cifar-10" / file.name).unlink()
    with pytest.raises(
        WorkError, match=r"CIFAR-10, cifar-10-python.tar.gz: the download of .* was refused: .*MD5 0000"
    ):
        load(replace(record, files=(altered,)), download=True)
    assert list((no_data / "cifar-10").iterdir()) == []


@pytest.mark.parametrize("position", range(4))
def test_an_altered_file_is_refused_at_every_load(small: Small, tmp_path: Path, position: int) -> None:
    name = ARCHIVES[position]
    small.put(tmp_path)
    content = small.contents[name]
    (tmp_path / name).write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    for _ in range(2):
        with pytest.raises(BrokenFileError, match=f"{name}: expected the content as published .*fetch a fresh copy"):
            load(small.record(), tmp_path)


def test_an_archive_digest_takes_the_published_archive_and_nothing_unpacked(small: Small, tmp_path: Path) -> None:
    record = small.record(of_archive=True)
    folder = small.put(tmp_path / "fashion-mnist", unpacked=True)
    with pytest.raises(WorkError, match=r"expected train-images-idx3-ubyte.gz, .*; got no such file"):
        load(record, tmp_path)
    small.put(folder)
    assert len(load(record, tmp_path).test) == NUM_TEST
    name = ARCHIVES[0]
    (folder / name).write_bytes(gzip.compress(small.contents[name], 1, mtime=9))
    with pytest.raises(BrokenFileError, match="the archive as published with MD5"):
        load(record, tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        ((40, 5, 4), 39, r"train-labels.*expected 40 labels, one for each image in train-images.*shape \(39,\)"),
        ((39, 5, 4), 40, r"train-images.*expected 40 images of 5 x 4; got values of shape \(39, 5, 4\)"),
        ((40, 4, 5), 40, r"train-images.*expected 40 images of 5 x 4; got values of shape \(40, 4, 5\)"),
        ((800,), 40, r"train-images.*expected 40 images of 5 x 4; got values of shape \(800,\)"),
    ],
)
def test_images_and_labels_of_other_counts_or_sizes_are_refused(
    small: Small, idx_bytes: Any, tmp_path: Path, images: tuple[int, ...], labels: int, told: str
) -> None:
    changed = [idx_bytes(np.zeros(images, np.uint8)), idx_bytes(np.zeros(labels, np.uint8))]
    small.contents |= dict(zip(ARCHIVES[:2], changed, strict=True))
    small.put(tmp_path, unpacked=True)
    with pytest.raises(BrokenFileError, match=told):
        load(small.record(), tmp_path)


def test_a_label_beyond_the_classes_is_refused_by_path(small: Small, idx_bytes: Any, tmp_path: Path) -> None:
    small.contents[ARCHIVES[3]] = idx_bytes(np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], np.uint8))
    small.put(tmp_path, unpacked=True)
    with pytest.raises(BrokenFileError, match=r"t10k-labels-idx1-ubyte: expected labels in 0\.\.9; got label 10"):
        load(small.record(), tmp_path)


@pytest.fixture
def real_mnist() -> Path:
    return _where_it_lies("mnist")


@pytest.fixture(scope="module")
def real_cifar10() -> Path:
    return _where_it_lies("cifar10")


def _where_it_lies(name: str) -> Path:
    folder = locate(name)
    if folder is None:
        pytest.skip(f"{name} lies neither under $GLASSNET_DATA nor in the user's cache, and tests fetch nothing")
    return folder


def test_the_real_mnist_has_its_published_counts_and_statistics(real_mnist: Path) -> None:
    data = load_standard("mnist", download=False)
    together = [a + b for a, b in zip(data.train.class_counts(), data.validation.class_counts(), strict=True)]
    assert together == MNIST_TRAIN
    assert data.test.class_counts() == MNIST_TEST
    assert data.validation.class_counts() == [round(count * 0.1) for count in MNIST_TRAIN]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    published = torch.cat([data.train.inputs, data.validation.inputs]).float() / 255
    assert round(float(published.mean()), 4) == 0.1307
    assert round(float(published.std()), 4) == 0.3081


def test_the_real_mnist_reads_the_same_unpacked(real_mnist: Path, tmp_path: Path) -> None:
    for name in ARCHIVES:
        packed, plain = real_mnist / name, real_mnist / name.removesuffix(".gz")
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
        (tmp_path / plain.name).write_bytes(content)
    first, second = load_standard("mnist", tmp_path, download=False), load_standard("mnist", real_mnist, download=False)
    assert first.fingerprint() == second.fingerprint()


def test_the_real_cifar10_has_its_published_counts_and_statistics(real_cifar10: Path) -> None:
    data = load_standard("cifar10", download=False)
    assert data.train.class_counts() == [4500] * 10
    assert data.validation.class_counts() == [500] * 10
    assert data.test.class_counts() == [1000] * 10
    assert data.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    totals = [split.inputs.numpy().sum((0, 2, 3), dtype=np.int64) for split in (data.train, data.validation)]
    means = (totals[0] + totals[1]) / (50_000 * 32 * 32 * 255)
    assert [round(mean, 4) for mean in means.tolist()] == [0.4914, 0.4822, 0.4465]


def test_the_classes_of_cifar10_stand_in_the_order_of_its_own_list(real_cifar10: Path) -> None:
    archive, name = real_cifar10 / "cifar-10-python.tar.gz", "cifar-10-batches-py/batches.meta"
    if archive.exists():
        with tarfile.open(archive, "r|gz") as packed:
            meta = next(packed.extractfile(member).read() for member in packed if member.name == name)  # type: ignore[union-attr]
    else:
        meta = (real_cifar10 / name).read_bytes()
    assert md5(meta) == "5ff9c542aee3614f3951f8cda6e48888"
    positions = [meta.index(class_name.encode()) for class_name in STANDARD_SETS["cifar10"].class_names]
    assert positions == sorted(positions)
