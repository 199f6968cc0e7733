from __future__ import annotations

import ctypes
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from glassnet import _native
from glassnet._native import load_native

CODE = "int twice(int number) { return 2 * number; }\n"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="libraries are compiled on Linux alone"),
    pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler here"),
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that libraries are kept in, which is not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache" / "glassnet" / "native"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "twice.c"
    path.write_text(CODE)
    return path


def twice(library: ctypes.CDLL | None) -> int:
    assert library is not None
    return int(library.twice(21))


def test_a_library_is_compiled_once(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert twice(load_native(source)) == 42
    assert [path.suffix for path in cache.iterdir()] == [".so"]
    monkeypatch.setattr(_native, "_compile", lambda *_: pytest.fail("compiled again"))
    assert twice(load_native(source)) == 42


def test_what_is_missing_is_compiled_at_the_same_time(
    cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.c"
    other.write_text(CODE.replace("2 *", "3 *"))
    both, compiled = threading.Barrier(2, timeout=30), _native._compile
    monkeypatch.setattr(_native, "_compile", lambda *given: both.wait() >= 0 and compiled(*given))
    _native.compile_native([source, other])
    monkeypatch.setattr(_native, "_compile", lambda *_: pytest.fail("compiled again"))
    _native.compile_native([source, other])
    assert [twice(load_native(path)) for path in (source, other)] == [42, 63]


def test_another_source_is_another_library(cache: Path, source: Path) -> None:
    load_native(source)
    source.write_text(CODE.replace("2 *", "3 *"))
    assert twice(load_native(source)) == 63
    assert len(list(cache.iterdir())) == 2


def test_a_changed_header_is_another_library(cache: Path, source: Path) -> None:
    header = source.with_name("factor.h")
    header.write_text("#define FACTOR 2\n")
    source.write_text('#include "factor.h"\nint twice(int number) { return FACTOR * number; }\n')
    assert twice(load_native(source)) == 42
    header.write_text("#define FACTOR 3\n")
    assert twice(load_native(source)) == 63


def test_the_compiler_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    assert "cc" in _native.compiler_name()
    monkeypatch.setattr(_native.shutil, "which", lambda name: None)
    assert _native.compiler_name() == "none"


def test_another_processor_is_another_library(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_native(source)
    monkeypatch.setattr(_native.platform, "machine", lambda: "another")
    assert twice(load_native(source)) == 42
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"\x7fELF and then nothing"])
def test_a_damaged_library_is_compiled_anew(cache: Path, source: Path, content: bytes) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o700)
    path = cache / _native._name(source, _native._compiler())
    path.write_bytes(content)
    assert twice(load_native(source)) == 42
    assert path.stat().st_size > 1000
    assert list(cache.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert twice(load_native(source)) == 42


def test_many_at_once_get_it(cache: Path, source: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: twice(load_native(source)), range(8))) == [42] * 8
    assert len(list(cache.iterdir())) == 1


def test_no_compiler_is_no_library(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert load_native(source) is None


def test_the_compiler_that_is_named_is_called(
    cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "my cc"
    compiler.write_text(f'#!/bin/sh\necho called >> "{tmp_path}/calls"\nexec {shutil.which("cc") or "gcc"} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", f"'{compiler}' -DUNUSED")
    assert twice(load_native(source)) == 42
    assert (tmp_path / "calls").read_text() == "called\ncalled\n"  # to compile and to link


def test_a_folder_that_others_can_write_is_not_trusted(cache: Path, source: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert twice(load_native(source)) == 42
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("words", ["gcc '", "/dev/null", "no such compiler"])
def test_a_compiler_that_is_none_is_passed_over_or_no_library(
    cache: Path, source: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", words)
    library = load_native(source)
    assert library is None or twice(library) == 42


def test_a_file_that_is_no_program_is_no_compiler(
    cache: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cc").write_bytes(b"neither a program nor a script")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    assert load_native(source) is None


def test_another_compiler_is_another_library(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_native(source)
    monkeypatch.setenv("CC", "gcc -DANOTHER")
    assert twice(load_native(source)) == 42
    assert len(list(cache.iterdir())) == 2


def test_no_source_is_no_library(cache: Path, tmp_path: Path) -> None:
    assert load_native(tmp_path / "absent.c") is None


@pytest.mark.parametrize("code", ["this is no C\n", "int missing(void); int twice(int n) { return missing() + n; }\n"])
def test_what_does_not_compile_or_load_is_no_library(cache: Path, source: Path, code: str) -> None:
    source.write_text(code)
    assert load_native(source) is None
    assert list(cache.iterdir()) == []


def test_elsewhere_than_on_linux_there_is_none(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native.platform, "system", lambda: "Darwin")
    assert load_native(source) is None
