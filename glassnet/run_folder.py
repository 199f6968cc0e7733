"""The run folder: everything a trained network needs to be used, repeated and judged again.

config.yaml          what was run: versions, seed, data and its fingerprint, model, hyperparameters, result
model.safetensors    the weights of the best epoch, or of the last (`keep`)
last.ckpt            the full training state: after the last epoch, or where training stands
previous-last.ckpt   the state before it, as long as the run is not complete
model.py             the user's source, where the model is not one of glassnet's
source/              the modules that model.py imports from beside itself, where there are any
preprocessing.json   class names and what is done to an image
metrics.csv          a row per epoch
report.html          the report
tensorboard/         events for TensorBoard, where they were asked for
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import os
import shutil
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from torch import nn

from glassnet._errors import WorkError
from glassnet._types import PathArg
from glassnet.data.records import InputRecord, record_to_json
from glassnet.models.spec import ModelSpec
from glassnet.models.user_model import FOLDER, user_spec_of
from glassnet.training.checkpoint import (
    flush_folder,
    previous_state,
    remove_leftovers,
    save_training_state,
    save_weights,
    write_bytes,
    write_text,
)
from glassnet.training.fit import INTERRUPTED, EpochEnd
from glassnet.training.state import TrainingState

fcntl: ModuleType | None = None
with contextlib.suppress(ImportError):  # on Windows
    fcntl = importlib.import_module("fcntl")

CONFIG, WEIGHTS, STATE = "config.yaml", "model.safetensors", "last.ckpt"
SOURCE, PREPROCESSING, METRICS, REPORT = "model.py", "preprocessing.json", "metrics.csv", "report.html"
EVENTS = "tensorboard"
OTHERS = (SOURCE, PREPROCESSING, METRICS, REPORT)
REQUIRED = (CONFIG, WEIGHTS, PREPROCESSING, METRICS)


class RunWriter:
    """A run folder while it is being written."""

    def __init__(self, path: Path, is_new: bool = True, is_usable: bool = False) -> None:
        self.path = path
        self.is_new = is_new
        """False where the folder was there before, empty: then it is not ours to remove."""
        self.is_usable = is_usable
        """True as soon as a step is saved; until then the folder is not worth keeping."""

    @property
    def state_path(self) -> Path:
        """Where the full training state lies."""
        return self.path / STATE

    @property
    def has_weights(self) -> bool:
        """True as soon as an epoch is saved."""
        return (self.path / WEIGHTS).exists()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from training in the folder during the block.

        The claim is the system's lock on the folder, so that it ends with the process, however that ends. Where there
        is no such lock (Windows, some network drives) nothing is claimed. Raises `WorkError` where another process
        holds it.
        """
        if fcntl is None:
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WorkError(
                    f"Another process is training in {self.path}. Wait for it, or stop it, which saves what it has."
                ) from None
            except OSError:  # a drive without locks
                pass
            yield
        finally:
            os.close(folder)

    def save_start(
        self, record: Mapping[str, object], preprocessing: InputRecord, sources: Mapping[str, bytes]
    ) -> None:
        """Write what is known before the first epoch; `sources` are the user's files by their place in the run."""
        self.save_record(record)
        write_text(self.path / PREPROCESSING, record_to_json(preprocessing))
        for name, content in sources.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path / name, content)

    def save_record(self, record: Mapping[str, object]) -> None:
        """Write `config.yaml`."""
        write_text(self.path / CONFIG, yaml.safe_dump(plain(record), sort_keys=False, allow_unicode=True))

    def save_epoch(self, end: EpochEnd) -> None:
        """Write what an epoch came to: the history, the weights where they are those to keep, and last the state.

        A run that is killed in between does the epoch again and writes the same.
        """
        write_text(self.path / METRICS, end.history.to_csv())
        if end.is_kept:
            save_weights(self.path / WEIGHTS, end.weights, end.history[-1].epoch)
        self.save_state(end.state)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write `config.yaml` with the result.

        A report of before is removed first: a run that has its result and a report is complete. The state before the
        last one is of use only where the run may be resumed.
        """
        (self.path / REPORT).unlink(missing_ok=True)
        self.save_record(record)
        if record["result"]["stop_reason"] != INTERRUPTED:
            previous_state(self.state_path).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what a process that was killed while it wrote has left of its files."""
        for name in (CONFIG, WEIGHTS, STATE, *OTHERS):
            remove_leftovers(self.path / name)

    def save_state(self, state: TrainingState) -> None:
        """Write the full training state; the one before it is kept until the next."""
        save_training_state(self.state_path, state)
        self.is_usable = self.is_usable or state.step > 0

    def discard(self) -> None:
        """Remove what was written where nothing usable came of it."""
        for name in (CONFIG, WEIGHTS, STATE, previous_state(Path(STATE)).name, *OTHERS):
            (self.path / name).unlink(missing_ok=True)
        for name in (FOLDER, EVENTS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        if self.is_new:
            shutil.rmtree(self.path, ignore_errors=True)


def create_run(out: PathArg | None, default_name: str) -> RunWriter:
    """Make a new run folder: `out`, or `runs/<default_name>`; a taken name gets `-2`, `-3` and so on.

    A folder is claimed by creating its config file, which only one process can; an empty folder that is there
    already may be claimed too. Raises `WorkError` where no folder can be made. Nothing that exists is touched.
    """
    wanted = Path(os.path.abspath(Path(out).expanduser() if out is not None else Path("runs") / default_name))
    shown = Path(out) if out is not None else Path("runs") / default_name
    for number in itertools.count(1):
        suffix = "" if number == 1 else f"-{number}"
        candidate = wanted.with_name(wanted.name + suffix)
        absent: list[Path] = []
        try:
            absent = [folder for folder in (candidate, *candidate.parents) if not folder.exists()]
            is_new = bool(absent)
            candidate.mkdir(parents=True, exist_ok=True)
            for folder in absent:
                flush_folder(folder.parent)
            if any(candidate.iterdir()):
                continue
            (candidate / CONFIG).open("x").close()
        except FileExistsError:
            if not candidate.parent.is_dir():
                raise _unwritable(shown, f"{candidate.parent} is a file") from None
            continue
        except (OSError, ValueError) as error:
            for folder in absent:
                with contextlib.suppress(OSError):  # not made, or not empty
                    folder.rmdir()
            raise _unwritable(shown, getattr(error, "strerror", None) or str(error)) from None
        is_plain = shown.name == wanted.name  # keep the path as it was given, unless it was `.` or the like
        return RunWriter(shown.with_name(candidate.name) if is_plain else candidate, is_new)
    raise AssertionError("unreachable: count() does not end")


def _unwritable(path: Path, reason: str) -> WorkError:
    return WorkError(
        f"Could not make the run folder {path}: {reason}. Choose another place with --out, or make it writable."
    )


def sources_of(model: nn.Module) -> Mapping[str, bytes]:
    """Return a user's files by their place in a run: all of a model built from a file, else that of its class."""
    spec = user_spec_of(model)
    if spec is not None:
        return spec.sources
    source = source_of(model)
    return {} if source is None else {SOURCE: source.encode()}


def source_of(model: nn.Module) -> str | None:
    """Return the source file of a model's class, or None where Python does not know it (a notebook cell)."""
    if type(model).__module__.partition(".")[0] == "torch":  # nn.Sequential's file tells nothing of the model
        return None
    try:
        file = inspect.getsourcefile(type(model))
        if file is None:
            return None
        with tokenize.open(file) as source:
            return source.read()
    except (TypeError, OSError, SyntaxError, UnicodeDecodeError):
        return None


def model_section(model: nn.Module, spec: ModelSpec | None) -> dict[str, object]:
    """Return the `model` section of a run's config."""
    if (users := user_spec_of(model)) is not None:
        return users.section()
    if spec is None:
        return {"name": None, "class": type(model).__qualname__}
    section = {"name": spec.name, "options": plain(spec.options), "seed": spec.seed}
    weights = getattr(model, "loaded_weights", None)
    return section if weights is None else {**section, "weights": asdict(weights)}


def plain(value: Any) -> Any:
    """Return a value as YAML can write it: numpy's numbers as Python's, tuples as lists, paths as text."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
