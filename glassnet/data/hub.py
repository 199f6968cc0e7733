"""Image data sets of the Hugging Face hub, and folders that `datasets` saved; by the optional library `datasets`.

Images are taken as they are stored and decoded by glassnet, as those of folders are. From release 4 on, `datasets` runs
no code that comes with a data set.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from glassnet._errors import UsageError, WorkError, unknown_name
from glassnet.data.checks import ImageFacts, each_file, examine_image
from glassnet.data.content import Content, Entry, Loaded, Streamed, StreamMember
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.label_files import (
    LabelledFile,
    LabelledFiles,
    class_name,
    listed,
    printable,
)
from glassnet.data.labelled_images import TEST_SHARE, LabelledDataset, check_shares, label_dataset
from glassnet.data.splits import SPLIT_WORDS

PREFIX = "hf:"
GRAMMAR = "hf:OWNER/NAME, with /CONFIG, @REVISION and ?streaming behind it as needed, or hf:./FOLDER"
IMAGE_COLUMNS = ("image", "img", "picture", "photo")
LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "fine_label")
LABEL_TYPES = (
    "string",
    "large_string",
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """What `hf:` names: a data set of the hub, or a folder."""

    name: str
    config: str | None = None
    revision: str | None = None
    is_streamed: bool = False
    folder: Path | None = None
    """A folder that `save_to_disk` wrote; then the others do not count."""


class _Columns(NamedTuple):
    image: str
    label: str
    names: tuple[str, ...] | None
    """The names of the classes, where the data set gives numbers names."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell(Content):
    """An image in a table of `datasets`, which maps its file into memory."""

    table: Any
    """With the image column alone, undecoded."""
    row: int
    column: str
    split: str

    def __str__(self) -> str:
        return f"{self.split}[{self.row}]"

    def read(self) -> bytes:
        """Return the bytes of the image."""
        return _content(self.table[self.row][self.column])


class HubStream:
    """The splits of a data set that the hub streams, passed through in order; see `content.Stream`."""

    def __init__(self, tables: Mapping[str, Any], columns: _Columns) -> None:
        self.tables = {split: _undecoded(table, columns.image) for split, table in tables.items()}
        self.columns = columns

    def members(self, part: int) -> Generator[StreamMember, None, None]:
        """Yield the images of the split number `part`, with their labels."""
        split = list(self.tables)[part]
        rows = iter(self.tables[split])
        position = 0
        while (row := _next_row(rows)) is not None:
            read = partial(_content, row[self.columns.image])
            yield StreamMember(f"{split}[{position}]", None, read, row[self.columns.label])
            position += 1


def parse_address(source: str) -> Address:
    """Read a source that begins with `hf:`. Raises `UsageError` with the grammar."""
    text = source.removeprefix(PREFIX)
    if text.startswith((".", "/", "~")):
        return Address(name=text, folder=Path(text).expanduser().absolute())
    found = re.fullmatch(
        r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[^/@?]+))?(?:@(?P<revision>[^@?]+))?(?P<streaming>\?streaming)?",
        text,
    )
    if found is None or ".." in text:
        raise UsageError(f"Expected {GRAMMAR}; got '{source}'. Write for example hf:ylecun/mnist.")
    return Address(
        name=found["name"],
        config=found["config"],
        revision=found["revision"],
        is_streamed=found["streaming"] is not None,
    )


def is_saved(folder: Path) -> bool:
    """Return whether `datasets` wrote the folder: `save_to_disk` of a data set or of its splits."""
    is_one = (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    return is_one or (folder / "dataset_dict.json").is_file()


def load_hub(
    address: Address,
    *,
    target: str | None,
    seed: int,
    validation_share: float = 0.1,
    test_share: float = TEST_SHARE,
    strict: bool = False,
) -> LabelledDataset:
    """Load the data set at an address; `target` names the column of labels, where there are several.

    Splits are told by their names; `label_dataset` cuts those that are missing. A streamed data set is passed through
    once here, and once a split whenever a network needs another size of input; it is not stored.

    Raises `UsageError` where `datasets` is not installed or the columns are not an image and a label, `WorkError`
    where the data cannot be had.
    """
    check_shares(validation_share, test_share)
    library = _library()
    root = str(address.folder) if address.folder else PREFIX + address.name
    tables, set_aside, notes = _splits(_tables(library, address), root)
    columns, more = _columns(library, next(iter(tables.values())), root, target)
    read = _streamed if address.is_streamed else _stored
    files, facts = read(tables, columns, set_aside)
    labels = {file.label for file in files}
    is_numbered = columns.names is None and all(re.fullmatch(r"-?\d+", label) for label in labels)
    labelled = LabelledFiles(
        files=tuple(files),
        set_aside=tuple(set_aside),
        notes=(*notes, *more),
        layout=f"a data set of `datasets`: images in '{columns.image}', labels in '{columns.label}'",
        class_order=columns.names or (tuple(sorted(labels, key=int)) if is_numbered else ()),
    )
    return label_dataset(
        labelled,
        root,
        Path(),
        address.folder.name if address.folder else address.name,
        seed=seed,
        validation_share=validation_share,
        test_share=test_share,
        strict=strict,
        facts=facts,
    )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"Expected the library `datasets`, which reads this source; it cannot be imported ({error}). "
            "Run: pip install 'glassnet[hf]'"
        ) from None
    return datasets


