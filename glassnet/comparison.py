"""Several runs side by side: what differs between them, what came of it, and whether they can be compared at all.

Only what a folder says of itself is read, so that runs of anybody's models and runs still in training can be compared.
"""

from __future__ import annotations

import inspect
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from glassnet._errors import GlassnetError, UsageError, unknown_name
from glassnet._types import PathArg
from glassnet.data.images import SetAside
from glassnet.data.label_files import printable
from glassnet.data.records import record_from_json
from glassnet.models import ARCHITECTURES
from glassnet.run_folder import CONFIG, METRICS, PREPROCESSING, plain
from glassnet.runs import Run
from glassnet.training.config import TrainConfig
from glassnet.training.fit import INTERRUPTED
from glassnet.training.history import EpochRow, History

PLACES = {"created", "launch", "root", "source", "target"}
"""Entries of `config.yaml` that say when and where, not what."""

TEST_FIGURES = ("test_accuracy", "test_loss", "test_rmse", "test_r2")


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """What one run folder says of itself."""

    path: Path
    record: Mapping[str, Any]
    """`config.yaml` as it stands."""
    history: History
    """Empty where no epoch is over yet."""
    class_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run's folder, fit for a terminal."""
        return printable(self.path.name or str(self.path))

    @property
    def num_epochs(self) -> int:
        """Epochs that were asked for; a part of one counts as one."""
        return math.ceil(self.record["training"].get("epochs") or len(self.history))

    @property
    def is_finished(self) -> bool:
        """False for a run that is still training, or was cut off."""
        return bool(self.record.get("result"))

    @property
    def is_interrupted(self) -> bool:
        """True for a run that was ended by Ctrl-C or the like, and judged as it stood."""
        return (self.record.get("result") or {}).get("stop_reason") == INTERRUPTED

    @property
    def best(self) -> EpochRow | None:
        """The epoch whose weights are kept: of the lowest hold-out loss, or the last; None where no epoch is over."""
        if not len(self.history):
            return None
        keeps_last = (self.record.get("training") or {}).get("keep") == "last"
        return self.history[-1] if keeps_last else self.history.best

    @property
    def test(self) -> dict[str, float]:
        """The figures on the test split, by name; empty where there are none yet."""
        result = self.record.get("result") or {}
        return {name: result[name] for name in TEST_FIGURES if result.get(name) is not None}

    @property
    def time_s(self) -> float:
        """Seconds over all epochs so far; nan without any."""
        return math.fsum(self.history.column("epoch_s")) if len(self.history) else math.nan

    @property
    def images_per_s(self) -> float:
        """Median over the epochs; nan without any."""
        return statistics.median(self.history.column("images_per_s")) if len(self.history) else math.nan


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One entry of the configs that is not the same in all runs."""

    field: str
    """Such as `learning_rate`, `model.name` or `data.seed`; the training config's own fields without a prefix."""
    values: tuple[object, ...]
    """One a run, in the order of the comparison; None also where a run has no such entry."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs in order, what differs between them, and what stands in the way of comparing them."""

    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]
    """A sentence for each thing, beside what was meant to differ, that makes the figures differ."""
    are_rankable: bool
    """False where hold-out losses are not of the same examples, classes or loss."""
    set_aside: tuple[SetAside, ...] = ()
    """Paths that were named and are not compared, and why."""

    def __repr__(self) -> str:
        fields = ", ".join(difference.field for difference in self.differences) or "nothing"
        return f"Comparison({len(self.runs)} runs, which differ in: {fields})"

    @property
    def keys(self) -> list[str]:
        """A short name for each run: A, B, ..., Z, AA, AB."""
        return [run_key(index) for index in range(len(self.runs))]

    @property
    def best(self) -> int | None:
        """Position of the run with the lowest hold-out loss; None where they cannot be ranked or none was measured."""
        losses = [run.best.validation_loss if run.best else math.nan for run in self.runs]
        measured = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
        return min(measured, key=lambda index: losses[index]) if self.are_rankable and measured else None

    def to_dict(self) -> dict[str, object]:
        """Return what differs and the figures of each run as plain values."""
        return {
            "runs": [_figures(run, key) for run, key in zip(self.runs, self.keys, strict=True)],
            "differences": {difference.field: list(difference.values) for difference in self.differences},
            "warnings": list(self.warnings),
            "best": None if self.best is None else self.keys[self.best],
            "set_aside": [asdict(failure) for failure in self.set_aside],
        }


def run_key(index: int) -> str:
    """Return A for 0, B for 1, ..., Z, AA, AB and so on."""
    letters = ""
    while index >= 0:
        index, letter = divmod(index, 26)
        letters, index = chr(ord("A") + letter) + letters, index - 1
    return letters


