"""The standard data sets by name: what they are, where their files lie, and loading them in three splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from glassnet._errors import UsageError, WorkError, unknown_name
from glassnet._types import PathArg, Shape
from glassnet.data.cifar import Batch, check_cifar, read_cifar
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.fetch import DataFile, broken_file, by_hand, data_folders, fetch, writable_folder
from glassnet.data.idx import read_idx
from glassnet.data.splits import stratified_cut


@dataclass(frozen=True, kw_only=True)
class StandardSet:
    """What is known of a standard data set before it is loaded."""

    name: str
    """The name for `load_standard`."""
    title: str
    description: str
    input_shape: Shape
    """Shape of one image, `(C, H, W)`."""
    class_names: tuple[str, ...]
    num_train: int
    """Number of training examples as published, from which `load_standard` cuts the validation split."""
    num_test: int
    framing: Framing
    files: tuple[DataFile, ...]
    """For idx sets: training images, training labels, test images, test labels. Empty: comes with scikit-learn."""
    folder: str
    """Its folder under the folder of data sets."""
    torchvision_folder: str
    """Where torchvision keeps the same files, under the folder of data sets."""
    source: str
    licence: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def _idx_files(base: str, *md5s: str, is_of_archive: bool = False) -> tuple[DataFile, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return tuple(
        DataFile(
            name=f"{name}.gz",
            url=f"{base}/{name}.gz",
            content_md5=None if is_of_archive else md5,
            archive_md5=md5 if is_of_archive else None,
            unpacked=None if is_of_archive else name,
        )
        for name, md5 in zip(names, md5s, strict=True)
    )


DIGITS = tuple("0123456789")
CLOTHING = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

STANDARD_SETS: dict[str, StandardSet] = {
    "digits": StandardSet(
        name="digits",
        title="Digits",
        description="Handwritten digits of 13 people, the small set that comes with scikit-learn.",
        input_shape=(1, 8, 8),
        class_names=DIGITS,
        num_train=1438,
        num_test=359,
        framing=Framing("stretch", margin=1 / 8),
        files=(),
        folder="",
        torchvision_folder="",
        source="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998, the test part.",
        licence="CC BY 4.0",
    ),
    "mnist": StandardSet(
        name="mnist",
        title="MNIST",
        description="Handwritten digits, centred by mass; the writers of the test split wrote no training digit.",
        input_shape=(1, 28, 28),
        class_names=DIGITS,
        num_train=60_000,
        num_test=10_000,
        framing=Framing("stretch", margin=1 / 16),
        files=_idx_files(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        folder="mnist",
        torchvision_folder="MNIST/raw",
        source="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document recognition, "
        "Proceedings of the IEEE 86(11), 1998.",
        licence="CC BY-SA 3.0",
    ),
    "fashion-mnist": StandardSet(
        name="fashion-mnist",
        title="Fashion-MNIST",
        description="Articles of clothing in the sizes and the format of MNIST; harder than digits.",
        input_shape=(1, 28, 28),
        class_names=CLOTHING,
        num_train=60_000,
        num_test=10_000,
        framing=Framing("stretch", margin=1 / 16),
        files=_idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
            is_of_archive=True,
        ),
        folder="fashion-mnist",
        torchvision_folder="FashionMNIST/raw",
        source="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a novel image dataset for benchmarking machine "
        "learning algorithms, arXiv:1708.07747, 2017.",
        licence="MIT",
    ),
    "cifar10": StandardSet(
        name="cifar10",
        title="CIFAR-10",
        description="Small colour photographs of animals and vehicles.",
        input_shape=(3, 32, 32),
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        num_train=50_000,
        num_test=10_000,
        framing=Framing("stretch", margin=0.0),
        files=(
            DataFile(
                name="cifar-10-python.tar.gz",
                url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                member_md5={
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    "test_batch": "40351d587109b95175f43aff81a1287e",
                },
                unpacked="cifar-10-batches-py/",
            ),
        ),
        folder="cifar-10",
        torchvision_folder="",
        source="A. Krizhevsky: Learning multiple layers of features from tiny images, technical report, 2009.",
        licence="none stated; its author asks for the citation",
    ),
}
"""The standard data sets by name."""


def locate(name: str, root: PathArg | None = None) -> Path | None:
    """Return the folder in which the files of the standard set `name` lie, or None where one of them is missing.

    Looks where `load_standard` looks, and fetches nothing. None for "digits" too, which comes with scikit-learn.

    Raises `UsageError` for an unknown name, or a `root` that is no folder.
    """
    data_set = _standard_set(name)
    places = _places(data_set, data_folders(root))
    paths = [file.find(places) for file in data_set.files]
    found = [path for path in paths if path is not None]
    return found[0].parent if found and len(found) == len(paths) else None


def load_standard(
    source: str,
    root: PathArg | None = None,
    *,
    seed: int = 0,
    validation_share: float = 0.1,
    download: bool = True,
) -> Dataset:
    """Load the standard data set `source`: "digits", "mnist", "fashion-mnist" or "cifar10".

    Inputs are `uint8` `(N, C, H, W)`, labels `int64` `(N,)`. The test split is the published one, whatever the
    arguments. The validation split is `validation_share` of each class of the published training examples, cut by
    `seed`. Digits has no published test split: its test split is a fixed fifth of each class, the same for every
    `seed`. As the 13 people who wrote it stand in all three splits, its test accuracy is optimistic.

    Files are looked for under `root` alone where it is given, else under `$GLASSNET_DATA` and the user's cache: in
    the set's own folder (`mnist`, `fashion-mnist`, `cifar-10`), where torchvision keeps them, and directly. MNIST
    and CIFAR-10 may also lie unpacked. What is missing is fetched, unless `download` is false. Every file is
    compared with its published digest each time it is read: the decoded content of MNIST and CIFAR-10; for
    Fashion-MNIST the archives, as only their digests were published.

    Raises `UsageError` for an unknown name, a share outside [0, 1), or a `root` that is no folder, and `WorkError`
    for a file that is missing and cannot be fetched, or is not as published.
    """
    return load_set(_standard_set(source), root, seed=seed, validation_share=validation_share, download=download)


def load_set(
    data_set: StandardSet, root: PathArg | None, *, seed: int, validation_share: float, download: bool
) -> Dataset:
    """Load the set that a record describes; arguments and errors as `load_standard`."""
    if not 0 <= validation_share < 1:
        raise UsageError(f"validation_share must be at least 0 and below 1; got {validation_share}. Try 0.1.")
    folders = data_folders(root)
    published, test = _published(data_set, folders, download) if data_set.files else _digits(data_set)
    kept, cut = stratified_cut(published.labels, validation_share, seed, "validation")
    return Dataset(
        name=data_set.name,
        train=published[kept],
        validation=published[cut],
        test=test,
        seed=seed,
        framing=data_set.framing,
        validation_share=validation_share,
        source=data_set.name,
        root=None if root is None else str(root),
    )


def _standard_set(name: str) -> StandardSet:
    if name not in STANDARD_SETS:
        raise unknown_name("data set", name, STANDARD_SETS)
    return STANDARD_SETS[name]


def _places(data_set: StandardSet, folders: Sequence[Path]) -> list[Path]:
    """Return the folders in which a file of the set may lie, in the order of search."""
    return [base / part for base in folders for part in (data_set.folder, data_set.torchvision_folder, "")]


def _digits(data_set: StandardSet) -> tuple[ExampleSet, ExampleSet]:
    """Return the training and the test examples of Digits; its pixels, 0..16, become 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    examples = _examples(Batch(images[:, None], digits.target.astype(np.int64)), data_set)
    train, test = stratified_cut(examples.labels, 0.2, 0, "digits test")
    return examples[train], examples[test]


