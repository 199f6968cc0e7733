"""Feature visualisation: an image that excites a unit, a channel, a layer or a class, found by climbing the gradient.

Olah, Mordvintsev and Schubert, "Feature visualization" (Distill, 2017): the image is parameterised by its spectrum,
scaled so that every frequency is as easy to change, and in colours whose parts vary independently; before each step it
is jittered, scaled and turned a little, so that what is found does not hang on single pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from glassnet._errors import UsageError, unknown_name
from glassnet._modes import evaluating
from glassnet._seed import seeded, seeded_generator
from glassnet._types import Shape, by
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Images, Subject, device_of, explaining, opened
from glassnet.inspection.capture import capture_output, layer_of
from glassnet.inspection.colours import Colours, colours_of, prepared
from glassnet.inspection.tracing.calls import kind_of
from glassnet.inspection.tracing.inputs import picked_output
from glassnet.inspection.units import Unit, parse_unit

SLOPE = 0.1
"""Of the gradient through a ReLU below zero while the unit is dead."""
DEAD_STEPS = 16
"""How long a dead start may be helped, at least."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Visualisation:
    """Images made to excite something in a model; `gn.picture` draws them, `str()` says what was found."""

    subject: str
    """`conv5:12`, `conv5:12@3,4`, `conv5` or `class:3`."""
    class_name: str
    images: Tensor
    """`(n, C, H, W)`, 0 to 1."""
    before: tuple[float, ...]
    """What was maximised at the start, grey with a trace of noise: the mean over positions of a channel's output, a
    unit's output, a class' logit, the mean square of a layer's."""
    after: tuple[float, ...]
    steps: int
    seed: int
    was_dead: bool
    """True where no gradient came through at the start, and ReLUs were made to leak until one did."""
    colours: str = ""
    """Whose colours vary as the image's were let vary, in words: ImageNet's, or so many images'. Empty for grey."""

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "images"}

    def __str__(self) -> str:
        name = f"{self.subject} ('{self.class_name}')" if self.class_name else self.subject
        place = max(range(len(self.after)), key=self.after.__getitem__)
        text = f"{name} goes from {self.before[place]:.3g} to {self.after[place]:.3g} in {self.steps} steps"
        text += f", the best of {len(self.after)} images" if len(self.after) > 1 else ""
        text += f", in colours that vary as those of {self.colours}" if self.colours else ""
        return text + ("; it started without a gradient." if self.was_dead else ".")

    def __repr__(self) -> str:
        return f"Visualisation('{self.subject}', {len(self.images)} of {by(tuple(self.images.shape[1:]))})"


def visualize(
    subject: Subject,
    unit: str,
    *,
    steps: int = 256,
    size: int | tuple[int, int] | None = None,
    n: int = 1,
    seed: int = 0,
    learning_rate: float = 0.02,
    diversity: float = 1.0,
    colours: str = "auto",
    images: Images | None = None,
    preprocessing: InputRecord | None = None,
    input_shape: Shape | None = None,
) -> Visualisation:
    """Make `n` images that excite `unit`: `layer:channel`, `layer:channel@row,col`, `layer`, or `class:number`.

    `subject` is any module, or a run, whose preprocessing turns pixels 0 to 1 into inputs (without one they are
    brought to -1..1). `size` is the images' side, or height and width, by default the model's input; a network with
    fully connected layers takes no other. `diversity` is the weight with which several images are driven apart by
    the cosines between their channels' correlations; of outputs without positions, between the images. Everything is
    drawn from `seed`. The model is left as it was.

    RGB images are made of colours that vary independently among the `images` that are given (see `batches.Images`),
    else among a run's own training images where these lie on this machine, else among ImageNet's, which is also had
    by `colours="imagenet"`; the result says which.

    Raises `UsageError` for an unknown layer, channel or class, and for what no gradient can climb.
    """
    model, record = opened(subject, preprocessing)
    for name, value in (("steps", steps), ("n", n)):
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a whole number of at least 1; got {value!r}.")
    if learning_rate <= 0 or diversity < 0:
        raise UsageError(f"learning_rate must be above 0 and diversity not below; got {learning_rate}, {diversity}.")
    wanted = _wanted(unit, record)
    if wanted.layer != "class":
        layer_of(model, wanted.layer)
    shape = _shape(model, record, input_shape, size)
    with explaining(shape, record, model):
        model(prepared(torch.full((1, *shape), 0.5, device=device_of(model)), record))
    axes = _colours(subject, model, record, shape, images, colours)
    return _Climb(model, record, wanted, shape, n, seed, diversity, axes).run(steps, learning_rate)


