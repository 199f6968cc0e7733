"""WebDataset shards: tar archives in which the files of one name, up to its first dot, are one sample.

Source: the WebDataset format (A. Aizman, G. Maltby, T. Breuel: High Performance I/O For Large Scale Deep Learning,
2019). The image is found by its extension; the label is the content of `.cls` (a number or text), the `label` of a
`.json`, or, where no sample has such a file, the folder that the image lies in. No other member is read.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from glassnet._errors import UsageError, WorkError
from glassnet.data.checks import LARGEST_FILE_BYTES, ImageFacts, each_file, examine_image
from glassnet.data.content import Content, Loaded, Slice, Streamed, StreamMember
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.label_files import (
    LABEL_COLUMNS,
    LabelledFile,
    LabelledFiles,
    class_name,
    counted,
    listed,
    printable,
    shown,
)
from glassnet.data.labelled_images import (
    SYSTEM_NAMES,
    TEST_SHARE,
    LabelledDataset,
    check_shares,
    is_image_name,
    label_dataset,
)
from glassnet.data.splits import SPLIT_WORDS
from glassnet.data.tars import REMOTE, SUFFIXES, expanded, index_tar, sample_key, stream_tar, tar_name, tar_suffix

NAME_FILES = ("classes.txt", "classnames.txt")
"""Files beside the shards that name the classes, a line each, from number 0."""
LABEL_FILES = ("cls", "json")
LARGEST_LABEL_BYTES = 1 << 20
EXAMINING = "Examining images"

Label = int | str
Found = ImageFacts | UnreadableImageError


@dataclass(frozen=True)
class _Shard:
    name: str
    """From the folder of all shards."""
    place: str
    """A path, a web address or a `pipe:` command."""

    @property
    def is_indexed(self) -> bool:
        """True where members can be read in any order: a plain archive on disk."""
        return not self.place.startswith(REMOTE) and self.place.lower().endswith(SUFFIXES)


@dataclass(frozen=True)
class _Member:
    """An image in a shard, or the text of a label."""

    key: str
    extension: str
    name: str
    """For a reader."""
    content: Content | None = None
    facts: Found | None = None
    """What the pass through a stream found; of an archive on disk, images are examined later."""
    text: bytes | None = None


@dataclass
class _Sample:
    images: list[_Member] = field(default_factory=list)
    labels: dict[str, _Member] = field(default_factory=dict)


class ShardStream:
    """Shards that are passed through in order; see `content.Stream`."""

    def __init__(self, places: Sequence[str]) -> None:
        self.places = tuple(places)

    def members(self, part: int) -> Generator[StreamMember, None, None]:
        """Yield the files in one shard."""
        return stream_tar(self.places[part])


def are_shards(source: str) -> bool:
    """Return whether a source is shards: remote ones, a brace pattern, an archive, or a folder of archives."""
    if source.startswith(REMOTE):
        return True
    path = Path(source).expanduser()
    if path.is_dir():
        return bool(_shards_in(path)) and not _has_image_folders(path)
    return bool(tar_suffix(source)) and (path.exists() or expanded(source) != [source])


def absolute_source(source: str) -> str:
    """Return a source of shards as it can be found again from any folder."""
    return source if source.startswith(REMOTE) else os.path.abspath(Path(source).expanduser())


def load_shards(
    source: str, *, seed: int, validation_share: float = 0.1, test_share: float = TEST_SHARE, strict: bool = False
) -> LabelledDataset:
    """Load the shards that `source` names as a data set.

    Splits are told by the names of shards or of the folders they lie in (`train-000.tar`, `val/000.tar`), else cut as
    `label_dataset` does. A plain archive on disk is read where it lies. Others are streams: they are passed through
    once here, and once more for each split whenever a network needs another size of input; they are not stored.

    Raises `UsageError` where there are no shards or classes, and `WorkError` where none of them can be read.
    """
    check_shares(validation_share, test_share)
    source = absolute_source(source)
    folder, shards = _found(source)
    splits, set_aside, notes = _splits(shards)
    shards = list(splits)
    samples = _samples(shards, set_aside)
    if not samples and set_aside:
        raise _nothing_read(source, set_aside)
    names = _class_names(folder) if folder is not None else []
    files, facts, order = _labelled(samples, shards, splits, names, set_aside)
    if not files:
        raise _nothing_labelled(source, set_aside)
    where = "its file" if _has_label_files(samples) else "its folder"
    labelled = LabelledFiles(
        files=tuple(files),
        set_aside=tuple(set_aside),
        notes=(*notes, *_stream_notes(shards)),
        layout=f"{counted(len(shards), 'shard')} of samples, the label of each from {where}",
        class_order=order,
    )
    return label_dataset(
        labelled,
        source,
        folder or Path(),
        _name(source, folder, shards),
        seed=seed,
        validation_share=validation_share,
        test_share=test_share,
        strict=strict,
        facts=facts,
    )


def _samples(shards: Sequence[_Shard], set_aside: list[SetAside]) -> dict[tuple[int, str], _Sample]:
    """Return the samples of all shards by the position of the shard and their key."""
    stream = ShardStream([shard.place for shard in shards])
    samples: dict[tuple[int, str], _Sample] = defaultdict(_Sample)
    for part, shard in enumerate(shards):
        for member in _members(shard, part, stream, set_aside):
            sample = samples[part, member.key]
            if member.content is not None:
                sample.images.append(member)
            elif member.text is not None:
                sample.labels.setdefault(member.extension, member)
    return samples


def _has_label_files(samples: Mapping[tuple[int, str], _Sample]) -> bool:
    return any(sample.labels for sample in samples.values())


def _labelled(
    samples: Mapping[tuple[int, str], _Sample],
    shards: Sequence[_Shard],
    splits: Mapping[_Shard, str],
    names: Sequence[str],
    set_aside: list[SetAside],
) -> tuple[list[LabelledFile], list[Found | None], tuple[str, ...]]:
    """Return the images with their labels, what is known of each, and the order of the classes."""
    files: list[LabelledFile] = []
    facts: list[Found | None] = []
    labels: set[Label] = set()
    has_files = _has_label_files(samples)
    for (part, key), sample in samples.items():
        image, label = _image(sample), _label(key, sample, has_files, names)
        if isinstance(image, str) or isinstance(label, UnreadableImageError) or image.content is None:
            name = f"{shards[part].name}!{key}" if isinstance(image, str) else image.name
            set_aside.append(SetAside(printable(name), image if isinstance(image, str) else str(label)))
            continue
        labels.add(label)
        text = names[label] if names and isinstance(label, int) else class_name(str(label))
        split = splits[shards[part]] or ("" if has_files else _split_of_folder(key))
        files.append(LabelledFile(image.content, text, split))
        facts.append(image.facts)
    return files, facts, _order(labels, names)


def _shards_in(folder: Path) -> list[Path]:
    """Return the archives directly in a folder and in its sub-folders."""
    found: list[Path] = []
    for place in (folder, *sorted(path for path in _listed(folder) if path.is_dir())):
        found += sorted(path for path in _listed(place) if tar_suffix(path.name) and not path.is_dir())
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def _has_image_folders(folder: Path) -> bool:
    """Return whether an image lies in a folder below this one: then the archives are none of its business."""
    return any(is_image_name(name) for where, _, names in os.walk(folder) if Path(where) != folder for name in names)


def _found(source: str) -> tuple[Path | None, list[_Shard]]:
    """Return the folder of all shards (None where they are remote) and the shards."""
    if source.startswith(REMOTE):
        places = expanded(source)
        names = [tar_name(place) for place in places]
        common = posixpath.commonprefix([posixpath.dirname(name) + "/" for name in names]).rpartition("/")[0]
        return None, [
            _Shard(name.removeprefix(common).lstrip("/"), place) for name, place in zip(names, places, strict=True)
        ]
    path = Path(source)
    if path.is_dir():
        folder, paths = path, _shards_in(path)
    else:
        paths = [path] if os.path.lexists(path) else [Path(text) for text in expanded(source)]
        folder = Path(os.path.commonpath([path.parent for path in paths]))
    if not any(os.path.exists(path) for path in paths):
        raise UsageError(
            f"Expected shards at {source}; none of the {counted(len(paths), 'file')} that it names exists, such as "
            f"{paths[0]}. Check the path and the numbers in braces."
        )
    return folder, [_Shard(shown(path, folder), str(path)) for path in paths]


def _splits(shards: Sequence[_Shard]) -> tuple[dict[_Shard, str], list[SetAside], list[str]]:
    """Return the split of each shard that is used, empty text where its name does not say; and what to tell of it."""
    by_name = {shard: _split_of_name(shard.name) for shard in shards}
    named = {split for split in by_name.values() if split}
    if not named or (len(named) == 1 and "train" not in named):
        words = [f"All shards are called {named.pop()}: taken together, and split by seed."] if named else []
        return dict.fromkeys(shards, ""), [], words
    if "train" not in named:
        raise UsageError(
            f"Expected shards called train, or none named by split; got only {listed(sorted(named))}, such as "
            f"{shards[0].name}. Add the shards to train on."
        )
    beside = [shard for shard, split in by_name.items() if not split]
    used = {shard: split for shard, split in by_name.items() if split}
    return used, [SetAside(shard.name, "a shard beside the splits: not used") for shard in beside], []


def _split_of_name(name: str) -> str:
    """Return the split that a word in a shard's name says, the last part first; empty text where none does."""
    for part in reversed(PurePosixPath(name).parts):
        words = re.split(r"[^a-z]+", part.lower())
        if split := next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), ""):
            return split
    return ""


