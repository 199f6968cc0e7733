"""One optimizer step, against the same written out with torch alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from glassnet import TrainConfig, UsageError
from glassnet.data.examples import Dataset
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.training.average import moving_average
from glassnet.training.fit import fit
from glassnet.training.schedule import learning_rate_factor
from glassnet.training.state import TrainingState

CPU = torch.device("cpu")
PLAIN = {"schedule": "constant", "learning_rate": 0.02, "weight_decay": 0.0}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3)
    )


def prepared(data: Dataset) -> tuple[Tensor, Tensor, Preprocessing]:
    record = make_preprocessing(data.train, (8, 8))
    examples = to_device(data.train, record, CPU)
    return record.normalise(examples.inputs), examples.labels, record


def train(model: nn.Module, data: Dataset, precision: str = "fp32", **values: object) -> list[TrainingState]:
    """Train; return the state after each epoch."""
    record, states = make_preprocessing(data.train, (8, 8)), []
    splits = [to_device(split, record, CPU) for split in (data.train, data.validation)]
    config = TrainConfig(**values)
    fit(model, *splits, record, config, precision=precision, on_epoch=lambda end: states.append(end.state.copied()))
    return states


def assert_same_weights(model: nn.Module, other: nn.Module, tolerance: float = 1e-5) -> None:
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance)


TORCHS: dict[str, tuple[dict[str, object], Callable[[list[nn.Parameter]], torch.optim.Optimizer]]] = {
    "sgd": ({"momentum": 0.0}, lambda p: torch.optim.SGD(p, 0.02)),
    "momentum": ({"momentum": 0.8, "nesterov": False}, lambda p: torch.optim.SGD(p, 0.02, momentum=0.8)),
    "nesterov": ({"momentum": 0.8}, lambda p: torch.optim.SGD(p, 0.02, momentum=0.8, nesterov=True)),
    "adagrad": ({}, lambda p: torch.optim.Adagrad(p, 0.02)),
    "rmsprop": ({"momentum": 0.5}, lambda p: torch.optim.RMSprop(p, 0.02, momentum=0.5)),
    "adam": ({}, lambda p: torch.optim.Adam(p, 0.02)),
    "adamw": ({}, lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.0)),
}


@pytest.mark.parametrize("name", TORCHS)
def test_batch_gradient_descent_is_torchs_optimizer_on_the_whole_set(name: str, small_data: Dataset) -> None:
    """With all examples in a batch their order is of no account, and torch's own loop must come to the same."""
    values, make = TORCHS[name]
    ours, theirs = network(), network()
    known = {"momentum": "sgd", "nesterov": "sgd"}
    train(ours, small_data, **PLAIN, epochs=4, batch_size="all", optimizer=known.get(name, name), **values)
    inputs, labels, _ = prepared(small_data)
    optimizer = make(list(theirs.parameters()))
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(theirs(inputs), labels).backward()
        optimizer.step()
    assert_same_weights(ours, theirs, 1e-4)


