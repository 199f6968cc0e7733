"""Receptive fields by hand, against published tables, and against masks found by a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import weight_norm

import glassnet as gn
import glassnet.nn as layers
from glassnet import UsageError
from glassnet.inspection.receptive_field import LayerReceptiveField
from glassnet.models import ARCHITECTURES


def field(name: str, layer: str, **options: object) -> LayerReceptiveField:
    with torch.device("meta"):
        model = gn.build_model(name, **options)
    return gn.receptive_field(model, ARCHITECTURES[name].input_shape, layer)


@pytest.mark.parametrize(
    ("name", "layer", "size", "stride", "start"),
    [
        # by hand: size + (kernel - 1) * stride, layer by layer
        ("lenet5", "c1", 5, 1, 0),
        ("lenet5", "s2", 6, 2, 0),
        ("lenet5", "c3", 14, 2, 0),
        ("lenet5", "s4", 16, 4, 0),
        ("lenet5", "c5", 32, 4, 0),
        ("lenet5-1998", "s4", 16, 4, 0),
        ("alexnet", "conv1", 11, 4, 0),
        ("alexnet", "pool1", 19, 8, 0),
        ("alexnet", "conv2", 51, 8, -16),
        ("alexnet", "conv5", 163, 16, -64),
        ("zfnet", "conv1", 7, 2, -1),
        ("vgg16", "features.4", 6, 2, -2),
        ("vgg16", "features.9", 16, 4, -6),
        ("vgg16", "features.16", 44, 8, -18),
        ("vgg16", "features.23", 100, 16, -42),
        ("resnet50", "maxpool", 11, 4, -5),
        ("resnet50", "layer1.0.add", 19, 4, -9),
        ("resnet50", "layer1", 35, 4, -17),
        ("resnet50", "layer4", 427, 32, -213),  # strides in the 3x3 convolutions
        ("googlenet", "inception3a.branch5x5", 59, 8, -23),
        ("googlenet", "inception3a", 59, 8, -23),
        ("googlenet", "inception4e", 427, 16, -199),
        ("googlenet", "inception5b", 715, 32, -327),
        ("resnet20", "layer1", 15, 1, -7),
        # Araujo, Norris and Sim 2019: receptive field, effective stride and effective padding
        ("alexnet", "pool5", 195, 32, -64),
        ("vgg16", "features.30", 212, 32, -90),
    ],
)
def test_built_in_networks_have_their_known_fields(name: str, layer: str, size: int, stride: int, start: int) -> None:
    found = field(name, layer)
    assert (found.size, found.stride, found.start) == ((size,) * 2, (stride,) * 2, (start,) * 2)
    assert found.unknown == ()


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        # by hand, to the last layer that has positions
        ("cnn1d", "pool2", 10),  # 3, 4, 8, 10
        ("cnn2d", "pool2", 10),
        ("cnn3d", "pool2", 10),
        ("lenet5-1998", "s4", 16),
        ("alexnet-2012", "pool5", 195),
        ("alexnet-torchvision", "features.12", 195),
        ("zfnet", "pool5", 171),  # 7, 11, 27, 43, 75, 107, 139, 171
        ("vgg11", "features", 150),  # 4, 10, 30, 70, 150
        ("vgg13", "features", 156),  # 6, 16, 36, 76, 156
        ("vgg19", "features", 268),  # 6, 16, 52, 124, 268
        ("vgg11-bn", "features", 150),
        ("vgg13-bn", "features", 156),
        ("vgg16-bn", "features", 212),
        ("vgg19-bn", "features", 268),
        ("googlenet-torchvision", "inception5b", 379),  # 27, 59, 75, 235, 251, 379: 3x3 where the paper has 5x5
        ("resnet18", "layer4", 435),  # 11, 43, 99, 211, 435
        ("resnet18-lecture", "layer4", 435),
        ("resnet34", "layer4", 899),  # 11, 59, 179, 547, 899
        ("resnet101", "layer4", 971),  # 11, 35, 91, 811, 971
        ("resnet152", "layer4", 1451),  # 11, 35, 155, 1291, 1451
        # 3 + 4n, then 2 + 4(2n - 1), then 4 + 8(2n - 1)
        *((f"resnet{6 * n + 2}", "layer3", 28 * n - 3) for n in (3, 5, 7, 9, 18)),
    ],
)
def test_every_built_in_network_has_the_field_that_its_layers_add_up_to(name: str, layer: str, size: int) -> None:
    found = field(name, layer)
    assert set(found.size) == {size}
    assert found.unknown == ()


@pytest.mark.parametrize(("name", "size"), [("resnet50", 483), ("resnet101", 1027), ("resnet152", 1507)])
def test_published_residual_networks_stride_in_the_first_convolution(name: str, size: int) -> None:
    """Araujo, Norris and Sim 2019, table of `resnet_v1`."""
    assert field(name, "layer4", stride_in="1x1").size == (size, size)


def test_a_fully_connected_layer_sees_as_far_as_its_convolutional_form() -> None:
    assert field("vgg16", "classifier.0").size == (404, 404)
    assert field("alexnet", "fc6").size == (355, 355)
    assert field("alexnet", "fc6").seen(0) == ((0, 227), (0, 227))


def test_the_arithmetic_of_a_chain_agrees_with_the_model() -> None:
    from glassnet.arithmetic import receptive_field as of_chain

    chain = of_chain([(5, 2, 1), (3, 2), (3, 1, 2, 2)])
    model = nn.Sequential(nn.Conv2d(1, 2, 5, 2, 1), nn.MaxPool2d(3, 2), nn.Conv2d(2, 2, 3, padding=2, dilation=2))
    found = gn.receptive_field(model, (1, 40, 40), "2")
    assert (found.size[0], found.stride[0], found.start[0]) == (chain.size[0], chain.stride[0], chain.start[0])
    for row in range(found.output_shape[1]):
        assert found.box((row, 0))[0] == chain.box((row,))[0]


class Residual(nn.Module):
    """Branches of unequal depth, added."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 5, padding=2)
        self.shortcut = nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(F.relu_(self.first(x))) + self.shortcut(x))