def _tables(library: Any, address: Address) -> Mapping[str, Any]:
    """Return the tables by split; one that stands alone is `train`."""
    try:
        if address.folder is not None:
            found = library.load_from_disk(str(address.folder))
        else:
            _refuse_folder(address.name)
            found = library.load_dataset(
                address.name, name=address.config, revision=address.revision, streaming=address.is_streamed
            )
    except UsageError:
        raise
    except Exception as error:  # network, hub and formats: there is no common ancestor
        place = address.folder or f"'{address.name}' of the Hugging Face hub"
        reason = " ".join(str(error).split()).rstrip(".")
        remedy = (
            "Save it again with save_to_disk."
            if address.folder
            else "Check the name and the network; a private one needs `huggingface-cli login`."
        )
        raise WorkError(f"Expected the data set {place}; got {type(error).__name__}: {reason}. {remedy}") from error
    return found if isinstance(found, dict) else {"train": found}


def _refuse_folder(name: str) -> None:
    if Path(name).exists():
        raise UsageError(
            f"Expected a data set of the hub; there is also a file or folder '{name}' here, which `datasets` would "
            f"take instead. Write hf:./{name} for a folder saved by it, ./{name} for another, or work elsewhere."
        )


def _splits(tables: Mapping[str, Any], root: str) -> tuple[dict[str, Any], list[SetAside], list[str]]:
    """Return the tables by our names of the splits, with those beside them named."""
    by_split: dict[str, list[str]] = {}
    for name in tables:
        by_split.setdefault(SPLIT_WORDS.get(name.lower(), ""), []).append(name)
    others = by_split.pop("", [])
    if len(tables) == 1:
        only = next(iter(tables))
        notes = [] if only == "train" else [f"The one split, '{only}', is taken for all, and split by seed."]
        return {"": tables[only]}, [], notes
    if "train" not in by_split or max(map(len, by_split.values())) > 1:
        raise UsageError(
            f"Expected one split train, and at most one validation and one test, in {root}; got {listed(tables)}. "
            "Save those wanted with save_to_disk, under these names."
        )
    beside = [SetAside(printable(name), "a split beside train, validation and test: not used") for name in others]
    return {split: tables[names[0]] for split, names in by_split.items()}, beside, []


def _columns(library: Any, table: Any, root: str, target: str | None) -> tuple[_Columns, list[str]]:
    features = table.features
    if features is None:
        raise UsageError(f"Expected {root} to say what its columns are; it does not. Load it without ?streaming.")
    images = [name for name, feature in features.items() if isinstance(feature, library.Image)]
    if not images:
        raise UsageError(
            f"Expected a column of images in {root}; got {_described(features)}. Write a table of numbers to a CSV, "
            "with `datasets.load_dataset(...)['train'].to_csv('table.csv')`, and load that."
        )
    image = next((name for name in IMAGE_COLUMNS if name in images), images[0])
    label = _label_column(library, features, root, target)
    notes = [f"Of several columns of images, '{image}' is used: {listed(images)}."] if len(images) > 1 else []
    feature = features[label]
    names = tuple(map(class_name, feature.names)) if isinstance(feature, library.ClassLabel) else None
    return _Columns(image, label, names), notes


def _label_column(library: Any, features: Mapping[str, Any], root: str, target: str | None) -> str:
    classes = [name for name, feature in features.items() if isinstance(feature, library.ClassLabel)]
    values = [
        name
        for name, feature in features.items()
        if isinstance(feature, library.Value) and feature.dtype in LABEL_TYPES
    ]
    if target is not None:
        if target in (*classes, *values):
            return target
        if target in features:
            raise UsageError(
                f"Expected a column of classes, text or whole numbers; got '{target}' of {_described(features)}. "
                f"Choose among {listed([*classes, *values]) or 'none: there is no such column'}."
            )
        raise unknown_name("column", target, features, f"It was named as the target in {root}.")
    likely = classes or [name for name in values if name.lower() in LABEL_COLUMNS]
    if len(likely) == 1:
        return likely[0]
    got = f"several, {listed(likely)}" if likely else f"none among {_described(features)}"
    raise UsageError(f"Expected one column of labels in {root}; got {got}. Choose with --target COLUMN (target=...).")


