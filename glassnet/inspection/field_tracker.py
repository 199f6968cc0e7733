"""The receptive fields of every value in a forward pass, as it runs."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from glassnet.inspection.calls import Call, Operation, Watcher, tensors_in
from glassnet.inspection.field_rules import carry
from glassnet.inspection.fields import NOTHING, Field, Span, input_field, located


class FieldTracker(Watcher):
    """Knows the field of each tensor of a pass; values are kept until the tracker goes, so that none is mistaken.

    A tensor is known by itself. One that was written to through a view of its memory is known by the memory: fields
    lie there as the numbers do, and a view reads them with the offset and strides that it reads numbers with.
    """

    def __init__(self) -> None:
        self._fields: dict[int, tuple[Tensor, Field | None]] = {}
        self._sharing: defaultdict[int, list[int]] = defaultdict(list)
        self._shared: dict[int, Field] = {}
        self.by_call: dict[str, Field | None] = {}
        """The field of each call's output, its first tensor, by the call's name."""
        self.by_module: dict[str, Field | None] = {}
        """Likewise of each module's, by its path; of the last call."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        """The shape of those outputs, with the batch axis."""

    def start(self, example: Tensor) -> None:
        """Take the model's input: each pixel sees itself."""
        self._set(example, input_field(tuple(example.shape)))

    def operation(self, operation: Operation) -> None:
        """Carry the fields of the operation's inputs to its outputs."""
        fields = carry(operation, self.field)
        written = {id(tensor) for tensor in operation.writes}
        for output, field in zip(operation.outputs, fields, strict=True):
            if id(output) in written:
                self._write(output, field)
            elif field is not None:
                self._set(output, field)
        for tensor in operation.writes:  # a result put elsewhere, `out=`
            if fields and all(tensor is not output for output in operation.outputs):
                self._write(tensor, fields[0])

    def call(self, call: Call) -> None:
        """Keep the field of the call's output."""
        self._keep(self.by_call, call.name, call.output)

    def module(self, path: str, module: nn.Module, output: object) -> None:
        """Keep the field of the module's output."""
        self._keep(self.by_module, path, output)

    def field(self, value: object) -> Field | None:
        """Return what a tensor sees of the input; None where it sees nothing, and for what is no tensor."""
        if not isinstance(value, Tensor):
            return None
        if id(value) in self._fields:
            return self._fields[id(value)][1]
        if not self._shared:
            return None
        shared = self._shared.get(_memory(value))
        return None if shared is None else _read(shared, value)

    def depends(self, operation: Operation) -> bool:
        """Return whether an operation reads anything that depends on the model's input."""
        return any(self.field(tensor) is not None for tensor in tensors_in((operation.args, operation.kwargs)))

    def _keep(self, kept: dict[str, Field | None], name: str, output: object) -> None:
        tensors = tensors_in(output)
        if tensors:
            kept[name] = self.field(tensors[0])
            self.shapes[name] = tuple(tensors[0].shape)

    def _set(self, tensor: Tensor, field: Field | None) -> None:
        if id(tensor) not in self._fields:
            self._sharing[_memory(tensor)].append(id(tensor))
        self._fields[id(tensor)] = (tensor, field)

    def _write(self, tensor: Tensor, field: Field | None) -> None:
        """Set the field of a tensor whose numbers were changed in place, and of what shares memory with it."""
        memory = _memory(tensor)
        others = [key for key in self._sharing[memory] if key != id(tensor)]
        if not others and memory not in self._shared and _fills_its_memory(tensor):
            self._set(tensor, field)
            return
        before = self.field(tensor)
        if before is not None and field is not None and _are_equal(before, field):
            return
        shared = self._shared.get(memory)
        for key in self._sharing[memory]:
            shared = _laid(shared, *self._fields[key])
        shared = _laid(shared, tensor, field)
        if shared is None:
            return
        self._shared[memory] = shared
        for key in (*others, id(tensor)):
            owner = tensor if key == id(tensor) else self._fields[key][0]
            self._set(owner, _read(shared, owner))


def _memory(tensor: Tensor) -> int:
    """Return a number of the memory a tensor lies in, equal for its views."""
    memory: int = tensor.untyped_storage()._cdata
    return memory


def _fills_its_memory(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _are_equal(first: Field, second: Field) -> bool:
    return all(
        one.ends.ndim == other.ends.ndim and bool((one.ends == other.ends).all())
        for one, other in zip(first.spans, second.spans, strict=True)
    )


def _laid(shared: Field | None, tensor: Tensor, field: Field | None) -> Field | None:
    """Return the field of a whole memory `(4, elements)` after a tensor's field was laid into it."""
    if field is None and shared is None:
        return None
    like = shared if shared is not None else field
    assert like is not None
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    spans = []
    for place in range(len(like.spans)):
        ends = torch.full((4, count), NOTHING) if shared is None else shared.spans[place].ends.clone()
        value = torch.tensor(NOTHING) if field is None else field.spans[place].ends
        for part, row in zip(ends, value.expand(4, *tensor.shape), strict=True):
            _as_laid_out(part, tensor).copy_(row)
        spans.append(Span(ends, None, like.spans[place].stride))
    unknown = frozenset[str]().union(*(known.unknown for known in (shared, field) if known is not None))
    return Field(tuple(spans), unknown)


def _as_laid_out(part: Tensor, tensor: Tensor) -> Tensor:
    """Return a view of `part` `(elements,)` that reads it as `tensor` reads its memory."""
    return part.as_strided(tensor.shape, tensor.stride(), part.storage_offset() + tensor.storage_offset())


def _read(shared: Field, tensor: Tensor) -> Field | None:
    """Return what a tensor sees by the field of the memory it lies in."""
    spans = []
    for span in shared.spans:
        ends = torch.stack([_as_laid_out(part, tensor) for part in span.ends])
        spans.append(located(ends, Span(ends, None, span.stride)))
    return None if all(span.is_empty for span in spans) else Field(tuple(spans), shared.unknown)
