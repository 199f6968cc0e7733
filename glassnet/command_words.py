"""What the words of a command come to: a network, data, a config. Heavy imports stand inside the functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glassnet._errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from glassnet._user_code import Address
    from glassnet.data.examples import Dataset
    from glassnet.recipes import Recipe
    from glassnet.training.config import TrainConfig
    from glassnet.training.own_loss import LossFunction

SAID_BY_FLAGS = {
    "model.seed": "--seed",
    "model.name": "--model",
    "data.seed": "--seed",
    "data.target": "--target",
    "data.task": "--task",
    "data.root": "--root",
    "data.strict": "--strict",
}
"""What `--set` leaves to a flag of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What the words of `train` and `lr-range` come to."""

    model: str
    """The network's name, or the address of the user's own."""
    network: nn.Module
    examples: Dataset
    config: TrainConfig
    own_loss: LossFunction | None
    is_users: bool


def prepare(
    data: str,
    model: str | None,
    recipe_name: str | None,
    flags: dict[str, Any],
    options: dict[str, Any],
    fields: dict[str, str],
    *,
    size: int | None,
    data_options: dict[str, Any],
    **source: Any,
) -> Prepared:
    """Choose recipe and config, load the data, build the network; `flags` are fields of the config that were given."""
    from glassnet._device import resolve_device
    from glassnet._user_code import is_address, parse_address
    from glassnet.data.sources import load_data
    from glassnet.models import build_model
    from glassnet.recipes import default_recipe, named_recipe, recipe, with_fitting_batch, with_usual_augmentation
    from glassnet.training.own_loss import load_loss

    address = parse_address(model, "Net") if model and is_address(model) else None
    loss = fields.get("loss", flags["loss"])
    own_loss = load_loss(loss) if loss and is_address(loss) else None
    chosen = listed_recipe_for(data, model, recipe_name)
    config = _checked_words(data, model, recipe_name, chosen, flags, fields)
    resolve_device(config.device)  # before a download, not after it
    if chosen is not None and chosen.validation_share is not None:
        data_options.setdefault("validation_share", chosen.validation_share)
    examples = load_data(data, seed=config.seed, **source, **data_options)
    if chosen is None and (recipe_name or not model):
        chosen = named_recipe(recipe_name, examples) if recipe_name else default_recipe(examples)
        _check_recipes_model(data, model, recipe_name, chosen)
    config = configured(chosen.config if chosen else recipe(data, model or "lenet5"), flags, fields)
    if chosen is not None:
        model, options, size = chosen.model, {**chosen.options, **options}, chosen.size if size is None else size
    if flags["batch_size"] is None and "batch_size" not in fields:
        config = with_fitting_batch(config, len(examples.train))
    if chosen is None and flags["augment"] is None and "augment" not in fields:
        config = with_usual_augmentation(config, examples)
    model = model or ("lenet5" if examples.train.is_image else "mlp")
    fitting = _fitting_options(model, examples, size)
    if address is None:
        network = build_model(model, seed=config.seed, **{**fitting, **options})
    else:
        network = _users_network(address, fitting, options, config.seed, None if size is None else (size, size))
    return Prepared(
        model=model,
        network=network,
        examples=examples,
        config=config,
        own_loss=own_loss,
        is_users=address is not None,
    )


def listed_recipe_for(data: str, model: str | None, name: str | None) -> Recipe | None:
    """Return the data's own recipe of the name, or its fast one where no network is named; None without any."""
    from glassnet.recipes import listed_recipe
    from glassnet.training.muon import has_muon

    is_usual = not model and has_muon()
    chosen = listed_recipe(data, name) if name else listed_recipe(data, "fast") if is_usual else None
    _check_recipes_model(data, model, name, chosen)
    return chosen


