"""What is wrong with image files, and with the examples of a data set.

Files: each is decoded once when a folder is loaded (`examine_image`). JPEG is decoded to an eighth of its size, which
reads all of its data, so that a truncated file shows, and saves the transforms.

Examples (`check_dataset`): the same content in two splits or under two labels, images that look alike, blank images,
classes of very different size; in numbers, values that are not finite and columns that never change.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from glassnet.data.content import Content, Entry, Slice, in_order
from glassnet.data.decoding import open_reduced
from glassnet.data.examples import Dataset
from glassnet.data.image_files import ImageFiles, content_digest
from glassnet.data.images import UnreadableImageError, exif_orientation, open_image, pillow_warnings
from glassnet.data.label_files import counted, listed, printable, shown
from glassnet.data.splits import SPLITS

LARGEST_FILE_BYTES = 2**30
SMALL_FILE_BYTES = 2**20
"""Files above this length are not read whole before it is known that they are images."""
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
STILL_FORMATS = frozenset({"MPO", "PSD"})
"""Formats whose further frames are previews or layers of the one image."""
ANIMATED_FORMATS = frozenset({"GIF", "PNG", "WEBP", "AVIF", "FLI"})
"""Formats whose further frames are later moments; those of others, such as TIFF, are pages."""
TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""

HASH_SIZE = (8, 9)
"""Height and width of the grey image whose 8x8 differences between neighbours in a row make the hash of 64 bits."""
MOST_HASH_BITS = 4
"""Images look alike only where at most so many bits of their hashes differ,"""
LEAST_CORRELATION = 0.99
"""and where their grey images of 16x16 correlate at least so well; simple drawings share hashes by chance."""
PICTURE_SIZE = 16
ROWS_AT_ONCE, PAIRS_AT_ONCE = 256, 1 << 14
NOTED_IMBALANCE, WARNED_IMBALANCE = 3, 10
"""How many times the smallest class the largest must be for a note, and for a warning."""
SEVERITIES = ("error", "warning", "note")
KINDS = (
    "leakage",
    "conflicting labels",
    "unreadable",
    "not finite",
    "near leakage",
    "blank",
    "imbalance",
    "constant columns",
    "duplicates",
    "near duplicates",
)
"""What can be found, in the order in which it is reported within a severity."""
MOST_SHOWN = 5

EXAMINED_AT_ONCE = 512
"""Images of which the bytes may lie in memory at a time, where they come from a stream."""

Result = TypeVar("Result")
Source = TypeVar("Source", bound=Entry)
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What examining an image file found."""

    size: tuple[int, int]
    """Height and width in pixels, upright."""
    mode: str
    """Pillow's mode as the file stores it."""
    is_grey: bool
    """True where the file can hold nothing but grey."""
    has_more_pages: bool
    """True for a file of several pages, of which the first is used."""
    digest: str
    """`content_digest` of the file."""


