"""Images and examples on their way into a model that is looked at: a batch at a time, prepared as in training."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from glassnet._allocator import memory_kept
from glassnet._errors import GlassnetError, UsageError, WorkError
from glassnet._modes import evaluating, refuse_lazy
from glassnet._types import PathArg, Shape, by
from glassnet._user_code import in_line, words_of
from glassnet.data.examples import ExampleSet
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.loader import batch_bounds, to_device
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord
from glassnet.inspection.units import LayerError

MOST_VALUES = 2**22
"""Input values in one forward pass, such as 27 images of 3x224x224; inner layers hold some tens of times that."""
LARGEST_BATCH = 512


@runtime_checkable
class Trained(Protocol):
    """A model with the record of its preprocessing: a run."""

    @property
    def model(self) -> nn.Module:
        """The network."""

    @property
    def preprocessing(self) -> InputRecord:
        """What is done to its inputs."""


Subject = nn.Module | Trained
"""What can be looked at: any module, or a run, which knows how to prepare images."""
ImageArg = Tensor | np.ndarray | Image.Image | PathArg


@dataclass(frozen=True, eq=False)
class Fitted:
    """Images that a record has fitted and not yet normalised, `(N, *input_shape)`: they are not fitted again."""

    inputs: Tensor


Images = ImageArg | Sequence[ImageArg] | ExampleSet | Fitted
"""One image or many. As the model takes them: floating numbers `(C, H, W)` or `(N, C, H, W)`. Where the preprocessing
is known also `uint8` pixels of any size, Pillow images and files."""
Examples = ExampleSet | Fitted | Tensor | Iterable[Any]
"""Many images with their labels: a split of a data set; inputs `(N, ...)` as the model takes them; or batches of
`(inputs, labels)`, such as a `DataLoader` gives."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Some examples on the model's device."""

    inputs: Tensor
    """As the model takes them, `(B, ...)`."""
    given: Tensor
    """The same before they were normalised: `uint8` pixels where there are such."""
    labels: Tensor | None
    positions: Tensor
    """Where each stands among all that were given, `int64` `(B,)` on the CPU."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Examples that are read once, a batch at a time."""

    batches: Iterator[Batch]
    class_names: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    """Files that cannot be read and are not among the examples."""


