"""Convolution arithmetic against the published relations, torch, brute force, and numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from glassnet._errors import UsageError
from glassnet.arithmetic import (
    ConvolutionArithmetic,
    ReceptiveField,
    Window,
    convolution_arithmetic,
    num_conv_multiplications,
    num_conv_parameters,
    num_linear_multiplications,
    num_linear_parameters,
    num_local_multiplications,
    num_local_parameters,
    output_shape,
    output_size,
    padding_amounts,
    parse_size,
    receptive_field,
    transposed_output_size,
)

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MAX_POOLS: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


def torch_output(layer: Any, *size: int) -> tuple[int, ...] | None:
    """Return the output size of a layer on one channel, or None where torch refuses; shapes only, nothing computed."""
    try:
        return tuple(layer.to("meta")(torch.empty(1, 1, *size, device="meta")).shape[2:])
    except RuntimeError as error:
        if not re.search("too small|greater than actual input size|Invalid computed output size", str(error)):
            raise
        return None


def ours(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what the function does, or None where it refuses because nothing fits."""
    try:
        return function(*args, **kwargs)
    except UsageError as error:
        if not re.search("does not fit|needs an output", str(error)):
            raise
        return None


# The figures and examples of the guide: i, k, s, p, d and the output size its relation gives.
CONVOLUTION_RELATIONS = {
    "1: no padding, stride 1": (4, 3, 1, 0, 1, 2),
    "2: padding, stride 1": (5, 4, 1, 2, 1, 6),
    "3: half padding": (5, 3, 1, "half", 1, 5),
    "4: full padding": (5, 3, 1, "full", 1, 7),
    "5: no padding, stride 2": (5, 3, 2, 0, 1, 2),
    "6: padding, stride 2": (5, 3, 2, 1, 1, 3),
    "6: padding, stride 2, one pixel left out": (6, 3, 2, 1, 1, 3),
    "7: pooling": (5, 3, 1, 0, 1, 3),
    "15: dilation 2": (7, 3, 1, 0, 2, 3),
}
# The convolutions they transpose: i' (the convolution's output), k, s, p, a, and the size that comes back.
TRANSPOSED_RELATIONS = {
    "8: no padding, stride 1": (2, 3, 1, 0, 0, 4),
    "9: padding, stride 1": (6, 4, 1, 2, 0, 5),
    "10: half padding": (5, 3, 1, "half", 0, 5),
    "11: full padding": (7, 3, 1, "full", 0, 5),
    "12: no padding, stride 2": (2, 3, 2, 0, 0, 5),
    "13: padding, stride 2": (3, 3, 2, 1, 0, 5),
    "14: padding, stride 2, one pixel left out": (3, 3, 2, 1, 1, 6),
}


@pytest.mark.parametrize("case", CONVOLUTION_RELATIONS.values(), ids=CONVOLUTION_RELATIONS)
def test_the_relations_for_convolutions_give_the_sizes_of_the_guide(case: tuple[Any, ...]) -> None:
    i, k, s, p, d, o = case
    assert output_size(i, k, stride=s, padding=p, dilation=d) == o


@pytest.mark.parametrize("case", TRANSPOSED_RELATIONS.values(), ids=TRANSPOSED_RELATIONS)
def test_the_relations_for_transposed_convolutions_give_the_sizes_of_the_guide(case: tuple[Any, ...]) -> None:
    i, k, s, p, a, o = case
    assert transposed_output_size(i, k, stride=s, padding=p, output_padding=a) == o


SIZES = st.integers(1, 24)
SMALL = st.integers(1, 5)


@given(i=SIZES, k=SMALL, s=SMALL, p=st.integers(0, 6), d=SMALL)
def test_a_transposed_convolution_undoes_the_size_of_its_convolution(i: int, k: int, s: int, p: int, d: int) -> None:
    o = ours(output_size, i, k, stride=s, padding=p, dilation=d)
    if o is not None:
        a = (i + 2 * p - d * (k - 1) - 1) % s
        assert transposed_output_size(o, k, stride=s, padding=p, dilation=d, output_padding=a) == i


