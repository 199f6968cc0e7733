"""One whole experiment: data and model in, a run folder with weights, figures and a report out."""

from __future__ import annotations

import datetime
import platform
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassnet._device import describe_device, resolve_device
from glassnet._errors import WorkError
from glassnet._native import compiler_name
from glassnet._types import PathArg
from glassnet._version import __version__
from glassnet.data.examples import Dataset
from glassnet.data.images import SetAside
from glassnet.data.label_files import printable
from glassnet.data.loader import DeviceExamples, to_device
from glassnet.data.preprocessing import Preprocessing, cropped_share
from glassnet.data.records import InputRecord
from glassnet.evaluation.metrics import Evaluation
from glassnet.evaluation.prediction import predict_outputs
from glassnet.evaluation.regression import ValueEvaluation
from glassnet.matching import check_model, initialise_from_data, match_model
from glassnet.models.spec import ModelSpec
from glassnet.report import write_report
from glassnet.run_folder import EVENTS, WEIGHTS, RunWriter, create_run, model_section, sources_of
from glassnet.runs import Begun, Run, find_launched, judge, open_begun, open_run
from glassnet.training.bound import Bound, find_bound
from glassnet.training.checkpoint import load_weights
from glassnet.training.config import TrainConfig
from glassnet.training.fit import INTERRUPTED, FitResult, fit
from glassnet.training.objective import Objective
from glassnet.training.observer import GuardedObserver, Observer
from glassnet.training.own_loss import LossFunction, check_own_loss
from glassnet.training.processes import (
    Processes,
    joined,
    launch_name,
    local_device,
    loss_of_others_named,
    num_restarts,
)
from glassnet.training.state import TrainingState
from glassnet.training.step import NonFiniteLossError
from glassnet.views.observers import check_observers, together
from glassnet.views.progress import make_observer
from glassnet.views.tensorboard import TensorBoardObserver, writer_class

MOST_SET_ASIDE = 20
"""How many of the files that were not used a run names; it counts them all."""


def train(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig | None = None,
    *,
    loss: LossFunction | None = None,
    out: PathArg | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    observers: Sequence[Observer] = (),
) -> Run:
    """Train `model` on `data` in place and return the finished run, with the weights that `config.keep` says.

    `model` is any `nn.Module` that maps images `(B, C, H, W)` to logits `(B, num_classes)`. Without a `config`, the
    recipe for this data and model is taken, or the defaults. The run folder is `out`, by default
    `runs/<data>-<model>`; a taken name gets `-2`. `progress` shows a live bar on the error stream, or
    a line an epoch where that is no terminal.

    `loss` is a loss of your own in place of the config's, `loss(outputs, labels)`: outputs `(B, num_outputs)` float32,
    read as logits by everything else, and labels `int64 (B,)` (values for a regression) give the mean loss as a
    scalar; from a model of one output, `(B,)` and labels 0 and 1 as float32. The run records its name; `open_run`
    takes the function again. torch's losses (`nn.CrossEntropyLoss(weight=...)`) are such functions.

    `tensorboard` writes events for TensorBoard into the run's folder `tensorboard`, a point an epoch. `observers` are
    told what goes on, each an `Observer` (`glassnet.training.observer`); derive from `SilentObserver` there.

    The test split is touched once, after training, for the report. The same arguments, versions and machine give the
    same weights, bit for bit, on a CPU. Ctrl-C ends after the current step: the run is saved and returned, and
    `gn.resume` goes on with it, as with one that was killed.

    Started by torchrun, each process calls `train` with the same arguments; they share each batch, the first writes,
    and a run whose processes were started again is resumed.

    Raises `UsageError` before any work for what does not go together (model, data, config, device), `WorkError`
    where the folder cannot be written or the loss is lost. A folder in which nothing was learnt is removed.
    """
    check_observers(observers)
    if tensorboard:
        writer_class()  # refuses where it is not installed
    matched = match_model(model, data, config, loss)
    spec, device = matched.spec, matched.device
    name = spec.name if spec else type(model).__name__.lower()
    default_name = re.sub(r"[^\w.-]+", "-", f"{data.name}-{name}")
    with joined(device) as processes:
        if num_restarts():
            begun = processes.shared(find_launched(out, default_name) if processes.is_first else None)
            if begun is not None:
                return _resume(open_begun(begun, model), data, loss, processes, progress, observers)
        experiment = _Experiment(
            model=model,
            data=data,
            preprocessing=matched.preprocessing,
            config=matched.config,
            objective=matched.objective,
            loss=loss,
            precision=matched.precision,
            decoding_s=matched.decoding_s,
            record=_record(model, spec, data, matched.preprocessing, matched.config, device, matched.precision),
            processes=processes,
        )
        writer = create_run(out, default_name) if processes.is_first else None
        if writer is not None:
            try:
                writer.save_start(experiment.record, matched.preprocessing, {} if spec else sources_of(model))
                if tensorboard:
                    (writer.path / EVENTS).mkdir()  # tells whoever resumes the run to go on with the log
            except WorkError:
                writer.discard()
                raise
        path = processes.shared(writer.path if writer else None)
        log = TensorBoardObserver(path / EVENTS) if tensorboard else None
        writer = writer or RunWriter(path)
        return _run(experiment, writer, [make_observer(progress), *observers], log, None)


