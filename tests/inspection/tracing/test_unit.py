"""Units of whole networks, their sources, and what happens when a number is changed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet.inspection.tracing import Trace, Unit
from glassnet.models import spec_of

SMALL: dict[str, dict[str, object]] = {
    "alexnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-2012": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-torchvision": {"input_shape": (3, 63, 63), "hidden": 16},
    "zfnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "googlenet": {"input_shape": (3, 79, 79)},
    "googlenet-torchvision": {"input_shape": (3, 33, 33)},
    **{name: {"input_shape": (3, 32, 32), "hidden": 16} for name in gn.list_models() if name.startswith("vgg")},
    **{f"resnet{d}": {"input_shape": (3, 33, 33)} for d in ("18", "34", "50", "101", "152", "18-lecture")},
    **{name: {"unit": "sigmoid"} for name in gn.list_models() if name.startswith("gate-")},
}
"""Options that make the larger networks small."""


def random_units(trace: Trace, number: int, seed: int) -> list[Unit]:
    """Return units of every step with floating outputs, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    units = []
    for step in trace.steps:
        value = step.output
        if not value.tensor.is_floating_point():
            continue
        for _ in range(number):
            index = tuple(int(torch.randint(size, (), generator=generator)) for size in value.shape)
            units.append(trace.unit(trace.naming.text((value, index))))
    return units


@pytest.mark.parametrize("name", gn.list_models())
def test_random_units_of_every_step_of_every_network_agree_with_torch(name: str) -> None:
    model = gn.build_model(name, **SMALL.get(name, {}))
    image = torch.rand(spec_of(model).input_shape, generator=torch.Generator().manual_seed(1))
    trace = gn.trace(model, image)
    assert trace.coverage == 1, trace.without_rule
    for unit in random_units(trace, 2, 0):
        assert unit.relative_difference <= 1e-5, unit
        assert not unit.is_linearisation


def test_a_network_in_training_mode_agrees_too() -> None:
    model = gn.build_model("resnet20", num_classes=3)
    trace = gn.trace(model, torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), training=True)
    assert all(unit.relative_difference <= 1e-5 for unit in random_units(trace, 2, 0))


def patch_and_kernel() -> tuple[nn.Conv2d, Tensor]:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 10.0).reshape(1, 1, 3, 3))
        layer.bias.fill_(0.5)
    return layer, torch.arange(16.0).reshape(1, 4, 4)


def test_the_bias_and_the_padding_are_named_in_a_sum_worked_by_hand() -> None:
    layer, image = patch_and_kernel()
    unit = gn.trace(nn.Sequential(layer), image).unit("0:0@0,1")
    # The window is rows -1..1, columns 0..2: 0 0 0 / 0 1 2 / 4 5 6, times 1 to 9.
    assert unit.terms.value.tolist() == [0, 0, 0, 0, 1, 2, 4, 5, 6]
    assert unit.terms.words[:4] == ["padding", "padding", "padding", ""]
    assert unit.terms.sources[0] == "input:0@-1,0"
    assert unit.terms.factor_sources[8] == "0.weight[0,0,2,2]"
    assert float(unit.terms.product.sum()) == 0 * 4 + 1 * 5 + 2 * 6 + 4 * 7 + 5 * 8 + 6 * 9
    assert (unit.bias, unit.bias_source, unit.total, unit.value) == (0.5, "0.bias[0]", 139.5, 139.5)


def test_partial_sums_by_input_channel_add_up() -> None:
    trace = gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32))
    unit = trace.unit("c3:4@2,5")
    parts = unit.terms.partial_sums()
    assert [part.source for part in parts] == [f"s2:{channel}" for channel in range(6)]
    assert sum(part.num_terms for part in parts) == len(unit.terms) == 150
    assert math.isclose(sum(part.total for part in parts), float(unit.terms.product.sum()), rel_tol=1e-12)


