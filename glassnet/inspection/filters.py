"""The kernels of a convolution, as numbers to look at: their sizes, their spread, and how far training moved them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name
from glassnet.nn.connection import TableConv2d

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, TableConv2d)
NUM_BINS = 40


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many weights lie in each of some equally wide intervals."""

    counts: tuple[int, ...]
    edges: tuple[float, ...]
    """One more than there are counts."""


@dataclass(frozen=True, eq=False)
class Filters:
    """The kernels of one convolution; `gn.picture` draws them, `str()` says what they are like."""

    layer: str
    weights: Tensor
    """`(out_channels, in_channels, height, width)`, float32 on the CPU, a copy; one axis less for signals and one more
    for volumes. With groups, the input channels of one group; of a connection table, 0 where there is no connection."""
    kind: str = ""
    """The layer's class."""
    initial: Tensor | None = None
    """The same before training, where it is known."""

    @property
    def norms(self) -> Tensor:
        """Length of each filter as a vector, `(out_channels,)`."""
        return _lengths(self.weights)

    @property
    def change(self) -> Tensor | None:
        """How far each filter moved since the start, as a share of its first length, `(out_channels,)`."""
        if self.initial is None:
            return None
        return _lengths(self.weights - self.initial) / _lengths(self.initial)

    @property
    def turn(self) -> Tensor | None:
        """Cosine between each filter and its first form, `(out_channels,)`: 1 where only its length changed."""
        if self.initial is None:
            return None
        cosine: Tensor = nn.functional.cosine_similarity(self.weights.flatten(1), self.initial.flatten(1), dim=1)
        return cosine

    @property
    def histogram(self) -> Histogram:
        """The spread of all weights, in intervals around 0."""
        finite = self.weights[self.weights.isfinite()]
        limit = float(finite.abs().max()) if len(finite) else 0.0
        limit = limit or 1.0
        counts = torch.histc(finite, bins=NUM_BINS, min=-limit, max=limit)
        edges = torch.linspace(-limit, limit, NUM_BINS + 1)
        return Histogram(counts=tuple(int(count) for count in counts.tolist()), edges=tuple(edges.tolist()))

    def to_dict(self) -> dict[str, object]:
        """Return everything but the weights as plain values for JSON."""
        change, turn = self.change, self.turn
        return {
            "layer": self.layer,
            "kind": self.kind,
            "shape": tuple(self.weights.shape),
            "norms": self.norms.tolist(),
            "histogram": {"counts": self.histogram.counts, "edges": self.histogram.edges},
            "change": None if change is None else change.tolist(),
            "turn": None if turn is None else turn.tolist(),
        }

    def __str__(self) -> str:
        count, *shape = self.weights.shape
        norms = self.norms
        text = f"{self.layer} has {count} filters of {'x'.join(map(str, shape))}, of length {norms.min():.3g} to "
        text += f"{norms.max():.3g}"
        change = self.change
        if change is not None:
            most = int(torch.nan_to_num(change).argmax())
            text += f"; since the start they moved by {change.median():.0%} of their length (median), "
            text += f"filter {most} most, by {change[most]:.0%}"
        return text + "."

    def __repr__(self) -> str:
        return f"Filters('{self.layer}', {tuple(self.weights.shape)})"


def filters(
    model: nn.Module, layer: str | None = None, *, initial: nn.Module | Mapping[str, Tensor] | None = None
) -> Filters:
    """Return the kernels of the convolution called `layer`, or of the first one over images.

    Any convolution will do: over signals, images or volumes, transposed, or with a connection table. `initial` is the
    model before training, or its `state_dict`; `Filters.change` then says how far each filter moved.

    Raises `UsageError` for a name that is no convolution, for a model that has none, and for an `initial` that does
    not have the same layer.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module); got {type(model).__name__}. For a run, pass run.model.")
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}
    over_images = [name for name, module in convolutions.items() if isinstance(module, nn.Conv2d | TableConv2d)]
    if layer is None and not over_images:
        others = f" Name one of its others: {', '.join(convolutions)}." if convolutions else ""
        raise UsageError(
            f"Filters are the kernels of a convolution, and {type(model).__name__} has no 2-D one.{others}"
        )
    if layer is None:
        layer = over_images[0]
    if layer not in convolutions:
        raise unknown_name("convolution", str(layer), convolutions)
    module = convolutions[layer]
    return Filters(layer, _kernels(module), type(module).__name__, _initial(initial, layer, module))


def _lengths(kernels: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(kernels.flatten(1), dim=1)
    return lengths


def _kernels(module: nn.Module, weight: Tensor | None = None) -> Tensor:
    """Return a convolution's weights, or others of its form, as kernels `(out, in, ...)`: a float32 copy on the CPU."""
    if isinstance(module, TableConv2d):
        found = module.dense_weight() if weight is None else _dense(module, weight)
    else:
        found = getattr(module, "weight") if weight is None else weight  # noqa: B009 (parametrised: computed)
    found = found.detach().float().cpu().clone()
    if isinstance(module, TRANSPOSED):  # (in, out / groups, ...), the inputs group by group
        by_group: Tensor = found.unflatten(0, (module.groups, -1))
        return by_group.transpose(1, 2).flatten(0, 1)
    kernels: Tensor = found
    return kernels


def _dense(module: TableConv2d, weight: Tensor) -> Tensor:
    zeros = weight.new_zeros(module.out_channels, module.in_channels, *module.kernel_size)
    return zeros.index_put((module.out_map.to(weight.device), module.in_map.to(weight.device)), weight)


def _initial(initial: nn.Module | Mapping[str, Tensor] | None, layer: str, module: nn.Module) -> Tensor | None:
    if initial is None:
        return None
    if isinstance(initial, nn.Module):
        found = dict(initial.named_modules()).get(layer)
        kernels = _kernels(found) if isinstance(found, CONVOLUTIONS) else None
    else:
        weight = initial.get(f"{layer}.weight")
        kernels = None if weight is None else _kernels(module, weight)
    if kernels is None or kernels.shape != _kernels(module).shape:
        got = "none" if kernels is None else tuple(kernels.shape)
        raise UsageError(
            f"Expected the initial model to have a convolution '{layer}' of {tuple(_kernels(module).shape)}; got "
            f"{got}. Give the model as it was before training, or its state_dict."
        )
    return kernels
