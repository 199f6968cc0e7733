"""What is known of a network before it is built, and how a model was built, so that a run can build it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from glassnet._types import Shape
from glassnet.nn.losses import Task


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One entry of `glassnet models`: a builder and what a caller must know before calling it."""

    build: Callable[..., nn.Module]
    """Takes `num_classes`, `input_shape` and the architecture's own options, all by keyword."""
    input_shape: Shape
    """The input the architecture is published with, `(C, H, W)` for images; the builder's default."""
    num_classes: int = 10
    """Likewise: the builder's default."""
    any_size: bool = False
    """True where the network has no input size of its own and takes the data's."""
    is_regression: bool = False
    """True where the network is for values, not classes."""
    losses: Mapping[Task, str] = field(default_factory=dict)
    """The loss it is trained with, by task, where that is not the task's usual one."""
    source: str
    """The paper or text that defines it."""


@dataclass(frozen=True)
class ModelSpec:
    """The name and the options that `build_model` was called with; stored in a run's config."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    input_shape: Shape = ()
    """The input the model was built for, `(C, H, W)` for images."""
    seed: int = 0
    """That of the initial weights."""


@runtime_checkable
class HasDataInitialisation(Protocol):
    """A model some of whose initial weights are computed from training inputs."""

    def initialise_from(self, inputs: Tensor) -> None:
        """Set them from `inputs` `(N, ...)`, training inputs normalised as the model gets them; repeatable.

        For whoever trains the model to call once, before the first step, and never for weights that are loaded.
        """
