"""torch's optimizers by name, with their usual values."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glassnet._device import multiplies_bf16
from glassnet._errors import UsageError
from glassnet.training.muon import Float32Muon, has_muon

if TYPE_CHECKING:
    from glassnet.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerEntry:
    """One optimizer: how to make it, and its usual values."""

    make: Callable[..., torch.optim.Optimizer]
    learning_rate: float
    weight_decay: float = 0.0
    momentum: float | None = None
    """Usual momentum; None where the optimizer has no such field."""
    has_nesterov: bool = False
    """True where momentum can be had in Nesterov's form."""
    is_for_kernels: bool = False
    """True where it takes matrices and kernels only, and plain `sgd` updates the rest."""

    @property
    def has_momentum(self) -> bool:
        """True where the config's momentum has an effect."""
        return self.momentum is not None


NEWTON_SCHULZ_STEPS = 5
"""torch's usual number of them."""
LEAST_NORM = 1e-12
"""So that kernels of zeros stay what they are."""

_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
"""Methods of `torch.optim.Optimizer` that torch's compiler is told to leave out."""


@functools.cache
def without_compiler(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return one of torch's optimizers that does the same without torch's compiler.

    torch wraps these methods in order to leave them out of what it compiles, and imports the compiler to that end:
    over a second of a training that takes four. Nothing here compiles an optimizer.
    """
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in _WRAPPED}
    step = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), plain | {"step": step})


def _sgd(groups: list[dict[str, Any]], *, momentum: float, nesterov: bool, **values: Any) -> torch.optim.Optimizer:
    # Nesterov's form needs a momentum; without one both forms are plain gradient descent.
    make = without_compiler(torch.optim.SGD)
    return make(groups, momentum=momentum, nesterov=nesterov and momentum > 0, **values)  # type: ignore[call-arg]


def _muon(groups: list[dict[str, Any]], **values: Any) -> torch.optim.Optimizer:
    if not has_muon():
        raise UsageError(f"Optimizer 'muon' needs torch 2.9 or newer; this is {torch.__version__}. Choose adamw.")
    device = groups[0]["params"][0].device
    make = without_compiler(torch.optim.Muon if multiplies_bf16(device) else Float32Muon)
    return make(groups, **values)


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(make=_sgd, learning_rate=0.05, weight_decay=5e-4, momentum=0.9, has_nesterov=True),
    "adam": OptimizerEntry(make=without_compiler(torch.optim.Adam), learning_rate=3e-3),
    "adamw": OptimizerEntry(make=without_compiler(torch.optim.AdamW), learning_rate=3e-3, weight_decay=0.01),
    "rmsprop": OptimizerEntry(make=without_compiler(torch.optim.RMSprop), learning_rate=1e-3, momentum=0.0),
    "adagrad": OptimizerEntry(make=without_compiler(torch.optim.Adagrad), learning_rate=0.01),
    "muon": OptimizerEntry(make=_muon, learning_rate=0.02, momentum=0.95, has_nesterov=True, is_for_kernels=True),
}


class KernelOptimizer:
    """An optimizer of matrices for the hidden kernels of a network, beside `sgd` for everything else.

    Muon (Jordan et al. 2024) makes the update of a weight matrix orthogonal. A kernel `(O, C, H, W)` is given to it as
    the matrix `(O, C * H * W)`, a view of the same memory. It is meant for hidden layers: the last layer, biases and
    normalisation have `sgd`, with learning rates of their own. With `has_fixed_norm` a matrix has the Frobenius norm
    `sqrt(O)`, that of orthonormal rows, before each of its updates.
    """

    def __init__(
        self,
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        kernels: list[nn.Parameter],
        rest: torch.optim.Optimizer | None,
        *,
        has_fixed_norm: bool = False,
    ) -> None:
        self.kernels, self.has_fixed_norm = kernels, has_fixed_norm
        self.matrices = [nn.Parameter(_matrix(kernel.detach(), kernel)) for kernel in kernels]
        self.parts = [make([{"params": self.matrices}]), *([rest] if rest else [])]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters."""
        for kernel in self.kernels:
            kernel.grad = None
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Update all parameters."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad, kernel)
            if self.has_fixed_norm and matrix.grad is not None:
                with torch.no_grad():
                    matrix.mul_(math.sqrt(len(matrix)) / matrix.norm().clamp(min=LEAST_NORM))
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for part, values in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(values)


AnyOptimizer = torch.optim.Optimizer | KernelOptimizer


def _matrix(values: Tensor, kernel: Tensor) -> Tensor:
    """Return `values` `(O, ...)` as `(O, K)`, its columns in the order in which `kernel` lies in memory.

    So the kernel's own matrix is a view. The order is of no account: a matrix with other columns is made orthogonal
    in the same way.
    """
    if kernel.ndim == 4 and not kernel.is_contiguous():  # channels innermost
        values = values.permute(0, 2, 3, 1)
    return values.reshape(len(values), -1)


def build_optimizer(model: nn.Module, config: TrainConfig) -> AnyOptimizer:
    """Build the optimizer of a resolved config over the model's parameters.

    Weight decay acts on parameters of two or more axes (kernels, matrices); biases and the scales of normalisation
    are spared. Raises `UsageError` where the optimizer is for kernels and the model has none to learn.
    """
    entry = OPTIMIZERS[config.optimizer]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if entry.is_for_kernels:
        return _for_kernels(parameters, config)
    values: dict[str, Any] = {"lr": config.learning_rate} | _fused(entry.make, parameters)
    if entry.has_momentum:
        values["momentum"] = config.momentum
    if entry.has_nesterov:
        values["nesterov"] = config.nesterov
    return entry.make(_groups(parameters, config.weight_decay), **values)


def _for_kernels(parameters: list[nn.Parameter], config: TrainConfig) -> KernelOptimizer:
    kernels = [parameter for parameter in parameters if parameter.ndim >= 2][:-1]
    if not kernels:
        raise UsageError(
            f"Optimizer '{config.optimizer}' is for the kernels and matrices of hidden layers, and this model has "
            "none. Choose sgd or adamw."
        )
    taken = {id(kernel) for kernel in kernels}
    others = [parameter for parameter in parameters if id(parameter) not in taken]
    assert config.other_momentum is not None, "the config is resolved"
    rest = _sgd(_rest_groups(others, config), momentum=config.other_momentum, nesterov=True)
    values = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "momentum": config.momentum,
        "ns_steps": config.newton_schulz_steps,
    }
    make = OPTIMIZERS[config.optimizer].make
    return KernelOptimizer(
        lambda groups: make(groups, nesterov=config.nesterov, **values), kernels, rest, has_fixed_norm=config.fixed_norm
    )