def _colours(
    subject: Subject, model: nn.Module, record: InputRecord | None, shape: Shape, images: Images | None, choice: str
) -> Colours | None:
    """Return the axes of colour; None for grey images, which need none."""
    if shape[0] == 3:
        return colours_of(subject, model, record, images, choice)
    if images is not None or choice != "auto":
        raise UsageError("Grey images have no colours; leave out colours and images.")
    return None


def _wanted(unit: str, record: InputRecord | None) -> Unit:
    names = record.class_names if record is not None else ()
    head, _, name = unit.partition(":") if isinstance(unit, str) else ("", "", "")
    if head == "class" and name in names and not name.isdecimal():
        return Unit(layer="class", channel=list(names).index(name))
    if head == "class" and names and not name.isdecimal():
        raise unknown_name("class", name, names)
    wanted = parse_unit(unit)
    if wanted.layer == "class" and wanted.channel is None:
        raise UsageError(f"Expected class:number, such as class:3; got '{unit}'.")
    return wanted


def _shape(
    model: nn.Module, record: InputRecord | None, given: Shape | None, size: int | tuple[int, int] | None
) -> Shape:
    own = record.input_shape if record is not None else getattr(getattr(model, "spec", None), "input_shape", None)
    shape = tuple(given or own or ())
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(
            f"Feature visualisation makes grey or RGB images; got an input of {by(shape) or 'unknown shape'}. Pass a "
            "run, or input_shape=(3, 224, 224)."
        )
    if size is None:
        return shape
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 4:
        raise UsageError(f"size must be a side, or height and width, of at least 4 pixels; got {size}.")
    return (shape[0], *sides)