def _figures(run: ComparedRun, key: str) -> dict[str, object]:
    best = run.best
    return {
        "key": key,
        "run": str(run.path),
        "is_finished": run.is_finished,
        "num_epochs": len(run.history),
        "best_epoch": best.epoch if best else None,
        "validation_loss": best.validation_loss if best else None,
        "validation_accuracy": best.validation_accuracy if best else None,
        **{name: run.test.get(name) for name in TEST_FIGURES},
        "time_s": run.time_s,
        "images_per_s": run.images_per_s,
    }


def _test_figure(run: ComparedRun) -> float:
    """Return the figure on the test split such that less is better; nan where there is none."""
    return -run.test["test_accuracy"] if "test_accuracy" in run.test else run.test.get("test_rmse", math.nan)


ORDERS: dict[str, Callable[[ComparedRun], float | str]] = {
    "given": lambda run: 0.0,
    "name": lambda run: run.name,
    "loss": lambda run: run.best.validation_loss if run.best else math.nan,
    "accuracy": lambda run: -run.best.validation_accuracy if run.best else math.nan,
    "test": _test_figure,
    "time": lambda run: run.time_s,
    "speed": lambda run: -run.images_per_s,
}
"""What runs can be ordered by, the best first: the hold-out loss and accuracy of the best epoch, and so on."""


def compare(runs: Iterable[Run | PathArg], *, sort: str = "given") -> Comparison:
    """Compare two or more runs: opened ones, or paths of run folders, finished or not.

    `sort` is one of `ORDERS`; runs without that figure come last. What is no run, cannot be read or is named a second
    time is in `.set_aside` with the reason.

    Raises `UsageError` for fewer than two runs that can be compared, and for an unknown order.
    """
    if sort not in ORDERS:
        raise unknown_name("order", str(sort), ORDERS)
    if isinstance(runs, str | os.PathLike | Run):
        runs = [runs]
    found: dict[Path, ComparedRun] = {}
    set_aside: list[SetAside] = []
    for named in runs:
        path = named.path if isinstance(named, Run) else named
        try:
            place = _place(path)
            if place in found:
                raise UsageError("named twice")
            found[place] = _opened(named) if isinstance(named, Run) else read_run(path)
        except GlassnetError as error:
            set_aside.append(SetAside(str(path), str(error)))
    if len(found) < 2:
        reasons = "".join(f" Set aside: {failure.source}: {failure.reason.rstrip('.')}." for failure in set_aside)
        names = ", ".join(str(run.path) for run in found.values()) or "none"
        raise UsageError(f"A comparison takes at least two runs, as in `compare runs/a runs/b`; got {names}.{reasons}")
    ordered = tuple(sorted(found.values(), key=lambda run: _rank(ORDERS[sort](run))))
    warnings, are_rankable = _warnings(ordered)
    return Comparison(
        runs=ordered,
        differences=_differences(ordered),
        warnings=tuple(warnings),
        are_rankable=are_rankable,
        set_aside=tuple(set_aside),
    )


def _rank(value: float | str) -> tuple[bool, float | str]:
    return (True, 0.0) if isinstance(value, float) and math.isnan(value) else (False, value)


def _place(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"Expected a run or the path of a run folder; got {path!r}.")
    return Path(os.path.realpath(path))


def _opened(run: Run) -> ComparedRun:
    return ComparedRun(path=run.path, record=run.record, history=run.history, class_names=run.class_names)


def read_run(path: PathArg) -> ComparedRun:
    """Read what a run folder says of itself, without its weights: a run in training has no result yet.

    Raises `UsageError` for what is no run folder, and for one with a file that cannot be read; it names the file.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        what = "a folder without config.yaml" if folder.is_dir() else "a file" if folder.exists() else "nothing"
        raise UsageError(f"expected a run folder; there is {what}")
    record = _parsed(folder / CONFIG, yaml.safe_load)
    parts = [record.get(name) if isinstance(record, dict) else None for name in ("data", "model", "training")]
    if not all(isinstance(part, dict) for part in parts):
        raise UsageError(f"{CONFIG} has no sections data, model and training: is the run just being made?")
    history, names = History(), ()
    if (folder / METRICS).is_file():
        history = _parsed(folder / METRICS, History.from_csv)
    if (folder / PREPROCESSING).is_file():
        names = _parsed(folder / PREPROCESSING, record_from_json).class_names
    return ComparedRun(path=folder, record=record, history=history, class_names=names)


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, GlassnetError) as error:
        raise UsageError(f"could not read {path.name}: {' '.join(str(error).split())}") from None


def _flat(record: Mapping[str, Any]) -> dict[str, object]:
    """Return the entries of a run's config that can make a difference, by name; the classes of the data apart."""
    entries: dict[str, object] = {}
    for section in ("training", "model", "data", "glassnet"):
        for name, value in (record.get(section) or {}).items():
            if section == "model" and name == "options" and isinstance(value, Mapping):
                entries |= {f"model.{option}": setting for option, setting in value.items()}
            elif name not in PLACES:
                entries[name if section == "training" else f"{section}.{name}"] = value
    return entries