def opened(subject: Subject, preprocessing: InputRecord | None = None) -> tuple[nn.Module, InputRecord | None]:
    """Return the model of a module or run and the record of its preprocessing, where there is one.

    Raises `UsageError` for what is neither, and for a lazy model that has never run.
    """
    model = subject if isinstance(subject, nn.Module) else getattr(subject, "model", None)
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module) or a run; got {type(subject).__name__}.")
    refuse_lazy(model)
    if preprocessing is None and not isinstance(subject, nn.Module):
        preprocessing = getattr(subject, "preprocessing", None)
    return model, preprocessing


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters lie; the CPU where it has none."""
    return next((tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())), torch.device("cpu"))


def gather(images: Images, model: nn.Module, record: InputRecord | None) -> Tensor | ExampleSet | Fitted:
    """Return images as one tensor `(N, ...)`, pixels fitted to the model's input size; a set of examples as it is.

    Raises `UsageError` for what needs a record and has none, and for images of different shapes.
    """
    if isinstance(images, ExampleSet | Fitted):
        return images
    if isinstance(images, Tensor | np.ndarray):
        tensor = torch.as_tensor(images)
        num_axes = _input_axes(model, record)
        is_batch = tensor.ndim == num_axes + 1 if num_axes is not None else tensor.ndim in (2, 4, 5)
        tensor = tensor if is_batch else tensor[None]
        is_pixels = tensor.dtype == torch.uint8 and isinstance(record, Preprocessing)
        return Fitted(record.fit_inputs(tensor.cpu())) if is_pixels and record is not None else tensor
    if not isinstance(images, str | os.PathLike | Image.Image | Iterable):
        raise UsageError(f"Expected images: a tensor, files, or a list of them; got {type(images).__name__}.")
    parts = [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)
    tensors = [_one(part, record) for part in parts]
    if not tensors or len({(tensor.shape, tensor.dtype) for tensor in tensors}) != 1:
        shapes = ", ".join(sorted({by(tuple(tensor.shape)) for tensor in tensors})) or "none"
        raise UsageError(f"Expected one or more images of one shape and kind; got {shapes}.")
    stacked = torch.stack(tensors)
    return Fitted(stacked) if stacked.dtype == torch.uint8 and record is not None else stacked


INPUT_AXES = {
    (nn.Conv1d, nn.ConvTranspose1d): 2,
    (nn.Conv2d, nn.ConvTranspose2d): 3,
    (nn.Conv3d, nn.ConvTranspose3d): 4,
}
"""Axes of one input of a network whose first convolution is of this kind."""


def _input_axes(model: nn.Module, record: InputRecord | None) -> int | None:
    """Return how many axes one input has, as far as it is known: by the record, by the builder, by the convolutions."""
    shape = record.input_shape if record is not None else getattr(getattr(model, "spec", None), "input_shape", None)
    if shape is not None:
        return len(shape)
    found = (axes for module in model.modules() for kinds, axes in INPUT_AXES.items() if isinstance(module, kinds))
    return next(found, None)


def _one(image: ImageArg, record: InputRecord | None) -> Tensor:
    if isinstance(image, Tensor | np.ndarray):
        tensor = torch.as_tensor(image)
        is_pixels = tensor.dtype == torch.uint8 and isinstance(record, Preprocessing)
        return record.fit_inputs(tensor[None].cpu())[0] if is_pixels and record is not None else tensor
    if record is None:
        what = "a picture" if isinstance(image, Image.Image) else f"'{image}'"
        raise UsageError(
            f"Expected images as the model takes them (floating numbers, channels first); got {what}. How to prepare "
            "it is known to a run: pass the run in place of the model, or preprocessing=run.preprocessing."
        )
    try:
        fitted: Tensor = record.fit_image(image)
    except UnreadableImageError as error:
        raise WorkError(f"{image}: {error}") from None
    return fitted


def stream(examples: Examples, model: nn.Module, record: InputRecord | None, batch_size: int | None = None) -> Stream:
    """Return examples in batches on the model's device, each read once and prepared as `record` says.

    Raises `UsageError` for pixels without a record, and for what is no examples.
    """
    found = _stream(examples, model, record, batch_size)
    return replace(found, batches=_keeping_memory(found.batches))


def _keeping_memory(batches: Iterator[Batch]) -> Iterator[Batch]:
    with memory_kept():
        yield from batches


def _stream(examples: Examples, model: nn.Module, record: InputRecord | None, batch_size: int | None) -> Stream:
    device = device_of(model)
    if isinstance(examples, ExampleSet) and record is not None:
        return _of_examples(examples, record, device, batch_size)
    if isinstance(examples, Fitted) and record is not None:
        pixels, size = examples.inputs, batch_size or _batch_size(record.input_shape)
        fitted = (_normalised(pixels[a:b], None, a, record, device) for a, b in batch_bounds(len(pixels), size))
        return Stream(fitted, record.class_names)
    names = record.class_names if record is not None else getattr(examples, "class_names", ())
    return Stream(_prepared(_parts(examples, batch_size), device, record, model), tuple(names))


def _of_examples(examples: ExampleSet, record: InputRecord, device: torch.device, batch_size: int | None) -> Stream:
    """Return a split in batches, fitted at once where it has room: see `to_device`."""
    fitted = to_device(examples, record, device)
    size = batch_size or _batch_size(record.input_shape)
    starts = (start for start, _ in batch_bounds(len(fitted), size))
    found = (
        _normalised(inputs, labels, start, record, device, fitted.positions)
        for (inputs, labels), start in zip(fitted.batches(size), starts, strict=True)
    )
    return Stream(found, record.class_names, fitted.set_aside)


def _normalised(
    given: Tensor,
    labels: Tensor | None,
    start: int,
    record: InputRecord,
    device: torch.device,
    positions: Tensor | None = None,
) -> Batch:
    """Return fitted inputs `(B, ...)` as a batch; `positions` are those of all examples, where some were set aside."""
    places = torch.arange(start, start + len(given))
    return Batch(
        inputs=record.normalise(given.to(device)),
        given=given,
        labels=labels,
        positions=places if positions is None else positions[places],
    )


def _parts(examples: Examples, batch_size: int | None) -> Iterable[tuple[Tensor, Tensor | None]]:
    """Return inputs and labels as they were given, in batches."""
    if isinstance(examples, ExampleSet):
        if not isinstance(examples.inputs, Tensor):
            raise _unprepared("image files")
        return _cut(examples.inputs, examples.labels, batch_size)
    if isinstance(examples, Tensor | Fitted):
        return _cut(examples if isinstance(examples, Tensor) else examples.inputs, None, batch_size)
    if isinstance(examples, Iterable):
        return (_pair(part) for part in examples)
    raise _no_examples(examples)


def _no_examples(examples: object) -> UsageError:
    remedy = " Wrap it: torch.utils.data.DataLoader(examples, 64)." if hasattr(examples, "__getitem__") else ""
    return UsageError(
        f"Expected a split of a data set, such as data.test, images, or batches; got {type(examples).__name__}.{remedy}"
    )


def _cut(inputs: Tensor, labels: Tensor | None, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    size = batch_size or _batch_size(tuple(inputs.shape[1:]))
    for start, stop in batch_bounds(len(inputs), size):
        yield inputs[start:stop], None if labels is None else labels[start:stop]


def _pair(part: Any) -> tuple[Tensor, Tensor | None]:
    """Return the inputs and labels of one batch that somebody else's loader gave."""
    if isinstance(part, Tensor):
        return part, None
    if isinstance(part, list | tuple) and len(part) >= 2 and all(isinstance(value, Tensor) for value in part[:2]):
        return part[0], part[1]
    raise UsageError(f"A batch is a tensor, or a pair of inputs and labels; got {type(part).__name__}.")


