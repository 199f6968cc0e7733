"""What a trained network says about images: logits, and the classes in words."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassnet._allocator import memory_kept
from glassnet._device import autocast
from glassnet._errors import UsageError
from glassnet._modes import evaluating, refuse_lazy
from glassnet._seed import seeded
from glassnet._user_code import in_line, words_of
from glassnet.data.images import SetAside
from glassnet.data.loader import batch_bounds
from glassnet.data.pixel_file import release_pages
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord
from glassnet.evaluation.inputs import GatheredInputs, InputArg, gather_inputs

MOST_VALUES = 2**22
"""Input values in one forward pass, such as 27 images of 3x224x224; inner layers hold some tens of times that."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says about one image."""

    source: str
    """The file's path, or the position of the image among those given."""
    class_name: str
    """The most probable class."""
    probability: float
    """Its softmax probability, 0..1. Of a perceptron, whose scores are no logits, it only ranks."""
    top: tuple[tuple[str, float], ...]
    """The most probable classes with their probabilities, best first."""


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """The answers for the images that could be read, in the order given, and those that were set aside."""

    rows: tuple[Prediction, ...]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader should know, such as categories that no training row has; a sentence each."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)


def predict_outputs(
    model: nn.Module,
    inputs: Tensor,
    record: InputRecord,
    *,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Tensor:
    """Return the model's outputs `(N, num_outputs)`, float32, for fitted `inputs` `(N, ...)`, on the model's device.

    `batch_size` inputs pass at a time, by default as many as `MOST_VALUES` allows and 512 at most. The model runs in
    evaluation mode without gradients and is left in the modes it was in. Images are laid out with their channels
    innermost, which convolutions on a CPU are up to twice as fast with, unless the model's code does not take that.
    """
    if batch_size is None:
        batch_size = max(1, min(512, MOST_VALUES // math.prod(record.input_shape)))
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    batches, forward = [], _ForwardPass(model)
    keeping = memory_kept() if len(inputs) > batch_size else nullcontext()  # one batch has none to leave memory to
    with keeping, evaluating(model), autocast(device, precision):
        for start, stop in batch_bounds(len(inputs), batch_size):
            batches.append(forward(record.normalise(inputs[start:stop].to(device))).float())
            release_pages(inputs)
    return torch.cat(batches) if batches else torch.zeros(0, len(record.class_names), device=inputs.device)


class _ForwardPass:
    """Calls a model with its images' channels innermost, or, where its code fails on that, outermost."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.is_channels_last = True

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.is_channels_last and inputs.ndim == 4:
            try:
                return self.model(inputs.to(memory_format=torch.channels_last))  # type: ignore[no-any-return]
            except Exception:  # such as `x.view(len(x), -1)` after a convolution; another error comes again below
                self.is_channels_last = False
        return self.model(inputs)  # type: ignore[no-any-return]


def takes_channels_last(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether the model's code takes images `(B, C, H, W)` with their channels innermost, tried on a copy.

    Code that flattens with `view` does not. Where a copy cannot be made, the answer is no.
    """
    try:
        trial = copy.deepcopy(model).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad(), seeded(0, "layout"):
            trial(inputs.to(memory_format=torch.channels_last))
    except Exception:  # the user's own code may raise anything; what fails in any layout is said where it is called
        return False
    return True


def num_outputs(model: nn.Module, record: InputRecord) -> int:
    """Return how many outputs the model gives for an input of the record's shape.

    Raises `UsageError` where the model does not take such an input or does not give one row of outputs.
    """
    refuse_lazy(model)
    like = next((parameter for parameter in model.parameters()), None)
    example = record.example() if like is None else record.example().to(like.device)
    shape = "x".join(str(size) for size in record.input_shape)
    try:
        with evaluating(model):
            outputs = model(record.normalise(example))
    except Exception as error:  # the user's own code may raise anything
        what = "images" if isinstance(record, Preprocessing) else "inputs"
        raise UsageError(
            f"The model does not take float32 {what} of {shape}: {words_of(error)}{in_line(error)}. "
            "Build it for the data: build_model(name, input_shape=...), channels or features first. On the command "
            "line, --size N resizes images."
        ) from None
    if not isinstance(outputs, Tensor):
        raise UsageError(f"A model gives one tensor of outputs (B, K); this one gave {type(outputs).__name__}.")
    if outputs.ndim != 2 or len(outputs) != 1:
        raise UsageError(f"A model gives a row of outputs (B, K); for one input this gave {tuple(outputs.shape)}.")
    return int(outputs.shape[1])


def predict_images(
    model: nn.Module,
    images: InputArg | Sequence[InputArg],
    record: InputRecord,
    *,
    device: torch.device,
    top_k: int = 5,
    to_logits: Callable[[Tensor], Tensor] = lambda outputs: outputs,
) -> Predictions:
    """Classify image files, Pillow images or `uint8` arrays, one or many; or numbers, for their networks.

    See `gather_inputs` for what may be given. `to_logits` makes one logit a class of the model's outputs. What cannot
    be read is set aside with the reason, and the others are answered.

    Raises `UsageError` for other input and for `top_k` below 1.
    """
    return predict_classes(
        model, gather_inputs(images, record), record, device=device, top_k=top_k, to_logits=to_logits
    )


def predict_classes(
    model: nn.Module,
    gathered: GatheredInputs,
    record: InputRecord,
    *,
    device: torch.device,
    top_k: int = 5,
    to_logits: Callable[[Tensor], Tensor] = lambda outputs: outputs,
    precision: str = "fp32",
) -> Predictions:
    """Classify the gathered inputs; arguments as `predict_images`. Raises `UsageError` for `top_k` below 1."""
    if not isinstance(top_k, int) or top_k < 1:
        raise UsageError(f"top_k must be a whole number of at least 1; got {top_k!r}.")
    if not gathered.sources:
        return Predictions((), gathered.set_aside, gathered.notes)
    logits = to_logits(predict_outputs(model, gathered.inputs.to(device), record, precision=precision))
    rows = describe_logits(logits, gathered.sources, record.class_names, top_k)
    return Predictions(rows, gathered.set_aside, gathered.notes)


def describe_logits(
    logits: Tensor, sources: Sequence[str], class_names: Sequence[str], top_k: int
) -> tuple[Prediction, ...]:
    """Return softmax probabilities of the `top_k` classes for each row of `logits` `(N, num_classes)`."""
    probabilities, classes = logits.softmax(1).topk(min(top_k, len(class_names)), dim=1)
    rows = []
    for source, row, indices in zip(sources, probabilities.tolist(), classes.tolist(), strict=True):
        top = tuple((class_names[index], probability) for index, probability in zip(indices, row, strict=True))
        rows.append(Prediction(source=source, class_name=top[0][0], probability=top[0][1], top=top))
    return tuple(rows)
