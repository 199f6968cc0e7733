"""Ablation: what a network still gets right with a channel, or a whole layer, silenced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Batch, Examples, Subject, explaining, opened, stream
from glassnet.inspection.capture import layer_of
from glassnet.inspection.prefix import Suffix

VALUES = ("zero", "mean")


@dataclass(frozen=True, kw_only=True)
class Silenced:
    """The network without one channel, or without any of the layer's."""

    channel: int | None
    """None for the whole layer."""
    accuracy: float
    """Share of the examples that are still named right, 0..1."""
    drop: float
    """What the accuracy loses against the whole network; negative where it gains."""
    num_changed: int
    """Examples that are named otherwise than by the whole network."""
    worst_class: str
    """The class that loses most, by its name or number; empty where none loses."""
    worst_class_drop: float
    """What that class' share of right answers loses."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What `ablate` returns; `str()` says what was found."""

    layer: str
    kind: str
    """The layer's class."""
    value: str
    """What a silenced channel gives: `zero`, or its `mean` over the batch."""
    num_examples: int
    num_channels: int
    """Of the layer."""
    accuracy: float
    """Of the whole network."""
    rows: tuple[Silenced, ...]
    """One for each channel asked for, in order."""
    whole_layer: Silenced
    is_prefix_reused: bool
    """True where the part of the network before the layer was computed once for all rows."""
    set_aside: tuple[SetAside, ...] = ()

    def most_important(self, count: int = 5) -> tuple[Silenced, ...]:
        """Return the channels that the accuracy loses most by, the worst loss first."""
        return tuple(sorted(self.rows, key=lambda row: -row.drop)[:count])

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        free = sum(row.num_changed == 0 for row in self.rows)
        text = f"Without {self.layer} {self.whole_layer.accuracy:.2%} of {self.num_examples:,} are right, "
        text += f"with it {self.accuracy:.2%}"
        if self.rows:
            worst = self.most_important(1)[0]
            text += f"; of {len(self.rows)} channels the one that matters most, {worst.channel}, costs "
            text += f"{100 * worst.drop:.2f} points"
            text += f" (most in class '{worst.worst_class}')" if worst.worst_class else ""
            text += f", and without {free} of them no answer changes" if free else ""
        return text + "."


