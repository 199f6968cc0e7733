"""Catching what a layer gives while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from glassnet.inspection.calls import Call, Watcher, plain_path, tensors_in, watching
from glassnet.inspection.units import LayerError, check_layer


class Captured:
    """The output of one layer in the pass that has just run."""

    def __init__(self, layer: str, *, copies: bool = False) -> None:
        self.layer = layer
        self.copies = copies
        """Whether the output is copied as it is taken: what runs behind the layer may write to it."""
        self.num_taken = 0
        """How often the layer has given a tensor."""
        self._output: Tensor | None = None

    @property
    def output(self) -> Tensor:
        """The first tensor that the layer gave in its last call. Raises `UsageError` where the layer did not run."""
        if self._output is None:
            raise LayerError(
                f"Layer '{self.layer}' gave no tensor: the forward pass did not run it. Choose one that "
                "`glassnet summary` shows."
            )
        return self._output

    def take(self, value: object) -> None:
        """Keep the first tensor of a layer's output."""
        tensors = tensors_in(value)
        if tensors:
            self.num_taken += 1
            self._output = tensors[0].clone() if self.copies else tensors[0]

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
def capture_output(model: nn.Module, layer: str, *, copies: bool = False) -> Iterator[Captured]:
    """Catch the output of a module, or of a function by its name in `gn.summary`, in passes during the block.

    With `copies` it stays what the layer gave, also where work in place, such as a ReLU's, goes over it afterwards.
    """
    captured = Captured(layer, copies=copies)
    modules = module_paths(model)
    with ExitStack() as stack:
        if layer in modules:
            stack.callback(
                modules[layer].register_forward_hook(lambda module, args, output: captured.take(output)).remove
            )
        else:
            stack.enter_context(watching(model, _Catcher(captured)))
        yield captured


class OutputReader:
    """Reads a layer's output in each of many passes, while the processor still has it at hand.

    To keep an output until the pass is over costs a small network a third of its speed: memory is touched anew. Of a
    layer that runs several times in a pass the last output counts; which one that is shows in the first pass. Images
    are laid out with their channels innermost, as for plain inference, where the model's code takes that: so may be
    the outputs that are read.
    """

    def __init__(self, model: nn.Module, layer: str, read: Callable[[Tensor], None]) -> None:
        self.model = model
        self.layer = layer
        self.read = read
        self._calls_per_pass = 0
        self._call = 0
        self._layout: torch.memory_format | None = None

    def run(self, inputs: Tensor) -> None:
        """Run the model on a batch and read the layer's output. Raises `UsageError` where the layer gave no tensor."""
        inputs = self._laid_out(inputs)
        if not self._calls_per_pass:
            with capture_output(self.model, self.layer, copies=True) as found:
                self.model(inputs)
            self.read(found.output)
            self._calls_per_pass = found.num_taken
            return
        self._call = 0
        hook = layer_of(self.model, self.layer).register_forward_hook(self._take)
        try:
            self.model(inputs)
        finally:
            hook.remove()
        if self._call != self._calls_per_pass:
            raise LayerError(
                f"Layer '{self.layer}' ran {self._calls_per_pass} times on the first batch and {self._call} times on "
                "another: which of its outputs to look at is not clear. Choose a layer that always runs as often."
            )

    def _laid_out(self, inputs: Tensor) -> Tensor:
        if inputs.ndim != 4:
            return inputs
        if self._layout is None:
            self._layout = torch.channels_last
            try:
                self.model(inputs[:1].to(memory_format=self._layout))
            except Exception:  # such as `x.view(len(x), -1)`; an error with another reason comes again
                self._layout = torch.contiguous_format
        return inputs.to(memory_format=self._layout)

    def _take(self, module: nn.Module, args: object, output: object) -> None:
        tensors = tensors_in(output)
        self._call += bool(tensors)
        if tensors and self._call == self._calls_per_pass:
            self.read(tensors[0])


@contextmanager
def reading_outputs(
    model: nn.Module, layers: Sequence[str] | None, read: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Have `read` look at the first tensor of each call of the layers, as it comes out, in passes during the block.

    By default of every module without children. Raises `UsageError` for an unknown layer.
    """
    modules = module_paths(model)
    if layers is None:
        chosen = {name: module for name, module in modules.items() if not any(module.children())}
    else:
        chosen = {plain_path(name): layer_of(model, name) for name in layers}

    def look(name: str, output: object) -> None:
        tensors = tensors_in(output)
        if tensors:
            read(name, tensors[0])

    with ExitStack() as stack:
        for name, module in chosen.items():
            hook = module.register_forward_hook(lambda module, args, output, name=name: look(name, output))
            stack.callback(hook.remove)
        yield


class _Catcher(Watcher):
    """Takes the output of the call with the layer's name."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured

    def call(self, call: Call) -> None:
        if call.name == self.captured.layer:
            self.captured.take(call.output)
