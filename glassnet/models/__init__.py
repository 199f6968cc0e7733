"""The networks of the canon, by name: from a threshold unit to ResNet."""

from __future__ import annotations

import inspect

from torch import nn

from glassnet._errors import UsageError, unknown_name
from glassnet._seed import seeded
from glassnet.models.architectures import ARCHITECTURES
from glassnet.models.fully_convolutional import FullyConvolutional, fully_convolutional
from glassnet.models.spec import Architecture, HasDataInitialisation, ModelSpec

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "FullyConvolutional",
    "HasDataInitialisation",
    "ModelSpec",
    "build_model",
    "fully_convolutional",
    "list_models",
    "spec_of",
]


def list_models() -> list[str]:
    """Return the names that `build_model` accepts, in the order of a course: from a threshold unit to ResNet."""
    return list(ARCHITECTURES)


def build_model(name: str, *, seed: int = 0, **options: object) -> nn.Module:
    """Build a network by name, with initial weights drawn from `seed`.

    `num_classes` and `input_shape` (`(C, H, W)` for images) are understood by every network, and default to the
    published ones; `glassnet models` lists the names, and each builder's docstring its further options. The same
    arguments give the same weights; the global random state is left alone.

    The model maps `images` `(B, C, H, W)` to `logits` `(B, num_classes)`; those of two classes may have one output.

    Raises `UsageError` for an unknown name or option (with the nearest ones) and for impossible sizes.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise unknown_name("model", str(name), ARCHITECTURES)
    build = ARCHITECTURES[name].build
    accepted = inspect.signature(build).parameters
    for option in options:
        if option not in accepted:
            raise unknown_name(f"option of model '{name}'", option, accepted)
    options = {option: plain_sizes(value) for option, value in options.items() if value is not None}
    _check_counts(options)
    try:
        with seeded(seed, "initial weights"):
            model = build(**options)
    except UsageError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise UsageError(
            f"The options of model '{name}' must be of the kinds its builder documents; got {given}: {error}."
        ) from None
    input_shape = options.get("input_shape", ARCHITECTURES[name].input_shape)
    model.spec = ModelSpec(name, dict(options), input_shape, seed)  # type: ignore[assignment,arg-type]
    return model


def spec_of(model: nn.Module) -> ModelSpec | None:
    """Return how `build_model` built this model; None where it did not, or where the model was changed since.

    A change of layers is seen by building the model again and comparing the two module trees; new weights are none.
    """
    spec = getattr(model, "spec", None)
    if not isinstance(spec, ModelSpec):
        return None
    again = build_model(spec.name, **spec.options)
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (model, again)]
    return spec if repr(model) == repr(again) and shapes[0] == shapes[1] else None


def plain_sizes(value: object) -> object:
    """Return numpy's numbers as Python's, and lists and arrays of them as tuples; other values as they are."""
    if isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(plain_sizes(part) for part in value) if isinstance(value, list | tuple) else value


def _check_counts(options: dict[str, object]) -> None:
    num_classes = options.get("num_classes", 10)
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise UsageError(f"num_classes must be a whole number of at least 1; got {num_classes!r}.")
    shape = options.get("input_shape")
    if shape is None:
        return
    if not isinstance(shape, tuple) or not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(
            f"input_shape must be positive whole numbers, channels first, such as (1, 32, 32); got {shape!r}."
        )
