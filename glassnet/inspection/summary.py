"""What a model is made of: a table of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._modes import evaluating
from glassnet._types import Shape
from glassnet.arithmetic import num_conv_multiplications, num_linear_multiplications

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer: a module without children that the forward pass went through."""

    name: str
    """The module's path, such as `features.6`."""
    kind: str
    """Its class, such as `Conv2d`."""
    output_shape: Shape
    """Without the batch axis."""
    num_parameters: int
    """Trainable or not; 0 where an earlier row already counted them (a module used twice)."""
    num_multiplications: int | None
    """For one image: weights times positions. None where this kind of layer is not counted."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The layers of a model in the order in which the forward pass met them; `str()` is the table."""

    rows: tuple[LayerRow, ...]
    input_shape: Shape
    num_parameters: int
    """All of the model's, also of modules that the forward pass did not meet."""
    num_multiplications: int
    """The sum over the counted rows."""

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the layers whose multiplications are not counted."""
        return tuple(row.name for row in self.rows if row.num_multiplications is None)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return {**asdict(self), "uncounted": self.uncounted}

    def __str__(self) -> str:
        header = ("layer", "kind", "output", "parameters", "multiplications")
        lines = [header, ("input", "", _size(self.input_shape), "", "")]
        lines += [
            (
                row.name,
                row.kind,
                _size(row.output_shape),
                f"{row.num_parameters:,}",
                "not counted" if row.num_multiplications is None else f"{row.num_multiplications:,}",
            )
            for row in self.rows
        ]
        lines.append(("total", "", "", f"{self.num_parameters:,}", f"{self.num_multiplications:,}"))
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def summary(model: nn.Module, input_shape: Shape) -> Summary:
    """Run one image of zeros `(C, H, W)` through the model and describe each layer it meets.

    Multiplications are counted for convolutions and fully connected layers (weights times output positions; a bias
    is added, not multiplied); layers that only compare, add or move numbers have none; a normalisation multiplies
    each of its outputs once; other kinds are said to be not counted. The model is left as it was.

    Raises `UsageError` where the model does not take the input.
    """
    rows: list[LayerRow] = []
    counted: set[int] = set()
    example = _example(model, input_shape)

    def record(name: str, module: nn.Module, output: object) -> None:
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        own = [parameter for parameter in module.parameters() if id(parameter) not in counted]
        counted.update(id(parameter) for parameter in own)
        rows.append(
            LayerRow(
                name=name,
                kind=type(module).__name__,
                output_shape=shape,
                num_parameters=sum(parameter.numel() for parameter in own),
                num_multiplications=_num_multiplications(module, shape),
            )
        )

    with _watching_leaves(model, record), evaluating(model):
        try:
            model(example)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UsageError(
                f"The model does not take an input of {_size(input_shape)}: {error}. "
                "Give the input shape it was built for, channels first."
            ) from None
    return Summary(
        rows=tuple(rows),
        input_shape=tuple(input_shape),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_multiplications=sum(row.num_multiplications or 0 for row in rows),
    )


@contextmanager
def _watching_leaves(model: nn.Module, record: Callable[[str, nn.Module, object], None]) -> Iterator[None]:
    """Call `record` with each leaf module's output during the block; no hook survives it."""
    handles = []
    try:
        for name, module in model.named_modules():
            if not any(True for _ in module.children()):

                def hook(module: nn.Module, inputs: object, output: object, name: str = name) -> None:
                    record(name or "(model)", module, output)

                handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _example(model: nn.Module, input_shape: Shape) -> Tensor:
    """Zeros `(1, C, H, W)` in the number format and on the device of the model."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)


_WITHOUT_MULTIPLICATIONS = (
    nn.Flatten,
    nn.Identity,
    nn.ReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
)
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


def _num_multiplications(module: nn.Module, output_shape: Shape) -> int | None:
    """Multiplications for one image, or None where this kind is not counted."""
    if isinstance(module, CONVOLUTIONS):
        positions = output_shape[1:]
        channels = module.in_channels, module.out_channels
        return num_conv_multiplications(*channels, tuple(module.kernel_size), positions, groups=module.groups)
    if isinstance(module, nn.Linear):
        rows = torch.Size(output_shape[:-1]).numel()
        return num_linear_multiplications(module.in_features, module.out_features) * rows
    if isinstance(module, _WITHOUT_MULTIPLICATIONS):
        return 0
    if isinstance(module, _NORMALISATIONS + _AVERAGES):
        return torch.Size(output_shape).numel()
    return None


def _size(shape: Shape) -> str:
    return "x".join(str(size) for size in shape)
