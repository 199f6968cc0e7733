"""What may be given to `trace`: images, batches, several inputs, labels, losses."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import UsageError


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.Conv2d(3, 4, 3), (3, 8, 8), (1, 3, 8, 8)),  # runs without the axis too: the layer tells
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8), (2, 3, 8, 8)),
        (nn.Conv1d(3, 4, 3), (3, 8), (1, 3, 8)),
        (nn.Conv3d(1, 2, 2), (1, 4, 4, 4), (1, 1, 4, 4, 4)),
        (nn.Linear(4, 3), (4,), (1, 4)),
        (nn.Linear(4, 3), (2, 4), (2, 4)),
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), (3, 4, 4), (1, 3, 4, 4)),  # runs with the axis alone
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 5, 4), (2, 5, 4)),
        (nn.LayerNorm(4), (2, 5, 4), (2, 5, 4)),
    ],
)
def test_one_example_gets_a_batch_axis(model: nn.Module, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    trace = gn.trace(model, torch.rand(shape))
    assert trace.inputs[0].shape == expected
    assert trace.is_batch_added == (len(expected) > len(shape))


def test_token_numbers_are_taken_one_sentence_or_several() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    assert gn.trace(model, torch.tensor([1, 2, 3])).output.shape == (1, 3, 2)
    assert gn.trace(model, torch.tensor([[1, 2, 3]]), torch.zeros(1, 3, 2), F.mse_loss).gradient("0").shape == (1, 3, 4)


class TwoInputs(nn.Module):
    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return (left @ right) * scale


def test_several_inputs_are_given_by_position_or_name() -> None:
    left, right = torch.rand(2, 3), torch.rand(3, 4)
    by_position = gn.trace(TwoInputs(), (left, right), 1)
    by_name = gn.trace(TwoInputs(), {"left": left, "right": right, "scale": 2.0}, 1)
    assert [value.path for value in by_position.inputs] == ["input0", "input1"]
    assert [value.path for value in by_name.inputs] == ["left", "right"]
    assert torch.equal(2 * by_position.output, by_name.output)
    assert by_name.gradient("right").shape == (3, 4)


@pytest.mark.parametrize("image", [None, 3, "picture", [], {}, numpy.zeros((3, 4))])
def test_what_holds_no_tensor_is_refused(image: object) -> None:
    with pytest.raises(UsageError, match=r"The input must be a tensor.*; got \w+. Write torch.as_tensor"):
        gn.trace(nn.Linear(4, 3), image)


def test_pixels_as_bytes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must be normalised floating numbers.*got torch.uint8"):
        gn.trace(nn.Conv2d(3, 4, 3), torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_an_input_that_does_not_fit_is_told_the_models_own_words() -> None:
    with pytest.raises(UsageError, match=r"on 1x3x9x9 it raised RuntimeError: .*Give the input it was built for"):
        gn.trace(gn.build_model("lenet5"), torch.rand(3, 9, 9))


@pytest.mark.parametrize(
    "label", [1, torch.tensor(1), torch.tensor([1, 1]), [1, 1], numpy.array([1, 1]), numpy.int64(1)]
)
def test_labels_are_taken_in_every_form(label: object) -> None:
    trace = gn.trace(nn.Linear(4, 3), torch.rand(2, 4), label)
    assert trace.target.tolist() == [1, 1]
    assert torch.equal(trace.loss, F.cross_entropy(trace.output, trace.target))


def test_a_label_for_every_position_may_be_one_number() -> None:
    trace = gn.trace(nn.Conv2d(3, 4, 3), torch.rand(3, 5, 5), 2)
    assert trace.target.shape == (1, 3, 3)
    trace = gn.trace(nn.Conv2d(3, 4, 3), torch.rand(3, 5, 5), torch.ones(3, 3, dtype=torch.long))
    assert trace.target.shape == (1, 3, 3)


def test_soft_labels_are_for_cross_entropy_and_other_targets_for_their_loss() -> None:
    soft = torch.tensor([[0.2, 0.3, 0.5]])
    trace = gn.trace(nn.Linear(4, 3), torch.rand(4), soft[0])
    assert trace.target.tolist() == soft.tolist()
    trace = gn.trace(nn.Linear(4, 1), torch.rand(4), torch.tensor([0.5]), F.mse_loss)
    assert trace.loss.shape == ()
    names = [step.name for step in trace.steps]
    assert names == ["linear", "loss.mse_loss"]


def test_the_steps_of_a_users_loss_stand_under_loss() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return ((output - target) ** 2).sum() / 2

    trace = gn.trace(nn.Linear(4, 1), torch.rand(2, 4), torch.zeros(2, 1), loss)
    assert [step.name for step in trace.steps] == ["linear", "loss.sub", "loss.pow", "loss.sum", "loss.div"]
    assert torch.allclose(trace.gradient("linear"), trace.output)
    assert float(trace.gradient(trace.loss_value)) == 1


def test_a_loss_module_with_weights_is_a_loss() -> None:
    trace = gn.trace(nn.Linear(4, 3), torch.rand(2, 4), 1, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3])))
    assert [step.name for step in trace.steps] == ["linear", "loss.cross_entropy"]
    assert trace.steps[1].input("weight").source == "constant"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3, r"A label must be a class number, 0 to 2; got 3"),
        (-1, r"got -1"),
        (torch.tensor([0, 1, 2]), r"Labels must have shape \(2,\) for outputs \(2, 3\); got \(3,\)"),
        (0.5, r"Floating targets of the default loss are probabilities of the output's shape \(2, 3\); got \(\)"),
        ("cat", r"A label must be a class number, or a tensor of them or of targets; got 'cat'"),
    ],
)
def test_a_wrong_label_is_answered(label: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gn.trace(nn.Linear(4, 3), torch.rand(2, 4), label)


def test_one_output_needs_a_loss_of_its_own() -> None:
    with pytest.raises(
        UsageError, match=r"cross-entropy, needs an output for each of at least two classes; got \(2, 1"
    ):
        gn.trace(nn.Linear(4, 1), torch.rand(2, 4), 0)


def test_a_loss_without_a_label_and_a_gradient_without_a_label_are_refused() -> None:
    with pytest.raises(UsageError, match="A loss needs a label"):
        gn.trace(nn.Linear(4, 3), torch.rand(2, 4), loss=F.mse_loss)
    trace = gn.trace(nn.Linear(4, 3), torch.rand(2, 4))
    for ask in (lambda: trace.gradient("linear"), lambda: trace.parameter_gradient("weight")):
        with pytest.raises(UsageError, match="Gradients need a loss; the trace was made without a label"):
            ask()


def test_a_model_that_returns_no_tensor_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(UsageError, match="The model must return a tensor; got NoneType"):
        gn.trace(Silent(), torch.rand(2))
