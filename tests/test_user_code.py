"""Files of the user's own: executed on their own, and everything put back."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from glassnet import UsageError
from glassnet._user_code import in_line, loaded_file, parse_address, qualified_name


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_neighbours_of_one_name_in_two_folders_are_never_mistaken(tmp_path: Path) -> None:
    values = []
    for name in ("a", "b"):
        folder = write(tmp_path / name, net="import blocks\nvalue = blocks.value", blocks=f"value = {name!r}")
        with loaded_file(folder / "net.py") as file:
            values.append(file.module.value)
            assert file.neighbours() == {"blocks.py": f"value = {name!r}".encode()}
    assert values == ["a", "b"]


def test_a_package_beside_the_file_is_a_neighbour_and_a_file_further_below_is_none(tmp_path: Path) -> None:
    (tmp_path / "parts" / "inner").mkdir(parents=True)
    (tmp_path / "parts" / "conv.py").write_text("width = 3")
    (tmp_path / "parts" / "inner" / "__init__.py").write_text("")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "farlib.py").write_text("")
    text = "import sys; sys.path.append(__file__[:-6] + 'venv')\nimport farlib, parts.conv, parts.inner, json"
    with loaded_file(write(tmp_path, net=text) / "net.py") as file:
        assert set(file.neighbours()) == {"parts/conv.py", "parts/inner/__init__.py"}
    sys.modules.pop("farlib")
    assert not {name for name in sys.modules if name.partition(".")[0] == "parts"}


def test_the_import_path_modules_random_state_and_stdout_are_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type(sys)("blocks")
    monkeypatch.setitem(sys.modules, "blocks", own)
    path, flag = list(sys.path), sys.dont_write_bytecode
    state = torch.get_rng_state()
    text = "import sys, torch, blocks; sys.path.insert(0, '/x'); torch.manual_seed(9); torch.rand(1); print('hello')"
    with loaded_file(write(tmp_path, net=text, blocks="mine = True") / "net.py") as file:
        assert file.module.blocks.mine
    assert sys.modules["blocks"] is own
    assert (sys.path, sys.dont_write_bytecode) == (path, flag)
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr() == ("", "hello\n")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["blocks.py", "net.py"]  # no __pycache__


def test_the_standard_library_is_not_replaced_by_a_file_of_its_name(tmp_path: Path) -> None:
    import random

    with loaded_file(write(tmp_path, net="import random", random="raise SystemExit") / "net.py") as file:
        assert file.module.random is random


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef f(:\n", r"net.py does not load: SyntaxError: invalid syntax \(.*net.py:2\)"),
        ("\n\n1 / 0", r"ZeroDivisionError: division by zero \(.*net.py:3\)"),
        (
            "import absent_module",
            r"No module named 'absent_module' \(.*net.py:1\). Expected an installed module, or one",
        ),
        ("from .blocks import x", r"attempted relative import.*imported by its plain name \(`import blocks`\)"),
        ("import blocks", r"ZeroDivisionError: division by zero \(.*blocks.py:2\)"),
        ("raise SystemExit(0)", "does not load: SystemExit: 0"),
        ("class E(BaseException):\n def __str__(self): raise OSError\nraise E", r"does not load: E \(.*net.py:3\)"),
        ("x = '\0'", "null bytes"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import os; os.chdir('/nowhere/at/all')", "FileNotFoundError"),
    ],
)
def test_whatever_a_file_does_when_it_loads_is_said_in_words(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, net=text, blocks="\n1 / 0")
    modules = set(sys.modules)
    with pytest.raises(UsageError, match=message), loaded_file(tmp_path / "net.py"):
        pass
    assert set(sys.modules) == modules


def test_ctrl_c_while_a_file_loads_stays_ctrl_c(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        loaded_file(write(tmp_path, net="raise KeyboardInterrupt") / "net.py"),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("absent.py:Net", "Expected a Python file at absent.py; there is nothing"),
        ("{0}/folder.py:Net", "there is a folder"),
        ("{0}/net.py", "such as .*net.py:Net; there is no name"),
        ("{0}/net.py:", "there is no name"),
        ("{0}/net.py:Net()", r"'Net\(\)' is no name"),
    ],
)
def test_an_address_that_names_nothing_is_refused(words: str, message: str, tmp_path: Path) -> None:
    (write(tmp_path, net="") / "folder.py").mkdir()
    with pytest.raises(UsageError, match=message):
        parse_address(words.format(tmp_path), "Net")


def test_an_error_outside_of_a_users_file_has_no_line() -> None:
    with pytest.raises(RuntimeError) as raised:
        nn.Linear(2, 3)(torch.zeros(1, 5))
    error = raised.value
    assert "test_user_code.py" in in_line(error)
    assert error.__traceback__ is not None
    assert in_line(error.with_traceback(error.__traceback__.tb_next)) == ""


def test_a_qualified_name_always_tells_a_module(tmp_path: Path) -> None:
    assert qualified_name(nn.CrossEntropyLoss()) == "torch.nn.modules.loss:CrossEntropyLoss"
    assert qualified_name(functools.partial(torch.nn.functional.mse_loss)) == "torch.nn.functional:mse_loss"
    assert qualified_name(lambda a, b: a).endswith("test_a_qualified_name_always_tells_a_module.<locals>.<lambda>")
    with loaded_file(write(tmp_path, losses="def focal(a, b): return a") / "losses.py") as file:
        assert qualified_name(file.module.focal) == "losses.py:focal"
