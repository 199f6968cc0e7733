from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.inspection.summary import summary
from glassnet.models.residual import BasicBlock, Bottleneck, ResidualDesign, ZeroPadShortcut, draw_residual_weights
from glassnet.models.resnet import ResNet, resnet18, resnet18_lecture, resnet34, resnet50, resnet101, resnet152

Shapes = dict[str, tuple[int, ...]]


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(build: Callable[..., nn.Module], **options: object) -> nn.Module:
    with torch.device("meta"):
        return build(**options)


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (resnet18, 11_689_512),
        (resnet34, 21_797_672),
        (resnet50, 25_557_032),
        (resnet101, 44_549_160),
        (resnet152, 60_192_808),
        (resnet18_lecture, 11_511_784),
    ],
)
def test_the_parameters_are_as_many_as_published(build: Callable[..., nn.Module], count: int) -> None:
    assert num_parameters(on_meta(build, num_classes=1000)) == count


def test_the_lecture_count_is_kernels_with_biases_and_a_linear_layer() -> None:
    stages = [(64, 64)] * 4 + [(64, 128)] + [(128, 128)] * 3 + [(128, 256)] + [(256, 256)] * 3
    convolutions = [*stages, (256, 512), *[(512, 512)] * 3]
    by_hand = (7 * 7 * 3 + 1) * 64 + sum((9 * inner + 1) * outer for inner, outer in convolutions) + 513 * 1000
    assert by_hand == 11_511_784
    assert num_parameters(on_meta(resnet18_lecture, num_classes=1000)) == by_hand


