"""One whole experiment through `gn.train`: what it refuses before any work, what it leaves behind."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.training.fit import Progress, SilentObserver
from glassnet.training.history import EpochRow
from glassnet.training.step import NonFiniteLossError

QUICK = gn.TrainConfig(epochs=2, batch_size=16, precision="fp32")


def network(num_classes: int = 3) -> nn.Module:
    return gn.build_model("softmax", num_classes=num_classes, input_shape=(1, 8, 8))


def test_the_same_arguments_give_the_same_run_bit_for_bit(small_data: Dataset, tmp_path: Path) -> None:
    paths = [gn.train(network(), small_data, QUICK, out=tmp_path / n, progress=n == "a").path for n in ("a", "b")]
    first, second = ((path / "model.safetensors").read_bytes() for path in paths)
    assert first == second
    timeless = [[dataclasses.replace(row, images_per_s=0, epoch_s=0) for row in gn.open_run(p).history] for p in paths]
    assert timeless[0] == timeless[1]


def test_the_config_file_says_everything_to_repeat_the_run(small_data: Dataset, tmp_path: Path) -> None:
    run = gn.train(network(), small_data, QUICK, out=tmp_path / "run", progress=False)
    record = yaml.safe_load((run.path / "config.yaml").read_text())
    assert gn.TrainConfig.from_dict(record["training"]) == run.config
    assert run.config == dataclasses.replace(QUICK.resolved(), loss="cross-entropy")
    assert record["model"] == {"name": "softmax", "options": {"num_classes": 3, "input_shape": [1, 8, 8]}, "seed": 0}
    assert record["data"]["fingerprint"] == small_data.fingerprint()
    assert record["glassnet"]["torch"] == torch.__version__
    assert record["glassnet"]["version"] == gn.__version__
    assert record["result"]["test_accuracy"] == run.evaluate(small_data.test).accuracy


def test_the_model_given_ends_with_the_best_weights(small_data: Dataset, tmp_path: Path) -> None:
    model = network()
    run = gn.train(model, small_data, QUICK, out=tmp_path / "run", progress=False)
    assert run.model is model
    assert run.evaluate(small_data.validation).loss == pytest.approx(run.history.best.validation_loss, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        ("lenet5", QUICK, "Expected a model .*got str. gn.build_model makes one"),
        (network(4), QUICK, "The data has 3 classes, and the model has 4 outputs. Build it with num_classes=3"),
        (
            gn.build_model("softmax", num_classes=3, input_shape=(3, 8, 8)),
            QUICK,
            r"built for inputs of \(3, 8, 8\).*Build it with input_shape=\(1, 8, 8\)",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(63, 3)), QUICK, "does not take float32 images of 1x8x8"),
        (nn.Sequential(nn.Conv2d(1, 3, 3)), QUICK, r"one input this gave \(1, 3, 6, 6\)"),
        (network(), gn.TrainConfig(batch_size=61), "at most the 60 training examples; got 61"),
        (network(), gn.TrainConfig(device="cuda:7", batch_size=16), "Device 'cuda:7' was asked for"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3).requires_grad_(False)), QUICK, "nothing to train"),
        (gn.build_model("linear-regression", num_classes=3, input_shape=(1, 8, 8)), QUICK, "predicts values, and the"),
        (network(), gn.TrainConfig(batch_size=9, loss="squared-error"), "is for regression tasks; 3 classes and 3 out"),
        (network(), gn.TrainConfig(batch_size=9, loss="perceptron"), "make this one multi-class. Choose one of: cross"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(
    model: nn.Module, config: gn.TrainConfig, message: str, small_data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        gn.train(model, small_data, config, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_split_alone_is_no_data_set(small_data: Dataset) -> None:
    with pytest.raises(UsageError, match="Expected a data set from gn.load_data, with its splits; got ExampleSet"):
        gn.train(network(), small_data.train)  # type: ignore[arg-type]


def test_a_run_that_fails_before_its_first_epoch_leaves_nothing_behind(small_data: Dataset, tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="epoch 1 at step 0"):
        gn.train(model, small_data, QUICK, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_run_that_opens(small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupter(SilentObserver):
        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        def progressed(self, progress: Progress) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("glassnet.experiments.make_observer", lambda is_wanted: Interrupter())
    config = dataclasses.replace(QUICK, epochs=1000)
    run = gn.train(network(), small_data, config, out=tmp_path / "run")
    assert run.record["result"]["stop_reason"] == "interrupted"
    opened = gn.open_run(run.path)
    assert len(opened.history) == opened.record["result"]["num_epochs"] < 1000
    assert opened.report_path.exists()


def test_without_a_test_split_there_is_a_run_and_a_report_without_figures(small_data: Dataset, tmp_path: Path) -> None:
    data = dataclasses.replace(small_data, test=small_data.test[:0])
    run = gn.train(network(), data, QUICK, out=tmp_path / "run", progress=False)
    assert "test_accuracy" not in run.record["result"]
    assert run.report_path.exists()


def rows(count: int, num_features: int, seed: int) -> torch.Tensor:
    return torch.randn(count, num_features, generator=torch.Generator().manual_seed(seed))


def row_data(targets: Callable[[torch.Tensor], torch.Tensor], names: tuple[str, ...], num_features: int = 2) -> Dataset:
    splits = [rows(count, num_features, seed) for seed, count in enumerate((200, 50, 50))]
    return Dataset("rows", *(ExampleSet(x, targets(x), names) for x in splits), seed=0)


def test_a_memory_budget_leaves_images_on_disk_and_changes_no_weight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(40):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(values // 2 + 100 * (index % 2)).save(path)
    data = gn.load_data(tmp_path / "images")
    num_bytes = len(data.train) * 8 * 8
    shown, runs = [], []
    for number, budget_bytes in enumerate((None, 0, num_bytes - 1, num_bytes)):
        budget = None if budget_bytes is None else budget_bytes / 2**30
        config = gn.TrainConfig(epochs=1, batch_size=8, memory_budget_gib=budget)
        model = gn.build_model("mlp", num_classes=2, input_shape=(1, 8, 8), seed=0)
        runs.append(gn.train(model, data, config, out=tmp_path / f"run{number}"))
        shown.append("GiB of images exceed the memory budget of 0.00 GiB" in capsys.readouterr().err)
    assert shown == [False, True, True, True]  # the last one: train fits exactly, and nothing is left for validation
    first = runs[0].model.state_dict()
    for run in runs[1:]:
        assert all(torch.equal(value, first[name]) for name, value in run.model.state_dict().items())
        assert run.evaluate() == runs[0].evaluate()
    assert gn.open_run(runs[1].path).config.memory_budget_gib == 0


def test_a_regression_trains_to_the_normal_equation(tmp_path: Path) -> None:
    data = row_data(lambda x: 3 * x[:, 0] - 2 * x[:, 1] + 0.5, ())
    config = gn.TrainConfig(epochs=60, batch_size=20, optimizer="sgd", learning_rate=0.1, weight_decay=0)
    model = gn.build_model("linear-regression", input_shape=(2,))
    run = gn.train(model, data, config, out=tmp_path / "run", progress=False)
    assert run.config.loss == "squared-error"
    assert run.evaluate(data.test).r2 == pytest.approx(1, abs=1e-6)
    weights, bias = gn.normal_equation(run.preprocessing.normalise(data.train.inputs), data.train.labels)
    assert torch.allclose(model.output.weight.detach(), weights, atol=1e-3)
    assert torch.allclose(model.output.bias.detach(), bias, atol=1e-3)
    assert "typical error" in run.report_path.read_text()
    opened = gn.open_run(run.path)
    assert opened.evaluate(data.test) == run.evaluate(data.test)
    predicted = [list(row.values) for row in opened.predict(data.test.inputs)]
    assert predicted == opened.outputs(data.test)[0].tolist()


@pytest.mark.parametrize(
    ("model_name", "loss"),
    [
        ("logistic-regression", None),
        ("logistic-regression", "perceptron"),
        ("perceptron", None),
        ("softmax", None),
        ("softmax", "multi-class-perceptron"),
        ("mlp", None),
    ],
)
def test_two_separable_classes_are_told_apart_by_one_output_or_two(
    model_name: str, loss: str | None, tmp_path: Path
) -> None:
    data = row_data(lambda x: (x[:, 0] + x[:, 1] > 0).long(), ("no", "yes"))
    model = gn.build_model(model_name, num_classes=2, input_shape=(2,))
    run = gn.train(
        model,
        data,
        gn.TrainConfig(epochs=30, batch_size=20, learning_rate=0.1, loss=loss),
        out=tmp_path / "r",
        progress=False,
    )
    assert run.evaluate(data.test).accuracy >= 0.9
    answers = run.predict(torch.tensor([[2.0, 2.0], [-2.0, -2.0]]))
    assert [row.class_name for row in answers] == ["yes", "no"]
    assert all(sum(p for _, p in row.top) == pytest.approx(1) for row in answers)


def test_a_sigmoid_network_learns_from_probabilities_as_from_logits(tmp_path: Path) -> None:
    data = row_data(lambda x: (x[:, 0] > 0.3).long(), ("no", "yes"))
    accuracies = []
    for layers, loss in (((), None), ((nn.Sigmoid(),), "binary-cross-entropy-of-probabilities")):
        torch.manual_seed(0)
        config = gn.TrainConfig(epochs=20, batch_size=20, learning_rate=0.3, loss=loss)
        run = gn.train(nn.Sequential(nn.Linear(2, 1), *layers), data, config, out=tmp_path / "run", progress=False)
        accuracies.append(run.evaluate(data.test).accuracy)
        assert 0.9 < run.predict(torch.tensor([3.0, 0.0]))[0].probability <= 1
    assert accuracies[0] == accuracies[1] >= 0.94


def test_a_sigmoid_gate_learns_xor_and_a_fixed_one_has_nothing_to_learn(tmp_path: Path) -> None:
    bits = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    examples = ExampleSet(bits, torch.tensor([0, 1, 1, 0]), ("false", "true"))
    data = Dataset("xor", examples, examples, examples, seed=0, framing=Framing(is_standardised=False))
    model = gn.build_model("gate-xor", unit="sigmoid", seed=0)
    config = gn.TrainConfig(epochs=300, batch_size=4, optimizer="adam", learning_rate=0.1, schedule="constant")
    run = gn.train(model, data, config, out=tmp_path / "run", progress=False)
    assert run.evaluate(examples).accuracy == 1
    assert gn.truth_table(run.model).outputs == (0, 1, 1, 0)
    with pytest.raises(UsageError, match="nothing to train.*Build it with unit='sigmoid'"):
        gn.train(gn.build_model("gate-xor"), data, config, out=tmp_path / "fixed", progress=False)


def test_label_smoothing_stays_out_of_the_losses_that_are_shown(small_data: Dataset, tmp_path: Path) -> None:
    """The training loss of a network that fits perfectly tends to 0, which a smoothed one cannot."""
    config = gn.TrainConfig(epochs=1, batch_size=60, label_smoothing=0.5, learning_rate=1e-9)
    model = network()
    run = gn.train(model, small_data, config, out=tmp_path / "run", progress=False)
    assert run.history[0].train_loss == pytest.approx(run.evaluate(small_data.train).loss, abs=1e-5)


def test_the_loss_of_an_evaluation_is_the_one_that_was_trained(tmp_path: Path) -> None:
    data = row_data(lambda x: (x[:, 0] > 0).long(), ("no", "yes"))
    model = gn.build_model("perceptron", input_shape=(2,))
    config = gn.TrainConfig(epochs=3, batch_size=20)
    run = gn.train(model, data, config, out=tmp_path / "run", progress=False)
    assert run.evaluate(data.validation).loss == pytest.approx(run.history.best.validation_loss, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "config", "least"),
    [
        ("softmax", gn.TrainConfig(epochs=30, batch_size=32, learning_rate=0.01), 0.94),
        ("mlp", gn.TrainConfig(epochs=20, batch_size=32, label_smoothing=0.1), 0.96),
        ("cnn2d", gn.TrainConfig(epochs=30, batch_size=32, learning_rate=0.01), 0.95),
        ("perceptron", gn.TrainConfig(epochs=30, batch_size=32), 0.91),
        ("lenet5-1998", gn.TrainConfig(epochs=20, batch_size=32, learning_rate=2e-3, max_shift=2), 0.95),
        ("resnet20", gn.TrainConfig(epochs=6, batch_size=64, optimizer="sgd", learning_rate=0.1), 0.95),
    ],
)
def test_every_small_network_reaches_its_known_accuracy_on_digits(
    name: str, config: gn.TrainConfig, least: float, digits: Dataset, tmp_path: Path
) -> None:
    size = (32, 32) if name == "lenet5-1998" else digits.train.input_shape[1:]
    model = gn.build_model(name, num_classes=10, input_shape=(1, *size))
    assert gn.train(model, digits, config, out=tmp_path / "run", progress=False).evaluate().accuracy >= least


def test_the_auxiliary_heads_of_googlenet_learn(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (8, 1, 79, 79), dtype=torch.uint8, generator=generator)
    examples = ExampleSet(inputs, torch.arange(8) % 2, ("a", "b"))
    model = gn.build_model("googlenet", num_classes=2, input_shape=(1, 79, 79))
    before = model.aux1.fc2.weight.detach().clone()
    config = gn.TrainConfig(epochs=1, batch_size=4, optimizer="sgd", momentum=0, learning_rate=0.01)
    gn.train(model, Dataset("x", *(examples,) * 3, seed=0), config, out=tmp_path / "run", progress=False)
    assert not torch.equal(model.aux1.fc2.weight, before)


def test_digits_reach_98_percent_with_the_recipe(digits: Dataset, tmp_path: Path) -> None:
    """The promise of `make demo`, at the default seed."""
    run = gn.train(gn.build_model("lenet5"), digits, out=tmp_path / "run", progress=False)
    assert run.evaluate().accuracy >= 0.98


def test_mnist_reaches_99_percent_with_the_defaults(data_root: Path, tmp_path: Path) -> None:
    data = gn.load_data("mnist", root=data_root)
    run = gn.train(gn.build_model("lenet5"), data, out=tmp_path / "run", progress=False)
    assert run.evaluate().accuracy >= 0.99


@pytest.mark.parametrize("config", [{"epochs": 1}, gn.TrainConfig])
def test_a_config_of_another_kind_is_refused(config: object, small_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Expected a config, gn.TrainConfig"):
        gn.train(network(), small_data, config, out=tmp_path / "run")  # type: ignore[arg-type]


def test_the_natural_slips_are_answered_in_words(digits: Dataset, tmp_path: Path) -> None:
    for slip, message in (
        (lambda: gn.TrainConfig(epoch=3), "Unknown config field 'epoch'. Did you mean 'epochs'"),  # type: ignore[call-arg]
        (lambda: gn.TrainConfig(3), "fields are given by name"),  # type: ignore[misc]
        (lambda: gn.load_data(None), "Expected the name or the path of a data set; got None"),  # type: ignore[arg-type]
        (lambda: gn.build_model(None), "Unknown model 'None'"),  # type: ignore[arg-type]
        (lambda: gn.build_model("LeNet5x"), "Did you mean 'lenet5'"),
        (lambda: gn.build_model("LENET5"), "Did you mean 'lenet5'.$"),
        (lambda: gn.build_model("mlp", hidden=5), "options of model 'mlp' must be of the kinds its builder documents"),
        (lambda: gn.open_run(None), "Expected the path of a run folder; got None"),  # type: ignore[arg-type]
        (lambda: gn.summary("lenet5", (1, 32, 32)), "Expected a model .*got str"),  # type: ignore[arg-type]
        (lambda: gn.filters(digits), "Expected a model .*got Dataset"),  # type: ignore[arg-type]
        (lambda: gn.activation_statistics(gn.build_model("lenet5"), digits.test.inputs[:2]), "normalised floating"),
        (lambda: ExampleSet([1], [2], ("a",)), "must be torch tensors; got list and list"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=message):
            slip()


def test_numpys_integers_build_and_sizes_may_be_lists() -> None:
    model = gn.build_model("softmax", num_classes=np.int64(3), input_shape=[1, np.int32(8), 8])
    assert model.output.weight.shape == (3, 64)