def examine_image(path: Entry) -> ImageFacts:
    """Read an image once, decode it, and return what it is.

    Raises `UnreadableImageError` with the reason for anything that cannot be used.
    """
    try:
        if isinstance(path, Slice) and path.length > LARGEST_FILE_BYTES:
            raise too_large()
        content = path.read() if isinstance(path, Content) else _whole_file(path)
        image = Image.open(io.BytesIO(content))
    except UnreadableImageError:
        raise
    except Exception:
        open_image(path, "RGB")  # knows the reason, and raises it
        raise UnreadableImageError("the file changed while it was read") from None
    with image:
        mode, width, height = image.mode, image.width, image.height
        image.draft("L", (max(1, width // 8), max(1, height // 8)))
        open_image(image, image.mode if image.mode == "RGB" else "L")
        has_more = _has_more_frames(image)
        if has_more and image.format in ANIMATED_FORMATS:
            raise UnreadableImageError("expected a still image, got an animation; save the frame that is meant")
        is_turned = exif_orientation(image) in TURNED
        return ImageFacts(
            size=(width, height) if is_turned else (height, width),
            mode=mode,
            is_grey=mode in GREY_MODES or (mode in ("P", "PA") and _has_grey_palette(image)),
            has_more_pages=has_more,
            digest=content_digest(content),
        )


def _whole_file(path: Path) -> bytes:
    """Return a file's bytes; of a large one only if it is an image."""
    with path.open("rb") as stream:
        length = os.fstat(stream.fileno()).st_size
        if length > SMALL_FILE_BYTES:
            Image.open(stream).close()
            if length > LARGEST_FILE_BYTES:
                raise too_large()
    return path.read_bytes()


def too_large() -> UnreadableImageError:
    """Return the error for an image that is not read because of its length."""
    return UnreadableImageError(f"larger than {LARGEST_FILE_BYTES // 2**20:,} MiB")


def _has_grey_palette(image: Image.Image) -> bool:
    colours = image.getpalette() or []
    return colours[0::3] == colours[1::3] == colours[2::3]


def _has_more_frames(image: Image.Image) -> bool:
    with contextlib.suppress(Exception):  # the first frame is read; a damaged second one does not matter
        return image.format not in STILL_FORMATS and bool(getattr(image, "is_animated", False))
    return False


def each_file(
    paths: Iterable[Source], work: Callable[[Source], Result], what: str, total: int | None = None
) -> list[Result | UnreadableImageError]:
    """Return `work(path)` for each path, in their order, or why the file cannot be read; in parallel threads.

    Pillow decodes outside Python's lock. Leaving by an interrupt cancels what has not begun. A progress bar titled
    `what` stands on stderr where it is a terminal; `total` is how many paths there are, if that is known.
    """

    def guarded(path: Source) -> Result | UnreadableImageError:
        try:
            return work(path)
        except UnreadableImageError as error:
            return error
        except OSError as error:
            return UnreadableImageError(f"the file cannot be reached ({error.strerror or error})")

    results, left = [], iter(paths)
    Image.init()  # else Pillow loads its plugins at the first need, in several threads at once
    with pillow_warnings(), _progress(what, total) as advance, ThreadPoolExecutor() as pool:
        while some := list(islice(left, EXAMINED_AT_ONCE)):
            for result in pool.map(guarded, some):
                results.append(result)
                advance()
    return results


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing that is wrong with a data set."""

    kind: str
    """One of `KINDS`."""
    severity: str
    """`error`: figures would be wrong; `warning`: look at it; `note`: good to know."""
    text: str
    groups: tuple[tuple[str, ...], ...] = ()
    """The files or examples concerned; what belongs together, such as copies, in one group."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files or examples of all groups; an example in memory is called `train[12]`."""
        return tuple(name for group in self.groups for name in group)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check_dataset` found, the worst first."""

    num_examples: int
    findings: tuple[Finding, ...]

    def lines(self) -> list[str]:
        """Return the report as lines for a terminal."""
        if not self.findings:
            return [f"{self.num_examples:,} examples checked: nothing found"]
        lines = [f"{self.num_examples:,} examples checked"]
        for finding in self.findings:
            lines.append(f"{finding.severity:<7}  {finding.kind}: {finding.text}")
            for group in finding.groups[:MOST_SHOWN]:
                more = f" and {len(group) - MOST_SHOWN:,} more" if len(group) > MOST_SHOWN else ""
                lines.append(f"{'':<7}    {' = '.join(group[:MOST_SHOWN])}{more}")
            if len(finding.groups) > MOST_SHOWN:
                lines.append(f"{'':<7}    and {len(finding.groups) - MOST_SHOWN:,} more")
        return lines

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        return asdict(self)


class _Entry(NamedTuple):
    """What is known of an example without looking at its values."""

    name: str
    split: str
    label: str
    """Name of its class; empty text for regression."""
    digest: str


def check_dataset(dataset: Dataset) -> CheckReport:
    """Look for what makes figures wrong or a network worse than it need be, in images and in numbers.

    Image files are decoded again, reduced. Copies are found by content digest; look-alikes by a difference hash of
    64 bits (N. Krawetz: Kind of like that, 2013), confirmed by the correlation of grey images of 16x16.
    """
    folder = _common_folder(dataset)
    entries = [entry for split in SPLITS for entry in _entries(dataset, split, folder)]
    is_image = dataset.train.is_image
    found = _copies(entries, is_image)
    found += _picture_findings(dataset, entries) if is_image else _number_findings(dataset, entries)
    found += _imbalance(dataset)
    found.sort(key=lambda finding: (SEVERITIES.index(finding.severity), KINDS.index(finding.kind)))
    return CheckReport(num_examples=len(entries), findings=tuple(found))


def _common_folder(dataset: Dataset) -> Path:
    """Return the innermost folder in which all image files lie; the working folder where there are none."""
    inputs = [getattr(dataset, split).inputs for split in SPLITS]
    paths = [path for files in inputs if isinstance(files, ImageFiles) for path in files.paths]
    found = {path.folder if isinstance(path, Content) else path.absolute().parent for path in paths}
    folders = [folder for folder in found if folder is not None]
    return Path(os.path.commonpath(folders)) if folders else Path()


def _entries(dataset: Dataset, split: str, folder: Path) -> list[_Entry]:
    examples = getattr(dataset, split)
    inputs: Tensor | ImageFiles = examples.inputs
    if isinstance(inputs, ImageFiles):
        names, digests = [shown(path, folder) for path in inputs.paths], list(inputs.digests)
    else:
        names = [f"{split}[{index}]" for index in range(len(inputs))]
        digests = [content_digest(row.tobytes()) for row in inputs.numpy()]
    classes = examples.class_names
    labels = [""] * len(names) if examples.is_regression else [classes[label] for label in examples.labels.tolist()]
    return [_Entry(name, split, label, digest) for name, label, digest in zip(names, labels, digests, strict=True)]


def _copies(entries: Sequence[_Entry], is_image: bool) -> list[Finding]:
    """Find equal content; among rows of a few numbers, it is no more than a note."""
    by_digest: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_digest[entry.digest].append(entry)
    copies = [group for group in by_digest.values() if len(group) > 1]
    across = [group for group in copies if _differ(group, "split")]
    contrary = [group for group in copies if _differ(group, "label")]
    within = [group for group in copies if not _differ(group, "split") and not _differ(group, "label")]
    what = "Content occurs" if is_image else "Values occur"
    found = [
        ("leakage", "error", across, f"{what} in more than one split: figures there come out too good. Keep each once"),
        ("conflicting labels", "error", contrary, f"{what} under more than one label. Correct or remove them"),
        ("duplicates", "warning", within, f"{what} more than once in a split. One of each is enough"),
    ]
    return [
        Finding(
            kind=kind,
            severity=severity if is_image else "note",
            text=f"{text} ({_count(groups)}).",
            groups=_names(groups, with_label=kind == "conflicting labels"),
        )
        for kind, severity, groups, text in found
        if groups
    ]


def _differ(group: Sequence[_Entry], field: str) -> bool:
    return len({getattr(entry, field) for entry in group}) > 1


def _count(groups: Sequence[Sequence[_Entry]]) -> str:
    return f"{counted(sum(map(len, groups)), 'example')} in {counted(len(groups), 'group')}"


def _names(groups: Sequence[Sequence[_Entry]], with_label: bool = False) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(f"{entry.name} ('{entry.label}')" if with_label else entry.name for entry in group) for group in groups
    )


def _imbalance(dataset: Dataset) -> list[Finding]:
    """State how many times the smallest class the largest is, among the training examples."""
    if dataset.train.is_regression:
        return []
    counts = dict(zip(dataset.class_names, dataset.train.class_counts(), strict=True))
    empty = [name for name, count in counts.items() if not count]
    found = []
    if empty:
        text = f"{counted(len(empty), 'class', 'classes')} without an example to train on: {listed(empty)}."
        found.append(Finding(kind="imbalance", severity="warning", text=text))
    present = {name: count for name, count in counts.items() if count}
    if not present:
        return found
    largest, smallest = max(present, key=counts.__getitem__), min(present, key=counts.__getitem__)
    ratio = counts[largest] / counts[smallest]
    if ratio >= NOTED_IMBALANCE:
        text = (
            f"{ratio:.3g} to 1 between the largest class to train on, '{printable(largest)}' "
            f"({counts[largest]:,}), and the smallest, '{printable(smallest)}' ({counts[smallest]:,})."
        )
        severity = "warning" if ratio >= WARNED_IMBALANCE else "note"
        found.append(Finding(kind="imbalance", severity=severity, text=text))
    return found


def _number_findings(dataset: Dataset, entries: Sequence[_Entry]) -> list[Finding]:
    """Find values that are not finite in any split, and features or channels that never change in training."""
    found = []
    features = dataset.framing.encoding.feature_names if dataset.framing.encoding else ()
    values = [getattr(dataset, split).inputs for split in SPLITS]
    is_broken = torch.cat([~split.isfinite().flatten(1).all(1) for split in values])
    if bool(is_broken.any()):
        columns = sorted({int(column) for split in values for column in (~split.isfinite()).nonzero()[:, 1].unique()})
        names = [entry.name for entry, broken in zip(entries, is_broken.tolist(), strict=True) if broken]
        where = _columns(columns, features)
        text = f"nan or infinity in {counted(len(names), 'example')}, {where}. Fill or drop them."
        found.append(Finding(kind="not finite", severity="error", text=text, groups=tuple((name,) for name in names)))
    train = values[0].transpose(0, 1).flatten(1)
    if len(values[0]) > 1 and (constant := (train == train[:, :1]).all(1).nonzero().flatten().tolist()):
        text = f"{_columns(constant, features)}: the same value in every training example, which tells nothing."
        found.append(Finding(kind="constant columns", severity="warning", text=text))
    return found


def _columns(numbers: Sequence[int], features: Sequence[str]) -> str:
    """Name columns by `features`, or by their number where they have no names."""
    more = f" and {len(numbers) - MOST_SHOWN:,} more" if len(numbers) > MOST_SHOWN else ""
    shown = ", ".join(f"'{features[number]}'" if features else str(number) for number in numbers[:MOST_SHOWN])
    return f"column{'s' if len(numbers) > 1 else ''} {shown}{more}"


class _Picture(NamedTuple):
    """An image made small, to be compared with others."""

    grey: Floats
    """`(16, 16)`."""
    hashed: Floats
    """`(8, 9)`."""
    is_blank: bool


def _picture_findings(dataset: Dataset, entries: Sequence[_Entry]) -> list[Finding]:
    """Find blank images, look-alikes, and files that were readable when the folder was loaded and no longer are."""
    pictures = [picture for split in SPLITS for picture in _pictures(getattr(dataset, split).inputs)]
    pairs = list(zip(entries, pictures, strict=True))
    broken = [(entry.name, str(error)) for entry, error in pairs if isinstance(error, UnreadableImageError)]
    blank = [entry.name for entry, picture in pairs if isinstance(picture, _Picture) and picture.is_blank]
    found = []
    if broken:
        text = f"{counted(len(broken), 'file')} can no longer be read, the first: {broken[0][1]}."
        names = tuple((name,) for name, _ in broken)
        found.append(Finding(kind="unreadable", severity="error", text=text, groups=names))
    found += _look_alikes(entries, {entry: p for entry, p in pairs if isinstance(p, _Picture) and not p.is_blank})
    if blank:
        text = (
            f"{counted(len(blank), 'image')} of one colour all over. Remove them, if they are not meant to show that."
        )
        found.append(Finding(kind="blank", severity="warning", text=text, groups=tuple((name,) for name in blank)))
    return found


def _look_alikes(entries: Sequence[_Entry], pictures: dict[_Entry, _Picture]) -> list[Finding]:
    copies: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        copies[entry.digest].append(entry)
    single = list({entry.digest: picture for entry, picture in pictures.items()}.items())
    if len(single) < 2:
        return []
    numbers = near_groups(np.stack([p.hashed for _, p in single]), np.stack([p.grey for _, p in single]))
    groups = [[entry for number in group for entry in copies[single[number][0]]] for group in numbers]
    across = [group for group in groups if _differ(group, "split")]
    within = [group for group in groups if not _differ(group, "split")]
    found = (
        ("near leakage", "warning", across, "Images look alike in more than one split: figures may come out too good"),
        ("near duplicates", "note", within, "Images look alike within a split"),
    )
    return [
        Finding(kind=kind, severity=severity, text=f"{text} ({_count(alike)}).", groups=_names(alike))
        for kind, severity, alike, text in found
        if alike
    ]


def _pictures(inputs: Tensor | ImageFiles) -> Sequence[_Picture | UnreadableImageError]:
    if isinstance(inputs, ImageFiles):
        return each_file(in_order(inputs.paths), _picture_of_file, "Comparing images", len(inputs))
    pictures: list[_Picture | UnreadableImageError] = []
    for block in inputs.split(1024):
        grey = block.float().mean(1, keepdim=True)
        sizes = ((PICTURE_SIZE, PICTURE_SIZE), HASH_SIZE)
        small, hashed = (torch.nn.functional.adaptive_avg_pool2d(grey, size)[:, 0].numpy() for size in sizes)
        flat = block.flatten(2)
        is_blank = (flat.amax(2) == flat.amin(2)).all(1).tolist()
        pictures += map(_Picture, small, hashed.round(), is_blank)
    return pictures


def _picture_of_file(path: Entry) -> _Picture:
    image, box, _ = open_reduced(path, "L", 0, lambda width, height: min(width, height) / PICTURE_SIZE)
    shapes = ((PICTURE_SIZE, PICTURE_SIZE), HASH_SIZE)
    grey, hashed = (
        np.asarray(image.resize(shape[::-1], Image.Resampling.BOX, box=box), dtype=np.float32) for shape in shapes
    )
    darkest, brightest = image.getextrema()
    return _Picture(grey, hashed, darkest == brightest and _is_blank(path))


def _is_blank(path: Entry) -> bool:
    """Return whether all pixels of an image are equal, at its full size and in colour."""
    return all(low == high for low, high in open_image(path, "RGB").getextrema())  # type: ignore[misc]


def near_groups(hashed: Floats, grey: Floats) -> list[list[int]]:
    """Return groups of positions of images that look alike, from `hashed` `(N, 8, 9)` and `grey` `(N, 16, 16)`.

    A bit of the hash says that a pixel is darker than its right neighbour. Two images are a pair if at most
    `MOST_HASH_BITS` bits differ and the grey images correlate by at least `LEAST_CORRELATION`; a group is what pairs
    connect. Hashes that differ in at most k bits agree in one of k + 1 parts of them, so that only images that
    share such a part are compared.
    """
    signs = np.where(hashed[:, :, :-1] < hashed[:, :, 1:], 1, -1).reshape(len(hashed), -1).astype(np.float32)
    centred = grey.reshape(len(grey), -1) - grey.mean((1, 2))[:, None]
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    directions = np.divide(centred, norms, out=np.zeros_like(centred), where=norms >= 1)  # else flat
    parents = np.arange(len(hashed))
    for part in np.array_split(signs, MOST_HASH_BITS + 1, axis=1):
        for members in _equal_rows(part):
            for start in range(0, len(members), ROWS_AT_ONCE):
                rows, others = members[start : start + ROWS_AT_ONCE], members[start:]
                if len(others) > ROWS_AT_ONCE and len(set(_roots(parents)[others].tolist())) == 1:
                    break  # frames of a film: all are joined already
                differing = (signs.shape[1] - signs[rows] @ signs[others].T) / 2
                first, second = np.nonzero(np.triu(differing <= MOST_HASH_BITS, 1))
                _connect(parents, rows[first], others[second], directions)
    return [members.tolist() for members in _equal_rows(_roots(parents)[:, None])]


def _equal_rows(values: NDArray[np.generic]) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of rows of `(N, K)` that are equal, ascending, where there are at least two."""
    _, numbers, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(numbers.reshape(-1), kind="stable")
    yield from (members for members in np.split(order, np.cumsum(counts)[:-1]) if len(members) > 1)


def _connect(
    parents: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], directions: Floats
) -> None:
    """Join the trees of each pair `(first, second)` whose `directions` correlate; drop pairs joined meanwhile."""
    while len(first):
        if len(first) > len(parents) // 8:
            roots = _roots(parents)
            is_open = roots[first] != roots[second]
            first, second = first[is_open], second[is_open]
        now_first, now_second = first[:PAIRS_AT_ONCE], second[:PAIRS_AT_ONCE]
        correlation = np.einsum("ij,ij->i", directions[now_first], directions[now_second])
        for pair in np.nonzero(correlation >= LEAST_CORRELATION)[0]:
            low, high = sorted((_root(parents, now_first[pair]), _root(parents, now_second[pair])))
            parents[high] = low
        first, second = first[PAIRS_AT_ONCE:], second[PAIRS_AT_ONCE:]


def _root(parents: NDArray[np.int64], position: int) -> int:
    while parents[position] != position:
        parents[position] = position = parents[parents[position]]
    return position


def _roots(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the root of each position."""
    roots = parents
    while not np.array_equal(roots, roots[roots]):
        roots = roots[roots]
    return roots
