"""What a call of the framework is to a trace: a step, a question about a tensor, a composite to be opened.

Decided once per function, by its name and its arguments' kinds; nothing here runs a call.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Function = Callable[..., Any]


class Role(Enum):
    """What is done with a call."""

    STEP = auto()
    """Recorded, if tensors come out of tensors."""
    QUESTION = auto()
    """A shape, a flag, a hook: passed on unseen."""
    NUMBER = auto()
    """Hands a tensor's numbers to Python, where a program may branch on them."""
    CREATION = auto()
    """Takes a tensor for its shape or type alone: what comes out is a constant."""
    CONVERSION = auto()
    """A step, except where there was nothing to convert and its argument came back."""
    COMPOSITE = auto()
    """Opened: the calls inside are recorded in its place."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a function before it is called."""

    op: str
    """Its name as people say it: `conv2d`, `add` (also for `+`, `+=` and `add_`), `getitem`."""
    role: Role
    is_in_place: bool
    """Always writes to its first argument."""
    may_draw: bool
    """May draw from the random generator."""
    written: tuple[tuple[int, str], ...] = ()
    """Further arguments that it may write to, by position and name."""
    is_foreign: bool = False
    """Outside torch's own namespace, so that its name promises nothing about what it writes to."""


PROPERTIES = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})
"""Attributes of a tensor that are tensors computed from it."""

QUESTIONS = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "data_ptr", "element_size",
    "get_device", "__len__", "__hash__", "__repr__", "__str__", "__format__", "__dir__", "__setstate__",
    "__reduce_ex__", "_is_view", "is_contiguous", "is_pinned", "is_shared", "is_floating_point", "is_complex",
    "is_signed", "is_inference", "is_same_size", "is_set_to", "is_tensor", "is_storage", "is_conj", "is_neg",
    "is_coalesced", "is_distributed", "requires_grad_", "retain_grad", "register_hook",
    "register_post_accumulate_grad_hook", "has_names", "untyped_storage", "storage", "_typed_storage",
    "storage_type", "result_type", "can_cast", "__dlpack__", "__dlpack_device__", "share_memory_", "pin_memory",
    "backward", "_set_grad_enabled", "get_num_threads", "has_internal_overlap", "_has_compatible_shallow_copy_type",
    "_version", "dim_order",
})  # fmt: skip

NUMBERS = frozenset({
    "item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__complex__", "__index__",
    "__contains__", "equal", "allclose", "is_nonzero",
})  # fmt: skip

CREATIONS = frozenset({
    "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like", "randint_like", "new_zeros", "new_ones",
    "new_empty", "new_full", "new_tensor", "new_empty_strided", "new", "full_like",
})  # fmt: skip

CONVERSIONS = frozenset({
    "to", "contiguous", "float", "double", "half", "bfloat16", "int", "long", "short", "bool", "char", "byte",
    "cpu", "cuda", "type", "type_as", "resolve_conj", "resolve_neg", "positive", "__pos__",
})  # fmt: skip

COMPOSITES: dict[Any, str] = {
    F.multi_head_attention_forward: "attention",
    F.normalize: "normalize",
    F.lp_pool1d: "lp_pool1d",
    F.lp_pool2d: "lp_pool2d",
    F.lp_pool3d: "lp_pool3d",
    F.tanhshrink: "tanhshrink",
    F.softsign: "softsign",
    F.gumbel_softmax: "gumbel_softmax",
    F.gaussian_nll_loss: "gaussian_nll_loss",
    F.triplet_margin_with_distance_loss: "triplet_margin_with_distance_loss",
}
"""Functions written in Python over several operations that people name, with the name their inner steps stand under."""

WRITTEN = {
    "batch_norm": ((1, "running_mean"), (2, "running_var")),
    "instance_norm": ((1, "running_mean"), (2, "running_var")),
    "embedding": ((1, "weight"),),
    "embedding_bag": ((1, "weight"),),
}
"""Arguments that a function of `torch.nn.functional` writes to in some modes."""

