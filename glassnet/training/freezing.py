"""The first layer of a network, which may stop to learn before the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from glassnet._errors import UsageError


class FirstLayer:
    """The parameters that learn of the first layer that has any, in the order in which a model's layers are made."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, is_waited_for: bool) -> None:
        self.parameters = parameters
        self.is_waited_for = is_waited_for
        """Whether there must be gradients to the end: several processes exchange all that there were at the start."""
        self.is_learning = True

    def learn(self, is_learning: bool) -> None:
        """Say whether the layer learns from here on."""
        self.is_learning = is_learning
        for parameter in self.parameters:
            parameter.requires_grad_(is_learning or self.is_waited_for)

    def drop_gradients(self) -> None:
        """Forget the gradients of a layer that does not learn any more; an optimizer leaves it alone then."""
        if not self.is_learning:
            for parameter in self.parameters:
                parameter.grad = None


@contextmanager
def first_layer(model: nn.Module, *, is_waited_for: bool = False) -> Iterator[FirstLayer]:
    """Yield the first layer of `model`, which learns again after the block.

    Raises `UsageError` where no other layer learns.
    """
    learning = [
        [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
        for module in model.modules()
    ]
    layers = [parameters for parameters in learning if parameters]
    if len(layers) < 2:
        raise UsageError(
            f"first_layer_epochs is for networks of several layers that learn; this one has {len(layers)}. "
            "Leave it out."
        )
    layer = FirstLayer(layers[0], is_waited_for=is_waited_for)
    try:
        yield layer
    finally:
        layer.learn(True)