def ablate(
    subject: Subject,
    examples: Examples,
    layer: str,
    channels: Sequence[int] | None = None,
    *,
    value: str = "zero",
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> Ablation:
    """Measure the accuracy with each of `channels` of a layer silenced, one at a time, and with all of them.

    `subject` is any module that gives a row of class scores, or a run, whose preprocessing then applies. `examples`
    have labels: a split of a data set, or batches of inputs and labels. `channels=None` takes each channel of the
    layer, `[]` none but the whole layer. A silenced channel gives `zero`, or its `mean` over the batch, which takes
    away what it says and leaves the size of what follows alone. Silencing a convolution's channel is removing its
    filter and its bias. What lies before the layer is computed once where the model allows it: see
    `glassnet.inspection.prefix`.

    The model is left as it was. Raises `UsageError` for an unknown layer or channel, for examples without labels, and
    for a model that does not tell classes apart.
    """
    model, record = opened(subject, preprocessing)
    if value not in VALUES:
        raise unknown_name("value of a silenced channel", str(value), VALUES)
    module = layer_of(model, layer)
    source = stream(examples, model, record, batch_size)
    suffix, tally = Suffix(model, module), _Tally()
    to_logits: Callable[[Tensor], Tensor] = getattr(getattr(subject, "objective", None), "logits", lambda out: out)
    wanted: tuple[int, ...] = ()
    num_channels = 0
    for batch in source.batches:
        labels = _labels(batch)
        with explaining(tuple(batch.inputs.shape[1:]), record, model):
            answer = suffix.start(batch.inputs)
        if not num_channels:
            num_channels = _num_channels(suffix.output_shape, layer, len(labels))
            wanted = _wanted(channels, num_channels, layer)
        with explaining(tuple(batch.inputs.shape[1:]), record, model):
            whole = _predicted(to_logits, answer, len(labels))
            tally.add("network", whole, whole, labels)
            for channel in wanted:
                changed = suffix.run(lambda output, channel=channel: _silenced(output, channel, value))  # type: ignore[misc]
                tally.add(channel, _predicted(to_logits, changed, len(labels)), whole, labels)
            changed = suffix.run(lambda output: _silenced(output, None, value))
            tally.add(None, _predicted(to_logits, changed, len(labels)), whole, labels)
    if not tally.num_examples:
        raise UsageError("There is nothing to judge by: expected at least one example, got none.")
    return Ablation(
        layer=layer,
        kind=type(module).__name__,
        value=value,
        num_examples=tally.num_examples,
        num_channels=num_channels,
        accuracy=tally.accuracy("network"),
        rows=tuple(tally.row(channel, source.class_names) for channel in wanted),
        whole_layer=tally.row(None, source.class_names),
        is_prefix_reused=suffix.is_replayed,
        set_aside=source.set_aside,
    )


def _silenced(output: Tensor, channel: int | None, value: str) -> Tensor:
    """Return a layer's output `(B, C, ...)` with one channel silenced, or with all."""
    quiet = output.clone()
    part = quiet if channel is None else quiet.narrow(1, channel, 1)
    if value == "zero":
        part.zero_()
    else:
        over = [axis for axis in range(part.ndim) if axis != 1]
        part.copy_(part.mean(over, keepdim=True).expand_as(part).clone())
    return quiet


def _labels(batch: Batch) -> Tensor:
    if batch.labels is None or batch.labels.is_floating_point() or batch.labels.ndim != 1:
        got = "none" if batch.labels is None else f"{batch.labels.dtype} {tuple(batch.labels.shape)}"
        raise UsageError(f"Accuracy needs a class number for each example; got {got}. Give a split with classes.")
    return batch.labels


def _num_channels(shape: Shape, layer: str, num_examples: int) -> int:
    if len(shape) < 2 or shape[0] != num_examples:
        raise UsageError(
            f"Expected layer '{layer}' to give one tensor with a row for each of {num_examples} examples; got "
            f"{shape or 'no tensor'}. Choose another layer: `glassnet summary` lists them."
        )
    return shape[1]


def _wanted(channels: Sequence[int] | None, num_channels: int, layer: str) -> tuple[int, ...]:
    if channels is None:
        return tuple(range(num_channels))
    for channel in channels:
        if not isinstance(channel, int) or not 0 <= channel < num_channels:
            raise UsageError(f"Layer '{layer}' has the channels 0 to {num_channels - 1}; got {channel!r}.")
    return tuple(channels)


def _predicted(to_logits: Callable[[Tensor], Tensor], outputs: object, num_examples: int) -> Tensor:
    """Return the class `(B,)` of each row of class scores; one score alone tells two classes apart by its sign."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != num_examples:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(f"Accuracy needs a model that gives class scores ({num_examples}, classes); got {got}.")
    logits = to_logits(outputs)
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


class _Tally:
    """Right answers, by what was silenced and by class."""

    def __init__(self) -> None:
        self.num_examples = 0
        self.per_class: dict[int | str | None, Tensor] = {}
        self.changed: dict[int | str | None, int] = {}

    def add(self, key: int | str | None, predicted: Tensor, whole: Tensor, labels: Tensor) -> None:
        """Take the answers `(B,)` for a batch; the whole network's come first, under `network`."""
        if key == "network":
            self.num_examples += len(labels)
            self._count("labels", labels, torch.ones_like(labels, dtype=torch.bool))
        self._count(key, labels, predicted == labels)
        self.changed[key] = self.changed.get(key, 0) + int((predicted != whole).sum())

    def _count(self, key: int | str | None, labels: Tensor, chosen: Tensor) -> None:
        found = torch.bincount(labels[chosen].cpu())
        before = self.per_class.get(key, found.new_zeros(0))
        size = max(len(found), len(before))
        total = found.new_zeros(size)
        total[: len(found)] += found
        total[: len(before)] += before
        self.per_class[key] = total

    def accuracy(self, key: int | str | None) -> float:
        return int(self.per_class[key].sum()) / self.num_examples

    def row(self, channel: int | None, class_names: Sequence[str]) -> Silenced:
        """Return what silencing `channel` did."""
        support = self.per_class["labels"]
        losses = support.new_zeros(len(support), dtype=torch.float64)
        for key, sign in (("network", 1), (channel, -1)):
            right = self.per_class[key]
            losses[: len(right)] += sign * right
        losses /= support.clamp(min=1)
        worst = int(losses.argmax())
        is_loss = bool(losses[worst] > 0)
        name = class_names[worst] if worst < len(class_names) else str(worst)
        return Silenced(
            channel=channel,
            accuracy=self.accuracy(channel),
            drop=self.accuracy("network") - self.accuracy(channel),
            num_changed=self.changed[channel],
            worst_class=name if is_loss else "",
            worst_class_drop=float(losses[worst]) if is_loss else 0.0,
        )
