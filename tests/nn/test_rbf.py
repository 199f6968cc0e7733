from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet.nn import DIGIT_BITMAPS, RBFOutput, digit_centres, random_centres


def test_the_penalty_is_the_squared_distance_and_the_logit_its_negative() -> None:
    rng = np.random.default_rng(0)
    x, centres = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    layer = RBFOutput(torch.from_numpy(centres))
    expected = np.zeros((4, 3))
    for b, i, j in np.ndindex(4, 3, 5):
        expected[b, i] += (x[b, j] - centres[i, j]) ** 2
    assert layer.penalties(torch.from_numpy(x)).numpy() == pytest.approx(expected, rel=1e-12)
    assert layer(torch.from_numpy(x)).numpy() == pytest.approx(-expected, rel=1e-12)


def test_a_perfect_picture_of_a_digit_has_no_penalty_and_the_largest_logit() -> None:
    layer = RBFOutput(digit_centres())
    logits = layer(digit_centres())
    assert logits.diagonal().tolist() == [0] * 10
    assert logits.argmax(1).tolist() == list(range(10))


def test_cross_entropy_on_the_logits_is_the_papers_equation_9_without_its_constant() -> None:
    layer = RBFOutput(random_centres(4, 6))
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    y, labels = layer.penalties(x).double(), torch.tensor([2, 0, 3])
    expected = (y[range(3), labels] + (-y).exp().sum(1).log()).mean()
    torch.testing.assert_close(F.cross_entropy(layer(x).double(), labels), expected)


def test_the_centres_are_stored_and_not_trained() -> None:
    layer = RBFOutput(digit_centres())
    assert list(layer.parameters()) == []
    assert layer.state_dict()["centres"].shape == (10, 84)


def test_every_bitmap_is_seven_wide_and_twelve_high_in_ink_and_paper() -> None:
    for bitmap in DIGIT_BITMAPS:
        rows = bitmap.split()
        assert [len(row) for row in rows] == [7] * 12
        assert set("".join(rows)) == {"#", "."}


def test_the_centres_are_the_bitmaps_row_by_row_and_differ_in_nine_places_or_more() -> None:
    centres = digit_centres().numpy()
    assert set(np.unique(centres)) == {-1, 1}
    assert centres[7].reshape(12, 7)[0].tolist() == [1] * 7
    assert centres[1].reshape(12, 7)[0].tolist() == [-1, -1, -1, 1, 1, -1, -1]
    assert min((centres[a] != centres[b]).sum() for a in range(10) for b in range(a)) >= 9


def test_random_codes_come_from_their_seed_and_fewer_classes_give_the_first_rows() -> None:
    state = torch.random.get_rng_state()
    codes = random_centres(100, 84)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(random_centres(7, 84), codes[:7])
    assert not torch.equal(random_centres(100, 84, seed=1), codes)
    assert set(codes.unique().tolist()) == {-1, 1}
    assert torch.unique(codes, dim=0).shape == (100, 84)


def test_inputs_of_another_width_and_centres_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"takes features \(B, 84\); got \(2, 83\)"):
        RBFOutput(digit_centres())(torch.zeros(2, 83))
    with pytest.raises(UsageError, match=r"centres must be \(num_classes, num_features\); got \(84,\)"):
        RBFOutput(torch.zeros(84))
