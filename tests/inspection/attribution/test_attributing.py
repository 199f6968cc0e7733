from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.data.preprocessing import Preprocessing
from glassnet.inspection.attribution.perturbations import patches_of
from glassnet.runs import Run


class Foreign(nn.Module):
    """What attribution libraries refuse: functional, reused and in-place ReLU, LRN, a residual, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.local_response_norm(F.relu(self.norm(self.first(x))), 3)
        x = self.relu(self.second(x) + x)
        x = torch.cat([F.max_pool2d(x, 4), F.avg_pool2d(x, 4)], 1)
        x = self.relu(x.flatten(2).mean(2).view(len(x), -1))
        return self.head(x)


def foreign() -> tuple[Foreign, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Foreign().eval()
        with torch.no_grad():
            model.norm.running_mean.uniform_(-0.5, 0.5)
            model.norm.running_var.uniform_(0.5, 2.0)
        return model, torch.randn(2, 8, 8)


def linear(weights: list[float], bias: float = 0.0) -> nn.Module:
    layer = nn.Linear(len(weights), 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1] = torch.tensor(weights)
        layer.bias.fill_(bias)
    return layer


@pytest.mark.parametrize(
    "method", ["gradient_x_input", "integrated_gradients", "deeplift", "occlusion", "shapley_sampling"]
)
def test_on_a_linear_model_each_value_scores_its_weight_times_itself(method: str) -> None:
    found = gn.attribute(linear([1.0, -2.0, 3.0, 0.0]), torch.tensor([2.0, 1.0, -1.0, 5.0]), 1, method)
    assert found.scores.tolist() == pytest.approx([2.0, -2.0, -3.0, 0.0], abs=1e-5)


def test_lrp_without_epsilon_shares_by_contribution_and_says_what_the_bias_took() -> None:
    found = gn.attribute(linear([1.0, -2.0], bias=3.0), torch.tensor([2.0, 1.0]), 1, "lrp", epsilon=0.0)
    assert found.scores.tolist() == pytest.approx([2.0, -2.0])
    assert found.absorbed == pytest.approx(3.0)
    assert found.completeness_gap == pytest.approx(0.0, abs=1e-6)


def test_lrp_rules_by_hand_on_one_layer() -> None:
    model, image = linear([1.0, -2.0, 2.0]), torch.tensor([4.0, 1.0, 1.0])  # contributions 4, -2, 2: sum 4
    z_plus = gn.attribute(model, image, 1, "lrp", rule="z_plus", epsilon=0.0)
    assert z_plus.scores.tolist() == pytest.approx([4 * 4 / 6, 0.0, 4 * 2 / 6])
    gamma = gn.attribute(model, image, 1, "lrp", rule="gamma", gamma=1.0, epsilon=0.0)
    assert gamma.scores.tolist() == pytest.approx([4 * 8 / 10, 4 * -2 / 10, 4 * 4 / 10])


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z_plus"])
def test_lrp_conserves_through_everything_in_a_foreign_model(rule: str) -> None:
    model, image = foreign()
    found = gn.attribute(model, image, method="lrp", rule=rule)
    assert found.completeness_gap == pytest.approx(
        0.0, abs=1e-4 * (abs(found.output) + float(found.scores.abs().sum()))
    )
    assert found.notes == (f"rule {rule}",)


def test_lrp_without_epsilon_is_gradient_x_input_where_every_nonlinearity_is_a_relu() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 5), nn.ReLU(), nn.Linear(5, 2)
        )
        image = torch.randn(1, 8, 8)
    exact = gn.attribute(model, image, 0, "gradient_x_input").scores
    found = gn.attribute(model, image, 0, "lrp", epsilon=0.0).scores
    assert torch.allclose(found, exact, atol=1e-5)


def test_deeplift_is_complete_on_a_foreign_model_and_from_any_baseline() -> None:
    model, image = foreign()
    baseline = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(5))
    for chosen in (0.0, baseline):
        found = gn.attribute(model, image, method="deeplift", baseline=chosen)
        assert found.promised == pytest.approx(found.output - found.baseline_output, abs=1e-5)
        assert found.completeness_gap == pytest.approx(0.0, abs=1e-4)


def test_deeplift_sees_a_saturated_unit_that_the_gradient_misses() -> None:
    """Shrikumar et al. 2017, figure 1: y = 1 - relu(1 - x1 - x2) at x1 = x2 = 1 has no gradient; each did half."""

    class Saturating(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0] * 0, 1 - (1 - x.sum(1)).relu()], 1)

    image = torch.ones(1, 2)
    assert not gn.attribute(Saturating(), image, 1, "gradient_x_input").scores.any()
    assert gn.attribute(Saturating(), image, 1, "deeplift").scores.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("first", "second"), [(5.0, 3.0), (2.0, 7.0), (4.0, 4.0)])
def test_reveal_cancel_sees_both_sides_of_a_minimum(first: float, second: float) -> None:
    """Shrikumar et al. 2017, section 3.5.3: min(a, b) = a - relu(a - b), an AND, owes half to each of the two.

    Rescale gives all to the smaller one.
    """
    before = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        before.weight.copy_(torch.tensor([[1.0, -1.0], [1.0, 0.0]]))
    model = nn.Sequential(before, nn.ReLU(), linear([-1.0, 1.0]))
    image = torch.tensor([[first, second]])
    least = min(first, second)
    found = gn.attribute(model, image, 1, "deeplift", rule="reveal-cancel")
    assert found.scores.tolist() == pytest.approx([least / 2, least / 2])
    assert found.notes == ()
    if first != second:
        rescaled = gn.attribute(model, image, 1, "deeplift").scores.tolist()
        assert sorted(rescaled) == pytest.approx([0.0, least])


def test_reveal_cancel_is_complete_through_several_layers_and_from_any_baseline() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ELU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(3, 6), nn.Softplus(), nn.Linear(6, 3),
        )  # fmt: skip
        image, baseline = torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    for chosen in (0.0, baseline):
        found = gn.attribute(model, image, 2, "deeplift", baseline=chosen, rule="reveal-cancel")
        assert found.promised == pytest.approx(found.output - found.baseline_output, abs=1e-5)
        assert abs(found.promised) > 0.1
        assert found.completeness_gap == pytest.approx(0.0, abs=1e-4)
        rescaled = gn.attribute(model, image, 2, "deeplift", baseline=chosen).scores
        assert (found.scores - rescaled).norm() > 0.1 * rescaled.norm()


def test_reveal_cancel_says_where_the_rescale_rule_had_to_do() -> None:
    model, image = foreign()
    found = gn.attribute(model, image, method="deeplift", rule="reveal-cancel")
    assert found.completeness_gap == pytest.approx(0.0, abs=1e-4)
    assert "the rescale rule at" in found.notes[0]
    with pytest.raises(UsageError, match="Did you mean 'reveal-cancel'"):
        gn.attribute(model, image, method="deeplift", rule="reveal_cancel")


def test_deeplift_gives_a_maximum_to_the_values_that_made_it() -> None:
    model = nn.Sequential(nn.MaxPool2d((1, 3)), nn.Flatten(), linear([2.0]))
    found = gn.attribute(model, torch.tensor([[[1.0, 5.0, 2.0]]]), 1, "deeplift")
    assert found.scores.flatten().tolist() == pytest.approx([0.0, 10.0, 0.0])


@pytest.mark.parametrize("kind", ["module", "function", "method", "in place", "clamp"])
def test_guided_backpropagation_cuts_negative_gradients_however_the_relu_is_written(kind: str) -> None:
    act = nn.ReLU()
    relu = {
        "module": act,
        "function": F.relu,
        "method": lambda x: x.relu(),
        "in place": lambda x: F.relu(x, inplace=True),
        "clamp": lambda x: x.clamp(min=0),
    }[kind]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            hidden = relu(x * 1)
            return torch.stack([hidden.sum(1), hidden[:, 0] - hidden[:, 1] + 2 * hidden[:, 2]], 1)

    found = gn.attribute(Net(), torch.tensor([[1.0, 1.0, -1.0]]), 1, "guided_backpropagation")
    assert found.scores.tolist() == [1.0, 0.0, 0.0]
    assert found.notes == ()


def test_grad_cam_is_the_positive_part_of_maps_weighted_by_mean_gradients() -> None:
    model, image = foreign()
    found = gn.attribute(model, image, 2, "grad_cam", layer="second")
    x = F.local_response_norm(F.relu(model.norm(model.first(image[None]))), 3).detach()
    maps = model.second(x).detach().requires_grad_()
    y = F.relu(maps + x)
    y = torch.cat([F.max_pool2d(y, 4), F.avg_pool2d(y, 4)], 1).flatten(2).mean(2)
    (gradient,) = torch.autograd.grad(model.head(F.relu(y))[0, 2], maps)
    expected = (maps * gradient.mean((2, 3), keepdim=True)).sum(1).clamp(min=0)[0].detach()
    assert torch.allclose(found.map, expected, atol=1e-6)
    assert found.layer == "second"
    automatic = gn.attribute(model, image, 2, "grad_cam")
    assert automatic.notes[0] == "layer second, chosen as the last with positions"  # the ReLU behind it runs twice


def test_saliency_is_the_largest_size_over_channels_and_smoothgrad_repeats_by_its_seed() -> None:
    model, image = foreign()
    found = gn.attribute(model, image, 0, "saliency")
    leaf = image[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[0, 0], leaf)
    assert torch.allclose(found.map, gradient[0].abs().amax(0))
    first, again, other = (gn.attribute(model, image, 0, "smoothgrad", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.scores, again.scores)
    assert not torch.equal(first.scores, other.scores)


def test_deletion_falls_at_once_where_the_scores_are_right() -> None:
    model = linear([8.0, 0.0, 0.0, 0.0])
    found = gn.attribute(model, torch.tensor([1.0, 1.0, 1.0, 1.0]), 1)
    high = 1 / (1 + math.exp(-8))
    assert found.faithfulness.shares == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert found.faithfulness.deletion == pytest.approx((high, 0.5, 0.5, 0.5, 0.5))
    assert found.faithfulness.insertion == pytest.approx((0.5, high, high, high, high))
    assert found.faithfulness.deletion_score == pytest.approx(0.5 + (high - 0.5) / 8)


def test_the_batch_size_changes_nothing() -> None:
    model, image = foreign()
    for method in ("integrated_gradients", "occlusion", "shapley_sampling"):
        one, many = (gn.attribute(model, image, 1, method, batch_size=size) for size in (3, 64))
        assert torch.allclose(one.scores, many.scores, atol=1e-5)
        assert one.faithfulness.deletion == pytest.approx(many.faithfulness.deletion, abs=1e-5)


def test_patches_cover_the_image_in_a_grid() -> None:
    assert patches_of((1, 3, 4), 2)[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    assert int(patches_of((3, 224, 224), None).max()) + 1 == 64


def test_a_run_takes_pixels_and_names_the_class(digits_run: Run, digits: Dataset) -> None:
    image = digits.test.inputs[0]
    found = gn.attribute(digits_run, image)
    assert found.class_name == str(found.target)
    assert found.image.dtype == torch.uint8
    assert found.relative_gap is not None
    assert found.relative_gap < 0.01
    assert found.faithfulness.deletion_score < 0.5 < found.faithfulness.insertion_score
    assert gn.attribute(digits_run, image, "3", "saliency").target == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"method": "salency"}, "Unknown method 'salency'. Did you mean 'saliency'?"),
        ({"method": "lrp", "rule": "gama"}, "Did you mean 'gamma'?"),
        ({"stepps": 3}, "Unknown option of integrated_gradients 'stepps'. Did you mean 'steps'?"),
        ({"target": 7}, "0 to 2; got 7"),
        ({"target": "dog"}, "Unknown class 'dog'"),
        ({"method": "grad_cam", "layer": "secnd"}, "Did you mean 'second'"),
        ({"method": "occlusion", "window": 9}, "window must not be larger than the image, 8x8; got 9"),
        ({"baseline": torch.zeros(3)}, "an image of 2x8x8"),
        ({"image": torch.zeros(2, 2, 8, 8)}, "one image at a time; got 2"),
        ({"image": torch.zeros(3, 8, 8)}, "does not take inputs of 3x8x8"),
    ],
)
def test_what_was_off_is_said(arguments: dict[str, object], text: str) -> None:
    model, image = foreign()
    with pytest.raises(UsageError) as caught:
        gn.attribute(model, **{"image": image, **arguments})  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_a_model_without_gradients_is_sent_to_occlusion() -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([(x > 0).sum(1).float(), x.detach().sum(1)], 1)

    with pytest.raises(UsageError, match="Choose occlusion or shapley_sampling"):
        gn.attribute(Rounded(), torch.ones(1, 3), 0)
    assert gn.attribute(Rounded(), torch.ones(1, 3), 0, "occlusion").scores.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("method", ["integrated_gradients", "lrp", "guided_backpropagation", "grad_cam"])
def test_the_model_is_left_as_it_was_after_an_error_inside_it(method: str) -> None:
    class Failing(Foreign):
        count = 0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            if self.count > 2:
                raise RuntimeError("no more")
            return super().forward(x)

    model = Failing()
    with pytest.raises((UsageError, RuntimeError)):
        gn.attribute(model, torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0)), method=method)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def preprocessing(fit: str, margin: int = 0) -> Preprocessing:
    return Preprocessing(class_names=(), mode="L", size=(8, 8), mean=(0.5,), std=(0.5,), fit=fit, margin=margin)


@pytest.mark.parametrize(
    ("fit", "margin"), [("stretch", 0), ("stretch", 1), ("crop", 0), ("crop", 2), ("pad", 0), ("pad", 1)]
)
@pytest.mark.parametrize("size", [(24, 24), (16, 48), (48, 16)])
def test_scores_come_to_lie_where_the_photo_was_bright(fit: str, margin: int, size: tuple[int, int]) -> None:
    """What the network saw of a photo with a bright half is mapped back: bright must meet bright."""
    photo = Image.new("L", (size[1], size[0]), 0)
    photo.paste(255, (0, 0, size[1], size[0] // 2))
    record = preprocessing(fit, margin)
    found = gn.map_to_photo(record.fit_image(photo)[0].float(), record, photo)
    assert tuple(found.shape) == size
    known = ~found.isnan()
    rows = torch.arange(size[0])[:, None].expand(size)
    far = (rows - size[0] / 2).abs() > size[0] / 4
    assert (found[known & far & (rows < size[0] / 2)] > 128).all()
    assert (found[known & far & (rows > size[0] / 2)] < 128).all()
    assert bool(known.all()) == (fit != "crop" or size == (24, 24))


def test_a_crop_leaves_what_it_threw_away_unknown() -> None:
    found = gn.map_to_photo(torch.ones(8, 8), preprocessing("crop"), (16, 48))
    assert found[:, 16:32].eq(1).all()
    assert found[:, :16].isnan().all()
    assert found[:, 32:].isnan().all()
