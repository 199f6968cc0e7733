"""Whether model, data, config and loss go together: checked before any work, and what follows from them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from glassnet._device import resolve_device, resolve_precision
from glassnet._errors import UsageError
from glassnet.data.augmentation import parse_augmentation
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.image_files import ImageFiles
from glassnet.data.loader import DeviceExamples, to_device
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord, make_record
from glassnet.evaluation.prediction import num_outputs, predict_outputs
from glassnet.models import ARCHITECTURES, spec_of
from glassnet.models.spec import HasDataInitialisation, ModelSpec
from glassnet.models.user_model import user_spec_of
from glassnet.recipes import known_as, recipe, with_fitting_batch, with_usual_augmentation
from glassnet.training.batch_size import check_batch_size, with_batch_size
from glassnet.training.config import TrainConfig
from glassnet.training.objective import Objective, make_objective
from glassnet.training.own_loss import NUM_TRIED, LossFunction, check_own_loss, check_value
from glassnet.training.processes import local_device

NUM_LOOKED_AT = 5000
"""Training inputs that initial weights are computed from, where they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """What a training of one model on one data set works with."""

    spec: ModelSpec | None
    """Of a model that is one of glassnet's as it was built."""
    config: TrainConfig
    """Resolved; with the batch's size in numbers and the loss's name."""
    device: torch.device
    precision: str
    preprocessing: InputRecord
    objective: Objective
    decoding_s: float = 0.0
    """Seconds that decoding the images took, which is done where the files that can be used are counted."""


