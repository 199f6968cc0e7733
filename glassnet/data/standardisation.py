"""The preprocessing contract for inputs that are numbers, not images: rows of a table, signals, volumes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import PathArg, Shape
from glassnet.data.columns import TableEncoding
from glassnet.data.examples import ExampleSet
from glassnet.data.preprocessing import columns_on


@dataclass(frozen=True, kw_only=True)
class Standardisation:
    """How rows of numbers become a network's input: each feature or channel `(x - mean) / std`.

    Raises `UsageError` for figures that do not fit the shape.
    """

    class_names: tuple[str, ...]
    """Names of the network's outputs, in order; empty for regression."""
    input_shape: Shape
    """Shape of one input: `(F,)` features, `(C, L)` a signal, `(C, D, H, W)` a volume."""
    mean: tuple[float, ...]
    """Mean of each feature or channel over the training examples."""
    std: tuple[float, ...]
    """Standard deviation of each, likewise."""
    encoding: TableEncoding | None = None
    """How a row of a table becomes the features; None where the inputs were numbers from the start."""

    def __post_init__(self) -> None:
        for name in ("class_names", "input_shape", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.mean) == len(self.std) == self.input_shape[0] or min(self.std) <= 0:
            raise UsageError(
                f"Inputs of shape {self.input_shape} need {self.input_shape[0]} means and positive standard "
                f"deviations; got {len(self.mean)} and {len(self.std)}."
            )
        if self.encoding is not None and (len(self.encoding.feature_names),) != self.input_shape:
            raise UsageError(
                f"Inputs of shape {self.input_shape} need an encoding of as many features; "
                f"got one of {len(self.encoding.feature_names)}."
            )

    def fit_image(self, source: PathArg | object) -> Tensor:
        """Raise `UsageError`: an image is no row of numbers."""
        raise UsageError(
            f"This network takes numbers of shape {self.input_shape}, not images; got {source}. "
            "Pass an array: run.predict(rows)."
        )

    def fit_inputs(self, inputs: Tensor) -> Tensor:
        """Return `inputs` `(N, *input_shape)` as float32. Raises `UsageError` for another shape."""
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise UsageError(
                f"Expected inputs of shape (N, {_words(self.input_shape)}), as the network was trained on; "
                f"got {tuple(inputs.shape)}. Bring them to that shape."
            )
        return inputs.float()

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return `(inputs - mean) / std`, feature by feature or channel by channel: `(N, *input_shape)`, float32."""
        num_axes = 1 + len(self.input_shape)
        mean, std = (columns_on(values, num_axes, inputs.device) for values in (self.mean, self.std))
        return (inputs - mean) / std

    def example(self) -> Tensor:
        """Return one fitted input of zeros, `(1, *input_shape)`."""
        return torch.zeros(1, *self.input_shape)


def make_standardisation(
    examples: ExampleSet, is_wanted: bool = True, encoding: TableEncoding | None = None
) -> Standardisation:
    """Measure mean and spread of `examples` per feature or channel; without `is_wanted`, 0 and 1: inputs as they are.

    A constant feature has the spread 1. Raises `UsageError` for values that are not finite.
    """
    assert isinstance(examples.inputs, Tensor), "files are images, which have a record of their own"
    features = examples.inputs.double().transpose(0, 1).flatten(1)
    if not bool(features.isfinite().all()):
        first = int((~features.isfinite()).any(1).nonzero()[0])
        raise UsageError(f"Inputs must be finite numbers; feature {first} has nan or infinity. Fill or drop them.")
    mean = features.mean(1).tolist() if is_wanted else [0.0] * len(features)
    std = [value if value > 0 else 1.0 for value in features.std(1, unbiased=False).tolist()]
    return Standardisation(
        class_names=examples.class_names,
        input_shape=examples.input_shape,
        mean=tuple(mean),
        std=tuple(std) if is_wanted else (1.0,) * len(features),
        encoding=encoding,
    )


def _words(shape: Shape) -> str:
    return ", ".join(str(size) for size in shape)