def test_the_output_size_is_the_number_of_places_where_the_window_lies_on_the_padded_input() -> None:
    for i, k, s, before, after, d in itertools.product(range(1, 8), (1, 2, 3), (1, 2, 3), (0, 2), (0, 1), (1, 2)):
        length = i + before + after
        places = [x for x in range(0, length, s) if x + d * (k - 1) < length]
        counted = ours(output_size, i, k, stride=s, padding=(before, after), dilation=d)
        assert counted == (len(places) or None)


def test_every_small_convolution_has_the_size_torch_gives_it() -> None:
    for k, s, p, d in itertools.product((1, 2, 3, 4), (1, 2, 3), (0, 1, 2), (1, 2)):
        layer = nn.Conv1d(1, 1, k, s, p, d)
        for i in range(1, 12):
            expected = torch_output(layer, i)
            found = ours(output_size, i, k, stride=s, padding=p, dilation=d)
            assert found == (expected and expected[0]), (i, k, s, p, d)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_every_small_pooling_has_the_size_torch_gives_it(ceil_mode: bool) -> None:
    for k, s, d in itertools.product((1, 2, 3, 4, 5), (1, 2, 3, 4), (1, 2)):
        for p in range(k // 2 + 1):
            layer = nn.MaxPool1d(k, s, p, d, ceil_mode=ceil_mode)
            for i in range(1, 12):
                expected = torch_output(layer, i)
                found = ours(output_size, i, k, stride=s, padding=p, dilation=d, ceil_mode=ceil_mode)
                assert found == (expected and expected[0]), (i, k, s, p, d)


def test_every_small_transposed_convolution_has_the_size_torch_gives_it() -> None:
    for k, s, p, d in itertools.product((1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2)):
        for a in range(max(s, d)):
            layer = nn.ConvTranspose1d(1, 1, k, s, p, a, dilation=d)
            for i in (1, 2, 3, 7):
                expected = torch_output(layer, i)
                found = ours(transposed_output_size, i, k, stride=s, padding=p, output_padding=a, dilation=d)
                assert found == (expected and expected[0]), (i, k, s, p, d, a)


@settings(max_examples=60, deadline=None)
@given(axes=st.lists(st.tuples(SIZES, SMALL, SMALL, st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=3))
def test_a_convolution_over_one_to_three_axes_has_torchs_shape(axes: list[tuple[int, ...]]) -> None:
    sizes, k, s, p, d = zip(*axes, strict=True)
    expected = torch_output(CONVOLUTIONS[len(axes)](1, 1, k, s, p, d), *sizes)
    assert ours(output_shape, sizes, k, stride=s, padding=p, dilation=d) == expected


@settings(max_examples=60, deadline=None)
@given(
    axes=st.lists(st.tuples(SIZES, st.integers(2, 5), SMALL, st.integers(0, 1)), min_size=1, max_size=3),
    ceil_mode=st.booleans(),
)
def test_a_pooling_over_one_to_three_axes_has_torchs_shape(axes: list[tuple[int, ...]], ceil_mode: bool) -> None:
    sizes, k, s, p = zip(*axes, strict=True)
    expected = torch_output(MAX_POOLS[len(axes)](k, s, p, ceil_mode=ceil_mode), *sizes)
    assert ours(output_shape, sizes, k, stride=s, padding=p, ceil_mode=ceil_mode) == expected


def test_a_transposed_convolution_loses_the_padding_of_each_side() -> None:
    # The convolution: 8 pixels, 1 before and 0 after, kernel 3, stride 2: floor((8 + 1 - 3) / 2) + 1 = 4.
    assert output_size(8, 3, stride=2, padding=(1, 0)) == 4
    assert transposed_output_size(4, 3, stride=2, padding=(1, 0)) == 2 * 3 + 3 - 1 == 8
    assert transposed_output_size(4, 3, stride=2, padding=(0, 2)) == 2 * 3 + 3 - 2


def test_sizes_of_known_first_layers() -> None:
    assert output_size(227, 11, stride=4) == 55  # AlexNet conv1
    assert output_size(55, 3, stride=2) == 27  # and its overlapping pooling
    assert output_shape((224, 224), 3, padding=1) == (224, 224)  # VGG: every convolution keeps the size
    assert output_size(224, 7, stride=2, padding=3) == 112  # GoogLeNet and ResNet conv1
    sizes = [112]
    for _ in range(4):
        sizes.append(output_size(sizes[-1], 3, stride=2, ceil_mode=True))  # GoogLeNet's poolings round up
    assert sizes == [112, 56, 28, 14, 7]
    assert output_size(112, 3, stride=2) == 55


def test_ceil_mode_drops_a_window_that_would_start_behind_the_input() -> None:
    # i=3, k=2, s=3, p=1: ceil((3 + 2 - 2) / 3) + 1 = 2 windows, at -1 and 2; the second starts inside.
    assert output_size(3, 2, stride=3, padding=1, ceil_mode=True) == 2
    # i=2: ceil((2 + 2 - 2) / 3) + 1 = 2, but the second starts at 2, behind pixels 0 and 1.
    assert output_size(2, 2, stride=3, padding=1, ceil_mode=True) == 1
    assert output_size(1, 2, stride=2, ceil_mode=True) == 1  # a window hanging over the edge of a single pixel


@pytest.mark.parametrize(
    ("name", "kernel_size", "expected"),
    [
        ("valid", 4, (0, 0)),
        ("half", 3, (1, 1)),
        ("half", 4, (2, 2)),
        ("full", 4, (3, 3)),
        ("same", 3, (1, 1)),
        ("same", 4, (1, 2)),
        ("same", 1, (0, 0)),
    ],
)
def test_padding_by_name(name: str, kernel_size: int, expected: tuple[int, int]) -> None:
    assert padding_amounts(name, kernel_size) == (expected,)


def test_half_padding_with_an_even_kernel_adds_one_pixel() -> None:
    assert output_size(10, 4, padding="half") == 11
    assert output_size(10, 5, padding="half") == 10


def test_names_of_padding_count_the_reach_of_a_dilated_kernel() -> None:
    assert padding_amounts(("same", "half", "full"), 3, dilation=(1, 2, 3)) == ((1, 1), (2, 2), (6, 6))
    assert padding_amounts("same", (2, 3), dilation=3) == ((1, 2), (3, 3))


@given(i=SIZES, k=SMALL, s=SMALL, d=SMALL)
def test_same_padding_gives_one_output_per_stride_with_the_least_padding(i: int, k: int, s: int, d: int) -> None:
    assert output_size(i, k, stride=s, dilation=d, padding="same") == math.ceil(i / s)
    ((before, after),) = padding_amounts("same", k, stride=s, dilation=d, input_size=i)
    assert after - before in {0, 1}
    if before + after:
        fewer = ours(output_size, i, k, stride=s, dilation=d, padding=(before, after - 1))
        assert fewer is None or fewer < math.ceil(i / s)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_same_padding_puts_the_zeros_where_torch_puts_them(kernel_size: int, dilation: int) -> None:
    image = torch.arange(1.0, 13.0).reshape(1, 1, 12)
    weight = torch.arange(1.0, kernel_size + 1).reshape(1, 1, -1)
    expected = nn.functional.conv1d(image, weight, padding="same", dilation=dilation)
    (sides,) = padding_amounts("same", kernel_size, dilation=dilation)
    padded = nn.functional.pad(image, sides)
    torch.testing.assert_close(nn.functional.conv1d(padded, weight, dilation=dilation), expected, rtol=0, atol=0)


def test_a_tuple_of_padding_names_axes_and_a_nested_one_names_sides() -> None:
    assert padding_amounts((1, 2), (3, 3)) == ((1, 1), (2, 2))
    assert padding_amounts(((1, 2), "full"), (3, 3)) == ((1, 2), (2, 2))
    assert output_shape((8, 8), 3, padding=((0, 1), (0, 0))) == (7, 6)
    assert output_size(8, 3, padding=(0, 1)) == 7


LENET = {  # LeCun et al. (1998), section II.B: channels in, out, kernel, output size, parameters
    "C1": (1, 6, (5, 5), (28, 28), 156),
    "C3": (6, 16, (5, 5), (10, 10), 2416),
    "C5": (16, 120, (5, 5), (1, 1), 48120),
}


@pytest.mark.parametrize("case", LENET.values(), ids=LENET)
def test_parameters_of_lenet5_convolutions(case: tuple[Any, ...]) -> None:
    inputs, outputs, kernel, size, expected = case
    assert num_conv_parameters(inputs, outputs, kernel) == expected
    weights = expected - outputs
    assert num_conv_multiplications(inputs, outputs, kernel, size) == weights * size[0] * size[1]


def test_parameters_of_lenet5_fully_connected_layers() -> None:
    assert num_linear_parameters(120, 84) == 10164
    assert num_linear_parameters(84, 10) == 850
    assert num_linear_parameters(84, 10, bias=False) == num_linear_multiplications(84, 10) == 840


def test_alexnet_conv2_in_two_groups() -> None:
    # 48 of 96 channels times 5x5 for each of 256 kernels, at 27x27 places.
    assert num_conv_parameters(96, 256, (5, 5), groups=2) == (48 * 25 + 1) * 256 == 307456
    assert num_conv_multiplications(96, 256, 5, (27, 27), groups=2) == 223948800


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    groups=st.integers(1, 4),
    share=st.tuples(SMALL, SMALL),
    bias=st.booleans(),
)
def test_parameters_of_any_convolution_are_those_torch_allocates(
    kernel: list[int], groups: int, share: tuple[int, int], bias: bool
) -> None:
    inputs, outputs = share[0] * groups, share[1] * groups
    layer = CONVOLUTIONS[len(kernel)](inputs, outputs, tuple(kernel), groups=groups, bias=bias, device="meta")
    expected = sum(parameter.numel() for parameter in layer.parameters())
    assert num_conv_parameters(inputs, outputs, tuple(kernel), groups=groups, bias=bias) == expected


def test_multiplications_are_counted_one_by_one() -> None:
    inputs, outputs, kernel, size, groups = 4, 6, (2, 3), (3, 5), 2
    counted = 0
    for out_channel, in_channel in itertools.product(range(outputs), range(inputs)):
        if out_channel // (outputs // groups) == in_channel // (inputs // groups):
            counted += sum(1 for _ in itertools.product(*map(range, (*size, *kernel))))
    assert num_conv_multiplications(inputs, outputs, kernel, size, groups=groups) == counted
    assert num_local_multiplications(inputs, outputs, kernel, size, groups=groups) == counted
    # Nothing is shared: a weight per multiplication, and a bias per unit.
    assert num_local_parameters(inputs, outputs, kernel, size, groups=groups) == counted + 6 * 3 * 5
    assert num_local_parameters(inputs, outputs, kernel, size, groups=groups, bias=False) == counted


def test_one_kernel_size_stands_for_every_axis_of_the_output() -> None:
    assert num_conv_multiplications(1, 1, 3, (2, 2, 2)) == 27 * 8
    assert num_local_parameters(1, 1, 3, (2, 2, 2)) == 28 * 8


# Layers (kernel size, stride, padding, dilation) of the networks, and published sizes of the field.
FIELDS = {
    "LeNet-5 up to C5": ([(5,), (2, 2), (5,), (2, 2), (5,)], 32, 4, 0),
    # conv1, pool1, conv2, pool2, conv3, conv4, conv5
    "AlexNet up to conv5": ([(11, 4), (3, 2), (5, 1, 2), (3, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)], 163, 16, -64),
    "three 3x3": ([(3,)] * 3, 7, 1, 0),
    "VGG-16 up to pool5": (
        [layer for num in (2, 2, 3, 3, 3) for layer in [*[(3, 1, "half")] * num, (2, 2)]],
        212,
        32,
        -90,
    ),
    "WaveNet's doubling dilations": ([(2, 1, 0, 2**power) for power in range(10)], 1024, 1, 0),
}


@pytest.mark.parametrize("case", FIELDS.values(), ids=FIELDS)
def test_receptive_fields_of_known_networks(case: tuple[Any, ...]) -> None:
    chain, size, stride, start = case
    assert receptive_field(chain) == ReceptiveField(size=(size,), stride=(stride,), start=(start,))


def seen_pixels(chain: list[tuple[int, int, tuple[int, int], int]], input_size: int) -> list[np.ndarray[Any, Any]]:
    """Return for each unit after the chain which input pixels it sees, by walking masks through the layers."""
    masks = np.eye(input_size, dtype=bool)
    for k, s, (before, after), d in chain:
        nothing = np.zeros((1, input_size), dtype=bool)
        padded = np.concatenate([nothing] * before + [masks] + [nothing] * after)
        starts = range(0, len(padded) - d * (k - 1), s)
        masks = np.array([padded[start : start + d * (k - 1) + 1 : d].any(0) for start in starts])
        if not len(starts):
            break
    return list(masks)


LAYER = st.tuples(SMALL, st.integers(1, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(1, 3))


@settings(max_examples=300, deadline=None)
@given(chain=st.lists(LAYER, min_size=1, max_size=4), input_size=st.integers(5, 30))
def test_the_box_of_every_unit_holds_exactly_or_at_the_edge_at_least_what_it_sees(
    chain: list[tuple[int, int, tuple[int, int], int]], input_size: int
) -> None:
    field = receptive_field([(k, s, (sides,), d) for k, s, sides, d in chain])
    for place, mask in enumerate(seen_pixels(chain, input_size)):
        seen = np.flatnonzero(mask)
        ((first, end),) = field.box((place,))
        ((cut_first, cut_end),) = field.box((place,), (input_size,))
        assert 0 <= cut_first <= cut_end <= input_size
        if (cut_first, cut_end) == (first, end):
            assert (seen[0], seen[-1] + 1) == (first, end)
        elif len(seen):
            assert cut_first <= seen[0]
            assert seen[-1] < cut_end


def test_the_receptive_field_of_a_unit_is_where_its_gradient_is_not_zero() -> None:
    chain: list[Window] = [((3, 5), (2, 1), (1, 2), 1), (2, 2), (3, 1, "same", (1, 2))]
    model = nn.Sequential(
        nn.Conv2d(1, 1, (3, 5), (2, 1), (1, 2)), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, 1, (1, 2), (1, 2))
    ).double()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    image = torch.ones(1, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    output = model(image)
    assert output.shape[2:] == (10, 20)
    output[0, 0, 4, 9].backward()
    assert image.grad is not None
    rows, columns = (np.flatnonzero(image.grad[0, 0].abs().sum(axis).numpy()) for axis in (1, 0))
    box = receptive_field(chain).box((4, 9), (40, 40))
    assert box == ((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))


def test_a_box_in_the_padding_is_cut_to_nothing() -> None:
    field = receptive_field([(1, 1, 2)])
    assert field.box((0,)) == ((-2, -1),)
    assert field.box((0,), (5,)) == ((0, 0),)
    assert field.box((8,), (5,)) == ((5, 5),)


def test_a_field_goes_through_one_layer_after_the_other() -> None:
    first = receptive_field([((7, 7), 2, 3)])
    assert first == ReceptiveField(size=(7, 7), stride=(2, 2), start=(-3, -3))
    assert first.through((3, 1), stride=(2, 1), padding=(1, 0), dilation=2) == ReceptiveField(
        size=(7 + 4 * 2, 7), stride=(4, 2), start=(-3 - 2, -3)
    )
    assert first.box((10, 0)) == ((17, 24), (-3, 4))
    assert receptive_field([]) == ReceptiveField(size=(1,), stride=(1,), start=(0,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("224x224x3", (224, 224, 3)), ("3", (3,)), ("28X28", (28, 28)), (" 5 × 7 ", (5, 7)), ("007", (7,))],
)
def test_a_size_is_read_from_text(text: str, expected: tuple[int, ...]) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "224x", "224xx3", "0x3", "-3x3", "3.0", "²", "224*224", "9" * 5000, "3 3"])
def test_a_text_that_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"A size is whole numbers above 0 joined by x, such as 224x224x3; got '"):
        parse_size(text)


