"""Losses of the user's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.training.own_loss import load_loss

QUICK = gn.TrainConfig(epochs=2, batch_size=16)


def network(seed: int = 0) -> nn.Module:
    return gn.build_model("softmax", num_classes=3, input_shape=(1, 8, 8), seed=seed)


def focal(outputs: Tensor, labels: Tensor) -> Tensor:
    """Lin et al. 2017, with gamma 2."""
    p = outputs.softmax(1).gather(1, labels[:, None])[:, 0]
    return (-((1 - p) ** 2) * p.log()).mean()


def train(data: Dataset, out: Path, loss: object, config: gn.TrainConfig | None = QUICK) -> gn.Run:
    return gn.train(network(), data, config, loss=loss, out=out, progress=False)  # type: ignore[arg-type]


def test_the_cross_entropy_as_a_users_own_trains_to_the_same_weights(small_data: Dataset, tmp_path: Path) -> None:
    own = train(small_data, tmp_path / "own", nn.CrossEntropyLoss())
    ours = gn.train(network(), small_data, QUICK, out=tmp_path / "ours", progress=False)
    assert torch.equal(own.model.output.weight, ours.model.output.weight)
    assert own.evaluate(small_data.test) == ours.evaluate(small_data.test)


def test_a_run_predicts_without_the_loss_and_judges_with_it(small_data: Dataset, tmp_path: Path) -> None:
    run = train(small_data, tmp_path / "run", focal)
    figures = run.evaluate(small_data.test)
    outputs, labels = run.outputs(small_data.test)
    assert figures.loss == pytest.approx(float(focal(outputs, labels)))
    assert run.record["result"]["test_loss"] == figures.loss
    assert f"loss: {__name__}:focal" in (run.path / "config.yaml").read_text()
    opened = gn.open_run(run.path)
    without = opened.evaluate(small_data.test)
    assert math.isnan(without.loss)
    assert dataclasses.replace(without, loss=figures.loss) == figures
    assert opened.predict(small_data.test.inputs).rows == run.predict(small_data.test.inputs).rows
    assert gn.open_run(run.path, loss=focal).evaluate(small_data.test) == figures
    with pytest.raises(UsageError, match=r"test_own_loss:focal' is the user's own.*gn.train\(..., loss=function\)"):
        gn.train(network(), small_data, opened.config, out=tmp_path / "again", progress=False)


def test_a_loss_for_a_run_of_glassnets_own_is_refused(small_data: Dataset, tmp_path: Path) -> None:
    gn.train(network(), small_data, QUICK, out=tmp_path / "run", progress=False)
    with pytest.raises(UsageError, match="trained with glassnet's loss 'cross-entropy'. Leave loss= out"):
        gn.open_run(tmp_path / "run", loss=focal)


def test_one_output_meets_labels_of_0_and_1_as_numbers(tmp_path: Path) -> None:
    inputs = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    examples = ExampleSet(inputs, (inputs[:, 0] > 0).long(), ("no", "yes"))
    data = Dataset("rows", examples, examples, examples, seed=0)
    config = gn.TrainConfig(epochs=20, batch_size=20, learning_rate=0.1)
    model = gn.build_model("logistic-regression", input_shape=(2,))
    run = gn.train(model, data, config, loss=nn.BCEWithLogitsLoss(), out=tmp_path / "run", progress=False)
    assert run.evaluate(examples).accuracy >= 0.95


def test_values_are_predicted_with_a_users_own_loss(tmp_path: Path) -> None:
    inputs = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    examples = ExampleSet(inputs, 2 * inputs[:, 0] - inputs[:, 1], ())
    data = Dataset("rows", examples, examples, examples, seed=0)
    config = gn.TrainConfig(epochs=60, batch_size=20, learning_rate=0.1)
    model = gn.build_model("linear-regression", input_shape=(2,))
    gn.train(model, data, config, loss=nn.HuberLoss(), out=tmp_path / "run", progress=False)
    assert gn.open_run(tmp_path / "run").evaluate(examples).r2 > 0.99


def test_without_a_config_the_recipes_label_smoothing_gives_way(digits: Dataset, tmp_path: Path) -> None:
    short = dataclasses.replace(digits, train=digits.train[:40])
    run = gn.train(gn.build_model("lenet5"), short, loss=focal, out=tmp_path / "run", progress=False)
    assert run.config.label_smoothing == 0


def fails(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs + labels[:5]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda o, y: F.cross_entropy(o, y, reduction="none"), r"got torch.float32 of shape \(8,\). Take .mean\(\)"),
        (lambda o, y: F.cross_entropy(o, y)[None], r"of shape \(1,\)"),
        (lambda o, y: 1.0, "got float"),
        (lambda o, y: (o.argmax(1) != y).sum(), r"got torch.int64 of shape \(\)"),
        (lambda o, y: (o.argmax(1) != y).float().mean(), "must be differentiable in the outputs; no gradient"),
        (lambda o, y: torch.zeros((), requires_grad=True) * 1, "no gradient reaches them"),
        (lambda o, y: F.cross_entropy(o, y) / 0, "must be finite; for the first 8 training examples it is inf"),
        (lambda o, y: (o - o).sum().sqrt(), "gradient of loss .* must be finite"),
        (fails, r"fails' failed for outputs \(8, 3\) and labels \(8,\): RuntimeError: .*test_own_loss.py:\d+"),
        (lambda: None, "failed for outputs .*: TypeError"),
        ("focal", r"the name of a loss stands in the config: TrainConfig\(loss='focal'\)"),
        (nn.CrossEntropyLoss, "loss must be a function of outputs and labels; got <class"),
        (nn.Linear(3, 1), "parameters of its own \\('weight'\\)"),
    ],
)
def test_what_is_no_loss_is_refused_before_any_work(
    loss: Callable[..., object], message: str, small_data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(small_data, tmp_path / "run", loss)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"loss": "cross-entropy"}, "There are two losses"),
        ({"label_smoothing": 0.1}, "label_smoothing has no effect with a loss of your own"),
        ({"augment": "MixUp"}, "augment mixes labels"),
    ],
)
def test_a_config_that_does_not_go_with_a_users_loss_is_refused(
    config: dict[str, object], message: str, small_data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(small_data, tmp_path / "run", focal, dataclasses.replace(QUICK, **config))


def test_a_loss_that_fails_in_the_middle_of_training_is_said(small_data: Dataset, tmp_path: Path) -> None:
    def picky(outputs: Tensor, labels: Tensor) -> Tensor:
        if len(outputs) == 16:
            raise ValueError("sixteen is too many")
        return F.cross_entropy(outputs, labels)

    with pytest.raises(UsageError, match=r"picky' failed for outputs \(16, 3\).*: ValueError: sixteen is too many"):
        train(small_data, tmp_path / "run", picky)
    assert not (tmp_path / "run").exists()


def test_a_loss_is_found_in_a_file_and_a_class_is_built(tmp_path: Path) -> None:
    text = (
        "from torch import nn\ndef focal(o, y): return o.sum()\nclass Mine(nn.Module):\n"
        " def forward(self, o, y): return o.mean()\nclass Picky:\n def __init__(self, gamma): pass\nnumber = 3\n"
    )
    (tmp_path / "losses.py").write_text(text)
    assert load_loss(f"{tmp_path}/losses.py:focal")(torch.ones(2), torch.ones(2)) == 2
    assert load_loss(f"{tmp_path}/losses.py:Mine")(torch.ones(2), torch.ones(2)) == 1
    for name, message in (
        ("focl", "Unknown name in .*losses.py 'focl'. Did you mean 'focal'"),
        ("Picky", "Loss losses.py:Picky could not be built: TypeError.*gamma"),
        ("number", "must be a function of outputs and labels; got int"),
    ):
        with pytest.raises(UsageError, match=message):
            load_loss(f"{tmp_path}/losses.py:{name}")
