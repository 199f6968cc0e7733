"""Addresses of units and weights: text and back, and what is said where one names nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import glassnet as gn
from glassnet import UsageError
from glassnet.inspection.tracing import Address, Trace, WeightAddress

names = st.from_regex(r"[A-Za-z_0-9]+(\.[A-Za-z_0-9]+)*", fullmatch=True)
numbers = st.integers(0, 10_000)


@given(names, numbers, st.lists(numbers, max_size=3), st.none() | numbers, st.integers(0, 3))
def test_a_units_address_is_read_as_it_was_written(
    step: str, channel: int, position: list[int], image: int | None, output: int
) -> None:
    address = Address(step, channel, tuple(position), image, output)
    assert Address.parse(str(address)) == address


@given(names, st.lists(numbers, min_size=1, max_size=5))
def test_a_weights_address_is_read_as_it_was_written(path: str, index: list[int]) -> None:
    address = WeightAddress(path, tuple(index))
    assert WeightAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("features.6:12@3,5", Address("features.6", 12, (3, 5))),
        (" features.6:12@3, 5 ", Address("features.6", 12, (3, 5))),
        ("fc:3", Address("fc", 3)),
        ("layer1.0.add[2]:12@3,5", Address("layer1.0.add", 12, (3, 5), 2)),
        ("chunk#1:0", Address("chunk", 0, output=1)),
        ("conv1", Address("conv1")),
    ],
)
def test_an_address_is_read(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


@pytest.mark.parametrize("text", ["", "conv1:", "conv1:a", "conv1@3", "conv1:-1", "conv1:1@", "conv1:1@2;3", None, 3])
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match=r"An address is step:channel@row,column"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["conv1.weight", "conv1.weight[]", "conv1.weight[a]", "conv1:1"])
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"A weight's address is path\[index,...\]"):
        WeightAddress.parse(text)


@pytest.fixture(scope="module")
def lenet() -> Trace:
    return gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_a_unit_a_channel_and_a_neuron_are_found(lenet: Trace) -> None:
    unit = lenet.locate("c3:12@3,5")
    assert unit.is_unit
    assert unit.unit == (0, 12, 3, 5)
    assert unit.value == lenet.step("c3").output
    channel = lenet.locate("c3:12")
    assert not channel.is_unit
    assert channel.value.tensor[channel.index].shape == (10, 10)
    assert lenet.locate("output:3").unit == (0, 3)
    assert lenet.locate("input:0@31,31").unit == (0, 0, 31, 31)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("c33:1@0,0", r"Unknown step 'c33'. Did you mean 'c3' \(1x16x10x10\)"),
        ("nonsense-name:1", r"Unknown step 'nonsense-name'. There are input, c1, act1, s2, .* and 5 more"),
        ("c3:16@0,0", r"c3 is 1x16x10x10 .*; 'c3:16@0,0' does not fit: channel 16 is not in 0..15. Write 'c3:0@0,0'"),
        ("c3:1@10,0", r"position 10 is not in 0..9"),
        ("c3:1@3", r"a position has 2 numbers, not 1"),
        ("output:3@1", r"a position has 0 numbers, not 1. Write 'output:3'"),
        ("c3[1]:1@3,3", r"image 1 is not in 0..0"),
        ("c3#2:1@3,3", r"c3 has outputs 0 to 0"),
    ],
)
def test_a_wrong_address_is_answered_with_what_is_right(lenet: Trace, address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lenet.locate(address)


def test_a_channel_where_a_unit_is_needed_is_refused(lenet: Trace) -> None:
    with pytest.raises(UsageError, match=r"one unit is needed; 'c3:1' names several, of 1x16x10x10. Write 'c3:1@0,0'"):
        lenet.locate("c3:1").unit  # noqa: B018


def test_weights_are_found_and_wrong_ones_answered(lenet: Trace) -> None:
    value, index = lenet.locate_weight("c3.weight[3,0,1,1]")
    assert (value.path, index) == ("c3.weight", (3, 0, 1, 1))
    with pytest.raises(UsageError, match=r"Unknown parameter 'c3.weigth'. Did you mean 'c3.weight' \(16x6x5x5\)"):
        lenet.locate_weight("c3.weigth[0]")
    with pytest.raises(UsageError, match=r"c3.weight is 16x6x5x5, so its numbers are c3.weight\[0..15, 0..5, 0..4, 0"):
        lenet.locate_weight("c3.weight[3,0,1]")
    with pytest.raises(UsageError, match=r"got 'c3.bias\[16\]'"):
        lenet.locate_weight("c3.bias[16]")


def test_one_image_of_a_batch_must_be_named() -> None:
    trace = gn.trace(gn.build_model("lenet5"), torch.rand(3, 1, 32, 32))
    assert trace.locate("c3[2]:12@3,5").unit == (2, 12, 3, 5)
    with pytest.raises(UsageError, match=r"it needs an image, \[0\] to \[2\]. Write 'c3\[0\]:12@0,0'"):
        trace.locate("c3:12@3,5")


def test_the_channels_of_tokens_lie_last_and_those_of_signals_first() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.signal = nn.Conv1d(4, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.conv(x).flatten(2).transpose(1, 2)
            return self.signal(self.block(tokens).permute(0, 2, 1)).relu()

    trace = gn.trace(Mixed(), torch.rand(3, 5, 6))
    shapes = {name: trace.step(name).shape for name in ("flatten", "transpose", "block", "permute", "signal", "relu")}
    assert shapes["transpose"] == (1, 12, 4)
    axes = {name: trace.channel_axis(trace.step(name).output) for name in shapes}
    assert axes == {"flatten": 1, "transpose": 2, "block": 2, "permute": 1, "signal": 1, "relu": 1}
    assert trace.locate("block:3@11").unit == (0, 11, 3)
    assert trace.locate("signal:5@9").unit == (0, 5, 9)


def test_a_modules_path_names_what_it_returned() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Identity(), nn.Linear(3, 2))
    trace = gn.trace(model, torch.rand(4))
    assert trace.step("0") is trace.step("0.1")
    assert trace.step("1") is trace.step("0.1")
    assert trace.locate("0:2").unit == (0, 2)


def test_an_input_is_no_step(lenet: Trace) -> None:
    with pytest.raises(UsageError, match="'input' must be a step; it is an input of the model"):
        lenet.step("input")
