"""Runs: opening a run folder, and what an opened one answers."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from glassnet._compiled import compiled
from glassnet._device import resolve_device, resolve_precision
from glassnet._errors import GlassnetError, UsageError, WorkError, nearest_names
from glassnet._types import PathArg
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord, record_from_json
from glassnet.data.sources import list_datasets, load_data
from glassnet.data.standardisation import Standardisation
from glassnet.data.tars import PIPE
from glassnet.evaluation.inputs import InputArg, gather_inputs
from glassnet.evaluation.metrics import Evaluation, evaluate_logits
from glassnet.evaluation.prediction import Predictions, num_outputs, predict_classes, predict_outputs
from glassnet.evaluation.regression import ValueEvaluation, evaluate_values
from glassnet.evaluation.test_time import over_views
from glassnet.evaluation.value_prediction import ValuePredictions, predict_values
from glassnet.models import build_model, spec_of
from glassnet.models.user_model import rebuild_user_model
from glassnet.nn.losses import is_own_loss
from glassnet.run_folder import CONFIG, METRICS, PREPROCESSING, REPORT, REQUIRED, SOURCE, STATE, WEIGHTS
from glassnet.training.checkpoint import load_training_state, load_weights
from glassnet.training.config import TrainConfig
from glassnet.training.fit import INTERRUPTED
from glassnet.training.history import History
from glassnet.training.objective import Objective, make_objective
from glassnet.training.own_loss import LossFunction
from glassnet.training.processes import launch_name
from glassnet.training.state import TrainingState

SECTIONS = {
    "glassnet": {"version", "created"},
    "data": {"name", "source", "target", "root", "seed", "validation_share", "fingerprint"},
    "model": {"name"},
    "training": set[str](),
}
"""What `config.yaml` holds at least, by section."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its folder, and the network as its kept epoch left it."""

    path: Path
    model: nn.Module
    """In evaluation mode, on `device`."""
    config: TrainConfig
    preprocessing: InputRecord
    objective: Objective
    history: History
    epoch: int
    """The epoch that the weights are of: that of the lowest hold-out loss, or the last (`keep`)."""
    record: Mapping[str, Any]
    """`config.yaml` as it stands: versions, data, model, result."""
    device: torch.device
    precision: str
    """In which `outputs` and `predict` compute; `fp32` unless another is asked for, whatever the run was trained in."""
    forward: nn.Module
    """What they call: `model` itself, or compiled, or averaged over views of each image."""

    def __repr__(self) -> str:
        return f"Run('{self.path}', epoch {self.epoch} of {len(self.history)})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the network's outputs, in order."""
        return self.preprocessing.class_names

    @property
    def report_path(self) -> Path:
        """Where the report lies."""
        return self.path / REPORT

    def outputs(self, examples: ExampleSet) -> tuple[Tensor, Tensor]:
        """Return the model's outputs `(N, num_outputs)` for a set, and its labels `(N, ...)`."""
        on_device = to_device(examples, self.preprocessing, self.device, self.config.memory_budget_bytes)
        outputs = predict_outputs(self.forward, on_device.inputs, self.preprocessing, precision=self.precision)
        return outputs, on_device.labels

    def logits(self, examples: ExampleSet) -> tuple[Tensor, Tensor]:
        """Return logits `(N, num_classes)` and labels `(N,)` in the run's classes for a set, matched by name.

        Raises `UsageError` for a regression, which has no classes: see `outputs`.
        """
        if not self.class_names:
            raise UsageError("This run predicts values, not classes. Use run.outputs(examples) for the values.")
        outputs, labels = self.outputs(examples)
        return self.objective.logits(outputs), labels

    def evaluate(self, examples: ExampleSet | None = None) -> Evaluation | ValueEvaluation:
        """Return the figures on `examples`, or on the test split of the run's own data.

        Raises `UsageError` for a class that the run does not know and for an empty set.
        """
        if examples is None:
            examples = self.load_data().test
        if not isinstance(examples, ExampleSet):
            raise UsageError(
                f"Expected one split of a data set, such as data.test; got {type(examples).__name__}. "
                "gn.load_data makes them."
            )
        return judge(self.objective, *self.outputs(examples), self.class_names)

    def predict(self, images: InputArg | Sequence[InputArg], *, top_k: int = 5) -> Predictions | ValuePredictions:
        """Classify image files, Pillow images or `uint8` arrays `(H, W)`, `(C, H, W)`, `(N, C, H, W)`; one or many.

        A file of arrays (`.npz`, `.npy`, `.pt`) stands for its inputs. A network of numbers takes arrays of them; one
        that was trained on a table takes tables (`.csv`, `.tsv`, with or without the target) and rows, each a mapping
        from columns to cells, encoded as at training. What cannot be used is in `.set_aside` with the reason; the
        others are answered in order: with classes, or for a regression with values.

        Raises `UsageError` for input of another kind, and `WorkError` for a single file that cannot be read.
        """
        gathered = gather_inputs(images, self.preprocessing)
        if not self.class_names:
            encoding = self.preprocessing.encoding if isinstance(self.preprocessing, Standardisation) else None
            target = encoding.target if encoding is not None else ""
            return predict_values(
                self.forward,
                gathered,
                self.preprocessing,
                device=self.device,
                target=target,
                precision=self.precision,
            )
        return predict_classes(
            self.forward,
            gathered,
            self.preprocessing,
            device=self.device,
            precision=self.precision,
            top_k=top_k,
            to_logits=self.objective.logits,
        )

    def prepare(self, images: InputArg | Sequence[InputArg]) -> Tensor:
        """Return what the network is given for `images`: float32 `(N, *input_shape)`, fitted and normalised.

        Takes what `predict` takes; for `gn.trace` and whatever else opens the network. Raises `UsageError` for input
        of another kind, and `WorkError` where an image cannot be read.
        """
        gathered = gather_inputs(images, self.preprocessing)
        if gathered.set_aside:
            first = gathered.set_aside[0]
            raise WorkError(
                f"Expected inputs that can be used; {len(gathered.set_aside)} cannot, such as {first.source}: "
                f"{first.reason}. Leave them out."
            )
        return self.preprocessing.normalise(gathered.inputs.to(self.device))

    def load_other(self, source: PathArg, root: PathArg | None = None) -> Dataset:
        """Load other data to judge the run by: read and encoded as the run's own; nothing of it is fitted or cut off.

        Where splits are not given, all is in the test split. The run's own source has the splits of its training.
        Raises as `gn.load_data`, and `UsageError` for a table without a column that the run needs.
        """
        own, notes = self.record["data"]["source"], tuple[str, ...]()
        if own is not None and _is_same(source, own):
            try:
                return self.load_data(root)
            except WorkError:
                notes = (f"'{source}' has changed since the run was trained on it: what it learned from may be judged",)
        data = load_data(source, root, record=self.preprocessing)
        return replace(data, notes=(*notes, *data.notes))

    def load_data(self, root: PathArg | None = None, *, download: bool = True) -> Dataset:
        """Load the data the run was trained on, with the same splits, from `root` or from where it lay then.

        What is not there is fetched, unless `download` is false. Raises `UsageError` where the run was trained on data
        that only the caller has, and `WorkError` where the data is not here or what lies here is not the same.
        """
        data = load_stored(self.record, root, download=download)
        if isinstance(self.preprocessing, Preprocessing):  # as it was asked for then
            return data.framed(self.preprocessing.fit, self.preprocessing.interpolation)
        return data