class UShape(nn.Module):
    """Down, up again, and joined with what was there."""

    def __init__(self, up: str) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1) if up == "transposed" else None
        self.mode = up
        self.last = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        low = F.max_pool2d(self.down(x).relu(), 2)
        low = F.interpolate(low, scale_factor=2)
        high = self.up(low) if self.up is not None else F.interpolate(low, size=x.shape[2:], mode=self.mode)
        return self.last(torch.cat([high, x], dim=1))


class Patches(nn.Module):
    """Tokens of patches that look at each other within windows of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 4, 4, stride=4)
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.embed(x)  # (B, 4, rows, columns)
        batch, width, rows, columns = maps.shape
        tokens = self.norm(maps.permute(0, 2, 3, 1).reshape(batch * rows, columns, width))
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return tokens.view(batch, rows, columns, width).permute(0, 3, 1, 2)


class Gated(nn.Module):
    """A gate computed from a small window and multiplied with the other half of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, (1, 5), padding=(0, 2), padding_mode="reflect")
        self.gate = nn.Conv2d(3, 3, (3, 1), groups=3, dilation=(2, 1), padding=(2, 0))

    def forward(self, x: Tensor) -> Tensor:
        signal, gate = self.conv(x).chunk(2, dim=1)
        return signal * torch.sigmoid(self.gate(gate))[:, :, ::2].repeat_interleave(2, dim=2)[:, :, : signal.shape[2]]


class WrittenInPlace(nn.Module):
    """A buffer filled half by half through its views, then changed through a flat view."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(1, 2, 3, padding=1)
        self.wide = nn.Conv2d(1, 2, 7, padding=3)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = x.new_zeros(x.shape[0], 4, *x.shape[2:])
        both[:, :2] = self.narrow(x)
        both[:, 2:, 1:] += self.wide(x)[:, :, :-1]
        both.flatten(1).mul_(2)
        return self.last(both)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.local = layers.LocallyConnected2d(1, 2, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        finer = F.pixel_shuffle(self.conv(F.pixel_unshuffle(x, 2)[:, :1]), 2)
        return self.local(torch.flip(finer, (2,))).roll(1, 3)


class Squeezed(nn.Module):
    """Features scaled by what the whole image says of their channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.scale = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        return maps * self.scale(maps.mean((2, 3)))[:, :, None, None].sigmoid()