def _checked_words(
    data: str,
    model: str | None,
    recipe_name: str | None,
    chosen: Recipe | None,
    flags: dict[str, Any],
    fields: dict[str, str],
) -> TrainConfig:
    """Return the config before the data are read; where they are to decide on the recipe, as another's.

    Raises `UsageError` for words that no recipe takes which the data may decide on.
    """
    from glassnet.recipes import NAMED_RECIPES, recipe

    if chosen is not None or model:
        return configured(chosen.config if chosen else recipe(data, model or ""), flags, fields)
    of_images = NAMED_RECIPES["mnist", recipe_name or "fast"].config
    if recipe_name:
        return configured(of_images, flags, fields)
    try:
        return configured(recipe(data, "lenet5"), flags, fields)
    except UsageError:
        return configured(of_images, flags, fields)


def _check_recipes_model(data: str, model: str | None, name: str | None, chosen: Recipe | None) -> None:
    if chosen is not None and model not in (None, chosen.model):
        raise UsageError(f"--recipe {name} of '{data}' trains {chosen.model}; leave --model {model} out.")


def configured(base: TrainConfig, flags: dict[str, Any], settings: dict[str, str]) -> TrainConfig:
    """Return `base` with the flags that were given and the `--set` pairs."""
    from glassnet.training.config import ONLY_FOR_KERNELS, TrainConfig

    values = {name: value for name, value in flags.items() if value is not None}
    values |= {name: TrainConfig.parse(name, text) for name, text in settings.items()}
    if values.get("loss") not in (None, "cross-entropy"):
        values.setdefault("label_smoothing", 0.0)  # the recipe's is for cross-entropy
    if "augment" in values:
        values.setdefault("max_shift", 0)  # what the recipe does to images, too
        values.setdefault("alternating_flip", False)
    if values.keys() & {"epochs", "patience"}:
        values.setdefault("validate_every", 1)  # the recipe's is for its own epochs, all of them
    if "patience" in values:
        values.setdefault("keep", "best")
    if values.get("optimizer") not in (None, base.optimizer):  # the recipe's figures are for its own
        plain = TrainConfig()
        for name in ("learning_rate", "momentum", "nesterov", "weight_decay", *ONLY_FOR_KERNELS):
            values.setdefault(name, getattr(plain, name))
    return TrainConfig.from_dict({**base.to_dict(), **values})


def usual_config(source: str, model: str | None, data: Dataset, augment: str | None) -> TrainConfig:
    """Return the config that `train` would take for these words."""
    from glassnet.recipes import default_recipe, recipe, with_usual_augmentation

    chosen = None if model else default_recipe(data)
    config = chosen.config if chosen else with_usual_augmentation(recipe(source, model or "lenet5"), data)
    return configured(config, {"augment": augment}, {})


