"""Which module a call ran in, and the names that steps get from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

PARAMETRIZATIONS = ".parametrizations."
"""What stands in the path of a module with which torch computes another module's weights."""


class Scope:
    """One call of a module, or a composite within it."""

    __slots__ = ("counts_above", "module", "num_calls", "num_calls_below", "outer", "path")

    def __init__(self, path: str, module: str, outer: Scope | None) -> None:
        self.path = path
        self.module = module
        """The path of the module it is, or lies in."""
        self.outer = outer
        self.counts_above = PARAMETRIZATIONS not in f".{path}"
        """False for what computes a module's weights, which is no part of the module's own work."""
        self.num_calls = 0
        self.num_calls_below = 0

    def count(self) -> None:
        """Count a recorded call."""
        self.num_calls += 1
        scope = self
        while scope.counts_above and scope.outer is not None:
            scope = scope.outer
            scope.num_calls_below += 1

    @property
    def is_one_call(self) -> bool:
        """True for a module whose work was one call, which then has the module's name."""
        return self.path == self.module != "" and self.num_calls + self.num_calls_below == 1


class Scopes:
    """The stack of modules that are running, kept by hooks that all modules share."""

    def __init__(self, paths: Mapping[int, str], at_exit: Callable[[str, object], None]) -> None:
        """`paths` gives a module's path by its `id`; `at_exit` is called with a module's path and its output."""
        self.paths = paths
        self.at_exit = at_exit
        self.current = Scope("", "", None)
        self._thread = threading.get_ident()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow modules for a block; no hook survives it."""
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Name the calls of a block after `name` inside the present module."""
        outer = self.current
        path = f"{outer.path}.{name}" if outer.path else name
        self.current = Scope(path, outer.module, outer)
        try:
            yield
        finally:
            self.current = outer

    def _enter(self, module: nn.Module, inputs: object) -> None:
        path = self.paths.get(id(module))
        if path is None or threading.get_ident() != self._thread:
            return
        self.current = Scope(path, path, self.current)

    def _leave(self, module: nn.Module, inputs: object, output: object) -> None:
        path = self.paths.get(id(module))
        if path is None or threading.get_ident() != self._thread or self.current.outer is None:
            return
        self.current = self.current.outer
        self.at_exit(path, output)


def plain_path(path: str) -> str:
    """Return a path as it was before `torch.compile` wrapped what lies on it."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


class Names:
    """Names that are given once: the second `relu` is `relu_1`, and a module's name is kept for its own step."""

    def __init__(self, module_names: Iterable[str]) -> None:
        self.kept = frozenset(module_names)
        self.taken: set[str] = set()
        self.counts: dict[str, int] = {}

    def of(self, scope: Scope, op: str, *, is_own: bool) -> str:
        """Return the name of a step: its module's if it is the module's `own` one call, else with the operation's."""
        has_module_name = is_own and scope.is_one_call
        wanted = scope.path if has_module_name else f"{scope.path}.{op}" if scope.path else op
        return self.unique(wanted, is_kept=has_module_name)

    def unique(self, wanted: str, *, is_kept: bool = False) -> str:
        """Return `wanted`, or it with the first number that makes it new."""
        count = self.counts.get(wanted, 0)
        name = wanted if count == 0 else f"{wanted}_{count}"
        while name in self.taken or (name in self.kept and not (is_kept and name == wanted)):
            count += 1
            name = f"{wanted}_{count}"
        self.counts[wanted] = count + 1
        self.taken.add(name)
        return name