def test_the_arithmetic_of_a_convolution_is_written_out_with_its_numbers() -> None:
    # By hand: 222*222*32 = 1,577,088 units; 224*224*3 = 150,528 inputs.
    result = convolution_arithmetic((224, 224, 3), 3, 32)
    assert result.output_shape == (222, 222, 32)
    assert result.lines() == [
        "height: floor((224 + 0 + 0 - 3) / 1) + 1 = 222",
        "width: floor((224 + 0 + 0 - 3) / 1) + 1 = 222",
        "output: 222x222x32",
        "parameters: (3*3*3 + 1) * 32 = 896",
        "multiplications: 3*3*3 * 222*222*32 = 42,581,376",
        "locally connected parameters: (3*3*3 + 1) * 222*222*32 = 44,158,464",
        "locally connected multiplications: 3*3*3 * 222*222*32 = 42,581,376",
        "fully connected parameters: (224*224*3 + 1) * 222*222*32 = 237,397,479,552",
        "fully connected multiplications: 224*224*3 * 222*222*32 = 237,395,902,464",
    ]


def written_sum(line: str) -> tuple[int, int]:
    """Return the two sides of a line `name: formula = result`, the formula worked out by Python."""
    formula, result = line.split(": ")[1].split(" = ")
    assert re.fullmatch(r"[0-9+\-*/() floor]+", formula)
    return eval(formula.replace("/", "//"), {"floor": int}), int(result.replace(",", ""))