def match_model(model: nn.Module, data: Dataset, config: TrainConfig | None, loss: LossFunction | None) -> Match:
    """Match a model, a data set, a config (by default the recipe for both) and the user's own loss, if any.

    The model, and a loss that is a module, are moved to the device. Raises `UsageError` for what does not go together.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module); got {type(model).__name__}. gn.build_model makes one.")
    if not isinstance(data, Dataset):
        raise UsageError(f"Expected a data set from gn.load_data, with its splits; got {type(data).__name__}.")
    spec = spec_of(model)
    if config is not None and not isinstance(config, TrainConfig):
        raise UsageError(f"Expected a config, gn.TrainConfig(epochs=...); got {config!r}.")
    if config is None:
        config = with_fitting_batch(recipe(known_as(data), spec.name if spec else None), len(data.train))
        config = with_usual_augmentation(config, data)
        config = replace(config, label_smoothing=0.0) if loss is not None else config  # it is for cross-entropy
    check_own_loss(loss, config)
    config = config.resolved()
    if isinstance(config.batch_size, int):
        check_batch_size(config.batch_size * config.accumulate, len(data.train))
    device = resolve_device(local_device(config.device))
    precision = resolve_precision(config.precision, device)
    preprocessing = make_record(data.train, _input_size(data, model), data.framing)
    config = config.fitted_to(data.name, preprocessing)
    objective = check_model(model, data, preprocessing, config, loss)
    if isinstance(loss, nn.Module):
        loss.to(device)  # its class weights go where the outputs are, as the model does
    model.to(device)
    started = time.perf_counter()
    num_train = _num_usable(data.train, preprocessing)
    decoding_s = time.perf_counter() - started
    if isinstance(config.batch_size, int):  # which fitted before files were set aside
        config = replace(config, batch_size=min(config.batch_size, max(1, num_train // config.accumulate)))
    config = replace(config, loss=objective.loss.name)
    return Match(
        spec=spec,
        config=with_batch_size(config, num_train, model, preprocessing),
        device=device,
        precision=precision,
        preprocessing=preprocessing,
        objective=objective,
        decoding_s=decoding_s,
    )


def _num_usable(examples: ExampleSet, preprocessing: InputRecord) -> int:
    """Return how many of `examples` reach the network: all but the files that cannot be decoded any more."""
    if not isinstance(examples.inputs, ImageFiles) or not isinstance(preprocessing, Preprocessing):
        return len(examples)
    return len(preprocessing.fit_readable(examples.inputs)[0])


def initialise_from_data(model: nn.Module, examples: DeviceExamples, preprocessing: InputRecord) -> None:
    """Set the initial weights that come from training inputs, where the model has such and none were loaded."""
    if not isinstance(model, HasDataInitialisation) or getattr(model, "loaded_weights", None) is not None:
        return
    inputs = examples.inputs[:NUM_LOOKED_AT].to(next(model.parameters()).device)
    model.initialise_from(preprocessing.normalise(inputs))


def check_model(
    model: nn.Module,
    data: Dataset,
    preprocessing: InputRecord,
    config: TrainConfig,
    loss: LossFunction | None,
) -> Objective:
    """Match model, data, config and the user's own loss, and return what training makes small.

    Raises `UsageError` where they do not fit.
    """
    spec = spec_of(model)
    architecture = ARCHITECTURES[spec.name] if spec else None
    if architecture and architecture.is_regression and preprocessing.class_names:
        raise UsageError(
            f"This model predicts values, and the data has {len(preprocessing.class_names)} classes. "
            "For classes use logistic-regression (two) or softmax."
        )
    usual = architecture.losses if architecture else {}
    found = num_outputs(model, preprocessing)
    objective = make_objective(config, preprocessing.class_names, found, usual, loss)
    if not objective.is_classification and found != data.train.num_outputs:
        raise UsageError(
            f"The data has {data.train.num_outputs} values to predict, and the model has {found} outputs. "
            f"Build it with num_classes={data.train.num_outputs}."
        )
    if loss is None:
        _try_loss(model, data, preprocessing, objective)
    else:
        _try_own_loss(model, data, preprocessing, objective)
    _check_shift(config.max_shift, preprocessing)
    if config.alternating_flip and not isinstance(preprocessing, Preprocessing):
        raise UsageError("alternating_flip mirrors images, and these inputs are numbers. Leave it out.")
    _check_augmentation(config.augment, preprocessing, objective)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        hint = " Build it with unit='sigmoid' to train it." if spec and spec.name.startswith("gate-") else ""
        raise UsageError(f"The model has nothing to train: none of its parameters requires a gradient.{hint}")
    return objective


def _input_size(data: Dataset, model: nn.Module) -> tuple[int, int] | None:
    """Height and width that the model was built for; None where that is not known, and for numbers.

    What `build_model` left on the model tells: its input size stands also where layers were changed since.
    """
    shape, spec, users = data.train.input_shape, getattr(model, "spec", None), user_spec_of(model)
    if users is not None and data.train.is_image:
        return users.input_size
    if not isinstance(spec, ModelSpec) or not data.train.is_image:
        return None
    if len(spec.input_shape) != 3 or spec.input_shape[0] != shape[0]:
        size = spec.input_shape[1:] if len(spec.input_shape) == 3 else shape[1:]
        raise UsageError(
            f"The model was built for inputs of {spec.input_shape}, and '{data.name}' has images of {shape}. "
            f"Build it with input_shape={(shape[0], *size)}."
        )
    return spec.input_shape[1], spec.input_shape[2]


def _try_loss(model: nn.Module, data: Dataset, preprocessing: InputRecord, objective: Objective) -> None:
    """Take the loss of one example, so that a loss whose outputs the model does not give is refused before any work."""
    example = preprocessing.example()
    outputs = predict_outputs(model, example, preprocessing)
    if not bool(outputs.isfinite().all()):
        return  # training says where a loss is lost
    try:
        objective.value(outputs, data.train.labels[:1].to(outputs.device))
    except UsageError as error:
        raise UsageError(f"Loss '{objective.loss.name}' does not fit what the model gives: {error}") from None


def _try_own_loss(model: nn.Module, data: Dataset, preprocessing: InputRecord, objective: Objective) -> None:
    """Try the user's loss and its gradient on a few training examples, so that what it lacks is said in time."""
    tried = to_device(data.train[:NUM_TRIED], preprocessing, torch.device("cpu"))
    outputs = predict_outputs(model, tried.inputs, preprocessing)
    if bool(outputs.isfinite().all()):  # else training says where a loss is lost
        check_value(objective.value, objective.loss.name, outputs, tried.labels.to(outputs.device))


def _check_augmentation(text: str, preprocessing: InputRecord, objective: Objective) -> None:
    augmentation = parse_augmentation(text)
    if augmentation.transforms and not isinstance(preprocessing, Preprocessing):
        raise UsageError("augment changes images, and these inputs are numbers. Leave it out.")
    if augmentation.mixes_labels and objective.loss.name != "cross-entropy":
        raise UsageError(
            f"augment mixes labels, which loss '{objective.loss.name}' does not take. Leave MixUp and CutMix out."
        )
    augmentation.check(preprocessing.input_shape)


def _check_shift(max_shift: int, preprocessing: InputRecord) -> None:
    if max_shift and not isinstance(preprocessing, Preprocessing):
        raise UsageError("max_shift moves images, and these inputs are numbers. Set it to 0.")
    if isinstance(preprocessing, Preprocessing) and max_shift >= min(preprocessing.size):
        height, width = preprocessing.size
        raise UsageError(
            f"max_shift must be below the input size, {height}x{width}; got {max_shift}, which moves images out of it."
        )
