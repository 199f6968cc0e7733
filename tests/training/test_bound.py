"""What is said of where the time of a training went."""

from __future__ import annotations

import pytest
import torch

from glassnet.training.bound import FIRST_STEP, StepProfile, find_bound, part_of, peak_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("aten::convolution_backward", "convolution backward"),
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::max_pool2d_with_indices_backward", "pooling"),
        ("aten::native_batch_norm", "normalisation"),
        ("BatchNormalisation", "normalisation"),
        ("PooledConvolutionBackward", "convolution backward"),
        ("GeluBackward", "activations"),
        ("aten::addmm", "matrix products"),
        ("aten::threshold_backward", "activations"),
        ("Optimizer.step#AdamW.step", "optimizer"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::_log_softmax", "loss"),
        ("aten::copy_", "copies"),
        ("aten::roll", "other operations"),
    ],
)
def test_operations_are_named_by_the_kind_of_work(name: str, part: str) -> None:
    assert part_of(name) == part


def test_a_few_steps_after_the_first_are_profiled() -> None:
    profile = StepProfile(num_steps=10_000, device=CPU)
    matrix = torch.ones(64, 64)
    for step in range(40):
        with profile.watching(step):
            if step >= FIRST_STEP:
                matrix @ matrix
    shares = profile.shares()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["matrix products"] > 0.5


def test_a_short_training_is_not_profiled() -> None:
    profile = StepProfile(num_steps=50, device=CPU)
    for step in range(50):
        with profile.watching(step):
            torch.ones(2) + 1
    assert profile.shares() == {}


def test_the_shares_split_the_whole_and_the_largest_kind_bounds() -> None:
    seconds = {"decoding": 0.0, "data": 1.0, "step": 8.0, "validation": 0.5, "saving": 0.5}
    bound = find_bound(seconds, {"convolution": 0.75, "pooling": 0.25}, CPU)
    assert bound.kind == "compute"
    assert list(bound.shares)[:2] == ["convolution", "pooling"]
    assert bound.shares["convolution"] == pytest.approx(0.6)
    assert sum(bound.shares.values()) == pytest.approx(1.0)
    assert str(bound).startswith("Compute-bound: convolution 60 %, pooling 20 %, gathering and augmenting batches 10 %")


def test_where_decoding_takes_most_the_line_says_what_to_try() -> None:
    bound = find_bound({"decoding": 7.0, "data": 1.0, "step": 2.0}, {}, CPU)
    assert bound.kind == "data"
    assert "Data-bound: decoding images 70 %, steps 20 %" in str(bound)
    assert "try" in str(bound)


def test_a_training_of_no_time_at_all_divides_by_nothing() -> None:
    assert find_bound({}, {}, CPU).kind == "compute"


def test_the_peak_memory_is_at_least_what_is_held() -> None:
    held = torch.ones(1 << 22)
    assert peak_bytes(CPU) > held.nbytes
