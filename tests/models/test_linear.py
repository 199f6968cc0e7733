from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.models.linear import linear_regression, logistic_regression, normal_equation, perceptron, perceptron_rule


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_perceptron_of_two_classes_gives_one_score_and_of_several_one_each() -> None:
    single = perceptron(input_shape=(2,))
    with torch.no_grad():
        single.output.weight.copy_(torch.tensor([[1.0, -2.0]]))
        single.output.bias.fill_(0.5)
    inputs = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.5, 1.0], [0.0, 1.0]])  # w.x + b: 0.5, -0.5, 0, -1.5
    assert single(inputs).tolist() == [[0.5], [-0.5], [0], [-1.5]]
    several = perceptron(num_classes=3, input_shape=(1, 4, 4))
    images = torch.randn(2, 1, 4, 4)
    expected = images.flatten(1) @ several.output.weight.T + several.output.bias
    torch.testing.assert_close(several(images), expected)


def test_the_perceptron_rule_moves_by_rate_times_error_times_input() -> None:
    weights, bias, x = torch.tensor([1.0, -1.0]), torch.tensor(0.0), torch.tensor([2.0, 3.0])  # w.x = -1: answers 0
    new_weights, new_bias = perceptron_rule(weights, bias, x, torch.tensor(1.0), rate=0.5)
    assert new_weights.tolist() == [2.0, 0.5]
    assert new_bias.item() == 0.5
    assert weights.tolist() == [1.0, -1.0]
    same_weights, same_bias = perceptron_rule(weights, bias, x, torch.tensor(0.0), rate=0.5)
    assert same_weights.tolist() == [1.0, -1.0]
    assert same_bias.item() == 0.0


def test_several_units_learn_as_each_alone() -> None:
    weights, bias, x, targets = draw(4, 3), draw(4, seed=1), draw(3, seed=2), torch.tensor([0.0, 1.0, 1.0, 0.0])
    together = perceptron_rule(weights, bias, x, targets.double(), rate=0.3)
    for unit in range(4):
        alone = perceptron_rule(weights[unit], bias[unit], x, targets[unit].double(), rate=0.3)
        torch.testing.assert_close(together[0][unit], alone[0])
        torch.testing.assert_close(together[1][unit], alone[1])