def _published(data_set: StandardSet, folders: Sequence[Path], download: bool) -> tuple[ExampleSet, ExampleSet]:
    """Return the published training and test examples of a set that lies in files; fetches what is missing."""
    places = _places(data_set, folders)
    target = writable_folder([folder / data_set.folder for folder in folders])
    missing = [file for file in data_set.files if file.find(places) is None]
    if missing:
        _supply(data_set, missing, target, download)
    paths = [file.find(places) or target / file.name for file in data_set.files]
    if data_set.files[0].member_md5:
        train, test = read_cifar(paths[0], data_set.files[0].member_md5)
    else:
        train = _read_idx_pair(data_set, data_set.files[:2], paths[:2], data_set.num_train)
        test = _read_idx_pair(data_set, data_set.files[2:], paths[2:], data_set.num_test)
    return _examples(train, data_set), _examples(test, data_set)


def _supply(data_set: StandardSet, missing: Sequence[DataFile], target: Path, download: bool) -> None:
    """Fetch the `missing` files into the folder `target`, or say what to put where."""
    remedy = by_hand([file.url for file in missing], target)
    if not download:
        names = ", ".join(file.name for file in missing)
        raise WorkError(f"{data_set.title}: expected {names}; got no such file, and download is off. {remedy}")
    for file in missing:
        what = f"{data_set.title}, {file.name}"
        fetch(file.url, target / file.name, partial(_check, file), what=what, remedy=remedy)


def _check(file: DataFile, path: Path) -> None:
    """Raise `BrokenFileError` unless `path` has the content that was published as `file`."""
    if file.member_md5:
        check_cifar(path, file.member_md5)
    else:
        read_idx(path, file.content_md5, file.archive_md5)


def _read_idx_pair(data_set: StandardSet, files: Sequence[DataFile], paths: Sequence[Path], count: int) -> Batch:
    """Return `count` images and their labels from an idx file of each."""
    images, labels = (
        read_idx(path, file.content_md5, file.archive_md5) for file, path in zip(files, paths, strict=True)
    )
    height, width = data_set.input_shape[1:]
    if images.shape != (count, height, width):
        raise broken_file(paths[0], f"{count} images of {height} x {width}", f"values of shape {images.shape}")
    if labels.shape != (count,):
        raise broken_file(
            paths[1], f"{count} labels, one for each image in {paths[0].name}", f"values of shape {labels.shape}"
        )
    if labels.max(initial=0) >= data_set.num_classes:
        raise broken_file(paths[1], f"labels in 0..{data_set.num_classes - 1}", f"label {labels.max()}")
    return Batch(images[:, None], labels.astype(np.int64))


def _examples(batch: Batch, data_set: StandardSet) -> ExampleSet:
    return ExampleSet(torch.from_numpy(batch.images), torch.from_numpy(batch.labels), data_set.class_names)