def resume(
    path: PathArg,
    *,
    model: nn.Module | None = None,
    data: Dataset | None = None,
    loss: LossFunction | None = None,
    root: PathArg | None = None,
    trust: bool = False,
    progress: bool = True,
    observers: Sequence[Observer] = (),
) -> Run:
    """Go on with a run that was killed or interrupted, and return it finished.

    On the same machine, with the same versions, the weights are bit for bit those of a run that was never
    interrupted. Everything is taken from the run folder; where the model is not glassnet's, it takes `model`, an
    instance, or `trust=True`, which executes the source in the run, as for `open_run`; `data` and `loss` are needed
    where they were given in Python. `root` is the folder of the standard data sets; `observers` as for `train`. A run
    with events for TensorBoard goes on with them.

    Raises `UsageError` for a run that is complete, `WorkError` where the folder has no training state that is whole,
    or where the data has changed.
    """
    check_observers(observers)
    begun = open_begun(path, model, trust)
    device = resolve_device(local_device(begun.config.device))
    with joined(device) as processes:
        return _resume(begun, begun.load_data(root) if data is None else data, loss, processes, progress, observers)


def _resume(
    begun: Begun,
    data: Dataset,
    loss: LossFunction | None,
    processes: Processes,
    progress: bool,
    observers: Sequence[Observer],
) -> Run:
    events = begun.path / EVENTS
    log = TensorBoardObserver(events, begun.state.history) if events.is_dir() else None
    device = resolve_device(local_device(begun.config.device))
    check_own_loss(loss, begun.config)
    if isinstance(loss, nn.Module):
        loss.to(device)
    if data.fingerprint() != begun.record["data"]["fingerprint"]:
        raise WorkError(
            f"The data is not what the run in {begun.path} was begun with (another fingerprint). Pass the same data, "
            "or train anew."
        )
    experiment = _Experiment(
        model=begun.model.to(device),
        data=data,
        preprocessing=begun.preprocessing,
        config=begun.config,
        objective=check_model(begun.model, data, begun.preprocessing, begun.config, loss),
        loss=loss,
        precision=begun.record["glassnet"]["precision"],
        record=dict(begun.record),
        processes=processes,
    )
    observer = make_observer(progress and processes.is_first)
    for note in (begun.note, _changed_versions(begun.record, device)):
        if note:
            observer.noted(note)
    writer = RunWriter(begun.path, is_new=False, is_usable=True)
    if processes.is_first:
        writer.remove_leftovers()
    return _run(experiment, writer, [observer, *observers], log, begun.state)


def _changed_versions(record: Mapping[str, Any], device: torch.device) -> str:
    """Say what differs from where the run was begun, so that bit-equal weights cannot be promised."""
    before, now = record["glassnet"], _versions(device)
    changes = [
        f"{name} {before.get(name)} then, {value} now" for name, value in now.items() if before.get(name) != value
    ]
    if not changes:
        return ""
    return f"Resumed elsewhere ({'; '.join(changes)}): the weights may differ in their last bits."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Experiment:
    """What one training works with, checked and matched."""

    model: nn.Module
    data: Dataset
    preprocessing: InputRecord
    config: TrainConfig
    objective: Objective
    loss: LossFunction | None
    """The user's own, where there is one."""
    precision: str
    decoding_s: float = 0.0
    """Seconds that decoding has taken before."""
    record: dict[str, Any]
    processes: Processes


