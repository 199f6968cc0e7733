"""C that comes with the package, compiled for the processor at hand where there is a compiler."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from platformdirs import user_cache_dir

FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC")
KIND_OF_CPU = ("vendor_id", "cpu family", "model", "flags", "CPU ", "Features")
"""How lines of /proc/cpuinfo begin that tell what a processor can do."""
COMPILE_S = 60
"""Seconds; a compiler that takes longer than this for one file is stuck."""


Signature = tuple[type[ctypes.c_ssize_t] | None, Sequence[type]]
"""What a C function returns, None for nothing, and what it takes."""


def load_native(source: Path, signatures: Mapping[str, Signature] | None = None) -> ctypes.CDLL | None:
    """Return the C file `source` as a library, or None where it cannot be had: no Linux, no compiler, no OpenMP.

    `signatures` are those of its functions, by name; without, ctypes takes numbers for C's `int`.

    It is compiled once and kept in the user's cache, by the content of the file and of the headers beside it, the
    compiler and the processor. What OpenMP needs at run time is torch's own copy of it, which is loaded already: two
    copies, with their own threads each, would take turns at waiting for the processor. So a library that needs what
    torch has not loaded is None too.
    """
    if platform.system() != "Linux":
        return None
    with suppress(OSError, ValueError):  # no room anywhere, or a $CC that is no command: there are slower ways
        command = _compiler()
        library = None if command is None else _load(source, command)
        if library is not None:
            for name, (result, arguments) in (signatures or {}).items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        return library
    return None


def compile_native(sources: Sequence[Path]) -> None:
    """Compile the C files that are not in the cache yet, all at once: `load_native` finds them there afterwards."""
    if platform.system() != "Linux":
        return
    with suppress(OSError, ValueError):
        command, folder = _compiler(), _own_folder()
        if command is not None:
            missing = [source for source in sources if not (folder / _name(source, command)).exists()]
            if len(missing) > 1:
                from concurrent.futures import ThreadPoolExecutor

                with ThreadPoolExecutor() as pool:
                    list(pool.map(load_native, missing))


def compiler_name() -> str:
    """Return the file name of the C compiler, such as `x86_64-linux-gnu-gcc-12`; `none` where nothing is compiled."""
    if platform.system() == "Linux":
        with suppress(OSError, ValueError):
            command = _compiler()
            if command is not None:
                return _path_of(command).name
    return "none"


def _load(source: Path, command: list[str]) -> ctypes.CDLL | None:
    """Return the library from the cache, where it is put if absent, or compiled for this process alone."""
    name = _name(source, command)
    with suppress(OSError):
        path = _own_folder() / name
        library = _loaded(path) or _kept(source, path, command)
        if library is not None:
            return library
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        return _loaded(path) if _compile(source, path, command) else None


def _own_folder() -> Path:
    """Return the folder of libraries. Raises `OSError` where there is none that nobody else can write."""
    folder = Path(user_cache_dir("glassnet", appauthor=False)) / "native"
    if not folder.is_absolute():
        raise OSError("no home")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise OSError("another user could put a library there")
    return folder


def _kept(source: Path, path: Path, command: list[str]) -> ctypes.CDLL | None:
    """Write the library to `path` and return it; where it does not load, nothing stays. Raises `OSError`."""
    fresh = path.with_name(f"{path.stem}-{secrets.token_hex(4)}.so")  # other processes may be at it too
    try:
        library = _loaded(fresh) if _compile(source, fresh, command) else None
        if library is not None:
            os.replace(fresh, path)
        return library
    finally:
        fresh.unlink(missing_ok=True)


def _loaded(path: Path) -> ctypes.CDLL | None:
    with suppress(OSError):
        return ctypes.CDLL(str(path))
    return None


def _compile(source: Path, path: Path, command: list[str]) -> bool:
    """Write the library of `source` to `path`; return whether that went well. Raises `OSError` where no file can be."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled = Path(folder) / "compiled.o"
        # In two steps: with -fopenmp the linker would ask for an OpenMP of the compiler's.
        for arguments in (
            [*command, *FLAGS, "-c", str(source), "-o", str(compiled)],
            [*command, "-shared", str(compiled), "-o", str(path), "-lm"],
        ):
            try:
                done = subprocess.run(arguments, capture_output=True, timeout=COMPILE_S, stdin=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                return False
            if done.returncode != 0:
                return False
    return True


def _compiler() -> list[str] | None:
    """Return the words that call a C compiler: `$CC`, cc or gcc, the first that is there."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"]):
        if words and shutil.which(words[0]):
            return words
    return None


def _path_of(command: list[str]) -> Path:
    return Path(shutil.which(command[0]) or command[0]).resolve()


def _name(source: Path, command: list[str]) -> str:
    """Return a name with what the library depends on in 20 letters: a home may be shared by unlike machines."""
    digest = hashlib.sha256(source.read_bytes())
    for header in sorted(source.parent.glob("*.h")):
        digest.update(header.read_bytes())
    digest.update(" ".join((platform.machine(), *command, *FLAGS)).encode())
    compiler = _path_of(command)
    status = compiler.stat()
    digest.update(f"{compiler} {status.st_size} {status.st_mtime_ns}".encode())
    digest.update(_processor().encode())
    return f"{source.stem}-{digest.hexdigest()[:20]}.so"


@cache
def _processor() -> str:
    """Return what there is to know about the first processor; nothing where the system does not say."""
    with suppress(OSError):
        first, *_ = Path("/proc/cpuinfo").read_text().split("\n\n")
        return "\n".join(line for line in first.splitlines() if line.startswith(KIND_OF_CPU))
    return ""
