from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet._seed import seeded_generator
from glassnet.nn import (
    INITIALISATIONS,
    LENET5_C3_TABLE,
    LocallyConnected2d,
    TableConv2d,
    TrainableSubsampling2d,
    initialise,
)
from glassnet.nn.fan import weighted_layers

TORCH = {
    "xavier-normal": nn.init.xavier_normal_,
    "xavier-uniform": nn.init.xavier_uniform_,
    "he-normal": lambda weight, generator: nn.init.kaiming_normal_(weight, generator=generator),
    "he-uniform": lambda weight, generator: nn.init.kaiming_uniform_(weight, generator=generator),
    "normal": lambda weight, generator: nn.init.normal_(weight, std=0.01, generator=generator),
    "uniform": lambda weight, generator: nn.init.uniform_(weight, -0.05, 0.05, generator=generator),
    "orthogonal": lambda weight, generator: nn.init.orthogonal_(weight, generator=generator),
    "zeros": lambda weight, generator: nn.init.zeros_(weight),
    "ones": lambda weight, generator: nn.init.ones_(weight),
}


def small_network() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 8, 3),
            norm=nn.BatchNorm2d(8),
            relu=nn.ReLU(),
            drop=nn.Dropout(0.5),
            flatten=nn.Flatten(),
            hidden=nn.Linear(8 * 6 * 6, 30),
            tanh=nn.Tanh(),
            output=nn.Linear(30, 10),
        )
    )


def some_images(count: int = 64) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 1


@pytest.mark.parametrize("name", TORCH)
def test_linear_layers_and_convolutions_get_what_torch_draws_from_the_same_generator(name: str) -> None:
    model = initialise(small_network(), name, seed=3)
    for layer in ("conv", "hidden", "output"):
        found = model.get_submodule(layer).weight.detach()
        expected = torch.empty_like(found)
        TORCH[name](expected, generator=seeded_generator(3, "initialise", layer))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_the_seed_decides_and_nothing_else(name: str) -> None:
    images = some_images() if name == "lsuv" else None
    first, second, other = small_network(), small_network(), small_network()
    state = torch.random.get_rng_state()
    initialise(first, name, seed=0, images=images)
    initialise(second, name, seed=0, images=images)
    initialise(other, name, seed=1, images=images)
    assert torch.equal(torch.random.get_rng_state(), state)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    is_random = name not in {"zeros", "ones"}
    assert torch.equal(first.hidden.weight, other.hidden.weight) != is_random


def test_biases_become_zero_and_other_layers_keep_what_they_have() -> None:
    model = small_network()
    model.add_module("subsampling", TrainableSubsampling2d(2))
    nn.init.constant_(model.norm.weight, 0.7)
    kept = model.subsampling.coefficient.detach().clone()
    assert initialise(model, "he-normal", seed=0) is model
    for layer in (model.conv, model.hidden, model.output):
        assert not layer.bias.any()
    assert (model.norm.weight == 0.7).all()
    assert torch.equal(model.subsampling.coefficient, kept)


def test_a_layer_draws_the_same_whatever_stands_around_it() -> None:
    alone = nn.Sequential(OrderedDict(hidden=nn.Linear(8 * 6 * 6, 30)))
    assert torch.equal(
        initialise(alone, "normal", seed=0).hidden.weight, initialise(small_network(), "normal", seed=0).hidden.weight
    )


def test_the_fans_of_a_group_a_position_and_a_connection_are_counted() -> None:
    model = nn.ModuleDict(
        {
            "grouped": nn.Conv2d(6, 12, (3, 5), groups=3),
            "transposed": nn.ConvTranspose2d(6, 12, 2, groups=2),
            "local": LocallyConnected2d(2, 4, 5, 3),
            "table": TableConv2d(6, LENET5_C3_TABLE, 5),
            "linear": nn.Linear(7, 9),
        }
    )
    fans = {layer.name: (layer.fan_in, layer.fan_out) for layer in weighted_layers(model)}
    assert fans["grouped"] == (2 * 15, 4 * 15)
    assert fans["transposed"] == (3 * 4, 6 * 4)
    assert fans["local"] == (2 * 9, 4 * 9)
    assert fans["linear"] == (7, 9)
    fan_in, fan_out = fans["table"]
    assert fan_in.flatten().tolist() == [75] * 18 + [100] * 36 + [150] * 6
    assert fan_out.flatten()[:3].tolist() == [250, 250, 250]  # each S2 map reaches ten C3 maps


