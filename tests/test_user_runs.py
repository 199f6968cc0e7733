"""A network in a file of the user's own, from the command line to the opened run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import glassnet as gn
from glassnet import UsageError, WorkError, cli

BLOCKS = """
from torch import nn

def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
"""
NET = """
import torch
from torch import nn
from blocks import block
from parts.head import head

print("the file is executed")


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width=8):
        super().__init__()
        self.body = block(in_channels, width)
        self.out = head(width, num_classes)

    def forward(self, images):
        return self.out(self.body(images).amax((2, 3)))


def focal(outputs, labels):
    p = outputs.softmax(1).gather(1, labels[:, None])[:, 0]
    return (-(1 - p) ** 2 * p.log()).mean()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network and the modules it needs, in which the commands are typed."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "head.py").write_text("from torch import nn\n\nhead = nn.Linear\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def glassnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glassnet", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def run(place: Path, glassnet) -> Path:  # type: ignore[no-untyped-def]
    """A run of that network; where it came from is gone."""
    words = ("--epochs", "1", "--set", "model.width=12", "--out", "run")
    assert glassnet("train", "digits", "--model", "net.py:Net", *words)[0] == 0
    for name in ("net.py", "blocks.py", "parts"):
        (place / name).rename(place / f"was-{name}")
    return place / "run"