def test_muon_is_torchs_on_flattened_kernels_and_sgd_has_the_rest_without_decay(
    small_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassnet.training.optimizer.multiplies_bf16", lambda device: False)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # torch's own in float32 too
    ours, theirs = network(), network()
    values = {"schedule": "linear", "learning_rate": 0.02, "other_learning_rate": 0.05, "weight_decay": 0.1}
    train(ours, small_data, **values, epochs=4, batch_size="all", optimizer="muon")
    inputs, labels, _ = prepared(small_data)
    hidden = [theirs[0].weight, theirs[2].weight, theirs[5].weight]
    matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in hidden]  # views: updates reach the kernels
    rest = [theirs[6].weight, *(layer.bias for layer in (theirs[0], theirs[2], theirs[5], theirs[6]))]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    sgd = torch.optim.SGD(rest, lr=0.05, momentum=0.9, nesterov=True)
    for step in range(4):
        for optimizer, rate in ((muon, 0.02), (sgd, 0.05)):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / 4)
        theirs.zero_grad()
        F.cross_entropy(theirs(inputs), labels).backward()
        for kernel, matrix in zip(hidden, matrices, strict=True):
            matrix.grad = kernel.grad.flatten(1)
        muon.step()
        sgd.step()
    assert_same_weights(ours, theirs, 1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("num_batches", [2, 3, 5])
def test_batches_whose_gradients_are_averaged_are_one_larger_batch(
    optimizer: str, num_batches: int, small_data: Dataset
) -> None:
    """60 examples: the last step has what is left, which parts of another size share."""
    models = [network(), network()]
    size = 20 // num_batches
    for model, values in zip(models, ({"accumulate": num_batches, "batch_size": size}, {}), strict=True):
        whole = {"epochs": 3, "optimizer": optimizer, "batch_size": size * num_batches, "max_gradient_norm": 0.5}
        train(model, small_data, **{**whole, "label_smoothing": 0.1, "max_shift": 1, "learning_rate": 0.01, **values})
    assert_same_weights(*models, 1e-3 if optimizer == "muon" else 1e-5)


def test_no_part_of_a_batch_is_a_single_example_over_which_normalisation_has_no_spread(small_data: Dataset) -> None:
    """60 examples in steps of 55 leave 5, in steps of 51 leave 9, and in steps of 57 leave 3."""
    for batch_size, accumulate in ((5, 11), (17, 3), (19, 3), (2, 28)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        sizes: list[int] = []
        model[2].register_forward_hook(lambda module, inputs, output, sizes=sizes: sizes.append(len(output)))
        assert train(model, small_data, epochs=1, batch_size=batch_size, accumulate=accumulate)[-1].step == 2
        assert sum(sizes) == 1 + 60 + 15, "one example to try the network, and each split once"
        assert min(sizes[1:]) > 1


def test_one_example_a_step_is_stochastic_gradient_descent(small_data: Dataset) -> None:
    """By hand, over the examples in the order that the seed gives."""
    from glassnet.data.loader import shuffled_order

    ours, theirs = network(), network()
    train(ours, small_data, **PLAIN, epochs=1, batch_size=1, optimizer="sgd", momentum=0.0, seed=5)
    inputs, labels, _ = prepared(small_data)
    for row in shuffled_order(60, 5, 1, CPU).tolist():
        loss = F.cross_entropy(theirs(inputs[row : row + 1]), labels[row : row + 1])
        gradients = torch.autograd.grad(loss, list(theirs.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
                parameter -= 0.02 * gradient
    assert_same_weights(ours, theirs)


def test_the_moving_average_is_that_of_the_weights_after_each_step(small_data: Dataset) -> None:
    """Written out: decay times the average plus the rest, over the weights that training without one goes through."""
    decay, expected = 0.6, None
    values = {**PLAIN, "epochs": 8, "batch_size": "all", "optimizer": "sgd"}
    for step, state in enumerate(train(network(), small_data, **values)):
        share = min(decay, (1 + step) / (10 + step))
        if expected is None:
            expected = state.weights  # as AveragedModel has it: the first is taken over whole
        else:
            expected = {name: share * average + (1 - share) * state.weights[name] for name, average in expected.items()}
    found = train(network(), small_data, **values, ema=decay)[-1].average
    assert expected is not None
    for name, tensor in expected.items():
        torch.testing.assert_close(found[f"module.{name}"], tensor, rtol=0, atol=1e-6)


def test_the_moving_average_is_torchs_where_the_decay_is_low() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours, theirs = moving_average(model, 0.1), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.1))
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        for average in (ours, theirs):
            average.update_parameters(model)
    assert_same_weights(ours, theirs, 1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(ours.parameters(), model.parameters(), strict=True))
    assert len(list(chain(ours.module.buffers()))) == 3


def test_a_model_that_cannot_be_copied_has_no_moving_average(small_data: Dataset) -> None:
    model = network()
    model.cache = torch.ones(2, requires_grad=True) * 2  # what is computed cannot be copied
    with pytest.raises(UsageError, match="ema keeps a copy of the model, and this one cannot be copied: Only Tensors"):
        train(model, small_data, ema=0.9, batch_size=16)


def test_weight_decay_of_plain_descent_adds_the_weight_to_the_gradient(small_data: Dataset) -> None:
    ours, theirs = network(), network()
    values = {**PLAIN, "weight_decay": 0.3, "momentum": 0.0, "optimizer": "sgd"}
    train(ours, small_data, **values, epochs=1, batch_size="all")
    inputs, labels, _ = prepared(small_data)
    gradients = torch.autograd.grad(F.cross_entropy(theirs(inputs), labels), list(theirs.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
            parameter -= 0.02 * (gradient + (0.3 * parameter if parameter.ndim > 1 else 0))
    assert_same_weights(ours, theirs)


def test_the_schedule_reaches_every_step(small_data: Dataset) -> None:
    ours, theirs = network(), network()
    values = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1, "warmup": 0.25}
    train(ours, small_data, **values, schedule="cosine", epochs=8, batch_size="all")
    inputs, labels, _ = prepared(small_data)
    for step in range(8):
        gradients = torch.autograd.grad(F.cross_entropy(theirs(inputs), labels), list(theirs.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
                parameter -= 0.1 * learning_rate_factor("cosine", step, 8, 0.25) * gradient
    assert_same_weights(ours, theirs)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_with_weights_that_stay_fp32(precision: str, small_data: Dataset) -> None:
    models = [network(), network()]
    for model, number in zip(models, ("fp32", precision), strict=True):
        states = train(model, small_data, precision=number, epochs=3, batch_size=16, max_gradient_norm=1.0)
    assert all(tensor.dtype == torch.float32 for tensor in states[-1].weights.values())
    assert_same_weights(*models, 0.1)
    assert any(not torch.equal(*pair) for pair in zip(*(model.parameters() for model in models), strict=True))
    assert bool(states[-1].scaler) == (precision == "fp16")


def test_fp16_with_an_optimizer_that_takes_no_scaled_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="precision 'fp16' scales the loss, which 'muon' does not take. Choose bf16"):
        TrainConfig(precision="fp16", optimizer="muon")


def test_accumulated_batches_larger_than_the_set_are_refused(small_data: Dataset) -> None:
    with pytest.raises(UsageError, match="at most the 60 training examples; got 64"):
        train(network(), small_data, batch_size=16, accumulate=4)