def _prepared(
    parts: Iterable[tuple[Tensor, Tensor | None]], device: torch.device, record: InputRecord | None, model: nn.Module
) -> Iterator[Batch]:
    start = 0
    for inputs, labels in parts:
        given, prepared = inputs, inputs.to(device)
        if inputs.dtype == torch.uint8:
            if record is None:
                raise _unprepared("uint8 pixels")
            given = record.fit_inputs(inputs.cpu())
            prepared = record.normalise(given.to(device))
        elif record is not None and tuple(inputs.shape[1:]) != tuple(record.input_shape):
            raise UsageError(_wrong_shape(tuple(inputs.shape[1:]), record, model, ""))
        on_device = None if labels is None else labels.to(device)
        positions = torch.arange(start, start + len(inputs))
        yield Batch(inputs=prepared, given=given, labels=on_device, positions=positions)
        start += len(inputs)


def _batch_size(input_shape: Shape) -> int:
    return max(1, min(LARGEST_BATCH, MOST_VALUES // max(math.prod(input_shape), 1)))


def _unprepared(what: str) -> UsageError:
    return UsageError(
        f"Expected images as the model takes them (floating numbers, normalised as in training); got {what}. How to "
        "prepare them is known to a run: pass the run in place of the model, or preprocessing=run.preprocessing."
    )


def said_commonest(class_names: Sequence[str], whole: str) -> str:
    """Return how many of some examples have the commonest class, or each of those that share that place.

    `"; 4 of them are 'cat'"` where `whole` is `them`; nothing where a class has no name.
    """
    if not class_names or not all(class_names):
        return ""
    if len(class_names) == 1:
        return f"; it is '{class_names[0]}'"
    counts = {name: class_names.count(name) for name in dict.fromkeys(class_names)}
    most = max(counts.values())
    if most == 1:
        return "; no two are of one class"
    names = [f"'{name}'" for name, count in counts.items() if count == most]
    return f"; {most} of {whole} are {names[0]}" if len(names) == 1 else f"; {most} each are {' and '.join(names)}"


@contextmanager
def explaining(shape: Shape, record: InputRecord | None, model: nn.Module) -> Iterator[None]:
    """Run the model in evaluation mode without gradients; an error it raises says what input of `shape` lacked."""
    with evaluating(model):
        try:
            yield
        except LayerError:
            raise
        except GlassnetError as error:
            if record is not None and shape == tuple(record.input_shape):
                raise
            raise UsageError(_wrong_shape(shape, record, model, str(error))) from None
        except Exception as error:  # the user's own code may raise anything
            raise UsageError(_wrong_shape(shape, record, model, f"{words_of(error)}{in_line(error)}")) from None


def _wrong_shape(shape: Shape, record: InputRecord | None, model: nn.Module, reason: str) -> str:
    because = f": {reason.rstrip('.')}" if reason else ""
    text = f"The model does not take inputs of {by(shape)}{because}. "
    if record is not None and shape == tuple(record.input_shape):
        return text + _other_than_size(model)
    if isinstance(record, Preprocessing):
        colour = "grey" if record.mode == "L" else "RGB"
        return text + (
            f"It takes {by(record.input_shape)}: its preprocessing makes images {colour}, fits them to "
            f"{by(record.size)} ({record.fit}) and normalises them. Give files, Pillow images or uint8 pixels, and "
            "that is done; or prepare them by run.preprocessing.normalise(run.preprocessing.fit_inputs(pixels))."
        )
    if record is not None:
        return text + f"It takes {by(tuple(record.input_shape))}, numbers as the run was trained on."
    built_for = getattr(getattr(model, "spec", None), "input_shape", None)
    takes = f"It was built for {by(tuple(built_for))}. " if built_for else ""
    return text + (
        f"{takes}Give images as they were in training: channels first, resized, normalised. A run knows how: pass it "
        "in place of the model."
    )


def _other_than_size(model: nn.Module) -> str:
    """Return what to do about a model that does not take inputs of the size it was said to take."""
    found = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    if found != torch.float32:
        return (
            f"Expected parameters in float32, as inputs are; got {str(found).removeprefix('torch.')}. Look at a copy: "
            "copy.deepcopy(model).float(), in a file of your own .float() at the end of __init__."
        )
    return (
        "The size is the one it was said to take, so the reason lies in its code. It is called with a batch as one "
        "tensor in float32: wrap a model that takes more than one."
    )