def norm_shapes(name: str, channels: int) -> Shapes:
    vectors = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def torchvision_shapes(num_blocks: tuple[int, ...], is_bottleneck: bool) -> Shapes:
    """Return torchvision's `state_dict` keys and shapes in order, written from its documented layout."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **norm_shapes("bn1", 64)}
    before, expansion = 64, 4 if is_bottleneck else 1
    for stage, (count, width) in enumerate(zip(num_blocks, (64, 128, 256, 512), strict=True), start=1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            sizes = [(before, width, 1), (width, width, 3), (width, 4 * width, 1)]
            if not is_bottleneck:
                sizes = [(before, width, 3), (width, width, 3)]
            for number, (inner, outer, kernel) in enumerate(sizes, start=1):
                shapes[f"{place}.conv{number}.weight"] = (outer, inner, kernel, kernel)
                shapes |= norm_shapes(f"{place}.bn{number}", outer)
            if block == 0 and (stage > 1 or is_bottleneck):
                shapes[f"{place}.downsample.0.weight"] = (expansion * width, before, 1, 1)
                shapes |= norm_shapes(f"{place}.downsample.1", expansion * width)
            before = expansion * width
    return {**shapes, "fc.weight": (1000, before), "fc.bias": (1000,)}


@pytest.mark.parametrize(
    ("build", "num_blocks", "is_bottleneck"),
    [
        (resnet18, (2, 2, 2, 2), False),
        (resnet34, (3, 4, 6, 3), False),
        (resnet50, (3, 4, 6, 3), True),
        (resnet101, (3, 4, 23, 3), True),
        (resnet152, (3, 8, 36, 3), True),
    ],
)
def test_keys_and_shapes_are_torchvisions_in_its_order(
    build: Callable[..., nn.Module], num_blocks: tuple[int, ...], is_bottleneck: bool
) -> None:
    state = on_meta(build, num_classes=1000).state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == list(
        torchvision_shapes(num_blocks, is_bottleneck).items()
    )


def test_the_maps_of_a_224_pixel_image_have_the_sizes_of_table_1() -> None:
    model = on_meta(resnet50)
    sizes = []
    for layer in (model.conv1, model.maxpool, model.layer1, model.layer2, model.layer3, model.layer4):
        layer.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape[1:])))
    assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    expected = [(64, 112), (64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)]
    assert sizes == [(channels, side, side) for channels, side in expected]


def test_the_stem_for_small_images_keeps_their_size() -> None:
    model = resnet18(num_classes=10, input_shape=(3, 32, 32), stem="cifar")
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    rows = {row.name: row.output_shape for row in summary(model, (3, 32, 32)).rows}
    assert [rows[f"layer{n}.1.conv2"][-2:] for n in (1, 2, 3, 4)] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    with pytest.raises(UsageError, match=r"stem 'small'.*cifar, imagenet"):
        resnet50(stem="small")


def test_option_a_has_no_shortcut_parameters() -> None:
    projections = sum(inner * outer + 2 * outer for inner, outer in ((64, 128), (128, 256), (256, 512)))
    model = on_meta(resnet18, num_classes=1000, shortcut="A")
    assert num_parameters(model) == 11_689_512 - projections
    assert not any("downsample" in key for key in model.state_dict())


def test_option_c_projects_in_every_block() -> None:
    model = on_meta(resnet18, num_classes=1000, shortcut="C")
    same_size = sum(count * (width**2 + 2 * width) for count, width in ((2, 64), (1, 128), (1, 256), (1, 512)))
    assert num_parameters(model) == 11_689_512 + same_size
    assert all(
        isinstance(block.downsample, nn.Sequential) for block in model.modules() if isinstance(block, BasicBlock)
    )


def test_the_published_bottleneck_strides_in_its_first_convolution_and_torchvisions_in_its_second() -> None:
    def strides(stride_in: str) -> list[tuple[int, ...]]:
        block = on_meta(resnet50, stride_in=stride_in).layer3[0]
        return [block.conv1.stride, block.conv2.stride, block.conv3.stride, block.downsample[0].stride]

    assert strides("3x3") == [(1, 1), (2, 2), (1, 1), (2, 2)]
    assert strides("1x1") == [(2, 2), (1, 1), (1, 1), (2, 2)]


@pytest.mark.parametrize("size", [4, 5])
def test_the_zero_padding_shortcut_takes_every_second_pixel_and_adds_empty_channels(size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((2, 5, math.ceil(size / 2), math.ceil(size / 2)), dtype=np.float32)
    for row in range(0, size, 2):
        for column in range(0, size, 2):
            expected[:, :3, row // 2, column // 2] = images[:, :, row, column].numpy()
    np.testing.assert_array_equal(ZeroPadShortcut(3, 5, 2)(images).numpy(), expected)


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_block_adds_its_branch_to_its_shortcut_before_the_last_relu(kind: type[BasicBlock | Bottleneck]) -> None:
    torch.manual_seed(0)
    block = kind(6, 4, stride=2, design=ResidualDesign()).eval()
    images = torch.randn(2, 6, 8, 8)
    branch = images
    parts = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if isinstance(block, Bottleneck):
        parts.append((block.conv3, block.bn3))
    for number, (conv, norm) in enumerate(parts):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        branch = functional.conv2d(branch, conv.weight, stride=conv.stride, padding=conv.padding)
        branch = (branch - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        branch = branch.clamp(min=0) if number < len(parts) - 1 else branch
    shortcut = functional.conv2d(images, block.downsample[0].weight, stride=2) / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(block(images), (branch + shortcut).clamp(min=0))


def test_with_zero_init_residual_every_block_starts_as_its_shortcut() -> None:
    torch.manual_seed(0)
    design = ResidualDesign(shortcut="A")
    for block in (BasicBlock(4, 4, stride=1, design=design), Bottleneck(16, 4, stride=1, design=design)):
        model = nn.Sequential(block)
        draw_residual_weights(model, design, zero_init_residual=True)
        images = torch.rand(2, 16 if isinstance(block, Bottleneck) else 4, 6, 6)
        torch.testing.assert_close(model(images), images)
    model = resnet18(num_classes=3, zero_init_residual=True)
    assert all(not block.bn2.weight.any() for block in model.modules() if isinstance(block, BasicBlock))
    assert model.bn1.weight.all()


def test_convolutions_start_with_variance_two_over_fan_out() -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=3)
    for conv, fan_out in ((model.conv1, 64 * 49), (model.layer2[0].conv1, 128 * 9), (model.layer4[1].conv2, 512 * 9)):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
        assert conv.weight.mean().item() == pytest.approx(0, abs=0.002)


def test_without_normalisation_activations_start_small_where_he_weights_alone_explode() -> None:
    torch.manual_seed(0)
    design = ResidualDesign(shortcut="A", use_normalisation=False)
    images = torch.randn(4, 16, 12, 12).relu()

    def growth(draw: Callable[[nn.Module], object]) -> float:
        blocks = nn.Sequential(*(BasicBlock(16, 16, stride=1, design=design) for _ in range(16)))
        draw(blocks)
        return float((blocks(images) ** 2).mean() / (images**2).mean())

    def he_alone(blocks: nn.Module) -> None:
        for conv in (module for module in blocks.modules() if isinstance(module, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    with torch.no_grad():
        assert growth(he_alone) > 1000
        assert 0.1 < growth(lambda blocks: draw_residual_weights(blocks, design, False)) < 2 * math.e


def test_the_lecture_network_learns_a_batch_by_heart_without_normalisation() -> None:
    torch.manual_seed(0)
    model = resnet18_lecture(num_classes=4)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(6):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 3
    assert losses[-1] < 0.7 * losses[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_training_step_moves_every_parameter(kind: type[BasicBlock | Bottleneck], shortcut: str) -> None:
    torch.manual_seed(0)
    design = ResidualDesign(shortcut=shortcut)
    model = ResNet(kind, (1, 1, 1, 1), num_classes=3, in_channels=1, design=design)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    logits = model(torch.randn(2, 1, 40, 40))
    assert logits.shape == (2, 3)
    functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []


@pytest.mark.parametrize("build", [resnet18, resnet18_lecture, resnet50])
def test_a_single_pixel_is_enough(build: Callable[..., nn.Module]) -> None:
    model = on_meta(build, num_classes=5, input_shape=(1, 1, 1)).eval()
    assert model(torch.empty(3, 1, 1, 1, device="meta")).shape == (3, 5)


def test_words_that_are_off_are_refused_with_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"Unknown shortcut 'a'\. Did you mean 'A'\?"):
        resnet18(shortcut="a")
    with pytest.raises(UsageError, match=r"Unknown stride_in '2x2'.*3x3"):
        resnet50(stride_in="2x2")
    with pytest.raises(
        UsageError, match=r"resnet34 takes images: input_shape \(channels, height, width\); got \(3, 8\)"
    ):
        resnet34(input_shape=(3, 8))
