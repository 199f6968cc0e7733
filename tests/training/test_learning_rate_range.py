from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import TrainConfig, UsageError, learning_rate_range
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.loader import batch_bounds, shuffled_order, to_device
from glassnet.data.records import make_record
from glassnet.training.fit import fit
from glassnet.training.learning_rate_range import (
    LearningRateRange,
    smooth,
    steepest_descent,
)
from glassnet.training.optimizer import OPTIMIZERS
from glassnet.training.step import NonFiniteLossError


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 3)
    )


def row_data(targets: Callable[[Tensor], Tensor], names: tuple[str, ...]) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    splits = [torch.randn(count, 2, generator=generator) for count in (200, 20, 20)]
    return Dataset("rows", *(ExampleSet(x, targets(x), names) for x in splits), seed=0)


def search(model: nn.Module, data: Dataset, **values: object) -> LearningRateRange:
    return learning_rate_range(model, data, TrainConfig(**{"batch_size": 16} | values))


def test_each_loss_is_that_of_gradient_descent_by_hand_at_rates_that_rise_by_one_factor(small_data: Dataset) -> None:
    """An independent loop of plain tensors over the batches of two epochs and a part of the third."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in model.parameters())
    values = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "batch_size": 20, "seed": 3}
    result = learning_rate_range(model, small_data, TrainConfig(**values), low=1e-3, high=1e-1, num_steps=20)
    record = make_record(small_data.train, (8, 8), small_data.framing)
    train = to_device(small_data.train, record, torch.device("cpu"))
    orders = [shuffled_order(60, 3, epoch, torch.device("cpu")) for epoch in range(1, 8)]
    expected = []
    for step, batch in enumerate(torch.cat(orders).split(20)[:20]):
        rate = 1e-3 * 100 ** (step / 19)
        assert result.learning_rates[step] == pytest.approx(rate)
        outputs = record.normalise(train.inputs[batch]).flatten(1) @ weight.T + bias
        loss = F.cross_entropy(outputs, train.labels[batch])
        expected.append(loss.item())
        with torch.no_grad():
            for parameter, gradient in zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True):
                parameter -= rate * gradient
    assert result.losses == pytest.approx(expected, rel=1e-4)
    assert result.stop_reason == "all steps done"


@pytest.mark.parametrize(
    "values",
    [
        {"precision": "bf16", "max_shift": 1, "optimizer": "muon"},
        {"accumulate": 2, "augment": "RandomHorizontalFlip", "label_smoothing": 0.2, "optimizer": "sgd"},
        {"batch_size": "all", "max_gradient_norm": 0.1},
    ],
)
def test_at_a_rate_that_hardly_moves_it_takes_the_very_steps_of_training(
    values: dict[str, object], small_data: Dataset
) -> None:
    """The mean of its losses over an epoch is the training loss that `fit` reports for that epoch."""
    config = TrainConfig(**{"batch_size": 16, "epochs": 20, "learning_rate": 0.01, "schedule": "constant"} | values)  # type: ignore[arg-type]
    record = make_record(small_data.train, None, small_data.framing)
    splits = [to_device(split, record, torch.device("cpu")) for split in (small_data.train, small_data.validation)]
    history = fit(network(dropout=0.3), *splits, record, config, precision=str(values.get("precision", "fp32"))).history
    config = dataclasses.replace(config, precision=str(values.get("precision", "fp32")))
    result = learning_rate_range(
        network(dropout=0.3), small_data, config, low=0.01, high=0.01 * (1 + 1e-9), num_steps=20
    )
    size = result.batch_size
    bounds = batch_bounds(60, size)
    for epoch in range(20 // len(bounds)):
        losses = result.losses[epoch * len(bounds) : (epoch + 1) * len(bounds)]
        mean = sum(loss * (stop - start) for loss, (start, stop) in zip(losses, bounds, strict=True)) / 60
        assert mean == pytest.approx(history[epoch].train_loss, rel=1e-4)


class Whitened(nn.Sequential):
    """Stands for a network whose first weights come from training inputs, here as zeros."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 3))

    def initialise_from(self, inputs: Tensor) -> None:
        assert inputs.shape == (60, 1, 8, 8)
        for parameter in self.parameters():
            parameter.data.zero_()


def test_initial_weights_that_come_from_the_data_are_those_of_training(small_data: Dataset) -> None:
    model = Whitened()
    result = learning_rate_range(model, small_data, TrainConfig(batch_size=20), num_steps=20)
    assert result.losses[0] == pytest.approx(math.log(3))
    assert model[1].weight.abs().min() > 0, "the model itself is left as it is"


