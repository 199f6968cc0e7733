"""Initial weights by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name
from glassnet._seed import seeded, seeded_generator
from glassnet.nn.fan import WeightedLayer, weighted_layers
from glassnet.nn.orthogonality import orthogonal
from glassnet.nn.variance import scale_to_unit_variance

Draw = Callable[..., Tensor]
"""`draw(layer, generator, **options)` -> new values for `layer.weight`, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """One entry of `INITIALISATIONS`."""

    draw: Draw
    options: Mapping[str, float | str] = field(default_factory=dict)
    """Its options with their defaults."""
    needs_images: bool = False
    """True where the weights depend on a batch of images."""


def initialise(
    model: nn.Module, name: str, *, seed: int, images: Tensor | None = None, **options: float | str
) -> nn.Module:
    """Set the weights of every linear and convolutional layer of `model` in place, biases to 0; return `model`.

    | name | each weight | options |
    |---|---|---|
    | `zeros`, `ones` | 0, 1: all units of a layer stay equal, which shows why chance is needed | |
    | `normal` | N(0, std^2) | `std=0.01` (Krizhevsky et al. 2012, section 5) |
    | `uniform` | U(-bound, bound) | `bound=0.05` |
    | `xavier-normal`, `xavier-uniform` | variance `gain^2 * 2 / (fan_in + fan_out)` | `gain=1` (5/3 suits tanh) |
    | `he-normal`, `he-uniform` | variance `2 / ((1 + a^2) fan)` | `negative_slope=0` (a), \
`mode="fan_in"` or `"fan_out"` |
    | `orthogonal` | rows (or columns, if there are more rows) orthonormal | `gain=1` |
    | `lsuv` | orthogonal, then scaled so that each layer's outputs on `images` have variance 1 | `tolerance=0.1`, \
`max_iterations=10` |

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010), equation 16;
    He, Zhang, Ren and Sun, "Delving deep into rectifiers" (2015), equations 10 and 14; Saxe, McClelland and Ganguli,
    "Exact solutions to the nonlinear dynamics of learning" (2014); Mishkin and Matas, "All you need is a good init"
    (2016), algorithm 1. Layers are torch's (transposed ones too) and those of `glassnet.nn`; normalisation, embedding,
    recurrent and subsampling layers keep what they have. Each layer draws from a generator of its own, made of `seed`
    and the layer's name; the global random state is left alone.

    `images` `(B, C, H, W)` is for `lsuv`, which runs the model in evaluation mode and puts its modes back.

    Raises `UsageError` for an unknown name or option, for a model without such layers, for `images` missing or not
    used, and where orthogonal rows or variance 1 cannot be had.
    """
    if name not in INITIALISATIONS:
        raise unknown_name("initialisation", name, INITIALISATIONS)
    chosen = INITIALISATIONS[name]
    values = _checked_options(name, chosen, options)
    _check_images(name, chosen, images)
    layers = weighted_layers(model)
    if not layers:
        raise UsageError("The model must have a linear or convolutional layer to initialise; it has none.")
    drawn = [chosen.draw(layer, seeded_generator(seed, "initialise", layer.name), **values) for layer in layers]
    with torch.no_grad():
        for layer, weight in zip(layers, drawn, strict=True):
            layer.weight.copy_(weight)
            if isinstance(bias := getattr(layer.module, "bias", None), Tensor):
                bias.zero_()
    if images is not None:
        tolerance, max_iterations = float(values["tolerance"]), int(values["max_iterations"])
        with seeded(seed, "initialise", "forward passes"):
            scale_to_unit_variance(model, layers, images, tolerance=tolerance, max_iterations=max_iterations)
    return model


def _checked_options(name: str, chosen: Initialisation, options: Mapping[str, float | str]) -> dict[str, float | str]:
    for option, value in options.items():
        if option not in chosen.options:
            raise unknown_name(f"option of initialisation '{name}'", option, chosen.options)
        if option == "mode":
            if value not in FANS:
                raise unknown_name("mode", str(value), FANS)
        elif isinstance(chosen.options[option], int) and (type(value) is not int or value < 1):
            raise UsageError(f"{option} must be a whole number of at least 1; got {value!r}.")
        elif isinstance(value, str | bool) or not 0 <= value < math.inf:
            raise UsageError(f"{option} must be a number of at least 0; got {value!r}.")
    return {**chosen.options, **options}


