"""The README's blocks run as they stand, so it cannot drift from the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from glassnet import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the README's picture in the place it names."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "docs").symlink_to(ROOT / "docs")
    return folder


def test_the_first_block_is_the_two_commands_and_make_knows_them() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("console")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    for command in commands:
        subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_python_block_has_about_twelve_lines_and_runs(workplace: Path) -> None:
    (block,) = blocks("python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    done = subprocess.run([sys.executable, "-c", block], cwd=workplace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "61,706" in done.stdout
    accuracy = re.search(r"accuracy=([\d.]+)", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9
    assert (workplace / "runs" / "first" / "report.html").is_file()


def test_the_commands_run_one_after_the_other(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    lines = blocks("console")[1].splitlines()
    assert len(lines) == 13
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert not stop.value.code, f"{line}: {captured.err}"
        if "predict" in line:
            assert captured.out.splitlines()[1].split()[:2] == ["docs/seven.png", "7"]


def test_every_relative_link_leads_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "docs/design.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
