"""Calls that torch's function modes do not see: users' `autograd.Function`s and scripted functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.function import _SingleLevelFunction

Record = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Runs a call as one step: the operation's name, what to call, its arguments."""

_lock = threading.Lock()
_local = threading.local()
_installed = 0
_apply = torch._C._FunctionBase.__dict__["apply"]
_call_scripted = torch._C.ScriptFunction.__call__


@contextmanager
def intercepting(record: Record) -> Iterator[None]:
    """Send this thread's calls of such functions to `record` for a block. Other threads' are as ever."""
    outer = getattr(_local, "record", None)
    _install()
    _local.record = record
    try:
        yield
    finally:
        _local.record = outer
        _remove()


def _install() -> None:
    global _installed
    with _lock:
        _installed += 1
        if _installed == 1:
            # All of a function's aliases (`f = MyFunction.apply` at import) end in this class.
            setattr(_SingleLevelFunction, "apply", classmethod(_applied))  # noqa: B010
            setattr(torch._C.ScriptFunction, "__call__", _called)  # noqa: B010


def _remove() -> None:
    global _installed
    with _lock:
        _installed -= 1
        if _installed == 0:
            delattr(_SingleLevelFunction, "apply")
            setattr(torch._C.ScriptFunction, "__call__", _call_scripted)  # noqa: B010


def _applied(cls: Any, *args: Any, **kwargs: Any) -> Any:
    plain = _apply.__get__(None, cls)
    record = getattr(_local, "record", None)
    if record is None:
        return plain(*args, **kwargs)
    if cls.__module__ == "torch.utils.checkpoint" and cls.__name__ == "CheckpointFunction":
        return args[0](*args[2:])  # it computes its function, and again backwards to save memory, which a trace needs
    return record(cls.__name__, plain, args, kwargs)


def _called(self: Any, *args: Any, **kwargs: Any) -> Any:
    record = getattr(_local, "record", None)
    if record is None:
        return _call_scripted(self, *args, **kwargs)
    return record(self.name, _Scripted(self), args, kwargs)


class _Scripted:
    """A scripted function as one plain callable."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _call_scripted(self.function, *args, **kwargs)
