"""The losses, against numpy and numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from glassnet._errors import UsageError
from glassnet.nn.losses import (
    DEFAULT_LOSSES,
    LOSSES,
    Loss,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    default_loss,
    loss_function,
    multi_class_perceptron,
    negative_log_likelihood,
    perceptron,
    root_mean_squared_error,
    squared_error,
)

AND_INPUTS = torch.tensor([[1.0, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]])  # the first column is the bias's 1
AND_LABELS = torch.tensor([0, 0, 0, 1])


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def test_squared_error_and_its_root_by_hand() -> None:
    outputs, targets = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 5.0])
    # (0 + 1 + 4) / 3
    assert squared_error(outputs, targets).item() == pytest.approx(5 / 3)
    assert root_mean_squared_error(outputs, targets).item() == pytest.approx(math.sqrt(5 / 3))


def test_squared_errors_against_numpy_over_every_number_of_a_batch() -> None:
    outputs, targets = numbers(5, 3), numbers(5, 3, seed=1)
    mean = ((outputs.numpy() - targets.numpy()) ** 2).mean()
    assert squared_error(outputs, targets).item() == pytest.approx(mean, rel=1e-12)
    assert root_mean_squared_error(outputs, targets).item() == pytest.approx(mean**0.5, rel=1e-12)


def test_the_gradient_of_the_root_is_finite_where_every_output_is_right() -> None:
    outputs = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = root_mean_squared_error(outputs, torch.tensor([1, 2]))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad.tolist() == [0, 0]


def test_the_gradient_of_the_root_is_the_error_over_n_times_the_root() -> None:
    outputs = torch.tensor([4.0, 2.0], requires_grad=True)
    root_mean_squared_error(outputs, torch.tensor([1.0, 6.0])).backward()
    # Errors 3 and -4: RMSE = 5 / sqrt 2; gradient 3 / (2 RMSE) and -4 / (2 RMSE).
    assert outputs.grad.tolist() == pytest.approx([3 / (math.sqrt(2) * 5), -4 / (math.sqrt(2) * 5)])


def test_binary_cross_entropy_by_hand_from_probabilities_and_from_logits() -> None:
    # -log 0.8 = 0.2231 for a one; -log(1 - 0.3) = 0.3567 for a zero; mean 0.2899.
    probabilities, targets = torch.tensor([0.8, 0.3], dtype=torch.float64), torch.tensor([1, 0])
    assert binary_cross_entropy(probabilities, targets).item() == pytest.approx(0.28990925)
    logits = torch.log(probabilities / (1 - probabilities))
    assert binary_cross_entropy_with_logits(logits, targets).item() == pytest.approx(0.28990925)


def test_binary_cross_entropies_against_numpy_and_with_each_other_also_for_soft_targets() -> None:
    logits, targets = 3 * numbers(40), torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p, t = 1 / (1 + np.exp(-logits.numpy())), targets.numpy()
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert binary_cross_entropy_with_logits(logits, targets).item() == pytest.approx(expected, rel=1e-12)
    assert binary_cross_entropy(logits.sigmoid(), targets).item() == pytest.approx(expected, rel=1e-12)


def test_a_certain_and_wrong_answer_costs_the_clip_and_not_infinity() -> None:
    wrong = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = binary_cross_entropy(wrong, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(-math.log(1e-7), rel=0.01)  # float32 holds 1 - 1e-7 as 1 - 1.19e-7
    loss.backward()
    assert wrong.grad.tolist() == [0, 0]
    assert binary_cross_entropy(wrong, torch.tensor([1, 0]), clip=0.01).item() == pytest.approx(-math.log(0.01))


def test_logits_keep_their_gradient_where_probabilities_are_certain() -> None:
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    loss = binary_cross_entropy_with_logits(logits, torch.tensor([1, 0]))
    loss.backward()
    assert loss.item() == 200
    assert logits.grad.tolist() == [-0.5, 0.5]  # (s(z) - t) / 2


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    # -log(e^3 / (e^1 + e^2 + e^3)) = log(1 + e^-1 + e^-2) = 0.40761
    assert cross_entropy(logits, torch.tensor([2])).item() == pytest.approx(0.40760596)
    assert cross_entropy(torch.zeros(4, 10), torch.arange(4)).item() == pytest.approx(math.log(10))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_integer_one_hot_and_soft_labels_give_equal_losses(smoothing: float) -> None:
    logits, labels = numbers(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    one_hot = torch.nn.functional.one_hot(labels, 4)
    target = (1 - smoothing) * one_hot.numpy() + smoothing / 4
    expected = -(target * log_softmax(logits.numpy())).sum(1).mean()
    for form in (labels, labels.to(torch.uint8), one_hot, one_hot.double()):
        loss = cross_entropy(logits, form, label_smoothing=smoothing)
        assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert cross_entropy(logits, torch.from_numpy(target)).item() == pytest.approx(expected, rel=1e-12)


def test_two_classes_are_the_binary_case_on_the_difference_of_the_logits() -> None:
    logits, labels = numbers(7, 2), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    difference = logits[:, 1] - logits[:, 0]
    binary = binary_cross_entropy_with_logits(difference, labels)
    torch.testing.assert_close(cross_entropy(logits, labels), binary)
    signs = multi_class_perceptron(logits, labels)
    torch.testing.assert_close(signs, perceptron(difference, labels))


def test_cross_entropy_of_feature_maps_takes_a_label_at_every_position() -> None:
    logits, labels = numbers(2, 3, 4, 5), torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    rows, flat = logits.permute(0, 2, 3, 1).reshape(-1, 3), labels.flatten()
    torch.testing.assert_close(cross_entropy(logits, labels), cross_entropy(rows, flat))
    one_hot = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(cross_entropy(logits, one_hot), cross_entropy(rows, flat))


def test_negative_log_likelihood_of_log_softmax_is_the_cross_entropy() -> None:
    logits, labels = numbers(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    likelihood = negative_log_likelihood(torch.log_softmax(logits, 1), labels)
    torch.testing.assert_close(likelihood, cross_entropy(logits, labels))
    by_hand = negative_log_likelihood(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([0, 0]))
    assert by_hand.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_the_perceptron_criterion_by_hand() -> None:
    scores = torch.tensor([2.0, -1.0, 0.5, -3.0])
    # -y s = -2, 1, 0.5, -3: (0 + 1 + 0.5 + 0) / 4
    assert perceptron(scores, torch.tensor([1, 1, -1, -1])).item() == 0.375
    assert perceptron(scores, torch.tensor([1, 1, 0, 0])).item() == 0.375


def test_a_gradient_step_with_rate_one_is_the_perceptron_rule_until_and_is_learned() -> None:
    by_rule, by_gradient = np.zeros(3), torch.zeros(3, requires_grad=True)
    num_corrections = 0
    for _ in range(20):
        for x, label in zip(AND_INPUTS, AND_LABELS, strict=True):
            y = 1 if label == 1 else -1
            if y * (by_rule @ x.numpy()) <= 0:
                by_rule = by_rule + y * x.numpy()
                num_corrections += 1
            (gradient,) = torch.autograd.grad(perceptron((x @ by_gradient)[None], label[None]), by_gradient)
            by_gradient = (by_gradient - gradient).detach().requires_grad_()
            assert by_gradient.tolist() == by_rule.tolist()
    assert num_corrections > 3
    assert ((AND_INPUTS @ by_gradient) > 0).long().tolist() == AND_LABELS.tolist()


def test_a_multi_class_step_adds_the_input_to_its_class_and_takes_it_from_the_best_rival() -> None:
    x, weights = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0], [0, 1], [3, 0]], requires_grad=True)
    scores = weights @ x  # 1, 2, 3: the rival of class 1 is class 2
    loss = multi_class_perceptron(scores[None], torch.tensor([1]))
    (gradient,) = torch.autograd.grad(loss, weights)
    assert loss.item() == 1
    assert (weights - gradient).tolist() == [[1, 0], [1, 3], [2, -2]]
    assert multi_class_perceptron(scores[None].detach(), torch.tensor([2])).item() == 0


@pytest.mark.parametrize("label", [0, 1])
def test_a_tie_is_a_mistake_for_every_class_so_that_learning_starts_from_zero(label: int) -> None:
    scores = torch.zeros(1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(multi_class_perceptron(scores, torch.tensor([label])), scores)
    assert gradient.tolist() == [[-1, 1] if label == 0 else [1, -1]]
    score = torch.zeros(1, requires_grad=True)
    (gradient,) = torch.autograd.grad(perceptron(score, torch.tensor([label])), score)
    assert gradient.tolist() == [1 if label == 0 else -1]


def test_gradients_are_those_of_finite_differences() -> None:
    outputs, labels, y = numbers(5, 3).requires_grad_(), torch.tensor([0, 2, 1, 1, 0]), numbers(5, 3, seed=1)
    bits = (y > 0).long()
    for loss, targets in [
        (squared_error, y),
        (root_mean_squared_error, y),
        (binary_cross_entropy_with_logits, bits),
        (lambda z, t: binary_cross_entropy(z.sigmoid(), t), bits),
        (cross_entropy, labels),
        (cross_entropy, y.softmax(1)),
        (lambda z, t: cross_entropy(z, t, label_smoothing=0.2), labels),
        (lambda z, t: negative_log_likelihood(z.log_softmax(1), t), labels),
        (perceptron, bits),
        (multi_class_perceptron, labels),
    ]:
        assert torch.autograd.gradcheck(loss, (outputs, targets))


TARGETS = {
    "regression": torch.tensor([0.5, 2.0]),
    "binary": torch.tensor([0, 1]),
    "multi-class": torch.tensor([0, 2]),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_gives_a_scalar_with_a_gradient_and_says_where_it_comes_from(name: str) -> None:
    loss = LOSSES[name]
    outputs = torch.tensor([[0.3, 0.2, 0.5], [0.6, 0.2, 0.2]], requires_grad=True)
    given = outputs.log() if name == "negative-log-likelihood" else outputs
    value = loss_function(name)(given if loss.task == "multi-class" else given[:, 0], TARGETS[loss.task])
    value.backward()
    assert value.shape == ()
    assert outputs.grad.abs().sum() > 0
    assert (loss.name, bool(loss.source)) == (name, True)


@pytest.mark.parametrize("name", list(LOSSES))
def test_labels_stay_on_the_accelerator_for_want_of_checks_that_look_at_values(name: str) -> None:
    # The meta device has shapes and no values: whatever looked at one would fail.
    targets = TARGETS[LOSSES[name].task].to("meta")
    outputs = torch.empty((2, 3) if LOSSES[name].task == "multi-class" else (2,), device="meta")
    assert loss_function(name)(outputs, targets).shape == ()


def test_losses_are_chosen_by_name_and_by_task() -> None:
    assert loss_function("rmse") is root_mean_squared_error
    assert [default_loss(task).name for task in DEFAULT_LOSSES] == [
        "squared-error",
        "binary-cross-entropy",
        "cross-entropy",
    ]
    assert all(default_loss(task).task == task for task in DEFAULT_LOSSES)
    with pytest.raises(UsageError, match=r"Unknown loss 'crossentropy'. Did you mean 'cross-entropy'"):
        loss_function("crossentropy")
    with pytest.raises(UsageError, match=r"Unknown task 'multiclass'. Did you mean 'multi-class'"):
        default_loss("multiclass")
    with pytest.raises(dataclasses.FrozenInstanceError):
        LOSSES["rmse"].name = "other"
    assert isinstance(LOSSES["rmse"], Loss)


def test_a_column_of_logits_for_a_row_of_labels_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"got logits \(4, 1\) and targets \(4,\). Write logits.squeeze\(-1\)"):
        binary_cross_entropy_with_logits(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(UsageError, match=r"got outputs \(4,\) and targets \(4, 1\). Write targets.squeeze\(-1\)"):
        squared_error(torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(UsageError, match="For 2 logits an example and one label, use cross-entropy"):
        binary_cross_entropy_with_logits(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(UsageError, match="Give each of the scores one target"):
        perceptron(torch.zeros(4), torch.zeros(3))


def test_labels_outside_the_classes_are_refused_by_position() -> None:
    logits = torch.zeros(3, 10)
    with pytest.raises(UsageError, match=r"in 0..9 for 10 classes; label number 1 is 10 \(2 such in all\)"):
        cross_entropy(logits, torch.tensor([9, 10, 12]))
    with pytest.raises(UsageError, match="label number 0 is -1"):
        multi_class_perceptron(logits, torch.tensor([-1, 0, 0]))


def test_labels_of_another_form_are_refused_with_the_remedy() -> None:
    logits = torch.zeros(3, 4)
    with pytest.raises(UsageError, match=r"got torch.int64 \(3, 1\). Write labels.squeeze\(-1\)"):
        cross_entropy(logits, torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"got torch.float32 \(3,\). Write labels.long\(\)"):
        cross_entropy(logits, torch.zeros(3))
    with pytest.raises(UsageError, match=r"shape \(3,\) for logits \(3, 4\).*got torch.int64 \(2,\). Give one label"):
        cross_entropy(logits, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"labels.argmax\(1\) are class numbers"):
        negative_log_likelihood(logits, torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"at least two classes; got \(3, 1\). For one output an example"):
        cross_entropy(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_soft_labels_that_are_no_distribution_are_refused() -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(UsageError, match="must sum to 1 over the classes; one row sums to 2"):
        cross_entropy(logits, torch.tensor([[1, 0, 0], [1, 1, 0]]))
    with pytest.raises(UsageError, match=r"Soft labels must lie in \[0, 1\]; got -1"):
        cross_entropy(logits, torch.tensor([[1, 0, 0], [1, 1, -1]]))
    with pytest.raises(UsageError, match=r"label_smoothing must be at least 0 and below 1; got 1.5"):
        cross_entropy(logits, torch.tensor([0, 1]), label_smoothing=1.5)


def test_numbers_that_are_no_probabilities_are_refused_with_the_remedy() -> None:
    targets = torch.tensor([0.0, 1.0])
    with pytest.raises(UsageError, match=r"probabilities must lie in \[0, 1\]; got 1.5 \(1 such in all\). Give logits"):
        binary_cross_entropy(torch.tensor([0.2, 1.5]), targets)
    with pytest.raises(UsageError, match="got nan"):
        binary_cross_entropy(torch.tensor([0.2, math.nan], requires_grad=True), targets)
    with pytest.raises(UsageError, match=r"targets must lie in \[0, 1\]; got -1 .*\(targets \+ 1\) / 2"):
        binary_cross_entropy_with_logits(torch.zeros(2), torch.tensor([-1, 1]))
    with pytest.raises(UsageError, match=r"at most 0; got 0.5. Give logits to cross-entropy"):
        negative_log_likelihood(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
    with pytest.raises(UsageError, match=r"clip must lie between 0 and 0.5"):
        binary_cross_entropy(torch.zeros(2), targets, clip=0.0)


def test_perceptron_targets_that_are_no_signs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must be -1 and 1, or 0 and 1; got -1, 0, 1\."):
        perceptron(torch.zeros(3), torch.tensor([-1, 0, 1]))
    with pytest.raises(UsageError, match=r"scores must be \(B, K\), one score a class; got \(2, 3, 4\)"):
        multi_class_perceptron(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_in_half_precision_do_not_round_the_targets(dtype: torch.dtype) -> None:
    outputs = torch.zeros(2, dtype=dtype, requires_grad=True)
    loss = squared_error(outputs, torch.tensor([1.0, 257.25]))  # 257.25 needs 11 bits
    loss.backward()
    assert (loss.dtype, loss.item()) == (torch.float32, (1 + 257.25**2) / 2)
    assert outputs.grad.dtype == dtype


def test_an_empty_batch_and_integer_outputs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"of at least one example; got torch.float32 of shape \(0, 3\)"):
        cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"floating-point numbers.* got torch.int64"):
        squared_error(torch.tensor([1]), torch.tensor([1]))