def _rest_groups(parameters: list[nn.Parameter], config: TrainConfig) -> list[dict[str, Any]]:
    """Return what is no kernel with the learning rates of its own, which it keeps beside the kernels'."""
    assert config.learning_rate is not None
    assert config.other_learning_rate is not None
    rate, output_rate = config.other_learning_rate, config.output_learning_rate
    parts = [(parameters, rate)]
    if output_rate is not None:
        parts = [([p for p in parameters if p.ndim < 2], rate), ([p for p in parameters if p.ndim >= 2], output_rate)]
    return [
        {
            "params": part,
            "lr": own_rate,
            "lr_ratio": own_rate / config.learning_rate,
            "weight_decay": config.other_weight_decay * rate / own_rate,
        }
        for part, own_rate in parts
        if part
    ]


def _groups(parameters: list[nn.Parameter], decay: float | None) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _fused(make: Callable[..., object], parameters: list[nn.Parameter]) -> dict[str, bool]:
    """Return what makes torch update all parameters in one kernel, where it has one for them."""
    takes_it = "fused" in inspect.signature(torch.optim.SGD if make is _sgd else make).parameters
    places = {parameter.device.type for parameter in parameters}
    is_plain = all(parameter.dtype == torch.float32 for parameter in parameters)
    return {"fused": True} if takes_it and is_plain and places <= {"cpu", "cuda"} and len(places) == 1 else {}


def set_learning_rate(optimizer: AnyOptimizer, learning_rate: float) -> None:
    """Set the learning rate of every parameter group; one with a ratio of its own keeps it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_ratio", 1.0)