def _placed(experiment: _Experiment, device: torch.device) -> tuple[DeviceExamples, DeviceExamples]:
    """Put train and validation on the device; the memory budget is for both together."""
    left = experiment.config.memory_budget_bytes
    train = to_device(experiment.data.train, experiment.preprocessing, device, left)
    if left is not None and train.exceeded_bytes is None:
        left = max(0, left - train.inputs.nbytes)
    return train, to_device(experiment.data.validation, experiment.preprocessing, device, left)


def _note_disk(observer: Observer, splits: Sequence[DeviceExamples]) -> None:
    """Say what is read from disk because it exceeds the memory budget."""
    num_bytes = sum(split.inputs.nbytes for split in splits if split.exceeded_bytes is not None)
    if num_bytes:
        budget = max(split.exceeded_bytes or 0 for split in splits)
        observer.noted(
            f"{num_bytes / 2**30:,.2f} GiB of images exceed the memory budget of {budget / 2**30:,.2f} GiB "
            "(memory_budget_gib): read from disk batch by batch."
        )


def _run(
    experiment: _Experiment,
    writer: RunWriter,
    observers: Sequence[Observer],
    log: TensorBoardObserver | None,
    state: TrainingState | None,
) -> Run:
    """Train, from `state` on where there is one; judge the weights that are kept; return the run."""
    device = next((parameter.device for parameter in experiment.model.parameters()), torch.device("cpu"))
    told = [*observers, *([log] if log else [])]
    observer = together([GuardedObserver(one, device) for one in told])  # each apart: one that fails silences no other
    with writer.claimed() if experiment.processes.is_first else nullcontext():
        return _run_claimed(experiment, writer, observer, log, state)


def _run_claimed(
    experiment: _Experiment,
    writer: RunWriter,
    observer: Observer,
    log: TensorBoardObserver | None,
    state: TrainingState | None,
) -> Run:
    try:
        with loss_of_others_named():
            run = _trained(experiment, writer, observer, state)
        if log is not None and experiment.processes.is_first:
            with suppress(OSError):
                log.write_result(run.record)
        return run
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error} {_kept(writer)}") from None
    except WorkError as error:
        if not experiment.processes.is_first or not writer.is_usable:
            raise
        raise WorkError(f"{error} {_how_to_go_on(writer)}") from None
    finally:
        if experiment.processes.is_first and not writer.is_usable:
            writer.discard()


def _trained(experiment: _Experiment, writer: RunWriter, observer: Observer, state: TrainingState | None) -> Run:
    model, preprocessing = experiment.model, experiment.preprocessing
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    started = time.perf_counter()
    examples, validation = _placed(experiment, device)
    if experiment.processes.is_first:
        _note_disk(observer, (examples, validation))
    preparing_s = experiment.decoding_s + time.perf_counter() - started
    if state is None:
        initialise_from_data(model, examples, preprocessing)
    result = fit(
        model,
        examples,
        validation,
        preprocessing,
        experiment.config,
        precision=experiment.precision,
        objective=experiment.objective,
        observer=observer,
        on_epoch=writer.save_epoch,
        on_state=writer.save_state,
        resume=state,
        processes=experiment.processes,
    )
    if experiment.processes.is_first:
        bound = _bound(result, preparing_s, device)
        if result.stop_reason == INTERRUPTED:
            observer.noted(_how_to_go_on(writer))
        observer.noted(str(bound))
        experiment.record["result"] = {
            "best_epoch": result.best_epoch,
            "num_epochs": len(result.history),
            "stop_reason": result.stop_reason,
            "filtered_convolutions": result.num_filtered,
        }
        experiment.record["bound"] = bound.to_dict()
        failures = (*examples.set_aside, *validation.set_aside)
        del examples, validation  # their memory is needed for the test split
        run = _finish(writer, experiment, failures)
    experiment.processes.wait()
    return (
        run
        if experiment.processes.is_first
        else open_run(writer.path, model=model, loss=experiment.loss, device=str(device))
    )