def load_stored(record: Mapping[str, Any], root: PathArg | None = None, *, download: bool = True) -> Dataset:
    """Load the data that a run's `record` names, with the same splits; arguments and errors as `Run.load_data`."""
    stored = record["data"]
    if stored["source"] is None:
        raise UsageError(
            f"This run was trained on data given in Python ('{stored['name']}'), which is not stored with it. "
            "Pass the examples: run.evaluate(data.test)."
        )
    if str(stored["source"]).startswith(PIPE):
        raise UsageError(
            f"This run was trained on the output of a command, {stored['source']!r}, and a command that stands in "
            "a run folder is not executed. Load it yourself: run.evaluate(gn.load_data('pipe:...').test), or "
            "`glassnet evaluate RUN --data 'pipe:...'`."
        )
    if not download and stored["source"] not in list_datasets() and not Path(stored["source"]).exists():
        raise WorkError(f"The data '{stored['source']}' lies on another machine, and nothing is to be fetched.")
    data = load_data(
        stored["source"],
        root or stored["root"],
        download=download,
        target=stored["target"],
        task=stored.get("task"),
        seed=stored["seed"],
        validation_share=stored["validation_share"],
        **stored.get("options") or {},
    )
    if data.fingerprint() != stored["fingerprint"]:
        raise WorkError(
            f"The data '{stored['name']}' is not what this run was trained on (another fingerprint): its files "
            "have changed, or the run was trained on a part of it. Pass the examples: run.evaluate(data.test)."
        )
    return data


def _is_same(source: PathArg, stored: str) -> bool:
    """Return whether a name or path is that under which a run stored its data."""
    is_path = Path(stored).is_absolute()
    return Path(source).expanduser().resolve() == Path(stored) if is_path else str(source) == stored


