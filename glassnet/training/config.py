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
from glassnet.data.augmentation import DEFAULT, Augmentation, parse_augmentation, resolve_augmentation
from glassnet.data.records import InputRecord
from glassnet.nn.losses import LOSSES, is_own_loss
from glassnet.training.optimizer import NEWTON_SCHULZ_STEPS, OPTIMIZERS
from glassnet.training.schedule import PLATEAU_PATIENCE, SCHEDULES, WARMUPS

BATCH_WORDS = ("all", "auto")
ON_NAN = ("stop", "halve-lr")
KEPT = ("best", "last")
CONVOLUTIONS = ("auto", "direct")
ONLY_FOR_KERNELS = (
    "other_learning_rate", "output_learning_rate", "other_momentum", "other_weight_decay", "fixed_norm",
    "newton_schulz_steps",
)  # fmt: skip
"""Fields that an optimizer for kernels alone has."""
SWITCH_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. Frozen: derive another with `dataclasses.replace(config, epochs=3)`.

    Raises `UsageError` for values out of range and for fields that have no effect together.
    """

    epochs: int | float = 10
    """Passes over the training examples; 0.5 is half of one."""
    batch_size: int | str = 64
    """Examples that pass through the network at once; `all` of them, which is batch gradient descent; or `auto`: 64,
    or as many below as the memory takes."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one optimizer step, in the memory of one batch."""
    optimizer: str = "adamw"
    """`sgd`, `adam`, `adamw`, `rmsprop`, `adagrad` or `muon`: torch's. `muon` is for hidden kernels and matrices; the
    last layer, biases and normalisation then have `sgd`."""
    learning_rate: float | None = None
    """Peak learning rate, per step on the mean loss of a batch; None takes the optimizer's usual one."""
    momentum: float | None = None
    """Momentum of `sgd` (None: 0.9), `rmsprop` (None: 0) and `muon` (None: 0.95)."""
    nesterov: bool | None = None
    """Whether the momentum of `sgd` and `muon` looks ahead (Nesterov 1983; Sutskever et al. 2013); None: it does."""
    other_learning_rate: float | None = None
    """With `muon`: the learning rate of `sgd` for what is no hidden kernel or matrix; None: 0.05."""
    output_learning_rate: float | None = None
    """With `muon`: the learning rate of `sgd` for the weights of the last layer; None: `other_learning_rate`."""
    other_momentum: float | None = None
    """With `muon`: the momentum, Nesterov's, of `sgd` for what is no hidden kernel or matrix; None: 0.9."""
    other_weight_decay: float = 0.0
    """With `muon`: what `sgd` adds of each such number to its gradient, biases and normalisation too. With an
    `output_learning_rate` the last layer gets so much of it that it shrinks by the same share in a step."""
    fixed_norm: bool = False
    """With `muon`: whether each kernel is scaled to the norm `sqrt(outputs)` before its update. The size of an update
    beside the kernel is then the learning rate throughout, and falls with it; weight decay gets there by a detour
    (Jordan 2024, the repository's Muon form)."""
    newton_schulz_steps: int | None = None
    """With `muon`: steps of the iteration that makes an update orthogonal; None: 5."""
    weight_decay: float | None = None
    """As torch's optimizer has it: `adamw` and `muon` shrink weights by it per unit of learning rate, the others add it
    times the weight to the gradient. Biases and normalisation are spared, with `muon` the last layer too, whose rate is
    another; None: the optimizer's usual value."""
    schedule: str = "one-cycle"
    """Course of the learning rate: `constant`, `linear`, `cosine`, `one-cycle`, `step`, `exponential` or `plateau`."""
    plateau_patience: int | None = None
    """With `plateau`: the rate falls to a tenth after more than this many epochs without a lower hold-out loss; None:
    3."""
    warmup: float | None = None
    """Share of the steps over which the learning rate rises from zero; None: 0.2 for `one-cycle`, else 0."""
    loss: str | None = None
    """A name of `glassnet.nn.losses.LOSSES`; None takes the task's own: `squared-error`, `binary-cross-entropy` or
    `cross-entropy`. That of a user's own loss, `losses.py:focal`, is recorded here; `gn.train(loss=focal)` sets it."""
    label_smoothing: float = 0.0
    """Share of each label spread evenly over all classes, 0..1 (Szegedy et al. 2016, section 7)."""
    max_shift: int = 0
    """Each training image is moved at random by up to this many pixels of the network's input, both ways."""
    alternating_flip: bool = False
    """Each training image is mirrored left to right in every other epoch: half of them, drawn once, in the odd epochs,
    the rest in the even ones. So two epochs show both sides of every image, where `RandomHorizontalFlip` shows half of
    them the same side twice (Jordan 2024, section 3.6). For classes that a mirror leaves what they are; with `default`,
    where that mirrors."""
    augment: str = ""
    """Changes to the training images, in torchvision's names, such as `RandomCrop(padding=4),RandomHorizontalFlip`; see
    `glassnet.data.augmentation`. Whole batches, drawn by the seed, never for evaluation. `default` stands for what
    suits the data (`default_augmentation`); a run records what that came to. `none` or nothing: no change."""
    first_layer_epochs: float | None = None
    """Epochs for which the first layer that learns does so; then it stays as it is, and the backward pass, which ends
    before it, is shorter (Brock et al. 2017, "FreezeOut"; Jordan 2024 for the bias of a whitening layer). None: all."""
    max_gradient_norm: float | None = None
    """Gradients are scaled down to this Euclidean norm over all parameters; None leaves them."""
    patience: int | None = None
    """Stop after this many epochs without a lower hold-out loss; None trains all epochs."""
    validate_every: int = 1
    """Epochs from one look at the hold-out split to the next; the last epoch is always looked at."""
    keep: str = "best"
    """Which weights a run keeps: `best`, of the epoch with the lowest hold-out loss, or `last`. With a learning rate
    that falls to zero the last are the ones meant, and few hold-out examples choose others by chance."""
    ema: float | None = None
    """Share of the moving average of the weights that is kept at each step, such as 0.999; the average is then what
    is evaluated and saved. None keeps none."""
    on_nan: str = "stop"
    """Where the loss is no finite number: `stop` before the update, or `halve-lr`: go back to the start of the epoch
    and on at half the learning rate."""
    seed: int = 0
    """Decides the order of the examples and every other draw while training."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: str = "auto"
    """`fp32`, `bf16` or `fp16` (autocast; `fp16` with a scaled loss), or `auto`: bf16 where the hardware multiplies it
    natively, else fp32."""
    convolution: str = "auto"
    """How convolutions are computed in training on a CPU: `auto`, in the fastest way there is, or `direct`, by torch's
    own. Faster are Winograd's minimal filtering for 3x3 kernels, with a quarter of the multiplications
    (`glassnet.nn.winograd`), and kernels of our own for few channels (`glassnet.nn.narrow`); batch normalisation and
    GELU go with them (`glassnet.nn.normalising`, `glassnet.nn.gelu`). That is for fp32, on Linux with a C compiler, and
    sums are rounded otherwise. Validation is always torch's own."""
    memory_budget_gib: float | None = None
    """What the fitted images may take of the device's memory, and of the machine's, in GiB: train and validation
    together, then test. Image files above it are read from disk batch by batch. None: half of what is available."""
    compile: bool = False
    """Whether the network is compiled (`torch.compile`); it pays where training takes minutes."""
    sync_batch_norm: bool = False
    """Whether batch normalisation takes its statistics over all processes; for several GPUs."""
    checkpoint_s: float = 60.0
    """Seconds from one save of the full state to the next within an epoch."""

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
            ("on_nan", self.on_nan, ON_NAN),
            ("keep", self.keep, KEPT),
            ("precision", self.precision, PRECISIONS),
            ("convolution", self.convolution, CONVOLUTIONS),
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
            if float in accepted and int not in accepted and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
                raise UsageError(f"{field.name} must be {_words(accepted)}; got {value!r}.")

    def _check_ranges(self) -> None:
        for name, low, is_included in (
            ("epochs", 0, False),
            ("batch_size", 1, True),
            ("accumulate", 1, True),
            ("other_learning_rate", 0, False),
            ("output_learning_rate", 0, False),
            ("other_weight_decay", 0, True),
            ("first_layer_epochs", 0, False),
            ("newton_schulz_steps", 1, True),
            ("plateau_patience", 0, True),
            ("validate_every", 1, True),
            ("checkpoint_s", 0, False),
            ("learning_rate", 0, False),
            ("weight_decay", 0, True),
            ("max_gradient_norm", 0, False),
            ("max_shift", 0, True),
            ("memory_budget_gib", 0, True),
            ("patience", 1, True),
            ("seed", 0, True),
        ):
            value = getattr(self, name)
            if name == "batch_size" and isinstance(value, str):
                if value not in BATCH_WORDS:
                    raise UsageError(f"batch_size must be a whole number, {' or '.join(BATCH_WORDS)}; got '{value}'.")
                continue
            if isinstance(value, float) and math.isinf(value):
                raise UsageError(f"{name} must be a finite number; got {value}.")
            if value is not None and not (value >= low if is_included else value > low):
                raise UsageError(f"{name} must be {'at least' if is_included else 'above'} {low}; got {value}.")
        for name in ("momentum", "other_momentum", "warmup", "label_smoothing", "ema"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name} must be at least 0 and below 1; got {value}.")

    def _check_combinations(self) -> None:
        is_default = self.augment.strip().lower() == DEFAULT  # which never mixes labels
        augmentation = Augmentation() if is_default else parse_augmentation(self.augment)
        if self.alternating_flip and augmentation.mirrors:
            raise UsageError(
                "augment mirrors images by chance, which leaves nothing of alternating_flip. Take RandomHorizontalFlip "
                "out of it, or leave alternating_flip out."
            )
        if augmentation.mixes_labels and self.loss not in (None, "cross-entropy"):
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
        self._check_idle_fields()

    def _check_idle_fields(self) -> None:
        """Refuse what has no effect beside the rest."""
        entry = OPTIMIZERS[self.optimizer]
        usual = {field.name: field.default for field in fields(self)}
        for name, has_effect, remedy in (
            ("nesterov", entry.has_nesterov, "It is for sgd and muon"),
            *((name, entry.is_for_kernels, "It is for optimizer='muon'") for name in ONLY_FOR_KERNELS),
            ("plateau_patience", self.schedule == "plateau", "It is for schedule='plateau'"),
        ):
            if getattr(self, name) != usual[name] and not has_effect:
                raise UsageError(
                    f"{name} has no effect with optimizer '{self.optimizer}' and schedule '{self.schedule}'. {remedy}; "
                    "leave it out."
                )
        if self.fixed_norm and self.weight_decay:
            raise UsageError(
                "weight_decay has no effect on kernels whose norm is fixed. Leave weight_decay or fixed_norm out."
            )
        if self.precision == "fp16" and entry.is_for_kernels:
            raise UsageError(
                f"precision 'fp16' scales the loss, which '{self.optimizer}' does not take. "
                "Choose bf16, or another optimizer, such as adamw."
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
        if entry.has_nesterov:
            usual["nesterov"] = True
        if entry.is_for_kernels:
            usual["other_learning_rate"] = OPTIMIZERS["sgd"].learning_rate
            usual["other_momentum"] = OPTIMIZERS["sgd"].momentum
            usual["newton_schulz_steps"] = NEWTON_SCHULZ_STEPS
        if self.schedule == "plateau":
            usual["plateau_patience"] = PLATEAU_PATIENCE
        return replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})

    def fitted_to(self, data_name: str, record: InputRecord) -> TrainConfig:
        """Return the config with the augmentation that `default` stands for with inputs of the `record`."""
        augment = resolve_augmentation(self.augment, data_name, record)
        return self if augment == self.augment else self.with_usual(parse_augmentation(augment))

    def with_usual(self, usual: Augmentation) -> TrainConfig:
        """Return the config with `usual` in the place of `default`.

        Where flips alternate, that is without its own; where it has none, none alternate.
        """
        mirrors = self.alternating_flip and usual.mirrors
        kept = usual.without_mirrors() if mirrors else usual
        return replace(self, augment=str(kept) if kept else "", alternating_flip=mirrors)

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
        if bool in accepted and text.lower() in SWITCH_WORDS:
            return SWITCH_WORDS[text.lower()]
        for kind in (int, float, str):
            if kind in accepted:
                try:
                    return kind(text)
                except ValueError:
                    continue
        raise UsageError(f"{name} must be {_words(accepted)}; got '{text}'.")


_TYPE_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    type(None): "none",
}


def _words(accepted: tuple[type, ...]) -> str:
    return " or ".join(_TYPE_WORDS[kind] for kind in accepted if not (kind is int and float in accepted))


def _accepted_types(hint: object) -> tuple[type, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