def split_settings(settings: list[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Return the `model.` and the `data.OPTION=VALUE` pairs of `--set`, values read as YAML; the others as text."""
    import yaml

    options: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    fields: dict[str, str] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise UsageError(f"--set takes FIELD=VALUE, such as --set patience=3; got '{setting}'.")
        if name in SAID_BY_FLAGS:
            raise UsageError(f"--set {name} is said by {SAID_BY_FLAGS[name]}; leave it out.")
        if name in ("data.source", "data.record", "data.download"):
            raise UsageError(f"--set {name} is no option of data; `glassnet data --help` names some. Leave it out.")
        part, dot, option = name.partition(".")
        if not dot or part not in options:
            fields[name] = text
            continue
        try:
            value = yaml.safe_load(text)
            is_number = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", value.lower())
            options[part][option] = float(value) if is_number else value  # YAML reads 1e-3 as a word
        except yaml.YAMLError:
            raise UsageError(f"--set {name} must be a number, a word or a list such as [7, 5]; got '{text}'.") from None
    return options["model"], options["data"], fields


def _fitting_options(model: str, data: Dataset, size: int | None) -> dict[str, object]:
    """Return the build options that make a network fit a data set: its classes, channels and, if free, size."""
    from glassnet.models import ARCHITECTURES

    shape = data.train.input_shape
    entry = ARCHITECTURES.get(model)  # an unknown name is build_model's to refuse
    if data.train.is_image:
        published = entry.input_shape[1:] if entry is not None and not entry.any_size else shape[1:]
        shape = (shape[0], *(published if size is None else (size, size)))
    elif size is not None:
        raise UsageError("--size is for images; these inputs are numbers. Leave it out.")
    return {"num_classes": data.train.num_outputs, "input_shape": shape}


def fitting_size(model: str, data: Dataset, size: int | None) -> tuple[int, int]:
    """Return height and width of the input that `train` would give `model` for these images."""
    from glassnet._errors import unknown_name
    from glassnet._user_code import is_address
    from glassnet.models import list_models

    if model not in list_models() and not is_address(model):
        raise unknown_name("model", model, list_models())
    shape = _fitting_options(model, data, size)["input_shape"]
    assert isinstance(shape, tuple)
    return shape[1], shape[2]


def input_size_of(network: nn.Module) -> tuple[int, int] | None:
    """Return height and width that a network was built for; None where that is not known, and for numbers."""
    from glassnet.models import spec_of
    from glassnet.models.user_model import user_spec_of

    spec, users = spec_of(network), user_spec_of(network)
    if users is not None:
        return users.input_size
    return (spec.input_shape[1], spec.input_shape[2]) if spec is not None and len(spec.input_shape) == 3 else None


def _users_network(
    address: Address,
    fitting: dict[str, object],
    options: dict[str, Any],
    seed: int,
    input_size: tuple[int, int] | None = None,
) -> nn.Module:
    """Build a network of the user's own, and say on the error stream with what, and which files are its source."""
    from glassnet.models.user_model import build_user_model, fitting_options, user_spec_of

    told: dict[str, Any] = fitting
    offered = fitting_options(told.get("num_classes"), told.get("input_shape"))
    network = build_user_model(address, seed=seed, fitting=offered, options=options, input_size=input_size)
    spec = user_spec_of(network)
    assert spec is not None, "build_user_model leaves it"
    given = ", ".join(f"{name}={value!r}" for name, value in spec.options.items())
    beside = [name.partition("/")[2] for name in spec.sources if "/" in name]
    files = ", ".join((str(address.path), *beside))
    typer.echo(f"Network        {address.name}({given}); its source, which a run keeps: {files}", err=True)
    return network


def built_network(
    model: str, input_size: str | None, classes: int | None, own: dict[str, Any]
) -> tuple[nn.Module, tuple[int, ...]]:
    """Build a network by its name or address, with random weights; return it and the shape of its input.

    `own` are build options. Raises `UsageError` for an input that is no sizes, or that a user's own network needs told.
    """
    from glassnet._user_code import is_address, parse_address
    from glassnet.models import build_model, spec_of

    options: dict[str, Any] = {}
    if input_size is not None:
        parts = input_size.lower().split("x")
        if not all(part.isdecimal() and int(part) for part in parts):
            raise UsageError(f"--input takes sizes joined by x, channels first, such as 1x32x32; got '{input_size}'.")
        options["input_shape"] = tuple(int(part) for part in parts)
    if classes is not None:
        options["num_classes"] = classes
    if is_address(model):
        address = parse_address(model, "Net")
        if input_size is None:
            raise UsageError(f"The input of {model} must be known: give --input CxHxW, such as --input 3x32x32.")
        return _users_network(address, options, own, 0), options["input_shape"]
    network = build_model(model, **{**options, **own})
    spec = spec_of(network)
    assert spec is not None
    return network, spec.input_shape


def with_folders_expanded(paths: list[Path]) -> list[Path]:
    """Replace each folder by the image files that lie in it, sorted, hidden ones left out; other paths stay."""
    from PIL import Image

    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    expanded: list[Path] = []
    for path in paths:
        if path.is_dir():
            seen = (file for file in path.iterdir() if not file.name.startswith("."))
            inside = sorted(file for file in seen if file.suffix.lower() in known)
            expanded += inside or [path]  # a folder without images is named among what was set aside
        else:
            expanded.append(path)
    return expanded