def test_of_muon_the_rate_of_the_kernels_rises_and_that_of_the_rest_stays(small_data: Dataset) -> None:
    """At rates too low to move a kernel the last layer learns all the same."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3))
    config = TrainConfig(batch_size=20, optimizer="muon", other_learning_rate=0.1)
    moving = learning_rate_range(model, small_data, config, low=1e-12, high=1e-10, num_steps=40)
    assert moving.losses[-1] < 0.8 * moving.losses[0]
    config = dataclasses.replace(config, other_learning_rate=1e-12)
    still = learning_rate_range(model, small_data, config, low=1e-12, high=1e-10, num_steps=40)
    assert still.losses[-1] == pytest.approx(still.losses[0], rel=0.2)


def test_a_loss_of_the_users_own_is_what_is_lowered_and_stays_where_it_is(small_data: Dataset) -> None:
    weights = torch.tensor([1.0, 5.0, 1.0])
    loss = nn.CrossEntropyLoss(weight=weights)
    own = learning_rate_range(network(), small_data, TrainConfig(batch_size=60), loss=loss, num_steps=20)
    plain = learning_rate_range(network(), small_data, TrainConfig(batch_size=60), num_steps=20)
    assert own.losses[0] != pytest.approx(plain.losses[0], rel=1e-3)
    assert loss.weight is weights


class ExplosionError(Exception):
    pass


def everything_of(model: nn.Module) -> tuple[object, ...]:
    state = copy.deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    pointers = [(p.data_ptr(), None if p.grad is None else p.grad.data_ptr()) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    return state, gradients, pointers, modes, hooks


def assert_same(before: tuple[object, ...], after: tuple[object, ...]) -> None:
    assert before[0].keys() == after[0].keys()  # type: ignore[attr-defined]
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())  # type: ignore
    for one, other in zip(before[1], after[1], strict=True):  # type: ignore[call-overload]
        assert (one is None and other is None) or torch.equal(one, other)
    assert before[2:] == after[2:]


@pytest.mark.parametrize("is_failing", [False, True])
def test_the_model_is_left_as_it_was_found_also_after_an_error(small_data: Dataset, is_failing: bool) -> None:
    model = network(dropout=0.5)
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    before, random_state = everything_of(model), torch.get_rng_state()

    def heard(step: int) -> None:
        if is_failing and step == 7:
            raise ExplosionError

    if is_failing:
        with pytest.raises(ExplosionError):
            learning_rate_range(model, small_data, TrainConfig(batch_size=16), on_step=heard)
    else:
        learning_rate_range(model, small_data, TrainConfig(batch_size=16), on_step=heard)
    assert_same(before, everything_of(model))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_same_arguments_give_the_same_result_bit_for_bit_and_another_seed_another(small_data: Dataset) -> None:
    values = {"max_shift": 1, "augment": "RandomHorizontalFlip"}
    results = []
    for seed in (0, 0, 1):
        model = network(dropout=0.3)
        torch.rand(seed + len(results))
        results.append(search(model, small_data, seed=seed, **values))
    assert results[0] == results[1]
    assert results[0].losses[0] != results[2].losses[0]


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_gets_a_rate_from_which_it_learns(optimizer: str, small_data: Dataset) -> None:
    result = search(network(), small_data, optimizer=optimizer)
    assert result.optimizer == optimizer
    assert result.suggestion is not None
    assert result.lowest is not None
    assert 1e-5 < result.suggestion <= result.lowest
    assert result.tenth_of_lowest == pytest.approx(result.lowest / 10)


@pytest.mark.parametrize(
    ("model_name", "loss", "targets", "names"),
    [
        ("perceptron", None, lambda x: (x[:, 0] > 0).long(), ("no", "yes")),
        ("logistic-regression", None, lambda x: (x[:, 0] > 0).long(), ("no", "yes")),
        ("logistic-regression", "perceptron", lambda x: (x[:, 0] > 0).long(), ("no", "yes")),
        ("linear-regression", None, lambda x: 3 * x[:, 0] - x[:, 1], ()),
    ],
)
def test_losses_of_two_classes_and_of_values_are_taken_as_in_training(
    model_name: str, loss: str | None, targets: Callable[[Tensor], Tensor], names: tuple[str, ...]
) -> None:
    data = row_data(targets, names)
    model = gn.build_model(model_name, input_shape=(2,), num_classes=len(names) or 1)
    result = search(model, data, loss=loss, optimizer="sgd")
    assert result.suggestion is not None
    assert min(result.smoothed_losses) < result.smoothed_losses[0]


def test_it_ends_where_the_smoothed_loss_is_above_four_times_its_minimum() -> None:
    data = row_data(lambda x: 3 * x[:, 0] - x[:, 1], ())
    result = search(gn.build_model("linear-regression", input_shape=(2,)), data, optimizer="sgd", momentum=0)
    assert "above 4 times its minimum" in result.stop_reason
    assert len(result.losses) < 100
    windows = [sum(result.losses[end - 7 : end]) / 7 for end in range(7, len(result.losses) + 1)]
    assert windows[-1] > 4 * min(windows)
    assert all(latest <= 4 * min(windows[: at + 1]) for at, latest in enumerate(windows[:-1]))


def test_it_ends_at_a_loss_that_is_not_finite_and_keeps_those_before() -> None:
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(2, 1)
            self.num_passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.num_passes += self.training
            return self.output(x) * (math.nan if self.num_passes > 30 else 1)

    model = Fragile()
    result = search(model, row_data(lambda x: x[:, 0], ()), optimizer="adam")
    assert result.stop_reason.startswith("the loss was not finite at 0.0")
    assert len(result.losses) == len(result.learning_rates) == len(result.smoothed_losses) == 30
    assert model.num_passes == 0


def test_a_first_loss_that_is_not_finite_is_an_error_that_says_where_to_look() -> None:
    model = gn.build_model("linear-regression", input_shape=(2,))
    with torch.no_grad():
        model.output.weight.fill_(math.inf)
    with pytest.raises(NonFiniteLossError, match="finite loss before the first step"):
        search(model, row_data(lambda x: x[:, 0], ()))


def test_rates_far_too_low_give_no_suggestion(small_data: Dataset) -> None:
    result = learning_rate_range(network(), small_data, TrainConfig(batch_size=16), low=1e-9, high=1e-7)
    assert (result.suggestion, result.lowest, result.tenth_of_lowest) == (None, None, None)
    assert "suggestion=none" in repr(result)


def test_a_model_that_keeps_what_a_training_pass_left_is_copied_all_the_same() -> None:
    model = gn.build_model("googlenet", input_shape=(3, 79, 79), num_classes=3)
    model.train()
    model(torch.rand(2, 3, 79, 79))
    left = model.auxiliary_logits
    assert not left[0].is_leaf
    inputs = torch.randint(0, 255, (4, 3, 79, 79), dtype=torch.uint8)
    examples = ExampleSet(inputs, torch.tensor([0, 1, 2, 0]), ("a", "b", "c"))
    data = Dataset("pictures", examples, examples, examples, seed=0)
    learning_rate_range(model, data, TrainConfig(batch_size=4, optimizer="sgd"), num_steps=20)
    assert model.auxiliary_logits is left


def test_a_model_that_cannot_be_copied_is_refused(small_data: Dataset, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = network()
    with (tmp_path / "log").open("w") as file:
        model.log = file  # type: ignore[assignment]
        with pytest.raises(UsageError, match="cannot be copied"):
            search(model, small_data)


def test_what_does_not_go_together_is_refused(small_data: Dataset) -> None:
    rows = row_data(lambda x: x[:, 0], ())
    linear = gn.build_model("linear-regression", input_shape=(2,))
    frozen = network().requires_grad_(False)
    for message, call in {
        "low must be above 0 and below high; got low=1 and high=0.1": lambda: learning_rate_range(
            network(), small_data, low=1, high=0.1
        ),
        "high must be a finite number; got inf": lambda: learning_rate_range(network(), small_data, high=math.inf),
        r"num_steps \(--steps\) must be a whole number of at least 20; got 5": lambda: learning_rate_range(
            network(), small_data, num_steps=5
        ),
        "Expected a model": lambda: learning_rate_range("lenet5", small_data),  # type: ignore[arg-type]
        "Expected a data set": lambda: learning_rate_range(network(), small_data.train),  # type: ignore[arg-type]
        "Expected a config": lambda: learning_rate_range(network(), small_data, {"seed": 1}),  # type: ignore[arg-type]
        "batch_size must be at most the 60": lambda: search(network(), small_data, batch_size=61),
        "max_shift moves images": lambda: search(linear, rows, max_shift=1),
        "alternating_flip mirrors images": lambda: search(linear, rows, alternating_flip=True),
        "max_shift must be below": lambda: search(network(), small_data, max_shift=8),
        "nothing to train": lambda: search(frozen, small_data),
        "The data has 1 values to predict": lambda: search(nn.Linear(2, 3), rows),
    }.items():
        with pytest.raises(UsageError, match=message):
            call()


def test_without_a_config_the_batch_fits_the_data(small_data: Dataset) -> None:
    assert learning_rate_range(network(), small_data, num_steps=20).batch_size == 60


def test_smoothing_takes_as_many_neighbours_on_either_side_as_an_end_leaves() -> None:
    assert smooth([1, 2, 6, 4, 7], 1) == [1, 3, 4, 17 / 3, 7]
    assert smooth([0, 3, 6, 9, 12], 2) == [0, 3, 6, 9, 12], "a straight line stays one"


def test_the_steepest_descent_of_a_smooth_step_is_its_middle() -> None:
    places = [0.1 * index for index in range(100)]
    values = [2 - math.tanh(place - 4) for place in places]
    assert steepest_descent(places, values, 3) == 40
    valley = [value + 0.5 * max(0, place - 7) ** 2 for place, value in zip(places, values, strict=True)]
    assert steepest_descent(places, valley, 3) == 40


def test_noise_and_a_rise_are_no_descent() -> None:
    generator = torch.Generator().manual_seed(0)
    places = [float(index) for index in range(100)]
    noises = [torch.randn(100, generator=generator).tolist() for _ in range(400)]
    found = sum(steepest_descent(places, noise, 3) is not None for noise in noises)
    assert found < 0.02 * len(noises)
    assert steepest_descent(places, [float(index) for index in range(100)], 3) is None
    assert steepest_descent([0.0, 1.0], [2.0, 1.0], 3) is None