def _described(features: Mapping[str, Any]) -> str:
    kinds = {name: getattr(feature, "dtype", None) or type(feature).__name__ for name, feature in features.items()}
    return "the columns " + ", ".join(f"'{printable(name)}' ({kind})" for name, kind in kinds.items())


def _undecoded(table: Any, column: str) -> Any:
    import datasets

    return table.cast_column(column, datasets.Image(decode=False))


def _content(value: Any) -> bytes:
    """Return the bytes of an undecoded image: its own, or those of the file that it names."""
    if not isinstance(value, dict) or (value.get("bytes") is None and not value.get("path")):
        raise UnreadableImageError("no image in this row")
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    import fsspec

    with fsspec.open(value["path"], "rb") as stream:
        content: bytes = stream.read()
    return content


def _named(value: object, columns: _Columns) -> str | UnreadableImageError:
    """Return the class of a row, or why it has none."""
    if value is None or value == "" or (columns.names is not None and value == -1):
        return UnreadableImageError("no label")
    if columns.names is None:
        return class_name(str(value))
    if isinstance(value, int) and 0 <= value < len(columns.names):
        return columns.names[value]
    return UnreadableImageError(f"label {value}, but {len(columns.names)} classes are named")


def _stored(
    tables: Mapping[str, Any], columns: _Columns, set_aside: list[SetAside]
) -> tuple[list[LabelledFile], list[ImageFacts | UnreadableImageError | None]]:
    files: list[LabelledFile] = []
    for split, table in tables.items():
        labels: Sequence[object] = table.select_columns([columns.label]).with_format(None)[:][columns.label]
        images = _undecoded(table.select_columns([columns.image]).with_format(None), columns.image)
        entries = (Cell(images, row, columns.image, split or "train") for row in range(len(labels)))
        _sort(entries, labels, split, columns, files, set_aside)
    return files, [None] * len(files)


def _streamed(
    tables: Mapping[str, Any], columns: _Columns, set_aside: list[SetAside]
) -> tuple[list[LabelledFile], list[ImageFacts | UnreadableImageError | None]]:
    files: list[LabelledFile] = []
    facts: list[ImageFacts | UnreadableImageError | None] = []
    stream = HubStream({split or "train": table for split, table in tables.items()}, columns)
    for part, split in enumerate(tables):
        labels: list[object] = []
        names: list[str] = []
        found = each_file(_passing(stream, part, names, labels), examine_image, "Examining images")
        entries = [
            Streamed(stream, part, position, name, fact.digest if isinstance(fact, ImageFacts) else "")
            for position, (name, fact) in enumerate(zip(names, found, strict=True))
        ]
        kept = _sort(entries, labels, split, columns, files, set_aside)
        facts += [found[position] for position in kept]
    return files, facts


def _passing(stream: HubStream, part: int, names: list[str], labels: list[object]) -> Iterator[Loaded]:
    """Yield the images of a split as they stream past, and keep their names and labels."""
    try:
        with closing(stream.members(part)) as members:
            for member in members:
                names.append(member.name)
                labels.append(member.label)
                try:
                    content = member.read()
                except UnreadableImageError:
                    content = b""
                yield Loaded(member.name, content)
    except OSError as error:
        raise WorkError(f"Expected to stream the data set; got {error}. Check the network and run it again.") from error


def _next_row(rows: Iterator[Any]) -> Any:
    """Return the next row of a stream, None at its end; whatever network or format make of it is an `OSError`."""
    try:
        return next(rows, None)
    except Exception as error:
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error


def _sort(
    entries: Iterator[Entry] | Sequence[Entry],
    labels: Sequence[object],
    split: str,
    columns: _Columns,
    files: list[LabelledFile],
    set_aside: list[SetAside],
) -> list[int]:
    """Put each entry with its label to the files, or aside; return the positions of those that are used."""
    kept: list[int] = []
    for position, (entry, value) in enumerate(zip(entries, labels, strict=True)):
        label = _named(value, columns)
        if isinstance(label, UnreadableImageError):
            set_aside.append(SetAside(str(entry), str(label)))
            continue
        files.append(LabelledFile(entry, label, split))
        kept.append(position)
    return kept