@pytest.mark.parametrize(
    ("name", "options", "variance"),
    [
        ("he-normal", {"negative_slope": 2.0}, 2 / 5 / 100),
        ("he-uniform", {"mode": "fan_out"}, 2 / 400),
        ("xavier-uniform", {"gain": 3.0}, 9 * 2 / 500),
        ("normal", {"std": 0.3}, 0.09),
        ("uniform", {"bound": 0.3}, 0.03),
        ("orthogonal", {"gain": 2.0}, 4 / 400),
    ],
)
def test_the_options_set_the_variance(name: str, options: dict[str, float | str], variance: float) -> None:
    model = nn.Linear(100, 400)
    initialise(model, name, seed=0, **options)
    assert float(model.weight.detach().var()) == pytest.approx(variance, rel=0.03)


def test_orthogonal_rows_are_orthonormal_by_group_by_position_and_by_table() -> None:
    model = nn.ModuleDict(
        {
            "wide": nn.Linear(20, 7),
            "tall": nn.Linear(7, 20),
            "grouped": nn.Conv2d(6, 9, 3, groups=3),
            "local": LocallyConnected2d(2, 4, 5, 3),
            "table": TableConv2d(6, LENET5_C3_TABLE, 5),
        }
    ).double()
    initialise(model, "orthogonal", seed=0)
    rows = [
        model["wide"].weight,
        model["tall"].weight.T,
        *model["grouped"].weight.view(3, 3, -1),
        *model["local"].weight.view(9, 4, -1),
        model["table"].dense_weight().flatten(1),
    ]
    for matrix in rows:
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64))


def test_a_table_without_room_for_orthonormal_rows_is_refused_with_the_numbers() -> None:
    model = nn.Sequential(OrderedDict(c=TableConv2d(2, [(0,), (0,), (1,)], 1)))
    with pytest.raises(UsageError, match=r"output map 1 of layer 'c' sees 1 inputs \(1 maps \* 1\), and the 1 maps"):
        initialise(model, "orthogonal", seed=0)


@pytest.mark.parametrize("name", sorted(set(INITIALISATIONS) - {"lsuv"}))
def test_the_numbers_are_drawn_on_the_cpu_whatever_the_default_device(name: str) -> None:
    first, second = (nn.Sequential(nn.Linear(4, 3), TableConv2d(2, [(0, 1), (1,)], 3)) for _ in range(2))
    initialise(first, name, seed=0)
    with torch.device("meta"):
        initialise(second, name, seed=0)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_shared_weight_is_drawn_once_and_half_precision_is_drawn_in_single() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert [layer.name for layer in weighted_layers(model)] == ["0"]
    half = initialise(nn.Sequential(nn.Linear(4, 4)).bfloat16(), "orthogonal", seed=0)
    single = initialise(nn.Sequential(nn.Linear(4, 4)), "orthogonal", seed=0)
    assert torch.equal(half[0].weight, single[0].weight.bfloat16())