def _usual_entries(name: object) -> dict[str, object]:
    """Return the entries of a run that names none: of the training, and of the options of glassnet's network `name`.

    A run does not name what came after the version that made it.
    """
    usual: dict[str, object] = TrainConfig().to_dict()
    if name not in ARCHITECTURES:
        return usual
    parameters = inspect.signature(ARCHITECTURES[str(name)].build).parameters.values()
    options = {
        f"model.{option.name}": plain(option.default) for option in parameters if option.default is not option.empty
    }
    return usual | options


def _differences(runs: Sequence[ComparedRun]) -> tuple[Difference, ...]:
    flat = [_flat(run.record) for run in runs]
    names = dict.fromkeys(name for entries in flat for name in entries)
    usual = [_usual_entries(run.record["model"].get("name")) for run in runs]
    columns = {
        name: tuple(entries.get(name, rest.get(name)) for entries, rest in zip(flat, usual, strict=True))
        for name in names
    }
    return tuple(
        Difference(field=name, values=values)
        for name, values in columns.items()
        if any(value != values[0] for value in values[1:])
    )


def _warnings(runs: Sequence[ComparedRun]) -> tuple[list[str], bool]:
    """Return what stands in the way of a comparison, and whether hold-out losses can be ranked all the same."""
    data = [run.record["data"] for run in runs]
    grave: list[str] = []
    if said := _unlike(runs, [part.get("name") for part in data]):
        grave.append(f"The data differ ({said}): no figure of one run can be held against another's.")
    elif said := _unlike(
        runs, [(part.get("seed"), part.get("validation_share")) for part in data], "seed {}, share {}"
    ):
        grave.append(f"The splits differ ({said}): hold-out figures are of different examples.")
    elif said := _unlike(runs, [str(part.get("fingerprint"))[:8] for part in data]):
        grave.append(
            f"The data have one name and different contents (fingerprints {said}): files were changed, added or "
            "removed, or only a part was used."
        )
    named = [(key, run) for key, run in _keyed(runs) if run.is_finished or run.class_names]
    if len({run.class_names for _, run in named}) > 1:
        said = "; ".join(f"{key}: {_listed(run.class_names)}" for key, run in named)
        grave.append(f"The classes differ ({said}): losses and accuracies do not mean the same.")
    if said := _unlike(runs, [run.record["training"].get("loss") for run in runs]):
        grave.append(f"The loss functions differ ({said}): compare accuracies, not losses.")
    mild: list[str] = []
    seeds = [(run.record["training"].get("seed"), run.record["model"].get("seed")) for run in runs]
    if said := _unlike(runs, seeds, "training {}, first weights {}"):
        mild.append(f"The seeds differ ({said}): a part of the difference is chance.")
    machines = [(run.record.get("glassnet") or {}).get("device") for run in runs]
    if said := _unlike(runs, machines):
        mild.append(f"The machines differ ({said}): times and img/s are not comparable.")
    mild += [_unfinished(key, run) for key, run in _keyed(runs) if not run.is_finished or run.is_interrupted]
    return grave + mild, not grave


def _keyed(runs: Sequence[ComparedRun]) -> list[tuple[str, ComparedRun]]:
    return [(run_key(index), run) for index, run in enumerate(runs)]


def _unfinished(key: str, run: ComparedRun) -> str:
    if run.is_interrupted:
        return f"{key} ({run.name}) was interrupted after {len(run.history)} of {run.num_epochs} epochs."
    done = f"{len(run.history)} of {run.num_epochs} epochs are done" if len(run.history) else "no epoch is over"
    return f"{key} ({run.name}) is still training or was cut off: {done}, and there is no test result."


def _unlike(runs: Sequence[ComparedRun], values: Sequence[Any], form: str = "{}") -> str:
    """Return which runs have which value, `A, C: mnist; B: digits`; nothing where all are alike."""
    if all(value == values[0] for value in values):
        return ""
    groups: dict[str, list[str]] = {}
    for (key, _), value in zip(_keyed(runs), values, strict=True):
        groups.setdefault(form.format(*value) if isinstance(value, tuple) else form.format(value), []).append(key)
    return "; ".join(f"{', '.join(keys)}: {words}" for words, keys in groups.items())


def _listed(names: Sequence[str]) -> str:
    return (", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")) or "none"
