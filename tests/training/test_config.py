from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from glassnet import TrainConfig, UsageError
from glassnet.data.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be above 0; got 0"),
        ({"epochs": True}, "epochs must be a number; got True"),
        ({"patience": 1.5}, "patience must be a whole number or none; got 1.5"),
        ({"compile": 1}, "compile must be true or false; got 1"),
        ({"batch_size": "some"}, "batch_size must be a whole number, all or auto; got 'some'"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1"),
        ({"on_nan": "halve"}, "Did you mean 'halve-lr'"),
        ({"nesterov": True}, "nesterov has no effect with optimizer 'adamw'.*sgd and muon"),
        ({"other_learning_rate": 0.1, "optimizer": "sgd"}, "other_learning_rate has no effect.*muon"),
        ({"output_learning_rate": 0.1, "optimizer": "sgd"}, "output_learning_rate has no effect.*muon"),
        ({"output_learning_rate": 0.0, "optimizer": "muon"}, "output_learning_rate must be above 0"),
        ({"other_momentum": 0.5, "optimizer": "sgd"}, "other_momentum has no effect.*muon"),
        ({"other_momentum": 1.0, "optimizer": "muon"}, "other_momentum must be at least 0 and below 1"),
        ({"other_weight_decay": 0.5}, "other_weight_decay has no effect.*muon"),
        ({"other_weight_decay": -0.5, "optimizer": "muon"}, "other_weight_decay must be at least 0"),
        ({"newton_schulz_steps": 3}, "newton_schulz_steps has no effect.*muon"),
        ({"newton_schulz_steps": 0, "optimizer": "muon"}, "newton_schulz_steps must be at least 1"),
        ({"first_layer_epochs": 0}, "first_layer_epochs must be above 0"),
        ({"nesterov": False, "optimizer": "adamw"}, "nesterov has no effect"),
        ({"plateau_patience": 0}, "plateau_patience has no effect"),
        ({"fixed_norm": True}, "fixed_norm has no effect with optimizer 'adamw'.*muon"),
        ({"fixed_norm": True, "optimizer": "muon", "weight_decay": 0.1}, "weight_decay has no effect.*norm is fixed"),
        ({"plateau_patience": 2}, "plateau_patience has no effect.*schedule='plateau'"),
        ({"optimizer": "muon", "precision": "fp16"}, "'fp16' scales the loss, which 'muon' does not take"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"learning_rate": 0}, "learning_rate must be above 0; got 0"),
        ({"learning_rate": -0.1}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0; got nan"),
        ({"learning_rate": "0.1"}, "learning_rate must be a number or none; got '0.1'"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum must be at least 0 and below 1; got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0 and below 1"),
        ({"warmup": 1}, "warmup must be at least 0 and below 1"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"max_shift": -1}, "max_shift must be at least 0"),
        (
            {"alternating_flip": True, "augment": "RandomCrop(padding=2), RandomHorizontalFlip"},
            "leaves nothing of alternating_flip. Take RandomHorizontalFlip out",
        ),
        ({"memory_budget_gib": -1}, "memory_budget_gib must be at least 0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"optimizer": "adm"}, "Unknown optimizer 'adm'. Did you mean 'adam'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"precision": "fp64"}, "Did you mean .*'fp32'"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum has no effect with the optimizer 'adam'.*sgd, rmsprop"),
    ],
)
def test_a_wrong_value_is_refused_when_the_config_is_made(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**values)


def test_an_unknown_field_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Unknown config field 'epoch'. Did you mean 'epochs'"):
        TrainConfig.from_dict({"epoch": 3})


