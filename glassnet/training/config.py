"""The hyperparameters of a run, checked when they are put together."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from glassnet._device import PRECISIONS
from glassnet._errors import UsageError, unknown_name
from glassnet.data.augmentation import parse_augmentation
from glassnet.nn.losses import LOSSES, is_own_loss
from glassnet.training.optimizer import OPTIMIZERS
from glassnet.training.schedule import SCHEDULES, WARMUPS


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. Frozen: derive another with `dataclasses.replace(config, epochs=3)`.

    Raises `UsageError` for values out of range and for fields that have no effect together.
    """

    epochs: int = 10
    """Passes over the training examples."""
    batch_size: int = 64
    """Examples per optimizer step."""
    optimizer: str = "adamw"
    """`sgd`, `adam`, `adamw`, `rmsprop` or `adagrad`: torch's."""
    learning_rate: float | None = None
    """Peak learning rate, per step on the mean loss of a batch; None takes the optimizer's usual one."""
    momentum: float | None = None
    """Momentum of `sgd` (None: 0.9, in Nesterov's form) and of `rmsprop` (None: 0)."""
    weight_decay: float | None = None
    """As torch's optimizer has it: `adamw` shrinks weights by it per unit of learning rate, the others add it times the
    weight to the gradient. Biases and normalisation are spared; None: the optimizer's usual value."""
    schedule: str = "one-cycle"
    """Course of the learning rate: `constant`, `linear`, `cosine`, `one-cycle`, `step` or `exponential`."""
    warmup: float | None = None
    """Share of the steps over which the learning rate rises from zero; None: 0.2 for `one-cycle`, else 0."""
    loss: str | None = None
    """A name of `glassnet.nn.losses.LOSSES`; None takes the task's own: `squared-error`, `binary-cross-entropy` or
    `cross-entropy`. That of a user's own loss, `losses.py:focal`, is recorded here; `gn.train(loss=focal)` sets it."""
    label_smoothing: float = 0.0
    """Share of each label spread evenly over all classes, 0..1 (Szegedy et al. 2016, section 7)."""
    max_shift: int = 0
    """Each training image is moved at random by up to this many pixels of the network's input, both ways."""
    augment: str = ""
    """Changes to the training images, in torchvision's names, such as `RandomCrop(padding=4),RandomHorizontalFlip`; see
    `glassnet.data.augmentation`. Whole batches, drawn by the seed, never for evaluation."""
    max_gradient_norm: float | None = None
    """Gradients are scaled down to this Euclidean norm over all parameters; None leaves them."""
    patience: int | None = None
    """Stop after this many epochs without a lower hold-out loss; None trains all epochs."""
    seed: int = 0
    """Decides the order of the examples and every other draw while training."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast) or `auto`: bf16 on a GPU that multiplies it natively, else fp32."""
    memory_budget_gib: float | None = None
    """What the fitted images may take of the device's memory, and of the machine's, in GiB: train and validation
    together, then test. Image files above it are read from disk batch by batch. None: half of what is available."""

    def __new__(cls, *args: object, **values: object) -> TrainConfig:
        """Refuse what is no field with the nearest names; Python's own message would not give them."""
        if args:
            raise UsageError(
                f"A config's fields are given by name, TrainConfig(epochs=3); got {args[0]!r} without one."
            )
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown_name("config field", str(name), names)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self._check_types()
        for kind, value, known in (
            ("optimizer", self.optimizer, tuple(OPTIMIZERS)),
            ("schedule", self.schedule, tuple(SCHEDULES)),
            ("loss", None if is_own_loss(self.loss) else self.loss, (None, *LOSSES)),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise unknown_name(kind, str(value), [name for name in known if name])
        self._check_ranges()
        self._check_combinations()

    def _check_types(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            value, accepted = getattr(self, field.name), _accepted_types(hints[field.name])
            if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # numpy's numbers
                value = value.item()
                object.__setattr__(self, field.name, value)
            if float in accepted and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, field.name, float(value))
            elif not isinstance(value, accepted) or isinstance(value, bool):
                kinds = " or ".join(_TYPE_WORDS[kind] for kind in accepted)
                raise UsageError(f"{field.name} must be {kinds}; got {value!r}.")

    def _check_ranges(self) -> None:
        for name, low, is_included in (
            ("epochs", 1, True),
            ("batch_size", 1, True),
            ("learning_rate", 0, False),
            ("weight_decay", 0, True),
            ("max_gradient_norm", 0, False),
            ("max_shift", 0, True),
            ("memory_budget_gib", 0, True),
            ("patience", 1, True),
            ("seed", 0, True),
        ):
            value = getattr(self, name)
            if isinstance(value, float) and math.isinf(value):
                raise UsageError(f"{name} must be a finite number; got {value}.")
            if value is not None and not (value >= low if is_included else value > low):
                raise UsageError(f"{name} must be {'at least' if is_included else 'above'} {low}; got {value}.")
        for name in ("momentum", "warmup", "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name} must be at least 0 and below 1; got {value}.")

    def _check_combinations(self) -> None:
        if parse_augmentation(self.augment).mixes_labels and self.loss not in (None, "cross-entropy"):
            raise UsageError(
                f"augment mixes labels, which loss '{self.loss}' does not take; it is for cross-entropy. "
                "Leave MixUp and CutMix out."
            )
        if self.label_smoothing and self.loss not in (None, "cross-entropy"):
            raise UsageError(
                f"label_smoothing has no effect with loss '{self.loss}'; it is for cross-entropy. Leave it out."
            )
        if self.momentum is not None and not OPTIMIZERS[self.optimizer].has_momentum:
            takers = ", ".join(name for name, entry in OPTIMIZERS.items() if entry.has_momentum)
            raise UsageError(
                f"momentum has no effect with the optimizer '{self.optimizer}', whose averaging is its own; "
                f"leave it out, or choose one of: {takers}."
            )

    def resolved(self) -> TrainConfig:
        """Return the config with the usual value in place of every None that stands for one; what a run records."""
        entry = OPTIMIZERS[self.optimizer]
        usual: dict[str, Any] = {
            "learning_rate": entry.learning_rate,
            "momentum": entry.momentum,
            "weight_decay": entry.weight_decay,
            "warmup": WARMUPS.get(self.schedule, 0.0),
        }
        return replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})

    @property
    def memory_budget_bytes(self) -> int | None:
        """`memory_budget_gib` in bytes."""
        return None if self.memory_budget_gib is None else int(self.memory_budget_gib * 2**30)

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values, in the order in which they are documented."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> TrainConfig:
        """Make a config from field names and values. Raises `UsageError` for an unknown field, with the nearest."""
        return cls(**{str(name): value for name, value in values.items()})  # type: ignore[arg-type]

    @classmethod
    def parse(cls, name: str, text: str) -> object:
        """Return the value that `text` means for the field `name`, as in `--set patience=3` or `--set momentum=none`.

        Raises `UsageError` for an unknown field and for text that is no value of the field's type.
        """
        hints = typing.get_type_hints(cls)
        if name not in hints:
            raise unknown_name("config field", name, hints)
        accepted = _accepted_types(hints[name])
        if type(None) in accepted and text.lower() == "none":
            return None
        for kind in (int, float, str):
            if kind in accepted:
                try:
                    return kind(text)
                except ValueError:
                    continue
        kinds = " or ".join(_TYPE_WORDS[kind] for kind in accepted)
        raise UsageError(f"{name} must be {kinds}; got '{text}'.")


_TYPE_WORDS = {int: "a whole number", float: "a number", str: "a word", type(None): "none"}


def _accepted_types(hint: object) -> tuple[type, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