class Backwards(nn.Module):
    """Calls its layers in the opposite order of their definition, the first of them twice, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(12, 5)
        self.unused = nn.Linear(3, 3)
        self.middle = nn.Linear(12, 12)
        self.first = nn.Conv2d(1, 3, 7)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images.mul_(2)).flatten(1)
        x = F.dropout(torch.tanh(self.middle(x)), 0.5)
        return self.last(torch.tanh(self.middle(x)))


def first_output_variances(model: nn.Module, images: Tensor) -> dict[str, float]:
    variances: dict[str, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):

            def record(module: nn.Module, args: object, output: Tensor, name: str = name) -> None:
                variances.setdefault(name, float(output.detach().var()))

            module.register_forward_hook(record)
    model(images.clone())
    return variances


def test_lsuv_gives_every_layer_unit_variance_on_the_batch() -> None:
    model = initialise(small_network(), "lsuv", seed=0, images=some_images(), tolerance=0.001)
    variances = first_output_variances(model.eval(), some_images())
    assert variances == pytest.approx({"conv": 1, "hidden": 1, "output": 1}, abs=0.01)


def test_lsuv_follows_the_order_of_the_calls_and_keeps_images_and_uncalled_layers() -> None:
    model, images = Backwards(), some_images()
    state = torch.random.get_rng_state()
    initialise(model, "lsuv", seed=0, images=images)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(images, some_images())
    torch.testing.assert_close(model.unused.weight @ model.unused.weight.T, torch.eye(3))
    variances = first_output_variances(model, images)
    assert variances["first"] == pytest.approx(1, rel=0.05)
    assert variances["middle"] == pytest.approx(1, rel=0.05)
    assert "unused" not in variances


def test_lsuv_only_scales_the_orthogonal_weights() -> None:
    model = initialise(small_network(), "lsuv", seed=0, images=some_images())
    orthogonal = initialise(small_network(), "orthogonal", seed=0)
    ratio = model.hidden.weight / orthogonal.hidden.weight
    assert float(ratio.detach().std()) < 1e-4
    assert not math.isclose(float(ratio.detach().mean()), 1, abs_tol=0.01)


def test_lsuv_stops_after_so_many_iterations() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    images = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 9
    initialise(model, "lsuv", seed=0, images=images, tolerance=0.0, max_iterations=1)
    assert float(model(images).detach().var(correction=0)) == pytest.approx(1, rel=1e-4)


def test_lsuv_leaves_modes_buffers_and_hooks_alone_also_after_an_error() -> None:
    model = small_network()
    model.norm.eval()
    for images in (some_images(), torch.zeros(2, 1, 5, 5)):
        modes = [module.training for module in model.modules()]
        buffers = [buffer.clone() for buffer in model.buffers()]
        if images.shape[-1] == 5:
            with pytest.raises(RuntimeError, match="mat1 and mat2"):
                initialise(model, "lsuv", seed=0, images=images)
        else:
            initialise(model, "lsuv", seed=0, images=images)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(old, new) for old, new in zip(buffers, model.buffers(), strict=True))
        assert not any(module._forward_hooks for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_lsuv_without_images_or_with_images_that_do_not_vary_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'lsuv' needs a batch of images to measure .*; got none\. Pass images="):
        initialise(small_network(), "lsuv", seed=0)
    with pytest.raises(UsageError, match=r"outputs of layer '0' must vary .* variance is 0\.0\. Pass more images"):
        initialise(nn.Sequential(nn.Linear(4, 4)), "lsuv", seed=0, images=torch.zeros(5, 4))


def test_images_that_would_not_be_looked_at_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'he-normal' does not look at images; got some\. Leave images out"):
        initialise(small_network(), "he-normal", seed=0, images=some_images())


def test_unknown_names_options_and_values_are_refused_with_the_nearest() -> None:
    model = small_network()
    before = model.hidden.weight.detach().clone()
    with pytest.raises(UsageError, match=r"Unknown initialisation 'he_normal'\. Did you mean 'he-normal'"):
        initialise(model, "he_normal", seed=0)
    with pytest.raises(UsageError, match=r"Unknown option of initialisation 'normal' 'gain'\. Choose one of: std\."):
        initialise(model, "normal", seed=0, gain=1.0)
    with pytest.raises(UsageError, match=r"Unknown mode 'fan-out'\. Did you mean 'fan_out'"):
        initialise(model, "he-normal", seed=0, mode="fan-out")
    with pytest.raises(UsageError, match=r"std must be a number of at least 0; got -1\."):
        initialise(model, "normal", seed=0, std=-1)
    with pytest.raises(UsageError, match=r"max_iterations must be a whole number of at least 1; got 2\.5\."):
        initialise(model, "lsuv", seed=0, images=some_images(), max_iterations=2.5)
    assert torch.equal(model.hidden.weight, before)


def test_a_model_without_weights_and_a_weight_that_is_computed_are_refused() -> None:
    with pytest.raises(UsageError, match="must have a linear or convolutional layer to initialise; it has none"):
        initialise(nn.Sequential(nn.BatchNorm1d(3)), "zeros", seed=0)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(
        UsageError, match=r"Layer '0' must hold its weight as a parameter; .* Initialise the model first"
    ):
        initialise(model, "zeros", seed=0)