def _bound(result: FitResult, preparing_s: float, device: torch.device) -> Bound:
    timing = result.timing
    seconds = {
        "decoding": preparing_s,
        "data": timing.data_s,
        "step": timing.step_s,
        "validation": timing.validation_s,
        "saving": timing.saving_s,
    }
    return find_bound(seconds, result.step_shares, device)


def _kept(writer: RunWriter) -> str:
    if writer.has_weights:
        return f"The epoch kept before it is in {writer.path}, the weights before the step in {writer.state_path.name}."
    return f"The weights before the step are in {writer.state_path}." if writer.is_usable else "Nothing was saved."


def _how_to_go_on(writer: RunWriter) -> str:
    return f"`glassnet train --resume {shlex.quote(str(writer.path))}` goes on from the last state that was saved."


def _record(
    model: nn.Module,
    spec: ModelSpec | None,
    data: Dataset,
    preprocessing: InputRecord,
    config: TrainConfig,
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """Everything to repeat the run, as plain values for `config.yaml`."""
    return {
        "glassnet": {
            **_versions(device),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "precision": precision,
            "launch": launch_name(),
        },
        "data": {
            "name": data.name,
            "source": data.source,
            "target": data.target,
            "task": data.task,
            "options": dict(data.options),
            "root": str(Path(data.root).expanduser().resolve()) if data.root is not None else None,
            "seed": data.seed,
            "validation_share": data.validation_share,
            "fingerprint": data.fingerprint(),
            "num_train": len(data.train),
            "num_validation": len(data.validation),
            "num_test": len(data.test),
            **_losses(data, preprocessing),
        },
        "model": model_section(model, spec),
        "training": config.to_dict(),
    }


def _losses(data: Dataset, preprocessing: InputRecord) -> dict[str, object]:
    """What of the data does not reach the network: pixels that a crop throws away, files that were set aside."""
    share = 0.0
    if isinstance(preprocessing, Preprocessing) and preprocessing.fit == "crop":
        share = cropped_share(data.image_sizes(), preprocessing.content_size)
    return {"cropped_share": share, **_set_aside_entries(data.set_aside)}


def _set_aside_entries(set_aside: Sequence[SetAside]) -> dict[str, object]:
    first = [printable(f"{failure.source}: {failure.reason}") for failure in set_aside[:MOST_SET_ASIDE]]
    return {"num_set_aside": len(set_aside), "set_aside": first}


def _versions(device: torch.device) -> dict[str, str]:
    """Return what decides, beside the config, to the last bit what a training comes to."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": describe_device(device),
        **({"C compiler": compiler_name()} if device.type == "cpu" else {}),
    }


def _finish(writer: RunWriter, experiment: _Experiment, failures: Sequence[SetAside]) -> Run:
    """Judge the weights that are kept on the test split, store the figures, write the report.

    `failures` are the files of the other splits that could not be decoded.
    """
    model, data, preprocessing = experiment.model, experiment.data, experiment.preprocessing
    objective, record = experiment.objective, experiment.record
    load_weights(writer.path / WEIGHTS, model)
    device = next(model.parameters()).device
    outputs: Tensor | None = None
    evaluation: Evaluation | ValueEvaluation | None = None
    examples = to_device(data.test, preprocessing, device, experiment.config.memory_budget_bytes)
    if len(examples):
        outputs = predict_outputs(model, examples.inputs, preprocessing)
        evaluation = judge(objective, outputs, examples.labels, preprocessing.class_names)
    set_aside = _set_aside_entries((*data.set_aside, *failures, *examples.set_aside))
    record = {**record, "data": {**record["data"], **set_aside}}
    writer.finish({**record, "result": {**record["result"], **_test_figures(evaluation)}})
    run = open_run(writer.path, model=model, loss=experiment.loss, device=str(device))
    write_report(run, data.test, examples, evaluation, outputs)
    return run


def _test_figures(evaluation: Evaluation | ValueEvaluation | None) -> dict[str, float | None]:
    if isinstance(evaluation, Evaluation):
        return {"test_accuracy": evaluation.accuracy, "test_loss": evaluation.loss}
    if isinstance(evaluation, ValueEvaluation):
        return {"test_rmse": evaluation.root_mean_squared_error, "test_r2": evaluation.r2}
    return {}
