from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet._seed import seeded
from glassnet.models.lenet_1998 import lenet5_1998
from glassnet.nn import LENET5_C3_TABLE, ScaledTanh, TableConv2d, TrainableSubsampling2d, digit_centres, random_centres


def build(**options: object) -> nn.Sequential:
    with seeded(0, "initial weights"):
        model = lenet5_1998(**options)  # type: ignore[arg-type]
    assert isinstance(model, nn.Sequential)
    return model


def digits(count: int) -> tuple[Tensor, Tensor]:
    """Return the first scikit-learn digits, three times larger, in a 32x32 frame, in the paper's range of values."""
    data = load_digits()
    small = torch.tensor(data.images[:count] / 16, dtype=torch.float32)[:, None]
    images = F.pad(F.interpolate(small, scale_factor=3), (4, 4, 4, 4)) * 1.275 - 0.1
    return images, torch.tensor(data.target[:count])


def test_parameters_by_layer_are_those_of_the_paper() -> None:
    model = build()
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()}
    assert {name: count for name, count in counts.items() if count} == {
        "c1": 156,
        "s2": 12,
        "c3": 1516,
        "s4": 32,
        "c5": 48120,
        "f6": 10164,
    }
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 60_000


def test_connections_by_layer_are_those_of_the_paper() -> None:
    """A connection is one weight or bias at one position: 340,908 of them, section II.B."""
    model, shapes = build(), {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda layer, args, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    model(torch.zeros(1, 1, 32, 32))
    assert shapes["c1"] == (6, 28, 28)
    assert shapes["s2"] == (6, 14, 14)
    assert shapes["c3"] == (16, 10, 10)
    assert shapes["s4"] == (16, 5, 5)
    assert shapes["c5"] == (120, 1, 1)
    positions = {name: int(np.prod(shape[1:])) for name, shape in shapes.items()}
    connections = {
        name: positions[name] * sum(p.numel() for p in model.get_submodule(name).parameters())
        for name in ("c1", "c3", "c5", "f6")
    }
    connections |= {name: int(np.prod(shapes[name])) * (4 + 1) for name in ("s2", "s4")}
    connections["output"] = model.output.centres.numel()
    assert connections == {
        "c1": 122_304,
        "s2": 5_880,
        "c3": 151_600,
        "s4": 2_000,
        "c5": 48_120,
        "f6": 10_164,
        "output": 840,
    }
    assert sum(connections.values()) == 340_908


def correlate(x: np.ndarray, kernels: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return sum_c,u,v kernels[o, c, u, v] x[c, i + u, j + v] + bias[o] of one image."""
    k = kernels.shape[2]
    out = np.zeros((len(kernels), x.shape[1] - k + 1, x.shape[2] - k + 1))
    for _, i, j in np.ndindex(1, *out.shape[1:]):
        out[:, i, j] = (kernels * x[:, i : i + k, j : j + k]).sum(axis=(1, 2, 3)) + bias
    return out


def subsample(x: np.ndarray, coefficient: np.ndarray, bias: np.ndarray) -> np.ndarray:
    total = x[:, 0::2, 0::2] + x[:, 0::2, 1::2] + x[:, 1::2, 0::2] + x[:, 1::2, 1::2]
    return coefficient[:, None, None] * total + bias[:, None, None]


def lenet_oracle(image: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Return the ten penalties of one image, layer by layer as section II.B describes them."""

    def squash(a: np.ndarray) -> np.ndarray:
        return 1.7159 * np.tanh(2 / 3 * a)

    c3 = np.zeros((16, 6, 5, 5))
    kernels = iter(weights["c3.weight"])
    for out_map, in_maps in enumerate(LENET5_C3_TABLE):
        for in_map in in_maps:
            c3[out_map, in_map] = next(kernels)
    x = squash(correlate(image, weights["c1.weight"], weights["c1.bias"]))
    x = squash(subsample(x, weights["s2.coefficient"], weights["s2.bias"]))
    x = squash(correlate(x, c3, weights["c3.bias"]))
    x = squash(subsample(x, weights["s4.coefficient"], weights["s4.bias"]))
    x = squash(correlate(x, weights["c5.weight"], weights["c5.bias"])).ravel()
    x = squash(weights["f6.weight"] @ x + weights["f6.bias"])
    return ((x - weights["output.centres"]) ** 2).sum(axis=1)


def test_the_logits_are_the_negative_penalties_of_a_forward_pass_in_numpy() -> None:
    model = build().double()
    with torch.no_grad():  # at the published initial weights the outputs hardly depend on the image
        for parameter in model.parameters():
            parameter.mul_(5)
    image = np.random.default_rng(0).normal(size=(1, 32, 32))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    found = model(torch.from_numpy(image)[None]).detach().numpy()[0]
    assert np.ptp(found) > 1
    assert -found == pytest.approx(lenet_oracle(image, weights), rel=1e-9)


def test_the_squashing_function_follows_every_layer_up_to_f6() -> None:
    layers = [layer for layer in build() if not isinstance(layer, nn.Flatten)]
    weighted, squashing = layers[0:-1:2], layers[1:-1:2]
    assert [type(layer) for layer in weighted] == [
        nn.Conv2d,
        TrainableSubsampling2d,
        TableConv2d,
        TrainableSubsampling2d,
        nn.Conv2d,
        nn.Linear,
    ]
    assert [type(layer) for layer in squashing] == [ScaledTanh] * 6


def test_initial_weights_lie_within_2_4_over_the_fan_in_of_their_unit() -> None:
    model = build()
    fan_in = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, fan in fan_in.items():
        values = torch.cat([parameter.detach().flatten() for parameter in model.get_submodule(name).parameters()])
        assert 0.75 * 2.4 / fan < float(values.abs().max()) <= 2.4 / fan
    c3 = model.c3.dense_weight().detach().abs().flatten(1).amax(1)
    bound = 2.4 / torch.tensor([75.0] * 6 + [100.0] * 9 + [150.0])
    assert (c3 <= bound).all()
    assert (c3 > 0.9 * bound).all()
    assert (model.c3.bias.abs() <= bound).all()


def test_ten_classes_are_measured_against_digits_and_other_numbers_against_codes() -> None:
    assert torch.equal(build().output.centres, digit_centres())
    assert torch.equal(build(num_classes=26).output.centres, random_centres(26, 84))
    assert build(num_classes=3)(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("num_classes", [10, 7])
def test_it_can_be_built_without_memory(num_classes: int) -> None:
    with torch.device("meta"):
        model = build(num_classes=num_classes)
        assert model(torch.empty(2, 1, 32, 32)).shape == (2, num_classes)


def test_three_channels_add_150_weights_each_to_c1() -> None:
    model = build(input_shape=(3, 32, 32))
    assert sum(p.numel() for p in model.parameters()) == 60_000 + 2 * 150
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 33), (32, 32), (1, 64, 64)], ids=str)
def test_another_size_is_refused_with_the_remedy(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"takes 32x32 images, .*; got \(.*\)\. Pad or resize the images to 32x32"):
        build(input_shape=shape)


@pytest.mark.parametrize("num_classes", [10, 12])
def test_gradient_steps_on_digits_reduce_the_loss_and_leave_the_centres(num_classes: int) -> None:
    model = build(num_classes=num_classes)
    centres = model.output.centres.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    images, labels = digits(64)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(np.log(num_classes), abs=0.1)
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(model.output.centres, centres)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