def _split_of_folder(key: str) -> str:
    above = PurePosixPath(key).parts[:-2]
    return next((SPLIT_WORDS[part.lower()] for part in above if part.lower() in SPLIT_WORDS), "")


def _members(shard: _Shard, part: int, stream: ShardStream, set_aside: list[SetAside]) -> Iterator[_Member]:
    """Yield the images and labels in a shard; what cannot be used is set aside."""
    if not shard.is_indexed:
        yield from _streamed(shard, part, stream, set_aside)
        return
    for item in index_tar(Path(shard.place)):
        if isinstance(item, SetAside):
            set_aside.append(SetAside(printable(item.source.replace(shard.place, shard.name, 1)), item.reason))
        elif _is_used(item.name):
            key, extension = sample_key(item.name)
            has_text = extension in LABEL_FILES and item.length <= LARGEST_LABEL_BYTES
            content, text = (item if _is_image(extension) else None), (_text(item) if has_text else None)
            yield _Member(key, extension, f"{shard.name}!{item.name}", content, text=text)


def _text(item: Slice) -> bytes:
    try:
        return item.read()
    except OSError:
        return b""


def _streamed(shard: _Shard, part: int, stream: ShardStream, set_aside: list[SetAside]) -> Iterator[_Member]:
    others: list[_Member] = []
    passed: list[tuple[int, str]] = []

    def images() -> Iterator[Loaded]:
        """Yield the images as they stream past; keep the labels."""
        try:
            with closing(stream.members(part)) as members:
                for position, member in enumerate(members):
                    key, extension = sample_key(member.name)
                    name, size = f"{shard.name}!{member.name}", member.size or 0
                    if not _is_used(member.name):
                        continue
                    if _is_image(extension) and size <= LARGEST_FILE_BYTES:
                        loaded = Loaded(name, member.read())
                        passed.append((position, member.name))
                        yield loaded
                        continue
                    has_text = extension in LABEL_FILES and size <= LARGEST_LABEL_BYTES
                    others.append(_Member(key, extension, name, text=member.read() if has_text else None))
        except OSError as error:
            set_aside.append(SetAside(printable(shard.name), f"the stream broke off: {error.strerror or error}"))

    facts = each_file(images(), examine_image, EXAMINING)
    for (position, name), found in zip(passed, facts, strict=True):
        key, extension = sample_key(name)
        digest = found.digest if isinstance(found, ImageFacts) else ""
        content = Streamed(stream, part, position, f"{shard.name}!{name}", digest)
        yield _Member(key, extension, content.name, content=content, facts=found)
    yield from others


