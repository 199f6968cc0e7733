"""Methods that ask for gradients of the output by the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from glassnet._errors import UsageError
from glassnet.inspection.attribution.question import Answer, Question
from glassnet.inspection.tracing.calls import kind_of

MOST_STEPS = 1024
"""At which integrated gradients stop halving their steps."""


def saliency(question: Question) -> Answer:
    """Return the size of the gradient: how much the output changes with each value.

    Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks" (2014), section 3.
    """
    from captum.attr import Saliency

    question.check_differentiable()
    with question.differentiating() as image:
        found = Saliency(question.score).attribute(image)
    return Answer(scores=found.detach()[0], reduction="max")


def gradient_x_input(question: Question) -> Answer:
    """Return the gradient times the value: what each value adds where the model is linear.

    Shrikumar, Greenside, Shcherbina and Kundaje, "Not just a black box" (2016).
    """
    from captum.attr import InputXGradient

    question.check_differentiable()
    with question.differentiating() as image:
        found = InputXGradient(question.score).attribute(image)
    return Answer(scores=found.detach()[0])


def smoothgrad(question: Question, *, samples: int = 32, noise: float = 0.15) -> Answer:
    """Return the size of the gradient, mean over `samples` copies of the image with normal noise on them.

    `noise` is its standard deviation as a share of the image's range. Smilkov, Thorat, Kim, Viegas and Wattenberg,
    "SmoothGrad: removing noise by adding noise" (2017).
    """
    from captum.attr import NoiseTunnel, Saliency

    check_count("samples", samples)
    if noise <= 0:
        raise UsageError(f"noise must be above 0, a share of the image's range; got {noise}.")
    question.check_differentiable()
    spread = float(question.image.max() - question.image.min()) * noise
    with question.differentiating() as image:
        found = NoiseTunnel(Saliency(question.score)).attribute(
            image,
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=min(samples, question.batch_size),
            stdevs=spread,
        )
    return Answer(scores=found.detach()[0], reduction="max")


def integrated_gradients(question: Question, *, steps: int = 64, tolerance: float = 0.005) -> Answer:
    """Return the gradient averaged on the straight way from the baseline to the image, times their difference.

    The scores sum up to the output's difference between the two. Where they miss it by more than `tolerance` of it,
    the steps are doubled, up to 1,024. Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks" (2017).
    """
    from captum.attr import IntegratedGradients

    check_count("steps", steps)
    question.check_differentiable()
    start, end = question.scores(torch.cat([question.baseline, question.image]))[:, question.target].tolist()
    promised = end - start
    while True:
        with question.differentiating() as image:
            found = IntegratedGradients(question.score, multiply_by_inputs=True).attribute(
                image, question.baseline, n_steps=steps, internal_batch_size=question.batch_size
            )
        scores = found.detach()[0]
        gap = abs(float(scores.double().sum()) - promised)
        if gap <= tolerance * abs(promised) or steps * 2 > MOST_STEPS:
            return Answer(scores=scores.to(question.image.dtype), promised=promised, notes=(f"{steps} steps",))
        steps *= 2


def guided_backpropagation(question: Question) -> Answer:
    """Return the gradient that only positive parts of it pass each ReLU backwards, however the ReLU is written.

    Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity" (2015), section 3.4.
    """
    question.check_differentiable()
    with question.differentiating() as image, _Guiding() as guiding:
        (found,) = torch.autograd.grad(question.score(image).sum(), image)
    notes = () if guiding.count else ("The model has no ReLU to guide: this is the plain gradient.",)
    return Answer(scores=found.detach()[0], notes=notes)


class _Guiding(TorchFunctionMode):
    """Cuts negative gradients off at the output of every ReLU: of modules, functions and methods, in place or not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.requires_grad and _is_relu(func, args, kwargs or {}):
            result.register_hook(lambda gradient: gradient.clamp(min=0))
            self.count += 1
        return result


def _is_relu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    op = kind_of(func).op
    if op in {"relu", "relu6"}:
        return True
    bounds = [*args[1:], kwargs.get("min"), kwargs.get("max")]
    return op in {"clamp", "clamp_min"} and [bound for bound in bounds if bound is not None] == [0]


def check_count(name: str, value: int) -> None:
    """Raise `UsageError` where an option that counts is no whole number of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be a whole number of at least 1; got {value!r}.")