RANDOM = (
    "drop", "rand", "normal", "bernoulli", "multinomial", "poisson", "binomial", "uniform", "exponential", "geometric",
    "cauchy", "rrelu", "fractional_max_pool", "gumbel", "scaled_dot_product", "lstm", "gru", "rnn", "init",
)  # fmt: skip
"""Parts of the names of functions that may draw. A name too many costs microseconds, as the generator is asked."""


@lru_cache(maxsize=4096)
def kind_of(function: Function) -> Kind:
    """Return what is known of a function that a torch function mode met."""
    name = str(getattr(function, "__name__", None) or type(function).__name__)
    is_foreign = not _is_torch(function)
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", "")
        return Kind(name, Role.STEP if name in PROPERTIES else Role.QUESTION, False, False)
    if name in {"__set__", "__delete__"}:
        return Kind(name.strip("_"), Role.QUESTION, False, False)
    if type(function).__name__ in {"OpOverload", "OpOverloadPacket"}:
        name = name.split(".")[0]
    return Kind(
        op=_op(name),
        role=_role(function, name),
        is_in_place=_is_in_place(name),
        may_draw=is_foreign or any(part in name for part in RANDOM),
        written=WRITTEN.get(name, ()) if isinstance(function, types.FunctionType) else (),
        is_foreign=is_foreign,
    )


def written_arguments(
    kind: Kind, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Return the tensors among the arguments that this call will write to."""
    written: list[Any] = []
    if kind.is_in_place or kwargs.get("inplace"):
        written.append(args[0] if args else next(iter(kwargs.values()), None))
    if kwargs.get("out") is not None:
        written.append(kwargs["out"])
    if kind.written and _writes_further(kind.op, kwargs):
        for position, name in kind.written:
            written.append(args[position] if position < len(args) else kwargs.get(name))
    if kind.is_foreign:
        written.extend(_by_schema(function, args, kwargs))
    if not written:
        return ()
    return tuple({id(tensor): tensor for tensor in tensors_in(written)}.values())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))


@lru_cache(maxsize=64)
def opened(function: types.FunctionType) -> Function:
    """Return a composite that runs its body at once, so that a mode sees the calls inside instead of the composite.

    The function asks first whether a mode wants the whole call; the copy is told that none does.
    """
    told = {
        name: lambda *_: False
        for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    }
    copy = types.FunctionType(
        function.__code__, {**function.__globals__, **told}, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _is_torch(function: Function) -> bool:
    if type(function).__name__ in {"OpOverload", "OpOverloadPacket"}:
        return str(function).startswith(("aten.", "prims."))
    module = getattr(function, "__module__", None)
    return module is None or module == "torch" or module.startswith("torch.")


def _op(name: str) -> str:
    stripped = name.strip("_")
    in_place = name.startswith("__i") and stripped[1:] in {"and", "or", "xor", "lshift", "rshift"}
    return {"rdiv": "rtruediv", "init": name}.get(stripped, stripped[1:] if in_place else stripped) or name


def _role(function: Function, name: str) -> Role:
    if isinstance(function, types.FunctionType) and function in COMPOSITES:
        return Role.COMPOSITE
    for role, names in (
        (Role.QUESTION, QUESTIONS),
        (Role.NUMBER, NUMBERS),
        (Role.CREATION, CREATIONS),
        (Role.CONVERSION, CONVERSIONS),
    ):
        if name in names:
            return role
    return Role.STEP


def _is_in_place(name: str) -> bool:
    if name == "__setitem__" or (name.startswith("__i") and name not in {"__invert__", "__index__", "__int__"}):
        return True
    return name.endswith("_") and not name.endswith("__") and name not in QUESTIONS


def _writes_further(op: str, kwargs: Mapping[str, Any]) -> bool:
    if op.startswith("embedding"):
        return kwargs.get("max_norm") is not None
    return bool(kwargs.get("training") if op == "batch_norm" else kwargs.get("use_input_stats"))


def _by_schema(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what an operation registered with torch says that it writes to."""
    if type(function).__name__ == "OpOverloadPacket":
        overloads = function.overloads()
        function = getattr(function, overloads[0]) if len(overloads) == 1 else None
    schema = getattr(function, "_schema", None)
    for position, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[position] if position < len(args) else kwargs.get(argument.name)