@settings(max_examples=60)
@given(
    axes=st.lists(st.tuples(st.integers(8, 20), st.integers(1, 3), SMALL, st.integers(1, 3)), min_size=1, max_size=4),
    padding=st.sampled_from(["valid", "same", "half", "full", 0, 2]),
    groups=st.integers(1, 3),
    bias=st.booleans(),
)
def test_every_written_formula_gives_its_written_result_and_the_field_of_the_record(
    axes: list[tuple[int, ...]], padding: str | int, groups: int, bias: bool
) -> None:
    size, k, s, d = zip(*axes, strict=True)
    result = convolution_arithmetic(
        (*size, 2 * groups), k, 5 * groups, stride=s, padding=padding, dilation=d, groups=groups, bias=bias
    )
    lines = result.lines()
    output = lines.pop(len(axes))
    assert output == "output: " + "x".join(map(str, result.output_shape))
    results = [written_sum(line) for line in lines]
    assert all(worked_out == written for worked_out, written in results)
    assert [written for _, written in results] == [
        *result.output_shape[:-1],
        result.num_parameters,
        result.num_multiplications,
        result.num_local_parameters,
        result.num_local_multiplications,
        result.num_linear_parameters,
        result.num_linear_multiplications,
    ]


def test_the_arithmetic_names_the_axes_and_writes_dilation_and_groups() -> None:
    lines = convolution_arithmetic((20, 4), 3, 6, dilation=4, padding="same", groups=2, bias=False).lines()
    assert lines[0] == "length: floor((20 + 4 + 4 - (4*(3 - 1) + 1)) / 1) + 1 = 20"
    assert lines[2] == "parameters: 3*4/2 * 6 = 36"
    assert [line.split(":")[0] for line in convolution_arithmetic((5, 5, 5, 1), 3, 1).lines()[:3]] == [
        "depth",
        "height",
        "width",
    ]
    assert convolution_arithmetic((5, 5, 5, 5, 1), 3, 1).lines()[3].startswith("axis 3: ")


