"""Catching what a layer gives while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet.inspection.calls import Call, Watcher, plain_path, tensors_in, watching
from glassnet.inspection.units import check_layer


class Captured:
    """The output of one layer in the pass that has just run."""

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self._output: Tensor | None = None

    @property
    def output(self) -> Tensor:
        """The first tensor that the layer gave in its last call. Raises `UsageError` where the layer did not run."""
        if self._output is None:
            raise UsageError(
                f"Layer '{self.layer}' gave no tensor: the forward pass did not run it. Choose one that "
                "`glassnet summary` shows."
            )
        return self._output

    def take(self, value: object) -> None:
        """Keep the first tensor of a layer's output."""
        tensors = tensors_in(value)
        if tensors:
            self._output = tensors[0]

    def clear(self) -> None:
        """Let go of the output."""
        self._output = None


def module_paths(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model by their paths, also those that `torch.compile` wrapped."""
    return {plain_path(path): module for path, module in model.named_modules() if plain_path(path)}


def layer_of(model: nn.Module, layer: str) -> nn.Module:
    """Return the module called `layer`; raise `UsageError` with the nearest names where there is none."""
    modules = module_paths(model)
    return modules[check_layer(plain_path(layer) if isinstance(layer, str) else layer, modules)]


@contextmanager
def capture_output(model: nn.Module, layer: str) -> Iterator[Captured]:
    """Catch the output of a module, or of a function by its name in `gn.summary`, in passes during the block."""
    captured = Captured(layer)
    modules = module_paths(model)
    with ExitStack() as stack:
        if layer in modules:
            stack.callback(
                modules[layer].register_forward_hook(lambda module, args, output: captured.take(output)).remove
            )
        else:
            stack.enter_context(watching(model, _Catcher(captured)))
        yield captured


class _Catcher(Watcher):
    """Takes the output of the call with the layer's name."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured

    def call(self, call: Call) -> None:
        if call.name == self.captured.layer:
            self.captured.take(call.output)
