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
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_dir

FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC")
COMPILE_S = 60
"""Seconds; a compiler that takes longer than this for one file is stuck."""


def load_native(source: Path) -> ctypes.CDLL | None:
    """Return the C file `source` as a library, or None where it cannot be had: no Linux, no compiler, no OpenMP.

    It is compiled once and kept in the user's cache, by the content of the file and what the processor can do. What
    OpenMP needs at run time is torch's own copy of it, which is loaded already: two copies, with their own threads
    each, would take turns at waiting for the processor. So a library that needs what torch has not loaded is None too.
    """
    if platform.system() != "Linux":
        return None
    name = f"{source.stem}-{_digest(source)}.so"
    try:
        folder = Path(user_cache_dir("glassnet", appauthor=False)) / "native"
        folder.mkdir(parents=True, exist_ok=True)
        return _kept(source, folder / name)
    except OSError:  # no home, or a full or read-only one
        with tempfile.TemporaryDirectory() as folder_name:
            path = Path(folder_name) / name
            return _loaded(path) if _compile(source, path) else None


def _kept(source: Path, path: Path) -> ctypes.CDLL | None:
    """Return the library at `path`, which is written where it is absent or damaged. Raises `OSError`."""
    if path.exists():
        library = _loaded(path)
        if library is not None:
            return library
    fresh = path.with_name(f"{path.stem}-{secrets.token_hex(4)}.so")  # other processes may be at it too
    try:
        if not _compile(source, fresh):
            return None
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return _loaded(path)


def _loaded(path: Path) -> ctypes.CDLL | None:
    with suppress(OSError):
        return ctypes.CDLL(str(path))
    return None


def _compile(source: Path, path: Path) -> bool:
    """Write the library of `source` to `path`; return whether that went well. Raises `OSError` where no file can be."""
    command = _compiler()
    if command is None:
        return False
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


def _digest(source: Path) -> str:
    """Return what the compiled library depends on, in 20 letters: a home may be shared by unlike machines."""
    digest = hashlib.sha256(source.read_bytes())
    digest.update(" ".join((platform.machine(), *FLAGS)).encode())
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        skills = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
        digest.update(skills.encode())
    return digest.hexdigest()[:20]
