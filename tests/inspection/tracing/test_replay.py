"""Steps repeated with other numbers, and what follows from a change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import UsageError, WorkError


def test_a_vector_jacobian_product_of_one_unit_is_its_row() -> None:
    trace = gn.trace(nn.Conv2d(2, 3, 3, bias=True), torch.rand(2, 5, 5))
    step = trace.steps[0]
    one_hot = torch.zeros(step.shape)
    one_hot[0, 1, 2, 2] = 1
    found = step.vjp({0: one_hot}, range(3))
    kernel, patch = step.input("weight").tensor[1], step.inputs[0].tensor[0, :, 2:5, 2:5]
    assert torch.allclose(found[0][0, :, 2:5, 2:5], kernel)
    assert float(found[0].abs().sum()) == pytest.approx(float(kernel.abs().sum()))
    assert torch.allclose(found[1][1], patch)
    assert found[2].tolist() == [0, 1, 0]


def test_an_override_replaces_one_input_alone_also_where_the_call_writes_to_it() -> None:
    class Doubles(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1
            return y.add_(y)

    trace = gn.trace(Doubles(), torch.ones(1, 3))
    step = trace.step("add")
    assert step.is_in_place
    assert step.replay().tolist() == [[2, 2, 2]]
    assert step.replay({1: torch.full((1, 3), 10.0)}).tolist() == [[11, 11, 11]]
    assert step.replay({0: torch.full((1, 3), 5.0)}).tolist() == [[6, 6, 6]]
    assert step.inputs[0].tensor.tolist() == [[1, 1, 1]]


def test_a_call_that_writes_to_out_is_repeated_on_a_copy() -> None:
    class Out(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1
            torch.add(y, 1, out=y)
            return y * 2

    trace = gn.trace(Out(), torch.ones(1, 3))
    assert [step.op for step in trace.steps] == ["mul", "add", "mul"]
    assert trace.step("add").replay().tolist() == [[2, 2, 2]]
    assert trace.step("mul").output.tensor.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({5: torch.zeros(2)}, r"have positions 0 to 2 \(input, weight, bias\); got 5"),
        ({1: torch.zeros(2)}, "has shape"),
    ],
)
def test_a_wrong_override_is_refused(overrides: dict[int, Tensor], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gn.trace(nn.Linear(4, 3), torch.rand(4)).steps[0].replay(overrides)


def changed_pixels(image: Tensor) -> Tensor:
    other = image.clone()
    other[..., 8:20, 8:20] += 5
    return other


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "googlenet-torchvision"])
def test_changed_pixels_give_what_the_model_gives_for_them(name: str) -> None:
    options = {"input_shape": (3, 33, 33)} if name.startswith("googlenet") else {}
    model = gn.build_model(name, **options).eval()
    image = torch.rand(1, *model.spec.input_shape, generator=torch.Generator().manual_seed(0))
    trace = gn.trace(model, image, 3)
    other = changed_pixels(image)
    replay = trace.replay_from({trace.inputs[0]: other})
    assert torch.equal(replay.output, model(other).detach())
    assert torch.equal(replay.loss, F.cross_entropy(model(other), torch.tensor([3])).detach())
    assert trace.inputs[0] in replay.changed
    assert not torch.equal(replay.tensor(trace.output_value), trace.output)


def test_a_changed_weight_changes_what_lies_behind_it_alone() -> None:
    model = gn.build_model("lenet5").eval()
    image = torch.rand(1, 1, 32, 32)
    trace = gn.trace(model, image)
    weight = trace.parameter("c5.weight")
    other = weight.tensor.clone()
    other[3, 2, 1, 1] += 50
    replay = trace.replay_from({weight: other})
    with torch.no_grad():
        model.c5.weight[3, 2, 1, 1] += 50
    assert torch.equal(replay.output, model(image).detach())
    assert {trace.steps[v.step].name for v in replay.changed if v.step is not None} >= {"c5", "output"}
    assert trace.step("c3").output not in replay.changed


def test_nothing_changes_where_nothing_was_changed() -> None:
    trace = gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32))
    assert trace.replay_from({trace.inputs[0]: trace.inputs[0].tensor.clone()}).changed == {}


def test_a_step_given_another_output_is_not_recomputed() -> None:
    trace = gn.trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(4))
    other = torch.tensor([[1.0, -1.0, 2.0]])
    replay = trace.replay_from({trace.step("0").output: other, trace.inputs[0]: torch.rand(1, 4)})
    assert replay.output.tolist() == [[1, 0, 2]]


def test_writes_through_views_follow_a_change() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            row = y[:, 1]
            row.clamp_(min=0)
            y[:, 2] = row
            return y + 1

    model = Writes()
    trace = gn.trace(model, torch.ones(2, 4))
    other = -torch.arange(8.0).reshape(2, 4)
    assert torch.equal(trace.replay_from({trace.inputs[0]: other}).output, model(other))


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x * 3


def test_a_number_that_the_program_branched_on_may_not_change() -> None:
    trace = gn.trace(Branches(), torch.ones(1, 4))
    assert trace.read_by_program == {trace.step("gt").output}
    with pytest.raises(WorkError, match="Python code reads a number that changes"):
        trace.replay_from({trace.inputs[0]: -torch.ones(1, 4)})
    assert trace.replay_from({trace.inputs[0]: torch.full((1, 4), 5.0)}).output.tolist() == [[10.0] * 4]


def test_a_shape_that_follows_from_numbers_may_not_change() -> None:
    class Selects(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0].sum()[None]

    trace = gn.trace(Selects(), torch.ones(1, 4))
    with pytest.raises(WorkError, match="change the shape of getitem"):
        trace.replay_from({trace.inputs[0]: torch.tensor([[1.0, -1, 1, 1]])})


def test_a_change_of_another_shape_is_refused() -> None:
    trace = gn.trace(nn.Linear(4, 3), torch.rand(4))
    with pytest.raises(UsageError, match=r"must have its value's shape \(1, 4\); got \(4,\)"):
        trace.replay_from({trace.inputs[0]: torch.rand(4)})