def test_the_record_goes_to_json_as_it_is() -> None:
    result = convolution_arithmetic((8, 8, 2), (3, 5), 4, stride=2, padding="same")
    written = json.loads(json.dumps(dataclasses.asdict(result)))
    assert written["output_shape"] == [4, 4, 4]
    assert written["padding"] == [[0, 1], [1, 2]]
    assert written["num_parameters"] == (3 * 5 * 2 + 1) * 4
    assert set(written) == {field.name for field in dataclasses.fields(ConvolutionArithmetic)}


def test_numpys_integers_count_as_integers_and_do_not_overflow() -> None:
    found = num_conv_multiplications(np.int32(2048), np.int32(2048), 3, (np.int32(512), np.int32(512)))  # type: ignore[arg-type]
    assert found == 2048 * 2048 * 9 * 512 * 512
    assert type(found) is int


def test_a_kernel_larger_than_the_input_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UsageError, match=r"over 5 does not fit an input of 4 with padding 0: 4 \+ 2\*0 - 5 = -1 < 0"):
        output_size(4, 5)
    text = r"over 7 \(3\*\(3 - 1\) \+ 1\) does not fit an input of 4 with padding 0 before and 2 after: 4 \+ 0 \+ 2 - 7"
    with pytest.raises(UsageError, match=text):
        output_shape((9, 4), 3, dilation=3, padding=((0, 0), (0, 2)))
    with pytest.raises(UsageError, match=r"1 \+ 2\*0 - 4 = -3 < -1"):
        output_size(1, 4, stride=2, ceil_mode=True)
    with pytest.raises(UsageError, match=r"Use a larger input, a smaller kernel or more padding\."):
        convolution_arithmetic((2, 2, 3), 3, 8)