FOREIGN: list[tuple[nn.Module, tuple[int, ...], str]] = [
    (Residual(), (2, 12, 12), "add"),
    (Residual(), (2, 12, 12), "first"),
    (UShape("transposed"), (1, 16, 16), "last"),
    (UShape("bilinear"), (1, 16, 16), "last"),
    (UShape("nearest"), (1, 16, 16), "last"),
    (UShape("bicubic"), (1, 16, 16), "cat"),
    (Patches(), (1, 16, 12), "add"),
    (Patches(), (1, 16, 12), "permute_1"),
    (Gated(), (1, 11, 9), "mul"),
    (WrittenInPlace(), (1, 12, 12), "last"),
    (Shuffled(), (1, 16, 16), "local"),
    (Shuffled(), (1, 16, 16), "roll"),
    (Squeezed(), (1, 10, 10), "mul"),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d((3, 5))), (1, 13, 13), "1"),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(4)), (1, 12, 15), "1"),
    (nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(1, 1, 3, padding=1)), (1, 12, 10), "1"),
    (nn.Sequential(nn.Conv2d(1, 1, 2, stride=3), nn.Conv2d(1, 1, 3, padding=4, dilation=2)), (1, 17, 17), "1"),
    (nn.Sequential(nn.ZeroPad2d((1, 0, 2, 0)), nn.Conv2d(1, 1, 3), nn.MaxPool2d(2, dilation=2)), (1, 11, 11), "2"),
    (nn.Sequential(nn.ConvTranspose2d(1, 2, 3, 2, 1, 1, dilation=2), nn.Conv2d(2, 1, 3)), (1, 7, 6), "1"),
    (nn.Sequential(nn.Conv1d(2, 3, 5, padding=2), nn.AvgPool1d(3, 2), nn.Conv1d(3, 1, 3, padding=1)), (2, 20), "2"),
    (nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.MaxPool3d(2)), (1, 6, 7, 8), "1"),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2)), (1, 7, 7), "1"),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)), (1, 7, 7), "1"),
    (nn.Sequential(nn.Conv2d(1, 4, 3), layers.Maxout(2), layers.ScaledTanh()), (1, 7, 7), "2"),
    (nn.Sequential(layers.TrueConv2d(1, 2, 3), layers.TrainableSubsampling2d(2), layers.Sign()), (1, 9, 9), "2"),
    (nn.Sequential(weight_norm(nn.Conv2d(1, 2, 3)), nn.Flatten(), nn.Linear(18, 4)), (1, 5, 5), "2"),
]  # fmt: skip


def box_of(mask: Tensor) -> tuple[tuple[int, int], ...]:
    places = mask.nonzero()
    return tuple((int(first), int(last) + 1) for first, last in zip(places.amin(0), places.amax(0), strict=True))


@pytest.mark.parametrize(("model", "shape", "layer"), FOREIGN, ids=lambda value: type(value).__name__)
def test_the_gradient_of_a_unit_fills_the_box_that_arithmetic_gives(
    model: nn.Module, shape: tuple[int, ...], layer: str
) -> None:
    found = gn.receptive_field(model, shape, layer)
    assert found.unknown == ()
    size = found.output_shape[1:]
    corners = [
        tuple(0 for _ in size),
        tuple(n - 1 for n in size),
        tuple(n // 2 for n in size),
        tuple(n // 3 for n in size),
    ]
    for unit in [*corners, (found.output_shape[0] - 1, *corners[0])] if size else [0, 1]:
        assert found.seen(unit) == box_of(found.mask(unit)), unit
        clipped = [(max(a, 0), min(b, n)) for (a, b), n in zip(found.box(unit), shape[1:], strict=True)]
        assert all(a <= c and d <= b for (a, b), (c, d) in zip(clipped, found.seen(unit), strict=True))


def test_padding_is_shown_as_part_of_the_box() -> None:
    found = gn.receptive_field(nn.Sequential(nn.Conv2d(1, 1, 5, padding=2)), (1, 8, 8), "0")
    assert (found.size, found.stride, found.start) == ((5, 5), (1, 1), (-2, -2))
    assert found.box((0, 4)) == ((-2, 3), (2, 7))
    assert found.seen((0, 4)) == ((0, 3), (2, 7))
    assert found.padding((0, 4)) == ((2, 0), (0, 0))
    assert found.padding((7, 7)) == ((0, 2), (0, 2))


def test_fields_that_are_not_evenly_apart_have_no_stride_and_exact_boxes() -> None:
    found = gn.receptive_field(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 2)), (1, 4, 4), "1")
    assert found.stride == (None, None)
    assert found.size == (2, 2)
    assert [found.box((row, 0))[0] for row in range(4)] == [(0, 1), (0, 2), (1, 2), (1, 3)]


