"""Feature maps: what the channels of a layer make of images, and which of them say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._types import by
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.activation_statistics import SATURATION, bounds_of
from glassnet.inspection.batches import Images, Subject, explaining, gather, opened, stream
from glassnet.inspection.capture import OutputReader, layer_of
from glassnet.inspection.units import LayerError

SORTS = ("index", "activation", "variance")
SCALES = ("shared", "own")
SATURATED_SHARE = 0.95
"""A channel is saturated where at least this share of its values lies near a bound of its function."""

ROW = 64
"""Numbers in a row that a processor's registers are put to use with."""

AT_ONCE = 2**18
"""Numbers that are read several times before the next: 1 MiB in float32, which a processor's cache holds."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One channel of a layer over all images and positions."""

    index: int
    num_values: int
    """Over images and positions."""
    mean: float
    spread: float
    """Standard deviation."""
    minimum: float
    maximum: float
    saturated_share: float | None
    """Share of the values near a bound of the layer's function; None where it has no bounds."""

    @property
    def is_dead(self) -> bool:
        """True where the channel has one value everywhere and tells nothing apart; of a single value, where it is 0."""
        return self.minimum == self.maximum and (self.num_values > 1 or self.maximum == 0)

    @property
    def is_saturated(self) -> bool:
        """True where nearly all values lie at a bound of the layer's function."""
        return self.saturated_share is not None and self.saturated_share >= SATURATED_SHARE


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureMaps:
    """What `feature_maps` returns; `gn.picture` draws it, `str()` says what was found."""

    layer: str
    kind: str
    """The layer's class."""
    maps: Tensor
    """Of the first images, `(K, C, ...)`, float32 on the CPU."""
    images: Tensor
    """Those images, `(K, ...)`: `uint8` pixels where there were such, else as the model took them."""
    channels: tuple[Channel, ...]
    """Over all images, in the layer's order."""
    order: tuple[int, ...]
    """The channels' numbers as sorted."""
    sort: str
    scale: str
    num_images: int
    set_aside: tuple[SetAside, ...] = ()
    """Files that could not be read."""

    @property
    def dead(self) -> tuple[int, ...]:
        """Channels that have the same value everywhere on all images."""
        return tuple(channel.index for channel in self.channels if channel.is_dead)

    @property
    def saturated(self) -> tuple[int, ...]:
        """Channels with nearly all values at a bound of the layer's function, and not dead."""
        return tuple(channel.index for channel in self.channels if channel.is_saturated and not channel.is_dead)

    def limit(self, channel: int) -> float:
        """Return the size drawn at full strength: the largest in the kept maps, or in those of this channel."""
        chosen = self.maps if self.scale == "shared" else self.maps[:, channel]
        return float(torch.nan_to_num(chosen, posinf=0.0, neginf=0.0).abs().max())

    def to_dict(self) -> dict[str, object]:
        """Return everything but the maps' numbers as plain values for JSON."""
        return {
            "layer": self.layer,
            "kind": self.kind,
            "shape": tuple(self.maps.shape[1:]),
            "num_images": self.num_images,
            "sort": self.sort,
            "scale": self.scale,
            "order": self.order,
            "dead": self.dead,
            "saturated": self.saturated,
            "channels": [
                {**channel.__dict__, "is_dead": channel.is_dead, "is_saturated": channel.is_saturated}
                for channel in self.channels
            ],
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        on = "this image" if self.num_images == 1 else f"these {self.num_images:,} images"
        what = "channels" if self.maps.ndim > 2 else "features"
        count = len(self.channels)
        verb = "is" if len(self.dead) == 1 else "are"
        text = f"{len(self.dead)} of {count} {what} of {self.layer} {verb} dead on {on}"
        if self.saturated or self.channels[0].saturated_share is not None:
            text += f", {len(self.saturated)} saturated"
        return text + "."

    def __repr__(self) -> str:
        return f"FeatureMaps('{self.layer}', {by(tuple(self.maps.shape[1:]))}, {self.num_images} images)"


def feature_maps(
    subject: Subject,
    images: Images,
    layer: str,
    *,
    sort: str = "index",
    scale: str = "shared",
    keep: int = 8,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> FeatureMaps:
    """Run images through a model and look at what the channels of `layer` make of them.

    `subject` is any module, or a run, whose preprocessing then applies. `images`: one or many, see `batches.Images`,
    or a split of a data set. Statistics are over all of them, streamed in batches; the maps of the first `keep` images
    are kept. `sort` orders the channels by number (`index`), by their largest value (`activation`) or by their spread
    (`variance`), largest first; `scale` says whether pictures of channels share one colour scale or have their `own`.

    The model is left as it was. Raises `UsageError` for an unknown layer, and for images that the model does not take.
    """
    model, record = opened(subject, preprocessing)
    for kind, value, known in (("sort", sort, SORTS), ("scale", scale, SCALES)):
        if value not in known:
            raise unknown_name(kind, str(value), known)
    if not isinstance(keep, int) or keep < 1:
        raise UsageError(f"keep must be a whole number of at least 1; got {keep!r}.")
    module = layer_of(model, layer)
    examples = stream(gather(images, model, record), model, record, batch_size)
    totals, pictures, count = _Totals(layer, bounds_of(module), keep), list[Tensor](), 0
    reader = OutputReader(model, layer, totals.add)
    for batch in examples.batches:
        totals.num_images = len(batch.inputs)
        with explaining(tuple(batch.inputs.shape[1:]), record, model):
            reader.run(batch.inputs)
        if count < keep:
            pictures.append(batch.given[: keep - count].cpu().clone())
        count += len(batch.inputs)
    if not count:
        raise UsageError("There is nothing to look at: expected at least one image, got none.")
    channels = totals.channels()
    return FeatureMaps(
        layer=layer,
        kind=type(module).__name__,
        maps=torch.cat(totals.kept),
        images=torch.cat(pictures),
        channels=channels,
        order=_ordered(channels, sort),
        sort=sort,
        scale=scale,
        num_images=count,
        set_aside=examples.set_aside,
    )


def _check(output: Tensor, layer: str, num_images: int) -> None:
    if output.ndim < 2 or len(output) != num_images or not output.is_floating_point():
        raise LayerError(
            f"Expected layer '{layer}' to give numbers with a row for each of {num_images} images and channels behind; "
            f"got {output.dtype} {tuple(output.shape)}. Choose another layer: `glassnet summary` lists them."
        )


def _ordered(channels: Sequence[Channel], sort: str) -> tuple[int, ...]:
    keys = {"index": lambda c: c.index, "activation": lambda c: -c.maximum, "variance": lambda c: -c.spread}
    return tuple(channel.index for channel in sorted(channels, key=keys[sort]))


@dataclass(frozen=True, eq=False)
class _Planes:
    """One batch of outputs, laid out so that sums over the positions run along memory.

    Where the channels lie innermost, those of several positions are taken as one row: torch's reductions are up to
    twenty times slower over rows that are narrower than the processor's registers.
    """

    values: Tensor
    """`(B, C, P)`; with the channels innermost `(B, P / k, k * C)`."""
    axis: int
    """Of the positions."""
    num_channels: int

    @classmethod
    def of(cls, output: Tensor) -> _Planes:
        """Return the planes of `(B, C, ...)`."""
        channels = output.shape[1]
        if output.ndim < 4 or not output.is_contiguous(memory_format=torch.channels_last):
            return cls(output.reshape(*output.shape[:2], -1), 2, channels)
        places = math.prod(output.shape[2:])
        fitting = (k for k in range(1, places + 1) if places % k == 0 and k * channels >= ROW)
        wide = next((k for k in fitting if k * channels % 16 == 0), max(places, 1))
        rows = output.permute(0, 2, 3, 1).reshape(len(output), -1, wide * channels)
        return cls(rows, 1, channels)

    def sums(self) -> Tensor:
        """Return the sum over the positions, `(B, C)`."""
        sums: Tensor = self._folded(self.values.sum(self.axis)).sum(1)
        return sums

    def squares(self) -> Tensor:
        """Return the sum of the squares, `(B, C)` in float64."""
        if self.axis == 1:
            squares: Tensor = self._folded(self.values.square().sum(1)).double().sum(1)
            return squares
        norms: Tensor = torch.linalg.vector_norm(self.values, dim=2)
        return norms.double().square()

    def extremes(self) -> tuple[Tensor, Tensor]:
        """Return the least and the largest value of each channel, `(C,)` both."""
        low, high = self.values.amin((0, self.axis)), self.values.amax((0, self.axis))
        return self._folded(low[None])[0].amin(0), self._folded(high[None])[0].amax(0)

    def near(self, low: float, high: float) -> Tensor:
        """Return how many values of each channel are at most `low` or at least `high`, `(C,)` in float64."""
        counts = ((self.values <= low) | (self.values >= high)).sum((0, self.axis))
        found: Tensor = self._folded(counts[None])[0].sum(0).double()
        return found

    def _folded(self, rows: Tensor) -> Tensor:
        """Return `(B, k * C)` as `(B, k, C)`."""
        folded: Tensor = rows.unflatten(1, (-1, self.num_channels))
        return folded


class _Totals:
    """Sums over images and positions, channel by channel.

    Only whole-row sums, norms and extremes, which are many times faster on a CPU than torch's variance and counts.
    """

    def __init__(self, layer: str, bounds: tuple[float, float] | None, keep: int) -> None:
        self.layer = layer
        self.bounds = bounds
        self.num_images = 0
        """In the batch that comes next."""
        self.num_wanted = keep
        self.kept: list[Tensor] = []
        self.count = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, output: Tensor) -> None:
        """Take a batch `(B, C, ...)`, of which the first images are kept."""
        _check(output, self.layer, self.num_images)
        if self.num_wanted > 0:
            self.kept.append(output[: self.num_wanted].float().cpu().clone())
            self.num_wanted -= len(output)
        for part in output.split(max(1, AT_ONCE // max(output[0].numel(), 1))):
            self._look(part)

    def _look(self, output: Tensor) -> None:
        planes = _Planes.of(output.to(torch.promote_types(output.dtype, torch.float32)))
        self.count += output[:, 0].numel()
        self._add("sum", planes.sums().double().sum(0))
        self._add("squares", planes.squares().sum(0))
        if self.bounds is not None:
            low, high = self.bounds
            margin = SATURATION * (high - low)
            self._add("saturated", planes.near(low + margin, high - margin))
        low_now, high_now = planes.extremes()
        self.sums["minimum"] = torch.minimum(self.sums.get("minimum", low_now), low_now)
        self.sums["maximum"] = torch.maximum(self.sums.get("maximum", high_now), high_now)

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def channels(self) -> tuple[Channel, ...]:
        """Return what came out for each channel."""
        columns = {name: value.tolist() for name, value in self.sums.items()}
        found = []
        for index, total in enumerate(columns["sum"]):
            mean, low, high = total / self.count, columns["minimum"][index], columns["maximum"][index]
            variance = max(columns["squares"][index] / self.count - mean * mean, 0.0)
            found.append(
                Channel(
                    index=index,
                    num_values=self.count,
                    mean=mean,
                    spread=0.0 if low == high else math.sqrt(variance) if math.isfinite(variance) else variance,
                    minimum=low,
                    maximum=high,
                    saturated_share=columns["saturated"][index] / self.count if "saturated" in columns else None,
                )
            )
        return tuple(found)
