"""A network read as a chain of layers, whether it is a `Sequential` or a module with a `forward` of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import fx, nn
from torch.nn import functional

from glassnet._errors import UsageError

Step = tuple[str, nn.Module]
"""A layer with its dotted name."""


def _softmax(*, dim: int | None = None, **_: object) -> nn.Module:
    return nn.Softmax(dim)


def _log_softmax(*, dim: int | None = None, **_: object) -> nn.Module:
    return nn.LogSoftmax(dim)


def _dropout(*, p: float = 0.5, training: bool = True, **_: object) -> nn.Module:
    return nn.Dropout(p).train(training)


def _flatten(*, start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _plain(layer: type[nn.Module]) -> Callable[..., nn.Module]:
    return lambda **_: layer()


SOFTMAX_SETTINGS = ("dim",)
POOL_SETTINGS = ("kernel_size", "stride", "padding")
FUNCTIONS: dict[object, tuple[tuple[str, ...], Callable[..., nn.Module]]] = {
    **dict.fromkeys((functional.relu, torch.relu, "relu"), (("inplace",), _plain(nn.ReLU))),
    **dict.fromkeys((functional.tanh, torch.tanh, "tanh"), ((), _plain(nn.Tanh))),
    **dict.fromkeys((functional.sigmoid, torch.sigmoid, "sigmoid"), ((), _plain(nn.Sigmoid))),
    **dict.fromkeys((functional.softmax, torch.softmax, "softmax"), (SOFTMAX_SETTINGS, _softmax)),
    **dict.fromkeys((functional.log_softmax, torch.log_softmax, "log_softmax"), (SOFTMAX_SETTINGS, _log_softmax)),
    **dict.fromkeys((torch.flatten, "flatten"), (("start_dim", "end_dim"), _flatten)),
    functional.dropout: (("p", "training"), _dropout),
    functional.max_pool2d: (POOL_SETTINGS, nn.MaxPool2d),
    functional.avg_pool2d: (POOL_SETTINGS, nn.AvgPool2d),
}
"""Functional calls, and methods by name, that are a layer: the names of what may follow the input, and the layer."""


class _LayerTracer(fx.Tracer):
    """Records calls of layers and functions; looks into every module that has parts."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return not isinstance(module, nn.Sequential) and not any(module.children())


def layers_in_order(model: nn.Module) -> list[Step]:
    """Return the layers that `model` passes its input through, one after the other, with their dotted names.

    The layers are the model's own, not copies. A layer that is used again is named `name_1`, `name_2` and so on.
    ReLU, tanh, sigmoid, softmax, flattening, dropout and pooling count as layers also where `forward` calls them as
    functions.

    Raises `UsageError` where the network is no chain (paths that part and join) and where `forward` branches on
    its input.
    """
    try:
        graph = _LayerTracer().trace(model)
    except Exception as error:  # `forward` is the user's code, run on stand-ins: anything may come out of it
        raise UsageError(
            f"Expected a network whose steps do not depend on its input; reading {type(model).__name__}.forward "
            f"failed: {error}. Build the same layers as an nn.Sequential."
        ) from error
    steps: list[Step] = []
    uses: dict[str, int] = {}
    for node in _path_to_output(graph):
        name = str(node.target) if node.op == "call_module" else node.name
        layer = model.get_submodule(name) if node.op == "call_module" else _functional_layer(node)
        uses[name] = uses.get(name, -1) + 1
        steps.append((f"{name}_{uses[name]}" if uses[name] else name, layer))
    return steps


def nested(steps: Sequence[Step]) -> OrderedDict[str, nn.Module]:
    """Return `steps` for an `nn.Sequential`, with an inner `Sequential` for each group that a dotted name tells.

    A group that comes back after another one gets a number, `name_1`.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for head, group in groupby(steps, key=lambda step: step[0].partition(".")[0]):
        inner = [(name.partition(".")[2], layer) for name, layer in group]
        name, number = head, 0
        while name in layers:
            number += 1
            name = f"{head}_{number}"
        layers[name] = nn.Sequential(nested(inner)) if inner[0][0] else inner[0][1]
    return layers


def _path_to_output(graph: fx.Graph) -> list[fx.Node]:
    """Return the nodes between input and output, following each one's first argument back from the output."""
    node = next(iter(reversed(graph.nodes)))
    path: list[fx.Node] = []
    while node.op != "placeholder":
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node):
            raise UsageError(f"Expected one tensor passed from layer to layer; got {before} at step '{node.name}'.")
        path.append(node)
        node = before
    return path[:0:-1]


def _functional_layer(node: fx.Node) -> nn.Module:
    rest = node.args[1:]
    names, build = FUNCTIONS.get(node.target, ((), None))
    if build is not None and len(rest) <= len(names):
        return build(**dict(zip(names, rest, strict=False)), **node.kwargs)
    if node.target in ("view", "reshape") and len(rest) == 2 and -1 in rest:
        return nn.Flatten()
    raise UsageError(
        f"Expected a chain of layers, each taking the one before; got the step '{node.name}' in forward. Networks "
        f"whose paths part and join, such as residual ones, and other functions cannot be taken apart this way."
    )
