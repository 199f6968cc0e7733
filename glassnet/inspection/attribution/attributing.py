"""The one signature of all methods of attribution."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import by
from glassnet.data.records import InputRecord
from glassnet.inspection.attribution.deeplift import deeplift
from glassnet.inspection.attribution.faithfulness import faithfulness
from glassnet.inspection.attribution.grad_cam import grad_cam
from glassnet.inspection.attribution.gradients import (
    gradient_x_input,
    guided_backpropagation,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from glassnet.inspection.attribution.lrp import lrp
from glassnet.inspection.attribution.perturbations import occlusion, shapley_sampling
from glassnet.inspection.attribution.question import Answer, Question, outputs_of
from glassnet.inspection.attribution.result import Attribution
from glassnet.inspection.batches import Images, Subject, explaining, gather, opened, stream

METHODS: dict[str, Callable[..., Answer]] = {
    "saliency": saliency,
    "gradient_x_input": gradient_x_input,
    "smoothgrad": smoothgrad,
    "guided_backpropagation": guided_backpropagation,
    "integrated_gradients": integrated_gradients,
    "deeplift": deeplift,
    "lrp": lrp,
    "grad_cam": grad_cam,
    "occlusion": occlusion,
    "shapley_sampling": shapley_sampling,
}
"""The methods by name; their keyword arguments are the options of `attribute`."""


def attribute(
    subject: Subject,
    image: Images,
    target: int | str | None = None,
    method: str = "integrated_gradients",
    *,
    baseline: Tensor | float = 0.0,
    preprocessing: InputRecord | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **options: object,
) -> Attribution:
    """Tell how much each value of one image counts for one output of a model.

    `subject` is any module that gives one row of outputs an image, or a run, whose preprocessing then applies. `target`
    is the number of the output, or the name of its class; by default the largest output. `baseline` stands for "nothing
    there": a number, or an image as the model takes it; the default 0 is, for images that were normalised, the mean
    of the training images. `options` are those of the method, such as `steps=` of integrated gradients: see
    `METHODS`. Random methods draw from `seed`.

    The model is left as it was. Raises `UsageError` for an unknown method, option or class, for several images, and for
    a model that the method cannot be used on.
    """
    model, record = opened(subject, preprocessing)
    if method not in METHODS:
        raise unknown_name("method", str(method), METHODS)
    _check_options(method, options)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size must be a whole number of at least 1; got {batch_size!r}.")
    given, inputs = _one_image(image, model, record)
    with explaining(tuple(inputs.shape[1:]), record, model):
        outputs = outputs_of(model, inputs)[0]
    names = record.class_names if record is not None else ()
    number = _target(target, outputs, tuple(names))
    question = Question(
        model=model,
        image=inputs,
        baseline=_baseline(baseline, inputs),
        target=number,
        batch_size=batch_size,
        seed=seed,
    )
    answer = METHODS[method](question, **options)
    per_place = _per_place(answer)
    return Attribution(
        method=method,
        target=number,
        class_name=names[number] if len(names) == len(outputs) else "",
        output=float(outputs[number]),
        baseline_output=float(question.scores(question.baseline)[0, number]),
        scores=answer.scores.cpu(),
        map=per_place.cpu(),
        image=given.cpu(),
        promised=answer.promised,
        absorbed=answer.absorbed,
        layer=answer.layer,
        faithfulness=faithfulness(question, per_place),
        notes=answer.notes,
    )


def _check_options(method: str, options: dict[str, object]) -> None:
    known = [name for name, p in inspect.signature(METHODS[method]).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {method}", name, known)


def _one_image(image: Images, model: nn.Module, record: InputRecord | None) -> tuple[Tensor, Tensor]:
    """Return one image before normalisation `(C, H, W)` and as the model takes it `(1, C, H, W)`."""
    batches = list(stream(gather(image, model, record), model, record, 2).batches)
    if len(batches) != 1 or len(batches[0].inputs) != 1:
        count = sum(len(batch.inputs) for batch in batches)
        raise UsageError(f"Attribution takes one image at a time; got {count}. Call it for each of them.")
    inputs = batches[0].inputs
    if not inputs.is_floating_point():
        raise UsageError(f"Attribution needs floating numbers to take shares of; got {inputs.dtype}.")
    return batches[0].given[0], inputs.detach()


def _target(target: int | str | None, outputs: Tensor, names: tuple[str, ...]) -> int:
    if target is None:
        return int(outputs.argmax())
    if isinstance(target, str):
        if target not in names:
            raise unknown_name("class", target, names, "" if names else "Give the number of an output.")
        return names.index(target)
    if not 0 <= int(target) < len(outputs):
        raise UsageError(f"A target is the number of an output, 0 to {len(outputs) - 1}; got {target}.")
    return int(target)


def _baseline(baseline: Tensor | float, image: Tensor) -> Tensor:
    if not isinstance(baseline, Tensor):
        return torch.full_like(image, float(baseline))
    if tuple(baseline.shape) not in (tuple(image.shape), tuple(image.shape[1:])):
        raise UsageError(
            f"A baseline is a number or an image of {by(tuple(image.shape[1:]))}, as the model takes it; got "
            f"{by(tuple(baseline.shape))}."
        )
    return baseline.detach().to(image).reshape(image.shape)


def _per_place(answer: Answer) -> Tensor:
    scores = answer.scores
    if scores.ndim < 2:
        return scores
    return scores.amax(0) if answer.reduction == "max" else scores.sum(0)