class _Climb:
    """One ascent."""

    def __init__(
        self,
        model: nn.Module,
        record: InputRecord | None,
        wanted: Unit,
        shape: Shape,
        n: int,
        seed: int,
        diversity: float,
        colours: Colours | None,
    ) -> None:
        self.model, self.record, self.wanted, self.seed = model, record, wanted, seed
        self.diversity = diversity if n > 1 else 0.0
        self.colours = colours
        self.device = device_of(model)
        self.generator = seeded_generator(seed, "visualisation")
        height, width = shape[1:]
        frequencies = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None] ** 2).sqrt()
        self.scale = (1 / frequencies.clamp(min=1 / max(height, width))).to(self.device) * math.sqrt(height * width)
        self.size = (height, width)
        spectrum = 0.01 * torch.randn(n, shape[0], *self.scale.shape, 2, generator=self.generator)
        self.spectrum = spectrum.to(self.device)

    def run(self, steps: int, learning_rate: float) -> Visualisation:
        """Climb, and return what was found."""
        with self._differentiating():
            leaf = self.spectrum.requires_grad_()
            optimizer = torch.optim.Adam([leaf], lr=learning_rate)
            before, was_dead = self._values(leaf), not self._is_alive(leaf)
            is_dead = was_dead
            for step in range(steps):
                with _Leaking(is_dead):
                    gain = self._gain(self._varied(self.pixels(leaf)))
                    if not gain.requires_grad:
                        raise self._no_gradient()
                    (gradient,) = torch.autograd.grad(-gain, leaf, allow_unused=True)
                if gradient is None or not gradient.isfinite().all():
                    raise self._no_gradient()
                leaf.grad = gradient
                optimizer.step()
                if is_dead and step % DEAD_STEPS == DEAD_STEPS - 1:
                    is_dead = not self._is_alive(leaf)
            after = self._values(leaf)
            images = self.pixels(leaf).detach().cpu()
        names = self.record.class_names if self.record is not None else ()
        number = self.wanted.channel if self.wanted.layer == "class" else None
        return Visualisation(
            subject=str(self.wanted),
            class_name=names[number] if number is not None and number < len(names) else "",
            images=images,
            before=before,
            after=after,
            steps=steps,
            seed=self.seed,
            was_dead=was_dead,
            colours="" if self.colours is None else self.colours.source,
        )

    def pixels(self, spectrum: Tensor) -> Tensor:
        """Return `(n, C, H, W)`, 0 to 1, of a spectrum `(n, C, H, W // 2 + 1, 2)`: colours are put together here."""
        image = torch.fft.irfft2(torch.view_as_complex(spectrum.contiguous()) * self.scale, s=self.size) / 4
        if self.colours is not None:
            image = torch.einsum("rc,nchw->nrhw", self.colours.axes.to(image.device), image)
        return torch.sigmoid(image)

    def _varied(self, pixels: Tensor) -> Tensor:
        """Return images moved by up to a sixteenth, scaled by up to 10 % and turned by up to 5 degrees."""
        height, width = self.size
        draw = torch.rand(4, generator=self.generator) * 2 - 1
        angle, factor = math.radians(5) * float(draw[0]), 1 + 0.1 * float(draw[1])
        sine, cosine = math.sin(angle) * factor, math.cos(angle) * factor
        theta = torch.tensor(
            [[cosine, -sine * height / width, float(draw[2]) / 8], [sine * width / height, cosine, float(draw[3]) / 8]],
            device=pixels.device,
        )
        grid = F.affine_grid(theta.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
        return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _gain(self, pixels: Tensor) -> Tensor:
        values, maps = self._excitement(pixels)
        gain = values.sum()
        if self.diversity:
            if maps.ndim > 2:
                alike_by = maps.flatten(2) @ maps.flatten(2).transpose(1, 2)
            else:  # one number a channel has no correlations; the images themselves are driven apart
                alike_by = pixels - pixels.mean((2, 3), keepdim=True)
            flat = F.normalize(alike_by.flatten(1), dim=1)
            alike = (flat @ flat.T).triu(1).sum() / max(1, len(flat) - 1)
            gain = gain - self.diversity * values.detach().abs().mean() * alike
        return gain

    def _excitement(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is maximised for each image `(n,)`, and the layer's output."""
        if self.wanted.layer == "class":
            output = picked_output(self.model(prepared(pixels, self.record)))
        else:
            with capture_output(self.model, self.wanted.layer, copies=True) as found:
                self.model(prepared(pixels, self.record))
            output = found.output
        self.wanted.check(tuple(output.shape[1:]))
        if self.wanted.channel is None:
            chosen = output.square()
        else:
            chosen = output[:, self.wanted.channel]
        places = chosen.ndim - len(self.wanted.position or ())
        for place in self.wanted.position or ():
            chosen = chosen.select(places if self.wanted.channel is None else 1, place)
        return chosen.flatten(1).mean(1) if chosen.ndim > 1 else chosen, output

    def _values(self, spectrum: Tensor) -> tuple[float, ...]:
        with torch.no_grad():
            return tuple(self._excitement(self.pixels(spectrum))[0].tolist())

    def _is_alive(self, spectrum: Tensor) -> bool:
        """Return whether a gradient reaches every image."""
        values = self._excitement(self.pixels(spectrum))[0].sum()
        if not values.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(values, spectrum, allow_unused=True)
        return gradient is not None and bool(gradient.flatten(1).any(1).all())

    @contextmanager
    def _differentiating(self) -> Iterator[None]:
        with (
            evaluating(self.model),
            torch.inference_mode(False),
            torch.enable_grad(),
            seeded(self.seed, "visualisation"),
        ):
            yield

    def _no_gradient(self) -> UsageError:
        return UsageError(
            f"Feature visualisation climbs a gradient from '{self.wanted}' to the image; none comes through. Choose "
            "another layer, or look at the user's own images with top_images."
        )


class _Leaking(TorchFunctionMode):
    """Lets a share of the gradient through ReLUs below zero; what they give stays as it is."""

    def __init__(self, is_on: bool) -> None:
        super().__init__()
        self.is_on = is_on

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.is_on or kind_of(func).op != "relu" or not args or not isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        leaky = F.leaky_relu(args[0], SLOPE)
        return leaky + (leaky.clamp(min=0) - leaky).detach()
