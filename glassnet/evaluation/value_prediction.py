"""What a network that was trained on values predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.evaluation.inputs import GatheredInputs
from glassnet.evaluation.prediction import predict_outputs


@dataclass(frozen=True, kw_only=True)
class ValuePrediction:
    """The values that the network predicts for one input."""

    source: str
    """The file, the place in it, or the position of the input among those given."""
    values: tuple[float, ...]
    """The network's outputs, in the unit of the values it was trained on."""


@dataclass(frozen=True, eq=False)
class ValuePredictions(Sequence[ValuePrediction]):
    """The values for the inputs that could be used, in the order given, and those that were set aside."""

    rows: tuple[ValuePrediction, ...]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader should know, such as categories that no training row has; a sentence each."""
    target: str = ""
    """What is predicted: the column of the table; empty where it has no name."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def __iter__(self) -> Iterator[ValuePrediction]:
        return iter(self.rows)


def predict_values(
    model: nn.Module,
    gathered: GatheredInputs,
    record: InputRecord,
    *,
    device: torch.device,
    target: str = "",
    precision: str = "fp32",
) -> ValuePredictions:
    """Return the model's outputs for the gathered inputs, each as it is."""
    rows: tuple[ValuePrediction, ...] = ()
    if gathered.sources:
        outputs = predict_outputs(model, gathered.inputs.to(device), record, precision=precision).tolist()
        rows = tuple(
            ValuePrediction(source=source, values=tuple(values))
            for source, values in zip(gathered.sources, outputs, strict=True)
        )
    return ValuePredictions(rows, gathered.set_aside, gathered.notes, target)