def _is_used(name: str) -> bool:
    """Return whether a member counts: WebDataset's own (`__key__`), hidden files and what systems leave do not."""
    last = PurePosixPath(name).name
    is_own = last.startswith("__") and last.endswith("__")
    return not is_own and not last.startswith(".") and last.lower() not in SYSTEM_NAMES


def _is_image(extension: str) -> bool:
    return is_image_name(f"image.{extension}")


def _image(sample: _Sample) -> _Member | str:
    """Return the image of a sample, or why there is none to take; `seg.png` is an image beside `jpg`, not another."""
    plain = [image for image in sample.images if "." not in image.extension]
    candidates = plain if plain else sample.images
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        return "a sample without an image"
    names = ", ".join(image.extension for image in candidates)
    return f"a sample with {len(candidates)} images ({names}): names up to their first dot must differ"


def _label(key: str, sample: _Sample, has_files: bool, names: Sequence[str]) -> Label | UnreadableImageError:
    """Return the label of a sample, or why it has none."""
    if not has_files:
        folder = PurePosixPath(key).parent.name
        return class_name(folder) if folder else UnreadableImageError("no label: it has no .cls, no .json, no folder")
    if not sample.labels:
        return UnreadableImageError("a sample without a label (.cls or .json)")
    extension = next(extension for extension in LABEL_FILES if extension in sample.labels)
    label = _parsed(sample.labels[extension].text or b"", extension)
    if isinstance(label, int) and label < 0:
        return UnreadableImageError(f"no label: its number is {label}")
    if isinstance(label, int) and names and label >= len(names):
        return UnreadableImageError(f"label {label}, but {len(names)} classes are named, from 0")
    return label


