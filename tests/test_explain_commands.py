"""`glassnet steps` and `glassnet explain`, as a user types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import glassnet as gn
from glassnet import cli
from glassnet.data.examples import Dataset
from glassnet.runs import Run

Answer = tuple[int, str, str]
Command = Callable[..., Answer]


@pytest.fixture
def glassnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process: exit code, standard output, standard error."""

    def call(*words: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["glassnet", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def digit(digits: Dataset, tmp_path: Path) -> Path:
    """A file with the first test digit."""
    Image.fromarray(digits.test.inputs[0, 0].numpy()).resize((80, 80)).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_the_steps_of_a_run_are_listed_with_shapes_and_what_they_read(glassnet: Command, digits_run: Run) -> None:
    code, out, _ = glassnet("steps", digits_run.path)
    assert code == 0
    row = next(line.split() for line in out.splitlines() if line.startswith("c3 "))
    assert row == ["c3", "conv2d", "1x16x10x10", "s2,", "c3.weight,", "c3.bias"]
    assert "12 steps, 100% itemised by a rule" in out


def test_the_scores_are_those_of_predict_and_the_drivers_are_measured(
    glassnet: Command, digits_run: Run, digit: Path
) -> None:
    predicted = digits_run.predict(digit)[0]
    code, out, _ = glassnet("explain", digits_run.path, digit, "--json")
    found = json.loads(out)
    assert code == 0
    best = found["scores"][0]
    assert best["name"] == predicted.class_name
    assert best["probability"] == pytest.approx(predicted.probability, abs=1e-5)
    assert found["explained"] == best["address"]
    assert [len(layer) for layer in found["layers"]] == [5] * 5
    assert all(row["address"].startswith("input:0@") for row in found["layers"][-1])
    strongest = found["layers"][0][0]
    inputs = digits_run.preprocessing.normalise(digits_run.preprocessing.fit_image(digit)[None])
    unit = gn.trace(digits_run.model, inputs).unit(best["address"])
    assert strongest["without"] == pytest.approx(unit.value - unit.sources(1)[0].product, abs=1e-4)


def test_the_scores_and_the_drivers_are_tables(glassnet: Command, digits_run: Run, digit: Path) -> None:
    code, out, _ = glassnet("explain", digits_run.path, digit, "--top", "2", "--depth", "1")
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split() == ["class", "probability", "score", "address"]
    assert "without it" in out
    assert sum(line.startswith("act6:") for line in lines) == 2
    assert not any(line.startswith("input:") for line in lines)
    assert "--unit output:" in lines[-1]


def test_a_unit_is_written_out_in_every_form(glassnet: Command, digits_run: Run, digit: Path) -> None:
    words = ("explain", digits_run.path, digit, "--unit", "c3:4@2,5")
    _, text, _ = glassnet(*words)
    assert "... and 134 smaller terms" in text
    assert "bias c3.bias[4]" in text
    _, every, _ = glassnet(*words, "--all")
    assert every.count("c3.weight[4,") == 150
    assert glassnet(*words, "--markdown")[1].startswith("**`c3:4@2,5` = ")
    assert glassnet(*words, "--latex")[1].startswith(r"\begin{align*}")
    found = json.loads(glassnet(*words, "--json")[1])
    assert len(found["terms"]) == 150
    assert found["relative_difference"] < 1e-5


def test_a_changed_pixel_is_followed(glassnet: Command, digits_run: Run, digit: Path) -> None:
    code, out, _ = glassnet("explain", digits_run.path, digit, "--change", "input:0@16,16=-5", "--unit", "output:1")
    assert code == 0
    assert "-> -5" in out.splitlines()[0]
    assert out.splitlines()[1].startswith("  output:1: ")
    _, out, _ = glassnet("explain", digits_run.path, digit, "--change", "c1.weight[0,0,0,0]=3", "--json")
    assert json.loads(out)["changes"][0]["step"] == "c1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--unit", "c33:1"], "Unknown step 'c33'. Did you mean 'c3' (1x16x10x10)"),
        (["--unit", "c3:1"], "Write 'c3:1@0,0'"),
        (["--unit", "c3:99@0,0"], "channel 99 is not in 0..15"),
        (["--change", "nonsense"], "--change takes ADDRESS=NUMBER"),
        (["--latex"], "say which with --unit ADDRESS"),
        (["--unit", "c3:1@0,0", "--latex", "--json"], "One form at a time"),
        (["--top", "0"], "--top must be at least 1; got 0"),
    ],
)
def test_words_that_were_off_end_with_2_and_a_remedy(
    glassnet: Command, digits_run: Run, digit: Path, words: list[str], message: str
) -> None:
    code, _, error = glassnet("explain", digits_run.path, digit, *words)
    assert code == 2
    assert message in error


def test_an_image_that_cannot_be_read_ends_with_1(glassnet: Command, digits_run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    code, _, error = glassnet("explain", digits_run.path, tmp_path / "broken.png")
    assert code == 1
    assert "broken.png" in error


def test_a_network_of_ones_own_needs_no_run(glassnet: Command, tmp_path: Path, digit: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.conv = nn.Conv2d(1, 3, 3)\n\n"
        "    def forward(self, x):\n        return self.conv(x).relu().mean((2, 3)).cumprod(1)\n"
    )
    own = f"{tmp_path / 'net.py'}:Net"
    code, out, error = glassnet("steps", own, "--input", "1x8x8")
    assert code == 0, error
    assert "cumprod (1) has no rule" in out
    code, out, _ = glassnet("explain", own, digit, "--input", "1x8x8", "--top", "1")
    assert code == 0
    assert out.splitlines()[1].split() == ["output", "score", "address"]
    assert "input:0@" in out
