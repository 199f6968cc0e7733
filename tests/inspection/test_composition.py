from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.runs import Run

CORNERS = torch.zeros(2, 1, 4, 4)
CORNERS[0, 0, 0, 0], CORNERS[1, 0, 3, 3] = 1.0, 3.0


def seen() -> nn.Module:
    """A layer that gives the image back, so that everything can be worked out from the pixels."""
    return nn.Sequential(nn.Identity(), nn.Flatten()).train()


def test_an_image_with_both_side_by_side_is_the_sum_and_the_stronger_dominates() -> None:
    first, second = CORNERS
    found = gn.composition(seen(), first, second, first + second, "0")
    blend = found.rows[0].whole
    assert blend.mean == blend.maximum == pytest.approx(1.0)
    assert (blend.first, blend.second) == pytest.approx((1 / 10**0.5, 3 / 10**0.5), abs=1e-7)
    assert (blend.dominant, blend.nearest) == ("second", "mean")
    assert "most like the mean of the two; the second object dominates in 1" in str(found)


def test_where_both_overlap_the_larger_and_the_mean_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 4, 4, generator=generator)
    found = gn.composition(seen(), first, second, torch.maximum(first, second), "0").of("0")
    assert found.whole.maximum == pytest.approx(1.0)
    a, b = first.flatten().double(), second.flatten().double()
    largest = torch.maximum(a, b)
    assert found.whole.mean == pytest.approx(float(largest @ (a + b) / largest.norm() / (a + b).norm()), abs=1e-6)
    assert found.whole.nearest == "maximum"


def test_averaged_over_positions_it_does_not_matter_where_they_stand() -> None:
    pixels = torch.zeros(3, 2, 4, 4)
    pixels[0, 0, 0, 0] = pixels[1, 1, 0, 0] = 1
    pixels[2, 0, 2, 2] = pixels[2, 1, 3, 3] = 1
    row = gn.composition(seen(), *pixels, "0").of("0")
    assert row.pooled is not None
    assert (row.whole.mean, row.pooled.mean) == pytest.approx((0.0, 1.0))
    assert row.pooled.first == row.pooled.second == pytest.approx(0.5**0.5, abs=1e-7)
    assert row.pooled.dominant == "neither"


@pytest.mark.parametrize(
    ("logits", "is_both", "said"),
    [
        ([[9.0, 1, 0], [0, 7, 1], [4, 5, 0]], True, "'1' and '0', those of the two alone"),
        ([[9.0, 1, 0], [0, 7, 1], [4, 1, 5]], False, "'2' and '0', not those of the two alone"),
        ([[9.0, 1, 0], [8, 7, 1], [5, 4, 0]], True, "'0' and '1', those"),
        ([[9.0, 1, 0], [8, 7, 1], [4, 5, 0]], False, "'1' and '0', not those"),
    ],
)
def test_the_first_two_classes_for_both_are_held_against_those_alone(
    logits: list[list[float]], is_both: bool, said: str
) -> None:
    found = gn.composition(nn.Sequential(nn.Flatten()), *torch.tensor(logits)[:, None, None])
    assert found.answer is not None
    assert found.answer.is_both == is_both
    assert said in str(found)


def test_a_network_without_a_row_of_classes_gives_no_answer() -> None:
    found = gn.composition(nn.Sequential(nn.Conv2d(1, 2, 3)), *CORNERS, CORNERS.sum(0))
    assert found.answer is None
    assert found.to_dict()["answer"] is None


def test_a_run_takes_pixels_and_names_its_classes(digits_run: Run, digits: Dataset) -> None:
    first, second = digits.test.inputs[0], digits.test.inputs[1]
    both = torch.maximum(first, second)
    found = gn.composition(digits_run, first, second, both)
    assert found.answer is not None
    assert found.answer.names[0] == str(int(digits.test.labels[0]))
    assert [row.layer for row in found.rows][:2] == ["c1", "act1"]
    assert found.images.dtype == torch.uint8
    assert repr(found) == f"Composition({len(found.rows)} layers)"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gn.composition(seen(), *CORNERS, CORNERS[0], "9"), "Unknown layer '9'"),
        (lambda: gn.composition(seen(), *CORNERS, torch.zeros(1, 5, 5)), "images of one shape and kind"),
        (lambda: gn.composition(seen(), *CORNERS, CORNERS[0]).of("x"), "Unknown layer 'x'"),
    ],
)
def test_what_was_off_is_said(call: object, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert text in str(caught.value)


def test_the_model_is_left_as_it_was() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("not today")

    model = nn.Sequential(nn.Identity(), Failing())
    with pytest.raises(UsageError, match="not today"):
        gn.composition(model, *CORNERS, CORNERS[0])
    assert all(module.training and not module._forward_hooks for module in model.modules())