def test_a_unit_is_named_by_position_text_or_channel() -> None:
    found = gn.receptive_field(gn.build_model("lenet5"), (1, 32, 32), "c3")
    assert found.box((2, 3)) == found.box("2,3") == found.box("@2,3") == found.box("7@2,3") == found.box((7, 2, 3))
    assert found.box("c3:7@2,3") == ((4, 18), (6, 20))
    assert found.box() == found.box((5, 5))
    with pytest.raises(UsageError, match=r"'c3' gives 16x10x10: a position is 0 to 9; got 10"):
        found.box((10, 0))
    with pytest.raises(UsageError, match="a channel is 0 to 15; got 16"):
        found.box("16@0,0")
    with pytest.raises(UsageError, match="Expected a unit of 'c3'; got 'c1:0@0,0'"):
        found.box("c1:0@0,0")


def test_an_operation_without_a_rule_is_named_and_sees_everything() -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.fft.rfft(x).real)

    found = gn.receptive_field(Spectrum(), (1, 8, 8), "conv")
    assert found.unknown
    assert found.seen((0, 0)) == ((0, 8), (0, 8))
    assert "without a rule" in str(found)


def test_a_layer_that_sees_nothing_of_the_input_says_so() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.own(torch.ones(1, 1, 3, 3))

    found = gn.receptive_field(Constant(), (1, 4, 4), "own")
    assert found.size == (0, 0)
    assert "sees nothing" in str(found)


def test_an_unknown_layer_gets_the_nearest_names() -> None:
    with pytest.raises(UsageError, match=r"Unknown layer 'conv3'. "):
        gn.receptive_field(gn.build_model("lenet5"), (1, 32, 32), "conv3")


def test_the_effective_field_is_smaller_and_heaviest_in_the_middle() -> None:
    model = nn.Sequential(*(nn.Conv2d(1 if i == 0 else 4, 4, 3, padding=1, bias=False) for i in range(8)))
    found = gn.receptive_field(model, (1, 33, 33), "7", effective=True)
    effective = found.effective
    assert effective is not None
    assert found.size == (17, 17)
    assert effective.size < 17
    assert effective.weights.shape == (33, 33)
    heaviest = divmod(int(effective.weights.argmax()), 33)
    assert max(abs(heaviest[0] - 16), abs(heaviest[1] - 16)) <= 3
    outside = effective.weights.clone()
    outside[8:25, 8:25] = 0
    assert float(outside.max()) == 0
    assert "16 images of normal noise" in str(found)


def test_the_effective_field_of_a_linear_network_is_the_size_of_its_weights() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False))
    images = torch.rand(5, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    found = gn.receptive_field(model, (1, 9, 9), "0", effective=True, images=images, unit="4,4").effective
    assert found is not None
    weights = model[0].weight.detach()[0, 0].abs()
    torch.testing.assert_close(found.weights[3:6, 3:6], weights / weights.max())
    assert found.num_images == 5
    with pytest.raises(UsageError, match=r"images must be \(N, 1, 9, 9\); got \(5, 1, 8, 8\)"):
        gn.receptive_field(model, (1, 9, 9), "0", effective=True, images=images[:, :, :8, :8])
