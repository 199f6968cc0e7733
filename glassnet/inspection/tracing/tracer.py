"""Running a model once and recording the pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from glassnet._errors import UsageError
from glassnet._modes import refuse_lazy
from glassnet.inspection.tracing.gradients import fill_gradients
from glassnet.inspection.tracing.inputs import (
    Given,
    Inputs,
    Loss,
    candidate_inputs,
    default_loss,
    picked_output,
    target_of,
)
from glassnet.inspection.tracing.preservation import as_written, preserved
from glassnet.inspection.tracing.record import Trace
from glassnet.inspection.tracing.recording import Recorder
from glassnet.inspection.tracing.scopes import plain_path
from glassnet.inspection.tracing.values import Origin, Value


def trace(
    model: nn.Module, image: Given, label: Any = None, loss: Loss | None = None, *, training: bool = False
) -> Trace:
    """Run `model` once and record every operation, with every number it read and made.

    `image` is one image `(C, H, W)` or a batch `(N, C, H, W)` as the model takes it (normalised floating numbers);
    likewise a vector, a signal, token numbers; a tuple of inputs, or a dictionary of inputs by name. Where the model
    takes batches only, an axis is put before one example.

    With `label` the loss is computed and recorded too, and autograd's gradient of every value and parameter: a class
    number, one for each image `(N,)`, or floating targets. `loss` is any function of what the model returned and the
    targets that returns one number; default cross-entropy, mean over the images.

    The model runs in evaluation mode. With `training=True` it runs as in training, with batch statistics and dropout:
    a model in training mode in the modes that its modules are in, another with all of them in training mode.
    Everything random draws from the generators as they stand, so the numbers are those of `model(image)` run now.

    The model is left as it was: modes, parameters, buffers, `.grad`, hooks, attributes, random state; also after an
    error. A `torch.compile`d model is run as it was written.

    Raises `UsageError` for a model that is lazy or scripted, or does not take the input, and for a label or loss that
    does not fit.
    """
    parts = _parts(model)
    if label is None and loss is not None:
        raise UsageError("A loss needs a label to compare the output with; got a loss alone. Write label=k.")
    reason = ""
    for inputs in candidate_inputs(model, image):
        try:
            return _traced(parts, inputs, label, loss, training=training)
        except _ModelError as error:
            reason = reason or f"on {inputs} it raised {error}"
    raise UsageError(
        f"The model must run on the input to be traced; {reason}. Give the input it was built for, channels first."
    )


class _ModelError(Exception):
    """The model's own code raised; the text says what."""


@dataclass(frozen=True)
class _Pass:
    """What a recorded pass came to, by the values' numbers."""

    inputs: tuple[int, ...]
    output: int
    loss: int | None
    loss_tensor: Tensor | None
    target: Tensor | None


@dataclass(frozen=True)
class _Parts:
    """A model and its modules, by every path that leads to them."""

    model: nn.Module
    modules: tuple[tuple[str, nn.Module], ...]

    @property
    def paths(self) -> dict[int, str]:
        """The first path of each module by its `id`."""
        return {id(module): path for path, module in reversed(self.modules)}


def _parts(model: nn.Module) -> _Parts:
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module); got {type(model).__name__}. For a run, pass run.model.")
    model = as_written(model)
    parts = _Parts(model, tuple((plain_path(path), m) for path, m in model.named_modules(remove_duplicate=False)))
    for path, module in parts.modules:
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"A model must be Python to be traced; '{path or '(model)'}' is scripted, and its calls cannot be "
                "seen. Trace the model that it was scripted from."
            )
        if any(is_lazy(parameter) for parameter in module._parameters.values() if parameter is not None):
            refuse_lazy(model)
    return parts