def test_a_tie_of_a_maximum_is_said() -> None:
    trace = gn.trace(nn.Sequential(nn.MaxPool2d(2)), torch.tensor([[[1.0, 3.0], [3.0, 2.0]]]))
    unit = trace.unit("0:0@0,0")
    assert unit.terms.words == ["not taken", "taken", "tie", "not taken"]
    assert unit.notes == ("2 numbers of the window are equally large.",)
    assert unit.sources().through == ("0",)


def test_the_statistics_of_a_batch_norm_and_its_scale_and_shift_are_given() -> None:
    layer = nn.BatchNorm2d(2).eval()
    layer.running_mean.copy_(torch.tensor([0.0, 2.0]))
    layer.running_var.copy_(torch.tensor([1.0, 4.0]))
    with torch.no_grad():
        layer.weight.fill_(3.0)
        layer.bias.fill_(1.0)
    unit = gn.trace(nn.Sequential(layer), torch.full((2, 1, 1), 4.0)).unit("0:1@0,0")
    working = dict(unit.working)
    assert (working["batch norm's mean"], working["batch norm's variance"]) == (2.0, 4.0)
    assert math.isclose(working["scale"], 3 / math.sqrt(4 + 1e-5))
    assert math.isclose(unit.total, 4 * working["scale"] + working["shift"])