def _check_images(name: str, chosen: Initialisation, images: Tensor | None) -> None:
    if chosen.needs_images and images is None:
        raise UsageError(
            f"Initialisation '{name}' needs a batch of images to measure the layers on; got none. Pass images=..., "
            "a few hundred training images (B, C, H, W) as the model takes them."
        )
    if images is not None and not chosen.needs_images:
        raise UsageError(f"Initialisation '{name}' does not look at images; got some. Leave images out, or use 'lsuv'.")


def _blank(layer: WeightedLayer) -> Tensor:
    """Return a tensor to draw into: on the CPU, so that every device gets the same numbers."""
    dtype = torch.promote_types(layer.weight.dtype, torch.float32)
    return torch.empty(layer.weight.shape, dtype=dtype, device="cpu")


def _constant(value: float) -> Draw:
    return lambda layer, generator: _blank(layer).fill_(value)


def _normal(layer: WeightedLayer, generator: torch.Generator, std: float | Tensor) -> Tensor:
    return std * _blank(layer).normal_(generator=generator)


def _uniform(layer: WeightedLayer, generator: torch.Generator, bound: float | Tensor) -> Tensor:
    return bound * _blank(layer).uniform_(-1, 1, generator=generator)


def _uniform_of_std(layer: WeightedLayer, generator: torch.Generator, std: Tensor) -> Tensor:
    return _uniform(layer, generator, math.sqrt(3) * std)  # the variance of U(-b, b) is b^2 / 3


def _xavier(draw: Draw) -> Draw:
    def draw_xavier(layer: WeightedLayer, generator: torch.Generator, gain: float) -> Tensor:
        return draw(layer, generator, gain * (2 / (layer.fan_in + layer.fan_out)).sqrt())

    return draw_xavier


def _he(draw: Draw) -> Draw:
    def draw_he(layer: WeightedLayer, generator: torch.Generator, negative_slope: float, mode: str) -> Tensor:
        return draw(layer, generator, (2 / ((1 + negative_slope**2) * FANS[mode](layer))).sqrt())

    return draw_he


def _orthogonal(layer: WeightedLayer, generator: torch.Generator, gain: float) -> Tensor:
    return gain * orthogonal(layer, generator)


def _orthonormal(layer: WeightedLayer, generator: torch.Generator, **measuring: float) -> Tensor:
    return orthogonal(layer, generator)


FANS: dict[str, Callable[[WeightedLayer], Tensor]] = {
    "fan_in": lambda layer: layer.fan_in,
    "fan_out": lambda layer: layer.fan_out,
}

INITIALISATIONS: dict[str, Initialisation] = {
    "zeros": Initialisation(draw=_constant(0.0)),
    "ones": Initialisation(draw=_constant(1.0)),
    "normal": Initialisation(draw=_normal, options={"std": 0.01}),
    "uniform": Initialisation(draw=_uniform, options={"bound": 0.05}),
    "xavier-normal": Initialisation(draw=_xavier(_normal), options={"gain": 1.0}),
    "xavier-uniform": Initialisation(draw=_xavier(_uniform_of_std), options={"gain": 1.0}),
    "he-normal": Initialisation(draw=_he(_normal), options={"negative_slope": 0.0, "mode": "fan_in"}),
    "he-uniform": Initialisation(draw=_he(_uniform_of_std), options={"negative_slope": 0.0, "mode": "fan_in"}),
    "orthogonal": Initialisation(draw=_orthogonal, options={"gain": 1.0}),
    "lsuv": Initialisation(draw=_orthonormal, options={"tolerance": 0.1, "max_iterations": 10}, needs_images=True),
}
INITIALISATIONS |= {"xavier": INITIALISATIONS["xavier-uniform"], "he": INITIALISATIONS["he-normal"]}
"""The names that `initialise` accepts; `xavier` and `he` alone are the forms of their papers."""
