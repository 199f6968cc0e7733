from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as reference_metrics

from glassnet import UsageError
from glassnet.evaluation.metrics import evaluate_logits, worst_mistakes

NAMES = ("ant", "bee", "cat")
PREDICTED, LABELS = [0, 0, 1, 2, 1, 0], [0, 1, 1, 2, 2, 0]


def one_hot_logits(predicted: list[int], num_classes: int = 3, height: float = 4.0) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), num_classes) * height


def test_the_figures_are_those_worked_out_by_hand() -> None:
    result = evaluate_logits(one_hot_logits(PREDICTED), torch.tensor(LABELS), NAMES)
    assert result.confusion == ((2, 0, 0), (1, 1, 0), (0, 1, 1))
    assert (result.num_correct, result.num_examples, result.accuracy) == (4, 6, 4 / 6)
    ant, bee, cat = result.per_class
    assert (ant.precision, ant.recall, ant.support) == pytest.approx((2 / 3, 1, 2))
    assert (bee.precision, bee.recall, bee.support) == pytest.approx((1 / 2, 1 / 2, 2))
    assert (cat.precision, cat.recall, cat.support) == pytest.approx((1, 1 / 2, 2))
    assert [row.f1 for row in result.per_class] == pytest.approx([0.8, 0.5, 2 / 3])
    log_sum = math.log(math.exp(4) + 2)
    assert result.loss == pytest.approx((4 * (log_sum - 4) + 2 * log_sum) / 6)


def test_the_figures_agree_with_a_naive_count_on_random_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(200, 8, generator=generator), torch.randint(0, 8, (200,), generator=generator)
    result = evaluate_logits(logits, labels, tuple("abcdefgh"))
    predicted = logits.numpy().argmax(1)
    counts = np.zeros((8, 8), dtype=int)
    for true, said in zip(labels.tolist(), predicted.tolist(), strict=True):
        counts[true, said] += 1
    assert (np.array(result.confusion) == counts).all()
    ranks = (logits.numpy() > logits.numpy()[np.arange(200), labels.numpy()][:, None]).sum(1)
    assert result.top5_accuracy == pytest.approx((ranks < 5).mean())
    for index, row in enumerate(result.per_class):
        assert row.precision == pytest.approx(counts[index, index] / counts[:, index].sum())
        assert row.recall == pytest.approx(counts[index, index] / counts[index].sum())


@pytest.mark.parametrize("num_classes", [2, 3, 12])
def test_the_figures_are_those_of_torchmetrics(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(300, num_classes, generator=generator)
    labels = torch.randint(0, num_classes - 1, (300,), generator=generator)  # of the last class there is no example
    result = evaluate_logits(logits, labels, tuple(str(number) for number in range(num_classes)))
    predicted = logits.argmax(1)
    for figure in ("precision", "recall", "f1"):
        reference = getattr(reference_metrics, f"multiclass_{'f1_score' if figure == 'f1' else figure}")
        values = reference(predicted, labels, num_classes=num_classes, average=None)
        assert [getattr(row, figure) for row in result.per_class] == pytest.approx(values.tolist(), rel=1e-6)
    matrix = reference_metrics.multiclass_confusion_matrix(predicted, labels, num_classes=num_classes)
    assert torch.equal(torch.tensor(result.confusion), matrix)
    if num_classes > 5:
        top5 = reference_metrics.multiclass_accuracy(logits, labels, num_classes, average="micro", top_k=5)
        assert result.top5_accuracy == pytest.approx(float(top5))


def test_five_classes_or_fewer_have_no_top_5() -> None:
    assert evaluate_logits(one_hot_logits(PREDICTED), torch.tensor(LABELS), NAMES).top5_accuracy is None
    six = evaluate_logits(one_hot_logits([0, 5], 6), torch.tensor([0, 4]), tuple("abcdef"))
    assert six.top5_accuracy == pytest.approx(1.0)


def test_a_class_without_examples_or_answers_counts_as_zero() -> None:
    result = evaluate_logits(one_hot_logits([0, 0]), torch.tensor([0, 1]), NAMES)
    assert (result.per_class[2].precision, result.per_class[2].recall, result.per_class[2].support) == (0, 0, 0)
    assert result.per_class[1].recall == 0


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(UsageError, match="expected at least one example, got an empty set"):
        evaluate_logits(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), NAMES)


def test_the_worst_mistakes_come_first_and_right_answers_never() -> None:
    logits = torch.tensor([[9.0, 0, 0], [2.0, 0, 0], [5.0, 0, 0], [0, 3.0, 0]])
    labels = torch.tensor([0, 1, 2, 1])
    worst = worst_mistakes(logits, labels, NAMES, 10)
    assert [mistake.index for mistake in worst] == [2, 1]
    first = worst[0]
    assert (first.true_class, first.predicted_class) == ("cat", "ant")
    total = math.exp(5) + 2
    assert first.probability == pytest.approx(math.exp(5) / total)
    assert first.true_probability == pytest.approx(1 / total)
    assert first.loss == pytest.approx(math.log(total))
    assert len(worst_mistakes(logits, labels, NAMES, 1)) == 1
