"""What is asked of a method of attribution, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._modes import evaluating
from glassnet._seed import seeded
from glassnet.inspection.tracing.inputs import picked_output


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """Which parts of one image made one output of a model what it is."""

    model: nn.Module
    image: Tensor
    """`(1, ...)`, as the model takes it, on its device."""
    baseline: Tensor
    """Of the image's shape: what stands for "nothing there"."""
    target: int
    """Number of the output."""
    batch_size: int
    """Images in one forward pass."""
    seed: int

    def score(self, inputs: Tensor) -> Tensor:
        """Return the target's output for `(B, ...)` as `(B,)`; in the modes and with the gradients that are set."""
        output: Tensor = outputs_of(self.model, inputs)
        return output[:, self.target]

    def scores(self, inputs: Tensor) -> Tensor:
        """Return every output for `(B, ...)` as `(B, K)`, without gradients, a batch at a time."""
        with evaluating(self.model):
            return torch.cat([outputs_of(self.model, part) for part in inputs.split(self.batch_size)])

    @contextmanager
    def differentiating(self) -> Iterator[Tensor]:
        """Give the image as a leaf of autograd's graph; modes and random state are put back."""
        with (
            evaluating(self.model),
            torch.inference_mode(False),
            torch.enable_grad(),
            seeded(self.seed, "attribution"),
        ):
            yield self.image.detach().clone().requires_grad_()

    def check_differentiable(self) -> None:
        """Raise `UsageError` where no gradient leads from the output to the image."""
        with self.differentiating() as image:
            score = self.score(image)
            found = torch.autograd.grad(score.sum(), image, allow_unused=True)[0] if score.requires_grad else None
        if found is None:
            raise UsageError(
                "This method needs a gradient from the output to the image; none comes through this model. "
                "Choose occlusion or shapley_sampling, which need none."
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What a method found."""

    scores: Tensor
    """Of the image's shape without the batch axis."""
    promised: float | None = None
    """What the scores sum up to by the method's theory; None where it promises nothing."""
    absorbed: float = 0.0
    """What of that stayed in biases and stabilisers on the way."""
    reduction: str = "sum"
    """How channels become one map: `sum`, which keeps the total, or `max` for sizes."""
    layer: str = ""
    notes: tuple[str, ...] = ()


def outputs_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return a model's output `(B, K)`; raise `UsageError` for one of another shape."""
    output = picked_output(model(inputs))
    if output.ndim != 2 or len(output) != len(inputs):
        raise UsageError(
            f"Attribution needs a model that gives each of {len(inputs)} images one row of outputs; "
            f"got {tuple(output.shape)}. Wrap the model in one that picks or averages them."
        )
    return output