def _traced(parts: _Parts, inputs: Inputs, label: Any, loss: Loss | None, *, training: bool) -> Trace:
    has_label, paths = label is not None, parts.paths
    recorder = Recorder(paths, with_gradients=has_label)
    modules = list({id(module): module for _, module in parts.modules}.values())
    with preserved(parts.model, modules, training=training, with_gradients=has_label):
        try:
            parameters = _known_parameters(parts, recorder)
            done = _run(parts.model, inputs, label, loss, recorder)
            if done.loss_tensor is not None:
                fill_gradients(recorder.table, done.loss_tensor, recorder.steps)
        finally:
            recorder.put_back()
    table = recorder.table
    table.tensors[:] = [tensor.detach() if tensor.requires_grad else tensor for tensor in table.tensors]
    table.edges.clear()
    return Trace(
        inputs=tuple(Value(number, table) for number in done.inputs),
        parameters={path: Value(number, table) for path, number in parameters.items()},
        output_value=Value(done.output, table),
        loss_value=None if done.loss is None else Value(done.loss, table),
        target=done.target,
        is_training=training,
        is_batch_added=inputs.is_batch_added,
        gaps=tuple(recorder.gaps),
        read_by_program=frozenset(Value(number, table) for number in recorder.read_by_program),
        _table=table,
        _recorded=recorder.steps,
        _module_outputs=recorder.module_outputs.by_path,
        _paths=paths.values(),
    )


def _known_parameters(parts: _Parts, recorder: Recorder) -> dict[str, int]:
    """Tell the recorder of parameters and buffers; return the parameters' values by path."""
    numbers: dict[str, int] = {}
    for path, module in parts.modules:
        before = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                numbers[before + name] = _known(recorder, parameter, Origin("parameter", path=before + name))
        for name, buffer in module._buffers.items():
            if isinstance(buffer, Tensor):
                _known(recorder, buffer, Origin("buffer", path=before + name))
    return numbers


def _known(recorder: Recorder, tensor: Tensor, origin: Origin) -> int:
    live = recorder.memory.find(tensor)
    return live.value if live is not None else recorder.know(tensor, origin)


def _run(model: nn.Module, inputs: Inputs, label: Any, loss: Loss | None, recorder: Recorder) -> _Pass:
    args, kwargs, numbers = _known_inputs(inputs, recorder)
    with recorder.recording():
        try:
            returned = model(*args, **kwargs)
        except Exception as error:  # the model's own code may raise anything
            raise _ModelError(_reason(error)) from None
        output = picked_output(returned)
        output_number = recorder.value_of(output)
        if label is None:
            return _Pass(numbers, output_number, None, None, None)
        with torch._C.DisableTorchFunction():
            target = target_of(label, output, loss, is_batch_added=inputs.is_batch_added)
            recorder.know(target, Origin("constant", path="label"))
        with recorder.scopes.within("loss"):
            value = _loss_of(loss or default_loss, returned, target)
        return _Pass(numbers, output_number, recorder.value_of(value), value, target)


def _known_inputs(inputs: Inputs, recorder: Recorder) -> tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]:
    """Return copies of the inputs, which the model may write to, and their values' numbers."""
    numbers: list[int] = []
    several = len(inputs.args) > 1
    args = tuple(
        _known_copy(value, f"input{number}" if several else "input", recorder, numbers)
        for number, value in enumerate(inputs.args)
    )
    kwargs = {name: _known_copy(value, name, recorder, numbers) for name, value in inputs.kwargs.items()}
    return args, kwargs, tuple(numbers)


def _known_copy(value: Any, name: str, recorder: Recorder, numbers: list[int]) -> Any:
    if isinstance(value, Tensor):
        copy = _copy(value)
        numbers.append(recorder.know(copy, Origin("input", len(numbers), path=name)))
        return copy
    if type(value) in {tuple, list}:
        return type(value)(_known_copy(part, f"{name}{place}", recorder, numbers) for place, part in enumerate(value))
    return value


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    if torch.is_grad_enabled() and (copy.is_floating_point() or copy.is_complex()):
        return copy.requires_grad_().clone()  # autograd lets nobody write to a leaf in place
    return copy


def _loss_of(loss: Loss, returned: Any, target: Tensor) -> Tensor:
    try:
        value = loss(returned, target)
    except Exception as error:  # the loss is the user's own code too
        raise UsageError(
            f"The loss must take what the model returned and the targets {tuple(target.shape)}; it raised "
            f"{_reason(error)}. Give targets of the kind that the loss takes."
        ) from None
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"A loss must be one number; got {got}. Take the mean or the sum.")
    return value


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().rstrip('.')}"
