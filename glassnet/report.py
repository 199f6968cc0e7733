"""The report of a run: gather what is to be said, and write it into the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import PathArg
from glassnet.data.examples import ExampleSet
from glassnet.data.image_files import ImageFiles
from glassnet.data.loader import DeviceExamples, to_device
from glassnet.evaluation.metrics import Evaluation, worst_mistakes
from glassnet.evaluation.prediction import predict_outputs
from glassnet.evaluation.regression import ValueEvaluation
from glassnet.inspection.filters import filters
from glassnet.inspection.summary import summary
from glassnet.runs import Run, judge
from glassnet.training.checkpoint import write_text
from glassnet.views.contents import (
    DataLosses,
    EvaluationContents,
    FilterContents,
    ReportContents,
    ValueContents,
    WorstError,
)
from glassnet.views.page import MOST_ERRORS_SHOWN, render_report


def write_report(
    run: Run,
    test: ExampleSet,
    fitted: DeviceExamples,
    evaluation: Evaluation | ValueEvaluation | None,
    outputs: Tensor | None,
) -> Path:
    """Write the run's `report.html` and return its path.

    `outputs` `(N, num_outputs)` and `evaluation` are those of the run on the N examples of `test` that could be
    `fitted`, or None where there are none.
    """
    worst: tuple[WorstError, ...] = ()
    if outputs is not None and run.objective.is_classification:
        worst = _worst_errors(run, test, fitted, run.objective.logits(outputs))
    write_text(run.report_path, render_report(report_contents(run, evaluation, worst)))
    return run.report_path


def rewrite_report(run: Run, root: PathArg | None = None) -> Path:
    """Write `report.html` again, judging the run anew on the test split of the data it was trained on.

    Raises `UsageError` where that data is not one that can be loaded by name, `WorkError` where it has changed.
    """
    test = run.load_data(root).test
    examples = to_device(test, run.preprocessing, run.device)
    if not len(examples):
        return write_report(run, test, examples, None, None)
    outputs = predict_outputs(run.model, examples.inputs, run.preprocessing)
    evaluation = judge(run.objective, outputs, examples.labels, run.class_names)
    return write_report(run, test, examples, evaluation, outputs)


def report_contents(
    run: Run, evaluation: Evaluation | ValueEvaluation | None, worst_errors: tuple[WorstError, ...] = ()
) -> ReportContents:
    """Gather what the report says of a run, with the `evaluation` on its test split, if there is one."""
    record, layers = run.record, summary(run.model, run.preprocessing.input_shape)
    result = record.get("result", {})
    return ReportContents(
        title=run.path.name,
        data_name=record["data"]["name"],
        model_name=record["model"].get("name") or record["model"]["class"],
        class_names=run.class_names,
        history=[asdict(row) for row in run.history],
        best_epoch=run.epoch,
        stop_reason=result.get("stop_reason", ""),
        test=_evaluation_contents(evaluation) if isinstance(evaluation, Evaluation) else None,
        values=_value_contents(evaluation) if isinstance(evaluation, ValueEvaluation) else None,
        worst_errors=worst_errors,
        filters=_first_filters(run),
        layers=layers.rows,
        num_parameters=layers.num_parameters,
        num_multiplications=layers.num_multiplications,
        data_losses=_data_losses(run),
        config=_sections(run),
        created=record["glassnet"]["created"],
        glassnet_version=record["glassnet"]["version"],
    )


def _data_losses(run: Run) -> DataLosses | None:
    """What of the data did not reach the network; None for a run that did not record it."""
    data = run.record["data"]
    if "num_set_aside" not in data:
        return None
    return DataLosses(
        cropped_share=data["cropped_share"], num_set_aside=data["num_set_aside"], set_aside=tuple(data["set_aside"])
    )


def _evaluation_contents(evaluation: Evaluation) -> EvaluationContents:
    return EvaluationContents(
        num_examples=evaluation.num_examples,
        accuracy=evaluation.accuracy,
        top5_accuracy=evaluation.top5_accuracy,
        loss=evaluation.loss,
        confusion=evaluation.confusion,
        per_class=evaluation.per_class,
    )


def _value_contents(evaluation: ValueEvaluation) -> ValueContents:
    return ValueContents(**asdict(evaluation))


def _worst_errors(run: Run, test: ExampleSet, fitted: DeviceExamples, logits: Tensor) -> tuple[WorstError, ...]:
    """The images with the highest loss: as they are in the data set, or, of files, as the network sees them."""
    pictures = (fitted.inputs if isinstance(test.inputs, ImageFiles) else test.inputs) if test.is_image else None
    found = []
    for mistake in worst_mistakes(logits, fitted.labels.cpu(), run.class_names, MOST_ERRORS_SHOWN):
        image = None if pictures is None else pictures[mistake.index].cpu().numpy()
        index = mistake.index if fitted.positions is None else int(fitted.positions[mistake.index])
        found.append(WorstError(image=image, **{**asdict(mistake), "index": index}))
    return tuple(found)


def _first_filters(run: Run) -> FilterContents | None:
    try:
        first = filters(run.model)
    except UsageError:  # a network without convolutions has no filters to show
        return None
    return FilterContents(layer=first.layer, weights=first.weights.numpy())


def _sections(run: Run) -> dict[str, Mapping[str, object]]:
    """The config and what else repeats the run, in sections; the classes are shown elsewhere."""
    preprocessing = asdict(run.preprocessing)
    del preprocessing["class_names"]
    for name in ("mean", "std"):  # of a wide table, a column of figures nobody reads
        if len(preprocessing[name]) > 12:
            preprocessing[name] = f"{len(preprocessing[name])} values, see preprocessing.json"
    if preprocessing.pop("encoding", None) is not None:
        preprocessing["encoding"] = "columns, fills and categories: see preprocessing.json"
    names = {"training": "Training", "data": "Data", "model": "Model", "glassnet": "Versions and machine"}
    sections = {title: run.record[name] for name, title in names.items()}
    data = {name: value for name, value in sections["Data"].items() if name != "set_aside"}  # has a place of its own
    return {**sections, "Data": data, "Preprocessing": preprocessing}