def test_a_transposed_convolution_that_leaves_nothing_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UsageError, match=r"at least 1; got 2\*\(1 - 1\) \+ 1 \+ 3 - 2 - 2 = 0\. Use a larger"):
        transposed_output_size(1, 3, stride=2, padding=2, output_padding=1)


def test_an_output_padding_as_large_as_the_stride_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"smaller than the stride or the dilation; got 2 with stride 2 and dilation 1"
    ):
        transposed_output_size(3, 3, stride=2, output_padding=2)
    assert transposed_output_size(3, 3, stride=2, output_padding=2, dilation=3) == 2 * 2 + 2 + 7


@pytest.mark.parametrize("bad", [0, -1, 1.0, "3", True, None, (3, 3)])
@pytest.mark.parametrize("name", ["input_size", "kernel_size", "stride", "dilation"])
def test_a_size_that_is_no_whole_number_above_0_is_refused_by_name(name: str, bad: object) -> None:
    arguments: dict[str, Any] = {"input_size": 8, "kernel_size": 3, "stride": 1, "dilation": 1, name: bad}
    message = re.escape(f"{name} must be a whole number of at least 1; got {bad!r}.")
    with pytest.raises(UsageError, match=message):
        output_size(**arguments)
    with pytest.raises(UsageError, match=message):
        transposed_output_size(**arguments)


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        (-1, r"padding must be a whole number of at least 0; got -1"),
        (0.5, r"padding must be a whole number of at least 0; got 0\.5"),
        ((1, -2), r"padding after must be a whole number of at least 0; got -2"),
        ((1, 2, 3), r"padding must be a whole number of at least 0; got \(1, 2, 3\)"),
        ("sane", r"Unknown padding 'sane'\. Did you mean 'same'\? A number pads both sides"),
    ],
)
def test_padding_that_means_nothing_is_refused(padding: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        output_size(8, 3, padding=padding)


def test_same_padding_without_the_size_it_depends_on_is_refused() -> None:
    message = r"'same' depends on the size before the convolution unless the stride is 1; got stride 2 and no size"
    with pytest.raises(UsageError, match=message):
        padding_amounts("same", 3, stride=2)
    with pytest.raises(UsageError, match=message):
        receptive_field([(3, 2, "same")])
    with pytest.raises(UsageError, match=message):
        transposed_output_size(4, 3, stride=2, padding="same")
    assert receptive_field([(3, 2, padding_amounts("same", 3, stride=2, input_size=8))]).start == (0,)


def test_tuples_that_do_not_match_the_axes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"kernel_size must be one value, or a tuple with one for each of 2 axes; got"):
        output_shape((8, 8), (3, 3, 3))
    with pytest.raises(
        UsageError, match=r"each of 1 axes; got \(1, 2\)\. Write \(before, after\) inside another tuple"
    ):
        padding_amounts((1, 2), 3)
    with pytest.raises(
        UsageError, match=r"each of 1 axes; got \(0, 1\)\. Write \(before, after\) inside another tuple"
    ):
        receptive_field([(3, 1, (0, 1))])
    with pytest.raises(UsageError, match=r"number of axes must be a whole number of at least 1; got 0"):
        output_shape((), 3)
    with pytest.raises(UsageError, match=r"position must be one value, or a tuple with one for each of 2 axes"):
        receptive_field([((3, 3),)]).box((1,))
    with pytest.raises(UsageError, match=r"position must be a whole number of at least 0; got -1"):
        receptive_field([(3,)]).box((-1,))
    with pytest.raises(
        UsageError, match=r"kernel_size must have one value per axis, such as \(3, 3\) for images; got 3"
    ):
        num_conv_parameters(3, 32, 3)  # type: ignore[arg-type]