def test_a_config_survives_its_dictionary() -> None:
    config = TrainConfig(epochs=3, optimizer="sgd", momentum=0.5, patience=2)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_a_config_is_frozen_and_derived_by_replacing() -> None:
    config = TrainConfig(optimizer="sgd")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3  # type: ignore[misc]
    assert dataclasses.replace(config, optimizer="adam").optimizer == "adam"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("learning_rate", "1e-3", 0.001),
        ("schedule", "linear", "linear"),
        ("patience", "none", None),
        ("epochs", "0.5", 0.5),
        ("batch_size", "all", "all"),
        ("batch_size", "32", 32),
        ("compile", "yes", True),
        ("nesterov", "false", False),
        ("nesterov", "none", None),
    ],
)
def test_text_is_read_as_the_fields_type(name: str, text: str, value: object) -> None:
    assert TrainConfig.parse(name, text) == value


def test_text_of_another_type_is_refused() -> None:
    with pytest.raises(UsageError, match="epochs must be a number; got 'many'"):
        TrainConfig.parse("epochs", "many")
    with pytest.raises(UsageError, match="patience must be a whole number or none; got '2.5'"):
        TrainConfig.parse("patience", "2.5")
    with pytest.raises(UsageError, match="Unknown config field 'epoch'"):
        TrainConfig.parse("epoch", "3")


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "momentum", "weight_decay"),
    [("sgd", 0.05, 0.9, 5e-4), ("adamw", 3e-3, None, 0.01), ("rmsprop", 1e-3, 0.0, 0.0)],
)
def test_a_resolved_config_says_the_usual_values(
    optimizer: str, learning_rate: float, momentum: float | None, weight_decay: float
) -> None:
    config = TrainConfig(optimizer=optimizer).resolved()
    assert (config.learning_rate, config.momentum, config.weight_decay) == (learning_rate, momentum, weight_decay)
    assert config.warmup == 0.2
    assert config.resolved() == config
    assert TrainConfig(optimizer=optimizer, learning_rate=9.0).resolved().learning_rate == 9


def test_numpys_numbers_are_taken_as_plain_ones_and_infinities_refused() -> None:
    config = TrainConfig(epochs=np.int64(3), learning_rate=np.float64(1e-3))  # type: ignore[arg-type]
    assert type(config.epochs) is int
    assert type(config.learning_rate) is float
    with pytest.raises(UsageError, match="learning_rate must be a finite number; got inf"):
        TrainConfig(learning_rate=float("inf"))


def test_label_smoothing_with_another_loss_is_refused_and_an_unknown_loss_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="label_smoothing has no effect with loss 'squared-error'"):
        TrainConfig(loss="squared-error", label_smoothing=0.1)
    with pytest.raises(UsageError, match="Unknown loss 'cross-entropie'. Did you mean 'cross-entropy'"):
        TrainConfig(loss="cross-entropie")


def test_augmentation_is_checked_when_the_config_is_made() -> None:
    with pytest.raises(UsageError, match="RandomFlip"):
        TrainConfig(augment="RandomFlip")
    with pytest.raises(UsageError, match="augment mixes labels, which loss 'multi-class-perceptron' does not take"):
        TrainConfig(augment="MixUp", loss="multi-class-perceptron")


def test_flips_alternate_in_the_place_of_those_of_the_usual_augmentation_and_only_there() -> None:
    things = Preprocessing(class_names=("ant", "bee"), size=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3, mode="RGB")
    letters = dataclasses.replace(things, class_names=("b", "d"))
    alternating, by_chance = TrainConfig(alternating_flip=True, augment="default"), TrainConfig(augment="default")
    crop = "RandomCrop(padding=4, padding_mode=reflect)"
    found = [config.fitted_to("photos", record) for config in (alternating, by_chance) for record in (things, letters)]
    assert [(config.augment, config.alternating_flip) for config in found] == [
        (crop, True),
        ("RandomShift(max_shift=2)", False),
        (f"{crop}, RandomHorizontalFlip(p=0.5)", False),
        ("RandomShift(max_shift=2)", False),
    ]
    given = TrainConfig(alternating_flip=True, augment="RandomRotation(degrees=5)")
    assert given.fitted_to("photos", letters) == given
