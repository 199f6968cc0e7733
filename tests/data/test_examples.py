from __future__ import annotations

import numpy as np
import pytest
import torch

from glassnet import UsageError
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.splits import stratified_cut


def examples(labels: list[int], names: tuple[str, ...] = ("ant", "bee", "cat")) -> ExampleSet:
    return ExampleSet(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels), names)


def test_a_label_outside_the_classes_is_refused_with_the_example_at_fault() -> None:
    with pytest.raises(UsageError, match=r"must lie in 0\.\.2 for 3 classes; example 1 has label 3 \(2 such"):
        examples([0, 3, -1])


def test_inputs_of_another_format_are_refused() -> None:
    for inputs in (torch.zeros(2, 1, 2, 2, dtype=torch.float64), torch.zeros(2, 1, 2, dtype=torch.uint8)):
        with pytest.raises(UsageError, match=r"images as uint8 \(N, C, H, W\), or numbers as float32.*got torch"):
            ExampleSet(inputs, torch.zeros(2, dtype=torch.int64), ("a",))
    with pytest.raises(UsageError, match=r"labels must be int64 \(2,\)"):
        ExampleSet(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ("a",))


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="'ant' stands more than once"):
        examples([0], ("ant", "bee", "ant"))


def test_classes_are_matched_by_name_not_by_position() -> None:
    aligned = examples([0, 1, 2, 0]).aligned_to(("cat", "dog", "ant", "bee"))
    assert aligned.labels.tolist() == [2, 3, 0, 2]
    assert aligned.class_names == ("cat", "dog", "ant", "bee")


def test_a_class_without_examples_may_be_unknown_and_one_with_examples_may_not() -> None:
    assert examples([0, 1]).aligned_to(("bee", "ant")).labels.tolist() == [1, 0]
    with pytest.raises(UsageError, match=r"Unknown class 'cat'.*1 examples have this label"):
        examples([0, 2]).aligned_to(("bee", "ant"))


def test_a_slice_positions_and_a_mask_choose_the_same_examples() -> None:
    whole = examples([0, 1, 2])
    by_slice, by_position = whole[1:], whole[[1, 2]]
    by_mask = whole[torch.tensor([False, True, True])]
    assert by_slice.labels.tolist() == by_position.labels.tolist() == by_mask.labels.tolist() == [1, 2]


def test_the_class_counts_name_empty_classes_too() -> None:
    assert examples([0, 2, 2]).class_counts() == [1, 0, 2]


def test_splits_with_other_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="The test split must have the classes of the training split"):
        Dataset("x", examples([0]), examples([0]), examples([0], ("a", "b", "c")), seed=0)


def test_the_fingerprint_changes_with_one_pixel_one_label_or_one_name() -> None:
    one = examples([0, 1, 2])
    print_of = Dataset("x", one, one, one, seed=0).fingerprint()
    pixels = one.inputs.clone()
    pixels[2, 0, 1, 1] = 1
    changed = (
        ExampleSet(pixels, one.labels, one.class_names),
        ExampleSet(one.inputs, torch.tensor([0, 1, 1]), one.class_names),
    )
    for other in changed:
        assert Dataset("x", one, one, other, seed=0).fingerprint() != print_of
    renamed = examples([0, 1, 2], ("ant", "bee", "cow"))
    assert Dataset("x", renamed, renamed, renamed, seed=0).fingerprint() != print_of
    assert Dataset("y", one, one, one, seed=1).fingerprint() == print_of


def test_a_cut_takes_the_share_of_each_class_and_depends_on_the_seed_alone() -> None:
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 1)
    kept, cut = stratified_cut(labels, 0.3, 5, "validation")
    assert torch.bincount(labels[cut], minlength=3).tolist() == [3, 6, 0]
    assert sorted([*kept.tolist(), *cut.tolist()]) == list(range(31))
    again, other = stratified_cut(labels, 0.3, 5, "validation"), stratified_cut(labels, 0.3, 6, "validation")
    assert again[1].tolist() == cut.tolist() != other[1].tolist()


def test_a_cut_leaves_each_class_at_least_one_example() -> None:
    kept, _ = stratified_cut(torch.tensor([0, 0, 1]), 0.9, 0, "x")
    assert {0, 1} == set(torch.tensor([0, 0, 1])[kept].tolist())


def test_a_share_of_all_examples_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 0 and below 1; got 1"):
        stratified_cut(torch.tensor([0]), 1, 0, "x")


@pytest.mark.parametrize("mask", [[False, True, True], np.array([False, True, True])])
def test_a_mask_in_any_form_chooses_what_it_marks(mask: object) -> None:
    assert examples([0, 1, 2])[mask].labels.tolist() == [1, 2]  # type: ignore[index]


def test_one_position_alone_is_no_choice_of_examples() -> None:
    with pytest.raises(UsageError, match="by a slice, a list of positions or a mask; got 1"):
        examples([0, 1, 2])[1]  # type: ignore[index]


def test_numbers_for_class_names_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Class names must be text; got \(0, 1, 2\). Write tuple\(map\(str, names"):
        examples([0, 1, 2], (0, 1, 2))  # type: ignore[arg-type]


def test_values_to_predict_and_classes_are_not_mixed_up() -> None:
    values = ExampleSet(torch.zeros(2, 3), torch.zeros(2), ())
    with pytest.raises(UsageError, match="Expected examples with classes; these have values to predict"):
        values.aligned_to(("a",))
    with pytest.raises(UsageError, match="Expected examples with values to predict; these have classes"):
        examples([0, 1]).aligned_to(())
