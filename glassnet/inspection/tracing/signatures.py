"""Names of the arguments of torch's functions, most of which are written in C++ and carry no signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from glassnet.inspection.tracing.calls import Function

CORRECTED: dict[str, Callable[..., None]] = {
    "scaled_dot_product_attention": lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *,
    scale=None, enable_gqa=False: None,
    "permute": lambda input, dims: None,
    **dict.fromkeys(
        ("var", "std"), lambda input, dim=None, unbiased=None, keepdim=False, *, correction=None, out=None: None
    ),
    "repeat": lambda input, repeats: None,
    "weight_norm": lambda v, g, dim=0: None,
}  # fmt: skip
"""Operations whose published signature is missing, or not that of their documentation."""


def named_arguments(function: Function, op: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given arguments by name; those that no signature names by their position, `"0"`."""
    signature = _signature(function, op)
    if signature is not None:
        # `x.view(2, 3)`, `x.permute(0, 2, 1)`: sizes given one by one stand for a tuple.
        for positional in (args, (*args[:1], args[1:])):
            try:
                return dict(signature.bind(*positional, **kwargs).arguments)
            except TypeError:
                continue
    return {**{str(position): value for position, value in enumerate(args)}, **kwargs}


@cache
def _signature(function: Function, op: str) -> inspect.Signature | None:
    if op in CORRECTED:
        return inspect.signature(CORRECTED[op])
    found = _documented().get(function) or _by_name().get(op)
    if found is None:
        try:
            found = inspect.signature(function)
        except (TypeError, ValueError):
            return None
    if any(p.kind in {p.VAR_POSITIONAL, p.VAR_KEYWORD} for p in found.parameters.values()):
        return None
    parameters = list(found.parameters.values())
    if parameters and parameters[0].name in {"self", "tensor"}:
        parameters[0] = parameters[0].replace(name="input")  # methods and functions of one operation agree
    return found.replace(parameters=parameters)


@cache
def _documented() -> dict[Function, inspect.Signature]:
    """What torch publishes for those who override its functions: a signature of each."""
    return {function: inspect.signature(stub) for function, stub in torch.overrides.get_testing_overrides().items()}


@cache
def _by_name() -> dict[str, inspect.Signature]:
    """The same by operation, for a form that is not published (`torch.relu_` has the arguments of `torch.relu`)."""
    named: dict[str, inspect.Signature] = {}
    for space in (torch, torch.nn.functional, torch.Tensor):
        for function, signature in _documented().items():
            name = str(getattr(function, "__name__", ""))
            if getattr(space, name, None) is function:
                named.setdefault(name.strip("_"), signature)
    return named