def test_a_network_in_a_file_trains_and_its_sources_are_in_the_run(place: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    words = ("--epochs", "1", "--set", "model.width=12", "--out", "run", "--json")
    code, out, err = glassnet("train", "digits", "--model", "net.py:Net", *words)
    assert code == 0, err
    assert json.loads(out)["run"] == "run"  # what the file prints is not among it
    assert "Net(num_classes=10, in_channels=1, width=12)" in err
    assert "its source, which a run keeps: net.py, blocks.py, parts/head.py" in err
    assert (place / "run" / "model.py").read_text() == NET
    assert (place / "run" / "source" / "blocks.py").read_text() == BLOCKS
    section = yaml.safe_load((place / "run" / "config.yaml").read_text())["model"]
    assert section["class"] == "Net"
    assert section["options"] == {"num_classes": 10, "in_channels": 1, "width": 12}
    assert set(section["sources"]) == {"model.py", "source/blocks.py", "source/parts/head.py"}


def test_without_trust_no_command_executes_what_is_in_a_run(run: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    mark = run.parent / "executed"
    planted = f"open({str(mark)!r}, 'w')\n{(run / 'model.py').read_text()}"
    (run / "model.py").write_text(planted)
    (run / "source" / "blocks.py").write_text(planted)
    (run / "source" / "torch.py").write_text(planted)
    for words in (("evaluate", run), ("predict", run, "x.png"), ("report", run), ("summary", run)):
        code, out, err = glassnet(*words)
        assert (code, out) == (2, "")
        assert "a model of the class Net, which is not glassnet's; its source is in" in err
        assert "--trust" in err
        assert "the file is executed" not in err
    with pytest.raises(UsageError, match=r"gn.open_run\(path, trust=True\). Or pass an instance"):
        gn.open_run(run)
    assert not mark.exists()


def test_with_trust_the_run_opens_as_it_was_trained(run: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    stored = yaml.safe_load((run / "config.yaml").read_text())["result"]
    code, out, err = glassnet("evaluate", run, "--trust", "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert (figures["accuracy"], figures["loss"]) == (stored["test_accuracy"], stored["test_loss"])
    assert glassnet("summary", run, "--trust")[1].count("Conv2d") == 1
    assert glassnet("report", run, "--trust")[0] == 0
    assert glassnet("predict", run, "absent.png", "--trust")[0] == 1  # opened, and the file is set aside
    opened = gn.open_run(run, trust=True)
    assert opened.evaluate().accuracy == stored["test_accuracy"]
    assert {path.name for path in (run / "source").rglob("*")} == {"blocks.py", "parts", "head.py"}
    assert "blocks" not in sys.modules


def test_an_instance_opens_the_run_without_trust(run: Path) -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
            self.out = nn.Linear(12, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.out(self.body(images).amax((2, 3)))

    accuracy = yaml.safe_load((run / "config.yaml").read_text())["result"]["test_accuracy"]
    assert gn.open_run(run, model=Same()).evaluate().accuracy == accuracy


def test_a_source_that_is_missing_changed_or_planted_is_named(run: Path) -> None:
    for damage, message in (
        (lambda copy: (copy / "model.py").unlink(), r"Could not read .*model.py: No such file"),
        (
            lambda copy: (copy / "model.py").write_text("x = 1"),
            r"model.py is not the file that this run was trained with",
        ),
        (lambda copy: (copy / "source" / "blocks.py").write_text(""), r"source/blocks.py is not the file"),
        (lambda copy: (copy / "source" / "json.py").write_text(""), r"source/json.py is not one of the sources"),
        (lambda copy: (copy / "source" / "json").symlink_to("/"), r"source/json is not one of the sources"),
    ):
        copy = Path(shutil.copytree(run, run.parent / "copy"))
        damage(copy)
        with pytest.raises(WorkError, match=message):
            gn.open_run(copy, trust=True)
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "Other"}, "could not be built again: Unknown name in .*model.py 'Other'"),
        ({"class": "os.system"}, "does not say how the network was built"),
        ({"options": [1]}, "does not say how the network was built"),
        ({"options": {}}, "could not be built again: model.py:Net needs num_classes, in_channels"),
        ({"options": {"num_classes": 10, "in_channels": 1}}, "do not fit"),
        ({"options": {"num_classes": 10, "in_channels": 3, "width": 12}}, "do not fit"),
        ({"sources": {"model.py": "0"}}, "source/blocks.py is not one of the sources"),
        ({"sources": None}, "does not say how the network was built"),
    ],
)
def test_a_config_that_does_not_tell_how_to_build_is_refused(run: Path, change: dict, message: str) -> None:
    record = yaml.safe_load((run / "config.yaml").read_text())
    record["model"] |= change
    (run / "config.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(WorkError, match=message):
        gn.open_run(run, trust=True)


def test_a_source_outside_of_the_run_is_never_read(run: Path) -> None:
    record = yaml.safe_load((run / "config.yaml").read_text())
    for name in ("../secret", "source/../../secret", "/etc/hostname", "config.yaml"):
        changed = {**record, "model": {**record["model"], "sources": {**record["model"]["sources"], name: "0"}}}
        (run / "config.yaml").write_text(yaml.safe_dump(changed))
        with pytest.raises(WorkError, match="is no source of a run"):
            gn.open_run(run, trust=True)


def test_trust_does_not_help_where_the_model_was_built_in_python(small_data, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Own(nn.Sequential):
        pass

    config = gn.TrainConfig(epochs=1, batch_size=20)
    run = gn.train(Own(nn.Flatten(), nn.Linear(64, 3)), small_data, config, out=tmp_path / "run", progress=False)
    with pytest.raises(
        UsageError, match="What it was built with is not stored, so that trust does not help. Pass an in"
    ):
        gn.open_run(run.path, trust=True)


def test_a_run_that_fails_leaves_no_sources_behind(place: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    text = NET.replace(".amax((2, 3)))", ".amax((2, 3))) * (float('nan') if self.training else 1)")
    (place / "net.py").write_text(text)
    code, _, err = glassnet("train", "--model", "net.py:Net", "--epochs", "1", "--out", "run")
    assert code == 1
    assert "Nothing was saved" in err
    assert not (place / "run").exists()


def test_a_users_loss_is_named_on_the_command_line(place: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    words = ("train", "digits", "--epochs", "1", "--batch-size", "200", "--json")
    code, out, err = glassnet(*words, "--loss", "net.py:focal", "--out", "run")
    assert code == 0, err
    assert json.loads(out)["test_loss"] > 0
    assert "loss: net.py:focal" in (place / "run" / "config.yaml").read_text()
    code, out, err = glassnet("evaluate", "run")
    assert code == 0
    assert "loss not known" in out
    assert "The loss is left out: 'net.py:focal' is the user's own" in err
    assert json.loads(glassnet("evaluate", "run", "--json")[1])["loss"] is None
    code, out, _ = glassnet(*words, "--set", "loss=net.py:focal", "--out", "again")
    assert "loss: net.py:focal" in (place / "again" / "config.yaml").read_text()
    code, _, _ = glassnet("train", "circle", "--model", "perceptron", "--loss", "binary-cross-entropy", "--epochs", "1")
    assert code == 0


def test_a_summary_of_a_network_in_a_file(place: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = glassnet("summary", "net.py:Net", "--input", "3x16x16", "--classes", "5", "--set", "model.width=6")
    assert code == 0
    assert "3x16x16" in out
    assert f"{3 * 6 * 9 + 6 + 12 + 6 * 5 + 5:,}" in next(line for line in out.splitlines() if line.startswith("total"))


def test_a_number_in_scientific_notation_is_a_number(place: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    (place / "net.py").write_text(
        NET.replace("width=8", "width=8, rate=0.1").replace("(width, num", "(width + 0 * rate.hex().count('x'), num")
    )
    words = ("train", "--model", "net.py:Net", "--epochs", "1", "--set", "model.rate=1e-3", "--out", "run")
    code, _, err = glassnet(*words)
    assert code == 0, err
    assert "rate=0.001" in err


def test_every_list_and_help_names_the_form(glassnet) -> None:  # type: ignore[no-untyped-def]
    assert "file.py:Class" in glassnet("models")[1]
    assert "file.py:Class" in [row["name"] for row in json.loads(glassnet("models", "--json")[1])]
    for verb in ("train", "summary"):
        assert "file.py:Class" in glassnet(verb, "--help")[1].replace("\n", " ")


FLAT = "import torch\nfrom torch import nn\nclass Net(nn.Module):\n def __init__(self):\n  super().__init__()\n"


@pytest.mark.parametrize(
    ("words", "text", "code", "message"),
    [
        ("train --model absent.py:Net", "", 2, "Expected a Python file at absent.py; there is nothing"),
        ("train --model net.py", "", 2, "such as net.py:Net; there is no name"),
        ("train --model net.py:Net", "def f(:", 2, "net.py does not load: SyntaxError: invalid syntax (net.py:1)"),
        ("train --model net.py:Nt", NET, 2, "Unknown name in net.py 'Nt'. Did you mean 'Net'"),
        ("train --model net.py:Net --set model.wdth=3", NET, 2,
         "Unknown option of net.py:Net 'wdth'. Did you mean 'width'"),
        ("train --model net.py:Net --set model.width=x", NET, 2, "TypeError"),
        ("train --model net.py:f", "from torch import nn\ndef f(): return nn.Linear(64, 10)", 2,
         "float32 images of 1x8x8"),
        ("train --model net.py:f", "from torch import nn\nf = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 9))", 2,
         "10 classes, and the model has 9 outputs"),
        ("train --model net.py:Net", FLAT + "  self.a = nn.Linear(32, 10)\n def forward(self, x):\n"
         "  return self.a(x.flatten(1))", 2, "(net.py:8). Build it for the data"),
        ("train --model net.py:Net --size 16", FLAT + "  self.a = nn.Conv2d(3, 10, 16)\n def forward(self, x):\n"
         "  return self.a(x)", 2, "float32 images of 1x16x16"),
        ("train --model net.py:Net", FLAT + "  self.a = nn.Linear(64, 10)\n def forward(self, x):\n"
         "  assert not self.training, 'never trained'\n  return self.a(x.flatten(1))", 1,
         "The network's code failed: AssertionError: never trained (net.py:8)"),
        ("train --model net.py:Net", FLAT, 2, "forward"),
        ("train --loss net.py:f", "def f(o, y): return 3", 2, "must return one floating-point number"),
        ("train --loss crossentropy", "", 2, "Unknown loss 'crossentropy'. Did you mean 'cross-entropy'"),
        ("train --set loss=a:b", "", 2, "Loss 'a:b' is the user's own, and a name does not tell what it is"),
        ("summary net.py:Net", NET, 2, "give --input CxHxW"),
        ("summary net.py:Net --input 3x8x8", NET, 2, "needs num_classes"),
        ("summary net.py:Net --input 3x8x8 --set depth=3", NET, 2, "takes model.OPTION=VALUE here; got 'depth=3'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_nothing_is_written(
    words: str, text: str, code: int, message: str, place: Path, glassnet
) -> None:  # type: ignore[no-untyped-def]
    (place / "net.py").write_text(text)
    before = sorted(place.rglob("*"))
    found, out, err = glassnet(*words.split(), *(("--out", "run") if words.startswith("train") else ()))
    assert message in err
    assert (found, out) == (code, "")
    assert "Traceback" not in err
    assert sorted(place.rglob("*")) == before


def test_the_size_that_was_asked_for_is_that_of_the_run(place: Path, glassnet) -> None:  # type: ignore[no-untyped-def]
    (place / "net.py").write_text(
        "from torch import nn\ndef build(input_shape, num_classes):\n"
        " return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], num_classes))\n"
    )
    words = ("--model", "net.py:build", "--size", "12", "--epochs", "1", "--out", "run")
    assert glassnet("train", *words)[0] == 0
    assert gn.open_run("run", trust=True).preprocessing.input_shape == (1, 12, 12)


def test_the_command_of_its_own_process_ends_with_a_message(place: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(gn.__file__).parents[1])}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "glassnet", *words], env=env, capture_output=True, text=True)

    (place / "net.py").write_text(NET.replace("self.out(", "self.ot("))
    done = call("train", "--model", "net.py:Net", "--epochs", "1", "--out", "run")
    assert done.returncode == 2
    assert "has no attribute 'ot' (net.py:17)" in done.stderr
    assert "Traceback" not in done.stderr
    (place / "net.py").write_text(NET)
    done = call("train", "--model", "net.py:Net", "--epochs", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "glassnet predict run IMAGE... --trust" in done.stdout
