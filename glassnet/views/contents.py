"""What a report says, as plain records: no drawing, no words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glassnet._errors import UsageError
from glassnet.evaluation.metrics import ClassMetrics
from glassnet.inspection.summary import LayerRow


@dataclass(frozen=True, kw_only=True)
class EvaluationContents:
    """The result on the test set. Raises `UsageError` where the numbers contradict each other."""

    num_examples: int
    accuracy: float
    """Share of images whose likeliest class is the true one, 0 to 1."""
    top5_accuracy: float | None = None
    loss: float
    """Mean per image."""
    confusion: Sequence[Sequence[int]]
    """`(K, K)` counts; row: true class, column: predicted class."""
    per_class: Sequence[ClassMetrics]

    def __post_init__(self) -> None:
        counts = self.counts
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.sum() != self.num_examples:
            raise UsageError(
                f"The confusion matrix must be square and count each of the {self.num_examples} test images once; "
                f"got {counts.shape} with {counts.sum()} images."
            )
        if not math.isclose(self.accuracy * self.num_examples, np.trace(counts), abs_tol=0.01):
            raise UsageError(
                f"The accuracy must be the share on the diagonal of the confusion matrix, {np.trace(counts)} of "
                f"{self.num_examples}; got {self.accuracy}. Take both from the same predictions."
            )

    @property
    def counts(self) -> NDArray[np.int64]:
        """The confusion matrix as an array `(K, K)`."""
        return np.array(self.confusion, np.int64)

    @property
    def num_right(self) -> int:
        """Number of images on the diagonal of the confusion matrix."""
        return int(np.trace(self.counts))

    @property
    def num_errors(self) -> int:
        """Number of images off the diagonal of the confusion matrix."""
        return self.num_examples - self.num_right


@dataclass(frozen=True, kw_only=True)
class ValueContents:
    """The result of a regression on the test set."""

    num_examples: int
    mean_squared_error: float
    root_mean_squared_error: float
    """In the unit of the values."""
    mean_absolute_error: float
    r2: float | None
    """Share of the values' variance that is explained."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WorstError:
    """One test image that was named wrong."""

    image: NDArray[np.uint8] | None
    """`(C, H, W)`, as it was before preprocessing; None where the input is no image."""
    true_class: str
    predicted_class: str
    probability: float
    """Of the predicted class."""
    true_probability: float
    loss: float
    index: int
    """Position in the test set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FilterContents:
    """The kernels of the first convolution. Raises `UsageError` where they are not of two dimensions."""

    layer: str
    weights: NDArray[np.floating]
    """`(out, in, kh, kw)`."""

    def __post_init__(self) -> None:
        if self.weights.ndim != 4 or 0 in self.weights.shape:
            raise UsageError(f"weights to draw must be (out, in, kh, kw) with no axis empty; got {self.weights.shape}.")


@dataclass(frozen=True, kw_only=True)
class DataLosses:
    """What of the data did not reach the network."""

    cropped_share: float
    """Share (0..1) of all pixels that a crop threw away."""
    num_set_aside: int
    """Files or rows that were not used."""
    set_aside: tuple[str, ...]
    """The first of them, each with the reason."""


@dataclass(frozen=True, kw_only=True)
class ReportContents:
    """Everything a report says. What is None or empty is left out, and the report says that it is missing."""

    title: str
    """Name of the run."""
    data_name: str
    model_name: str
    class_names: tuple[str, ...]
    history: Sequence[Mapping[str, float | int | str]] = ()
    """A row per epoch: `epoch`, `train_loss`, `train_accuracy`, `validation_loss`, `validation_accuracy`,
    `learning_rate`, `images_per_s`, `epoch_s`. A value may be nan or absent."""
    best_epoch: int
    """The epoch whose weights were kept."""
    stop_reason: str = ""
    """Continues "it stopped because": `all 12 epochs were done`."""
    test: EvaluationContents | None = None
    values: ValueContents | None = None
    """In place of `test` where values are predicted."""
    worst_errors: Sequence[WorstError] = ()
    filters: FilterContents | None = None
    layers: Sequence[LayerRow] = ()
    num_parameters: int
    """Of the whole network; shared ones count once, so it may be less than the sum over the layers."""
    num_multiplications: int
    """Of the whole network, for one image."""
    data_losses: DataLosses | None = None
    config: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Sections of entries: the config, the versions, the data, all that repeats the run."""
    created: str
    glassnet_version: str

    def __post_init__(self) -> None:
        if self.test is not None and len(self.test.confusion) != len(self.class_names):
            raise UsageError(
                f"The confusion matrix must have a row for each of the {len(self.class_names)} class names; "
                f"got {len(self.test.confusion)}."
            )