def test_groups_that_do_not_divide_the_channels_are_refused_with_the_remainder() -> None:
    message = (
        r"groups must divide in_channels; got in_channels=64 and groups=3: 64 = 21\*3 \+ 1\. Choose a divisor of 64"
    )
    with pytest.raises(UsageError, match=message):
        num_conv_parameters(64, 96, (3, 3), groups=3)
    with pytest.raises(UsageError, match=r"groups must divide out_channels; got out_channels=7 and groups=2"):
        convolution_arithmetic((8, 8, 4), 3, 7, groups=2)


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "groups"])
def test_channels_that_are_no_whole_number_above_0_are_refused_by_name(name: str) -> None:
    arguments: dict[str, Any] = {"in_channels": 2, "out_channels": 2, "groups": 1, name: 0}
    with pytest.raises(UsageError, match=f"{name} must be a whole number of at least 1; got 0"):
        num_conv_multiplications(**arguments, kernel_size=3, output_shape=(4, 4))


def test_counts_refuse_sizes_below_1() -> None:
    with pytest.raises(UsageError, match="in_features must be a whole number of at least 1; got 0"):
        num_linear_multiplications(0, 5)
    with pytest.raises(UsageError, match=r"out_features must be a whole number of at least 1; got 2\.5"):
        num_linear_parameters(5, 2.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="output_shape must be a whole number of at least 1; got 0"):
        num_local_parameters(1, 1, 3, (4, 0))
    with pytest.raises(UsageError, match="filters must be a whole number of at least 1; got '32'"):
        convolution_arithmetic((8, 8, 3), 3, "32")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"channels last, such as \(224, 224, 3\); got \(224,\)"):
        convolution_arithmetic((224,), 3, 32)


def test_the_arithmetic_loads_without_torch() -> None:
    code = "import sys, glassnet.arithmetic; assert not {'torch', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