def judge(
    objective: Objective, outputs: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Evaluation | ValueEvaluation:
    """Return the figures of `outputs` `(N, num_outputs)` for `labels`; raise `UsageError` for an empty set."""
    if not objective.is_classification:
        return evaluate_values(outputs, labels)
    if not objective.is_loss_known:
        return evaluate_logits(objective.logits(outputs), labels, class_names, math.nan)
    loss = objective.value(outputs, labels).item() if len(labels) else None
    return evaluate_logits(objective.logits(outputs), labels, class_names, loss)


def open_run(
    path: PathArg,
    *,
    model: nn.Module | None = None,
    loss: LossFunction | None = None,
    trust: bool = False,
    device: str = "auto",
    precision: str = "fp32",
    compile: bool = False,
    tta: str = "none",
) -> Run:
    """Open a run folder: rebuild the model, load its weights, config, classes, preprocessing and history.

    Nothing in the folder is executed. A run of a model that is not glassnet's needs `model`, an instance of the
    same class, into which the weights are loaded; or `trust=True`, which executes the source that is stored in the
    run, as running any program does. A run trained with a loss of the user's own predicts and counts without it; its
    loss is nan unless `loss` gives the function.

    `precision`, `compile` and `tta` are for `outputs`, `evaluate` and `predict` alone: `bf16` or `fp16` gives other
    digits than `fp32`, and a compiled network other last ones; `auto` takes bf16 where the hardware multiplies it
    natively. `tta`, test-time augmentation, averages over each image and its `mirror` image, or both also moved by a
    pixel (`mirror-shift`). What opens the network shows `model` as it is.

    Raises `UsageError` for a path that is no run folder, and `WorkError` for one with a missing, damaged or foreign
    file; the message names the file.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"Expected the path of a run folder; got {path!r}.")
    if model is not None and not isinstance(model, nn.Module):
        raise UsageError(f"model must be an instance of the user's module, model=Net(); got {model!r}.")
    folder = Path(path)
    _check_files(folder)
    record = _read_record(folder / CONFIG)
    target = resolve_device(str(device))
    computed_in = resolve_precision(precision, target)
    preprocessing = _read(folder / PREPROCESSING, record_from_json)
    history = _read(folder / METRICS, History.from_csv)
    if not len(history):
        raise WorkError(f"Expected a row per epoch in {folder / METRICS}; it has none. Train again.")
    if model is None:
        model = _rebuild(folder, record, trust)
        spec = spec_of(model)
        if spec is not None and tuple(spec.input_shape) != preprocessing.input_shape:
            raise WorkError(
                f"{folder / PREPROCESSING} makes inputs of {preprocessing.input_shape}, and the model takes "
                f"{tuple(spec.input_shape)}. Was the run folder mixed with another?"
            )
    epoch = load_weights(folder / WEIGHTS, model)
    model = model.to(target).eval()
    config = TrainConfig.from_dict(record["training"])
    return Run(
        path=folder,
        model=model,
        config=config,
        preprocessing=preprocessing,
        objective=_objective(folder, model, preprocessing, config, loss),
        history=history,
        epoch=epoch,
        record=record,
        device=target,
        precision=computed_in,
        forward=over_views(compiled(model, is_frozen=True) if compile else model, tta, preprocessing.input_shape),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Begun:
    """A run that is not finished: what it takes to go on with it."""

    path: Path
    model: nn.Module
    """With its initial weights; those of the state are loaded by `fit`."""
    config: TrainConfig
    preprocessing: InputRecord
    record: Mapping[str, Any]
    state: TrainingState
    note: str
    """What is to be said of the state; empty where it is the last one."""

    def load_data(self, root: PathArg | None = None) -> Dataset:
        """Load the data the run was begun with, as `Run.load_data`."""
        return load_stored(self.record, root)


def open_begun(path: PathArg, model: nn.Module | None = None, trust: bool = False) -> Begun:
    """Open a run folder that training was interrupted in; `model` and `trust` as for `open_run`.

    Raises `UsageError` for a path that is no run folder and for a run that is complete, `WorkError` for one whose
    files are damaged.
    """
    folder = Path(path)
    if not folder.is_dir() or not (folder / CONFIG).is_file():
        _check_files(folder)
    record = _read_record(folder / CONFIG)
    stop_reason = (record.get("result") or {}).get("stop_reason")
    if stop_reason not in (None, INTERRUPTED) and (folder / REPORT).exists():
        raise UsageError(
            f"The run in {folder} is complete ({stop_reason}): there is nothing to resume. To train further from its "
            f"weights, start a run with --weights {folder / WEIGHTS}."
        )
    state, note = load_training_state(folder / STATE)
    model = _rebuild(folder, record, trust) if model is None else model
    if len(state.history):
        load_weights(folder / WEIGHTS, model)  # the best so far: to say now, not at the end, that they are damaged
    return Begun(
        path=folder,
        model=model,
        config=TrainConfig.from_dict(record["training"]),
        preprocessing=_read(folder / PREPROCESSING, record_from_json),
        record={name: part for name, part in record.items() if name != "result"},
        state=state,
        note=note,
    )


def find_launched(out: PathArg | None, default_name: str) -> Path | None:
    """Return the run folder that this launch of torchrun began before its processes were started again, if any."""
    wanted = Path(os.path.abspath(Path(out).expanduser() if out is not None else Path("runs") / default_name))
    for config in sorted(wanted.parent.glob(f"{glob.escape(wanted.name)}*/{CONFIG}")):
        try:
            record = _read_record(config)
        except WorkError:
            continue
        if record["glassnet"].get("launch") == launch_name() and (config.parent / STATE).exists():
            return config.parent
    return None


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        beside = _runs_in(folder.parent)
        near = nearest_names(str(folder), beside) or sorted(beside)[:3]
        hint = f" Near it: {', '.join(near)}." if near else " `glassnet train` makes one."
        what = "a file" if os.path.exists(folder) else "nothing"
        raise UsageError(f"Expected a run folder at {folder}; there is {what}.{hint}")
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if len(missing) == len(REQUIRED):
        raise UsageError(f"{folder} is not a run folder: it has none of {', '.join(REQUIRED)}.")
    if missing:
        remedy = "Copy the whole folder, or train again."
        if (folder / STATE).is_file() and not (folder / REPORT).exists():
            remedy = f"If it was interrupted, `glassnet train --resume {folder}` goes on with it."
        raise WorkError(f"The run folder {folder} is incomplete: {', '.join(missing)} is missing. {remedy}")


def _runs_in(folder: Path) -> list[str]:
    try:
        return [str(other) for other in folder.iterdir() if os.path.exists(other / CONFIG)]
    except OSError:
        return []


def _read(path: Path, parse):  # type: ignore[no-untyped-def]
    """Parse a text file of a run; an error of its content is raised with the file's name."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WorkError(f"Could not read {path}: {error}.") from None
    except GlassnetError as error:
        raise WorkError(f"{path}: {error}") from None


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = _read(path, yaml.safe_load)
    except yaml.YAMLError as error:
        raise WorkError(f"{path}: expected YAML; it does not parse: {' '.join(str(error).split())}") from None
    for section, names in SECTIONS.items():
        part = record.get(section) if isinstance(record, dict) else None
        if not isinstance(part, dict) or not names <= set(part) or not all(isinstance(name, str) for name in part):
            raise WorkError(
                f"{path}: expected a run's config with a section {section}"
                f"{' that has ' + ', '.join(sorted(names)) if names else ''}; this one has not. "
                "Copy the whole folder, or train again."
            )
    try:
        TrainConfig.from_dict(record["training"])
    except (UsageError, TypeError) as error:
        raise WorkError(f"{path}: section training: {error}") from None
    return dict(record)


def _rebuild(folder: Path, record: Mapping[str, Any], trust: bool) -> nn.Module:
    stored = record["model"]
    if stored.get("name") is None:
        return _rebuild_users(folder, stored, trust)
    try:
        return build_model(stored["name"], **stored["options"])
    except (UsageError, TypeError, KeyError) as error:
        raise WorkError(f"{folder / CONFIG}: section model: {error}") from None


def _rebuild_users(folder: Path, stored: Mapping[str, Any], trust: bool) -> nn.Module:
    """Build a user's network from the sources in the run where that is wanted; else say what opening it takes."""
    if trust and "sources" in stored:
        return rebuild_user_model(folder, stored)
    where = f"its source is in {folder / SOURCE}" if (folder / SOURCE).exists() else "its source was not known"
    what = f"This run holds a model of the class {stored.get('class')}, which is not glassnet's; {where}."
    instance = "an instance to load the weights into: gn.open_run(path, model=YourModel())."
    if "sources" in stored:
        raise UsageError(
            f"{what} Nothing in a run is executed unasked. If you trust that file, add --trust on the command line, "
            f"or gn.open_run(path, trust=True). Or pass {instance}"
        )
    unknown = " What it was built with is not stored, so that trust does not help." if trust else ""
    raise UsageError(f"{what}{unknown} Pass {instance}")


def _objective(
    folder: Path, model: nn.Module, preprocessing: InputRecord, config: TrainConfig, loss: LossFunction | None
) -> Objective:
    if loss is not None and not is_own_loss(config.loss):
        raise UsageError(f"This run was trained with glassnet's loss '{config.loss}'. Leave loss= out.")
    if loss is not None and not callable(loss):
        raise UsageError(f"loss must be a function of outputs and labels; got {loss!r}.")
    try:
        return make_objective(config, preprocessing.class_names, num_outputs(model, preprocessing), own=loss)
    except UsageError as error:
        raise WorkError(
            f"{folder / PREPROCESSING} and the model do not belong together: {error} "
            "Was the run folder mixed with another?"
        ) from None