class Odd(nn.Module):
    """With an operation that has no rule and one that has no derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumprod(x, 1) + x.argmax(1, keepdim=True)


def test_an_operation_without_a_rule_is_said_to_be_a_linearisation() -> None:
    trace = gn.trace(Odd(), torch.tensor([2.0, 3.0, 4.0]))
    unit = trace.unit("cumprod:2")
    assert unit.is_linearisation
    assert "A linearisation" in unit.notes[0]
    assert unit.terms.factor.tolist() == [12, 8, 6]
    assert trace.without_rule == {"cumprod": 1}
    assert trace.coverage == 0.5
    none = trace.unit("argmax:0")
    assert "cannot be itemised" in none.notes[0]
    assert len(none.terms) == 0
    assert "torch's value" in str(none)


def test_a_channel_at_once_is_the_same_as_its_units_one_by_one() -> None:
    trace = gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32))
    units = trace.units("c3:4")
    assert units.value.shape == units.total.shape == (10, 10)
    assert torch.equal(units.value, trace.step("c3").output.tensor[0, 4])
    one = units[2, 5]
    assert one.address == "c3:4@2,5"
    assert math.isclose(one.total, float(units.total[2, 5]), rel_tol=1e-12)
    assert float(units.relative_difference.max()) < 1e-6
    with pytest.raises(gn.UsageError, match="2 indices in 10x10; got"):
        units[10, 0]


def test_sources_walk_down_to_the_pixels() -> None:
    trace = gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32))
    unit = trace.unit("output:3")
    sources = unit.sources(2, depth=5)
    by_hand = (trace.step("act6").output.tensor[0] * trace.parameter("output.weight").tensor[3]).double()
    order = by_hand.abs().argsort(descending=True)
    assert [source.address for source in sources] == [f"act6:{place}" for place in order[:2].tolist()]
    assert math.isclose(sources[0].share, float(by_hand[order[0]] / by_hand.abs().sum()), rel_tol=1e-6)
    layers = unit.drivers(3)
    assert len(layers) == 5
    assert [driver.address for driver in layers[0]] == [f"act6:{place}" for place in order[:3].tolist()]
    assert all(driver.address.startswith("input:0@") for driver in layers[4])
    assert len(unit.drivers(3, depth=2)) == 2
    assert "(then through act6)" in str(sources)
    deepest = sources[0].sources[0].sources[0].sources[0].sources[0]
    assert deepest.sources == ()
    assert deepest.value == float(trace.inputs[0].tensor[deepest.place[1]])


def test_the_walk_goes_through_the_branches_of_a_residual_block() -> None:
    trace = gn.trace(gn.build_model("resnet18", num_classes=3, input_shape=(3, 33, 33)), torch.rand(3, 33, 33))
    sources = trace.unit("layer1.0.add:5@4,4").sources(2)
    assert {source.address.split(":")[0] for source in sources} == {"layer1.0.bn2", "maxpool"}


def test_a_changed_pixel_is_computed_again_by_the_framework() -> None:
    model = gn.build_model("lenet5")
    image = torch.rand(1, 32, 32)
    trace = gn.trace(model, image)
    found = trace.unit("output:3").perturb("input:0@10,12", 5.0)
    assert found.before == (float(image[0, 10, 12]),)
    image[0, 10, 12] = 5.0
    with torch.no_grad():
        expected = model.eval()(image[None])
    assert torch.allclose(found.output, expected, atol=1e-6)
    assert found.after == (5.0,)
    assert math.isclose(found.watched.after, float(expected[0, 3]), rel_tol=1e-4)
    first = found.changes[0]
    assert first.step == "c1"
    assert first.num_changed == 6 * 25
    assert found.value("c1:0@0,0") == float(trace.step("c1").output.tensor[0, 0, 0, 0])


def test_a_score_without_one_unit_is_the_score_less_its_product() -> None:
    trace = gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32))
    unit = trace.unit("output:3")
    strongest = unit.sources(1)[0]
    assert math.isclose(unit.without(strongest.address), unit.value - strongest.product, rel_tol=1e-4)


def test_a_changed_weight_and_a_changed_channel_are_computed_again() -> None:
    model = gn.build_model("lenet5")
    image = torch.rand(1, 32, 32)
    trace = gn.trace(model, image)
    found = trace.perturb("c1.weight[3,0,1,1]", 2.0)
    assert {change.step for change in found.changes} >= {"c1", "output"}
    assert found.changes[0].num_changed == 28 * 28
    assert found.changes[0].where.startswith("c1:3@")
    silent = trace.perturb("s2:2", 0.0)
    assert set(silent.after) == {0.0}
    with torch.no_grad():
        model.c1.weight[3, 0, 1, 1] = 2.0
        assert torch.allclose(found.output, model.eval()(image[None]), atol=1e-6)


def test_words_that_were_off_are_answered_with_what_to_write() -> None:
    trace = gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32))
    with pytest.raises(gn.UsageError, match="names several, of 1x6x28x28. Write 'c1:3@0,0'"):
        trace.unit("c1:3")
    with pytest.raises(gn.UsageError, match="'input:0@3,3' is given to the model, and nothing made it"):
        trace.unit("input:0@3,3")
    with pytest.raises(gn.UsageError, match="Unknown step 'c33'"):
        trace.units("c33:1")
    with pytest.raises(gn.UsageError, match="k and depth must be at least 1"):
        trace.unit("output:1").sources(0)


def test_nothing_of_the_model_changes(state_of: Callable[[nn.Module], dict[str, object]]) -> None:
    model = gn.build_model("resnet20", num_classes=3)
    image = torch.rand(3, 32, 32)
    before = state_of(model)
    trace = gn.trace(model, image, 1)
    for unit in random_units(trace, 1, 0):
        unit.sources(2)
    trace.perturb("input:0@3,3", 1.0)
    assert state_of(model) == before


def test_an_image_of_a_batch_is_named() -> None:
    trace = gn.trace(nn.Sequential(nn.Conv1d(2, 2, 3)), torch.rand(2, 2, 5))
    assert trace.unit("0[1]:1@2").terms.sources[0] == "input[1]:0@2"


def test_tokens_have_their_feature_after_the_colon() -> None:
    trace = gn.trace(nn.Sequential(nn.Linear(3, 2)), torch.rand(2, 4, 3))
    unit = trace.unit("0[1]:1@2")
    assert unit.terms.sources == ["input[1]:0@2", "input[1]:1@2", "input[1]:2@2"]
    assert unit.value == float(
        F.linear(trace.inputs[0].tensor, *[p.tensor for p in trace.parameters.values()])[1, 2, 1]
    )