@pytest.mark.parametrize("seed", range(3))
def test_the_perceptron_converges_within_novikoffs_bound(seed: int) -> None:
    truth = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)  # weights and bias
    points = torch.cat([draw(300, 2, seed=seed), torch.ones(300, 1, dtype=torch.float64)], dim=1)
    margins = points @ (truth / truth.norm())
    points, margins = points[margins.abs() > 0.15], margins[margins.abs() > 0.15]
    targets = (margins > 0).double()
    bound = (points.norm(dim=1).max() / margins.abs().min()) ** 2
    weights, bias = torch.zeros(2, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    mistakes = -1
    total = 0
    while mistakes != 0:
        mistakes = 0
        for point, target in zip(points, targets, strict=True):
            new_weights, new_bias = perceptron_rule(weights, bias, point[:2], target)
            mistakes += int(new_bias != bias)
            weights, bias = new_weights, new_bias
        total += mistakes
        assert total <= bound
    assert total > 0
    assert torch.equal((points[:, :2] @ weights + bias >= 0).double(), targets)


def test_the_perceptron_rule_refuses_signs_and_sizes_that_do_not_fit() -> None:
    weights, bias, x = torch.zeros(2), torch.tensor(0.0), torch.ones(2)
    with pytest.raises(UsageError, match=r"target of the perceptron rule must be 0 or 1; got -1\.0\. Write 0 for -1\."):
        perceptron_rule(weights, bias, x, torch.tensor(-1.0))
    with pytest.raises(UsageError, match=r"got weights \(2,\), x \(3,\), bias \(\), target \(\)"):
        perceptron_rule(weights, bias, torch.ones(3), torch.tensor(1.0))
    with pytest.raises(UsageError, match=r"weights \(2,\), x \(2,\), bias \(\), target \(1,\)"):
        perceptron_rule(weights, bias, x, torch.ones(1))


def numpy_least_squares(inputs: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    design = np.hstack([inputs.numpy(), np.ones((len(inputs), 1))])
    return np.linalg.lstsq(design, targets.numpy(), rcond=None)[0]


@pytest.mark.parametrize("num_rows", [50, 3])
def test_the_normal_equation_agrees_with_numpy_also_with_fewer_rows_than_weights(num_rows: int) -> None:
    inputs, targets = draw(num_rows, 4), draw(num_rows, 2, seed=1)
    weights, bias = normal_equation(inputs, targets)
    expected = numpy_least_squares(inputs, targets)
    np.testing.assert_allclose(weights.numpy(), expected[:-1].T, atol=1e-10)
    np.testing.assert_allclose(bias.numpy(), expected[-1], atol=1e-10)


def test_dependent_inputs_get_the_smallest_of_the_equally_good_solutions() -> None:
    column = draw(30, 1)
    inputs = torch.cat([column, column], dim=1)
    weights, bias = normal_equation(inputs, 3 * column[:, 0] + 1)
    torch.testing.assert_close(weights, torch.tensor([[1.5, 1.5]], dtype=torch.float64))
    torch.testing.assert_close(bias, torch.tensor([1.0], dtype=torch.float64))


def test_ridge_fulfils_its_equation_and_spares_the_bias() -> None:
    inputs, targets = draw(40, 3), draw(40, 1, seed=1) + 7
    weights, bias = normal_equation(inputs, targets, ridge=2.5)
    design = np.hstack([inputs.numpy(), np.ones((40, 1))])
    penalty = 2.5 * np.diag([1.0, 1.0, 1.0, 0.0])
    expected = np.linalg.solve(design.T @ design + penalty, design.T @ targets.numpy())
    np.testing.assert_allclose(weights.numpy(), expected[:-1].T, atol=1e-10)
    np.testing.assert_allclose(bias.numpy(), expected[-1], atol=1e-10)
    _, bias = normal_equation(inputs, targets, ridge=1e12)
    assert bias.item() == pytest.approx(targets.mean().item())


def test_images_are_flattened_and_the_result_fits_the_model() -> None:
    images, targets = draw(60, 1, 2, 2, dtype=torch.float32), draw(60, seed=1, dtype=torch.float32)
    weights, bias = normal_equation(images, targets)
    model = linear_regression(input_shape=(1, 2, 2))
    assert weights.dtype == bias.dtype == torch.float32
    with torch.no_grad():
        model.output.weight.copy_(weights)
        model.output.bias.copy_(bias)
        residual = model(images)[:, 0] - targets
    assert (residual @ images.flatten(1)).abs().max() < 1e-3  # least squares leaves what no input explains
    assert abs(residual.sum()) < 1e-3
    assert normal_equation(torch.arange(3), torch.tensor([1, 3, 5]))[0].item() == pytest.approx(2)


def test_gradient_descent_comes_to_the_normal_equation() -> None:
    torch.manual_seed(0)
    inputs, targets = draw(40, 3), draw(40, 1, seed=1)
    model = linear_regression(input_shape=(3,)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    weights, bias = normal_equation(inputs, targets)
    torch.testing.assert_close(model.output.weight.detach(), weights, atol=1e-8, rtol=0)
    torch.testing.assert_close(model.output.bias.detach(), bias, atol=1e-8, rtol=0)


def test_the_normal_equation_refuses_what_has_no_solution() -> None:
    inputs, targets = draw(5, 2), draw(5)
    with pytest.raises(UsageError, match=r"same N of at least 1; got \(5, 2\) and \(4,\)"):
        normal_equation(inputs, targets[:4])
    with pytest.raises(UsageError, match=r"ridge must be 0 or a positive number; got -1"):
        normal_equation(inputs, targets, ridge=-1)
    inputs[2, 1] = float("nan")
    with pytest.raises(UsageError, match=r"expects finite numbers; got NaN or infinity"):
        normal_equation(inputs, targets)


def test_logistic_regression_comes_to_sklearns_weights() -> None:
    inputs = draw(120, 3)
    targets = (inputs @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + draw(120, seed=1) > 0.3).double()
    model = logistic_regression(input_shape=(3,)).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=200, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(model(inputs)[:, 0], targets)
        value.backward()
        return value

    optimizer.step(loss)
    oracle = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(inputs.numpy(), targets.numpy())
    np.testing.assert_allclose(model.output.weight.detach().numpy(), oracle.coef_, atol=1e-4)
    np.testing.assert_allclose(model.output.bias.detach().numpy(), oracle.intercept_, atol=1e-4)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_logistic_regression_has_one_logit_for_two_classes(num_classes: int) -> None:
    model = logistic_regression(num_classes=num_classes, input_shape=(1, 3, 3))
    assert model(torch.zeros(5, 1, 3, 3)).shape == (5, 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 10


def test_logistic_regression_sends_more_classes_to_softmax() -> None:
    with pytest.raises(UsageError, match=r"one logit; got num_classes=3\. Use model 'softmax'"):
        logistic_regression(num_classes=3)


@pytest.mark.parametrize("build", [perceptron, linear_regression, logistic_regression])
def test_the_smallest_form_is_one_linear_unit(build: type[nn.Module]) -> None:
    model = build(input_shape=(4,))
    assert sum(parameter.numel() for parameter in model.parameters()) == 5