def _parsed(content: bytes, extension: str) -> Label | UnreadableImageError:
    try:
        text = content.decode("utf-8-sig").strip()
        value = json.loads(text) if extension == "json" else text
    except (ValueError, RecursionError):
        return UnreadableImageError(f"its .{extension} is not {'JSON' if extension == 'json' else 'UTF-8 text'}")
    if isinstance(value, dict):
        value = next((value[name] for name in (*LABEL_COLUMNS, "cls") if name in value), None)
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        return UnreadableImageError(f"its .{extension} holds no label, a number or text")
    return value


def _class_names(folder: Path) -> list[str]:
    """Return the names that a file beside the shards gives to numbers; one that stands twice gets its number."""
    path = next((folder / name for name in NAME_FILES if (folder / name).is_file()), None)
    if path is None:
        return []
    try:
        names = [class_name(line.strip()) for line in path.read_text("utf-8-sig").strip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise WorkError(f"Expected names of classes in {path}; it cannot be read: {error}. Save it as UTF-8.") from None
    counts = Counter(names)
    return [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)]


def _order(labels: Collection[Label], names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes by number, where labels are numbers; empty for text, which is sorted."""
    if not all(isinstance(label, int) for label in labels):
        return ()
    return tuple(names) or tuple(str(number) for number in sorted(labels, key=int))


def _stream_notes(shards: Sequence[_Shard]) -> Iterator[str]:
    streamed = [shard.name for shard in shards if not shard.is_indexed]
    if streamed:
        yield (
            f"{counted(len(streamed), 'shard')} cannot be read in any order ({listed(streamed, 2)}): streamed once to "
            "look at them, and once a split for each size of input. The images are not stored, only their pixels at "
            "that size."
        )


def _name(source: str, folder: Path | None, shards: Sequence[_Shard]) -> str:
    """Return a name for the data set: of its folder, or of a single shard."""
    if len(shards) > 1 and folder is not None and folder.name:
        return folder.name
    last = PurePosixPath(shards[0].name).name
    return last.removesuffix(tar_suffix(last)).rstrip("-_0123456789") or "shards"


def _nothing_read(source: str, set_aside: Sequence[SetAside]) -> WorkError:
    first = set_aside[0]
    return WorkError(
        f"Expected tar archives with images at {source}; none can be read. The first is {first.source}: "
        f"{first.reason}. Check the address and the archives."
    )


def _nothing_labelled(source: str, set_aside: Sequence[SetAside]) -> UsageError:
    got = f"{len(set_aside):,} that cannot be used, such as {set_aside[0].source}: {set_aside[0].reason}"
    return UsageError(
        f"Expected samples of an image and a label (.cls, .json or a folder) in {source}; "
        f"got {got if set_aside else 'none'}. Put a .cls with the label beside each image: 0001.jpg, 0001.cls."
    )
