"""Cutting examples into splits, and the words for them."""

from __future__ import annotations

import pytest
import torch

from glassnet._errors import UsageError
from glassnet.data.splits import SPLIT_WORDS, SPLITS, cut_positions


def test_every_word_for_a_split_is_lower_case_and_means_one_of_the_three() -> None:
    assert set(SPLIT_WORDS.values()) == set(SPLITS) < set(SPLIT_WORDS)
    assert all(word == word.lower() for word in SPLIT_WORDS)


def test_each_wanted_split_gets_an_example_and_each_class_keeps_one() -> None:
    train, validation, test = cut_positions(torch.tensor([0, 1, 1, 1, 2]), 0, 0.1, 0.1)
    assert len(validation) == len(test) == 1
    assert sorted(torch.cat((train, validation, test)).tolist()) == [0, 1, 2, 3, 4]
    assert {0, 4} < set(train.tolist())


def test_values_are_cut_at_random_over_all_of_them() -> None:
    train, validation, test = cut_positions(torch.linspace(0, 1, 200), 0, 0.1, 0.2)
    assert [len(train), len(validation), len(test)] == [140, 20, 40]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.0), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_to_train_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="at least 0 and below 1 together; got"):
        cut_positions(torch.tensor([0, 1, 2] * 10), 0, *shares)


def test_examples_too_few_to_cut_are_refused() -> None:
    with pytest.raises(UsageError, match="enough examples to cut some off for test; got 2, no two of one class"):
        cut_positions(torch.tensor([0, 1]), 0, 0.1, 0.2)
