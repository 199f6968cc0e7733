from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import glassnet as gn
from glassnet._errors import UsageError
from glassnet.models import HasDataInitialisation
from glassnet.models.airbench import airbench94


def smooth_images(count: int, channels: int = 3, size: int = 32) -> Tensor:
    noise = torch.randn(count, channels, size + 4, size + 4, generator=torch.Generator().manual_seed(0))
    return 10 * functional.avg_pool2d(noise, 5, stride=1)


def num_parameters(model: nn.Module, *, learned: bool) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad == learned)


def test_the_parameters_are_as_many_as_the_layers_say() -> None:
    with torch.device("meta"):
        model = airbench94()
    blocks = 0
    for before, after in ((24, 64), (64, 256), (256, 256)):
        blocks += 9 * before * after + 9 * after * after + 2 * after  # two convolutions, the shifts of two norms
    assert num_parameters(model, learned=True) == 24 + blocks + 256 * 10 == 1_971_352
    assert num_parameters(model, learned=False) == 24 * 3 * 2 * 2 + 2 * (64 + 256 + 256)  # kernels, scales of the norms


@pytest.mark.parametrize(
    ("options", "features"),
    [({}, 256), ({"input_shape": (1, 28, 28), "widths": (4, 8, 6)}, 6), ({"input_shape": (3, 64, 64)}, 256 * 4)],
)
def test_the_head_reads_what_the_poolings_leave(options: dict, features: int) -> None:
    with torch.device("meta"):
        model = airbench94(num_classes=7, **options)
        images = torch.empty(2, *options.get("input_shape", (3, 32, 32)))
    assert model.output.in_features == features
    assert model(images).shape == (2, 7)


def test_the_maps_have_the_published_sizes() -> None:
    with torch.device("meta"):
        model, maps = airbench94(), torch.empty(1, 3, 32, 32)
    sizes = []
    for name, layer in model.features.named_children():
        maps = layer(maps)
        sizes.append((name, tuple(maps.shape[1:])))
    assert sizes == [
        ("whiten", (24, 31, 31)),
        ("act", (24, 31, 31)),
        ("block1", (64, 15, 15)),
        ("block2", (256, 7, 7)),
        ("block3", (256, 3, 3)),
        ("pool", (256, 1, 1)),
    ]


@pytest.mark.parametrize("channels", [3, 1])
def test_the_first_layer_whitens_the_patches_it_was_initialised_from(channels: int) -> None:
    images = smooth_images(50, channels)
    model = airbench94(input_shape=(channels, 32, 32), widths=(4, 4, 4))
    with torch.no_grad():
        model.whiten.bias.fill_(1.0)
    model.initialise_from(images)
    maps = model.whiten(images).detach().numpy().astype(np.float64)
    half = 4 * channels
    np.testing.assert_allclose(maps[:, half:], -maps[:, :half], atol=1e-5)
    rows = maps[:, :half].transpose(0, 2, 3, 1).reshape(-1, half)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(half), atol=0.005)  # epsilon takes a little off


def test_initialising_again_gives_the_same_and_looks_at_the_first_5000_images() -> None:
    images = smooth_images(5001, 1, 25)
    first, second, fewer = (airbench94(input_shape=(1, 25, 25), widths=(2, 2, 2)) for _ in range(3))
    first.initialise_from(images)
    second.initialise_from(images)
    second.initialise_from(images)
    fewer.initialise_from(torch.cat((images[:5000], 100 * images[:1])))
    assert torch.equal(first.whiten.weight, second.whiten.weight)
    assert torch.equal(first.whiten.weight, fewer.whiten.weight)


def test_the_protocol_tells_who_wants_the_training_images() -> None:
    assert isinstance(airbench94(widths=(2, 2, 2)), HasDataInitialisation)
    assert not isinstance(gn.build_model("lenet5"), HasDataInitialisation)


def test_a_step_moves_all_but_the_kernels_of_the_first_layer_and_the_scales_of_the_norms() -> None:
    torch.manual_seed(0)
    model = airbench94(num_classes=3, widths=(28, 6, 8))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=100.0).step()
    unmoved = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    scales = {f"features.block{number}.norm{norm}.weight" for number in (1, 2, 3) for norm in (1, 2)}
    assert unmoved == {"features.whiten.weight", *scales}


def test_later_convolutions_start_by_handing_their_input_on() -> None:
    torch.manual_seed(0)
    model = airbench94(widths=(30, 8, 8))
    widening, narrowing = model.features.block1.conv1, model.features.block2.conv1
    maps = torch.randn(2, 24, 6, 6)
    torch.testing.assert_close(widening(maps)[:, :24], maps)
    assert not torch.allclose(widening(maps)[:, 24:], maps[:, :6], atol=0.1)
    maps = torch.randn(2, 30, 6, 6)
    torch.testing.assert_close(narrowing(maps), maps[:, :8])


def test_the_running_statistics_keep_six_tenths_of_what_they_were() -> None:
    norm = airbench94(widths=(4, 4, 4)).features.block1.norm1
    maps = torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(0)) + 2
    norm(maps)
    torch.testing.assert_close(norm.running_mean, 0.4 * maps.mean(dim=(0, 2, 3)))


def test_the_logits_are_the_linear_layer_divided_by_its_inputs() -> None:
    torch.manual_seed(0)
    model = airbench94(widths=(4, 4, 8)).eval()
    images = torch.randn(2, 3, 32, 32)
    features = model.features(images).flatten(1)
    torch.testing.assert_close(model(images), features @ model.output.weight.T / 8)
    assert model.output.weight.std().item() == pytest.approx(1.0, abs=1e-5)


def test_half_precision_gives_nearly_the_same_logits() -> None:
    torch.manual_seed(0)
    model = airbench94(widths=(8, 8, 8))
    images = smooth_images(16)
    model.initialise_from(images)
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(images)
    torch.testing.assert_close(rough.float(), exact, atol=0.1 * exact.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, r"widths of airbench94 must be one number a block.* got \(\)"),
        ({"widths": (64, 0, 256)}, r"widths of airbench94 must be a whole number of at least 1; got 0"),
        ({"input_shape": (32, 32)}, r"airbench94 takes images.* got \(32, 32\)"),
        ({"input_shape": (3, 24, 24)}, r"airbench94 needs images of at least 25x25 pixels; got 24x24: .*no room"),
    ],
)
def test_a_wrong_option_is_answered_with_what_is_right(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        airbench94(**options)


@pytest.mark.parametrize("shape", [(5, 1, 32, 32), (3, 32, 32)])
def test_images_of_another_kind_are_refused_for_initialising(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"initialise_from expects images \(N, 3, H, W\).* got"):
        airbench94(widths=(2, 2, 2)).initialise_from(torch.zeros(shape))
