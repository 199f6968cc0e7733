"""Python files of the user's own: named by path, executed on their own, and their mistakes said with file and line.

Executing a file is running a program: only what the user named, or said that they trust, comes here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from glassnet._errors import GlassnetError, UsageError
from glassnet._seed import seeded

PREFIX = "glassnet_user_"
"""Begins the name under which a user's file stands in `sys.modules`, so that it can never meet another module's."""
NEVER_OURS = {"__main__", "glassnet", "torch", *sys.stdlib_module_names}
"""Modules that stay as they are, even where a file of that name lies beside the user's."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Address:
    """Something in a file of the user's: `path/to/net.py:Net`."""

    path: Path
    name: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.name}"


@dataclass(frozen=True, eq=False)
class UserFile:
    """A file of the user's that was executed; neighbours can be imported until its block ends."""

    path: Path
    folder: Path
    """Where the modules beside it lie."""
    module: ModuleType
    content: bytes
    """As it was executed."""

    def neighbours(self) -> dict[str, bytes]:
        """Return the files imported from the folder so far, by their path in it, such as `blocks/conv.py`."""
        files = {
            module.__dict__["__file__"]
            for name, module in list(sys.modules.items())
            if _is_neighbour(name, module, self.folder) and isinstance(module.__dict__.get("__file__"), str)
        }
        relative = {Path(file).resolve().relative_to(self.folder).as_posix(): Path(file) for file in files}
        return {name: file.read_bytes() for name, file in sorted(relative.items())}


def is_address(text: str | None) -> bool:
    """Tell whether a text names a Python file, as `net.py` and `net.py:Net` do."""
    return text is not None and (".py:" in text or text.endswith(".py"))


def parse_address(text: str, example: str) -> Address:
    """Return what `text`, such as `net.py:Net`, names. Raises `UsageError` where no file is there or no name is given.

    `example` is the name that the message shows, such as `Net`.
    """
    path, name = (text, "") if text.endswith(".py") else text.rpartition(":")[::2]
    if not Path(path).is_file():
        there = "a folder" if Path(path).is_dir() else "nothing"
        raise UsageError(f"Expected a Python file at {path}; there is {there}.")
    if not name.isidentifier():
        what = f"'{name}' is no name" if name else "there is no name"
        raise UsageError(f"Expected a name after the file, such as {path}:{example}; {what}.")
    return Address(Path(path), name)


@contextlib.contextmanager
def loaded_file(path: Path, folder: Path | None = None) -> Iterator[UserFile]:
    """Execute a file under a name of its own; in the block, modules in `folder` (the file's own) can be imported.

    Afterwards the import path, the modules imported from the folder, and torch's random state are put back. What the
    file prints goes to the error stream.

    Raises `UsageError` with the file and the line for whatever stops it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Could not read {path}: {error.strerror or error}.") from None
    place = (folder or path.parent).resolve()
    with _importable(place), seeded(0, "user's file"), contextlib.redirect_stdout(sys.stderr):
        yield UserFile(path, place, _execute(path, content, place), content)


@contextlib.contextmanager
def in_words(doing: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever a user's code raises into a `UsageError`: `doing` it, what was raised, in which line, `remedy`."""
    try:
        yield
    except (GlassnetError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a file may also call sys.exit(), or raise what it likes
        raise UsageError(f"{doing}: {words_of(error)}{in_line(error)}. {remedy}".rstrip()) from None


def words_of(error: BaseException) -> str:
    """Return an error's kind and the first line of its text."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # the text is made by the user's code too
        text = ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first.rstrip('.')}" if first else type(error).__name__


def in_line(error: BaseException) -> str:
    """Return ` (net.py:12)`, the last line of the user's own code that an error passed through, or nothing."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return f" ({_shown(error.filename)}:{error.lineno})"
    lines = [
        f" ({_shown(frame.f_code.co_filename)}:{number})"
        for frame, number in traceback.walk_tb(error.__traceback__)
        if _is_users(frame.f_code.co_filename)
    ]
    return lines[-1] if lines else ""


def qualified_name(thing: object) -> str:
    """Return where a function, or the class of another object, is defined and its name: `losses.py:focal`."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    module = str(getattr(named, "__module__", None))
    if module.startswith(PREFIX):
        module = Path(str(getattr(sys.modules.get(module), "__file__", module))).name
    return f"{module}:{named.__qualname__}"


def _execute(path: Path, content: bytes, folder: Path) -> ModuleType:
    file = path.resolve()
    name = f"{PREFIX}{next(_numbers)}_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "the address ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and inspect look a class's module up there
    try:
        with in_words(f"{path} does not load"):
            try:
                exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
            except ImportError as error:
                raise UsageError(
                    f"{path} does not load: {words_of(error)}{in_line(error)}. Expected an installed module, or one in "
                    f"{folder}, which is imported by its plain name (`import blocks`)."
                ) from None
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put `folder` first on the import path for a block; afterwards its modules are forgotten, so that none is met
    again by the next file that has a neighbour of the same name.
    """
    path, writes_no_bytecode = list(sys.path), sys.dont_write_bytecode
    beside = {entry.stem if entry.suffix == ".py" else entry.name for entry in _entries(folder)} - NEVER_OURS
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in beside and not _is_installed(module)
    }
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            if _is_neighbour(name, module, folder):
                del sys.modules[name]
        sys.modules.update(hidden)
        sys.path[:] = path
        sys.dont_write_bytecode = writes_no_bytecode


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_neighbour(name: str, module: object, folder: Path) -> bool:
    """Tell whether a module is the one that `import name` finds in `folder`: not any file somewhere below it."""
    if name.partition(".")[0] in {"__main__", "glassnet", "torch"} or not isinstance(module, ModuleType):
        return False
    place = folder.joinpath(*name.split("."))
    file = module.__dict__.get("__file__")
    if isinstance(file, str):
        return Path(file).resolve() in (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return place in [Path(part) for part in module.__dict__.get("__path__", ())]  # a package without __init__.py


def _installed_places() -> tuple[Path, ...]:
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*(Path(place).resolve() for place in places), Path(__file__).parent, Path(torch.__file__).parent)


INSTALLED = _installed_places()
"""Folders whose code is nobody's own: Python's, glassnet's, torch's and other libraries'."""


def _is_installed(module: object) -> bool:
    file = getattr(module, "__dict__", {}).get("__file__")
    return isinstance(file, str) and not _is_users(file)


def _is_users(file: str) -> bool:
    return Path(file).is_file() and not any(Path(file).resolve().is_relative_to(place) for place in INSTALLED)


def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
