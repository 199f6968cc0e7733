from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.inspection.prefix import Suffix
from glassnet.nn import LocallyConnected2d
from glassnet.runs import Run


def data(count: int = 40) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 2, 8, 8, generator=generator)
    return list(DataLoader(TensorDataset(inputs, torch.arange(count) % 3), batch_size=16))


class Branching(nn.Module):
    """A shortcut around the layer, work in place, and a module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.late = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        side = x.mean((2, 3))
        y = self.conv(x)
        y += x
        x.mul_(0.5)
        y = F.relu_(self.norm(self.late(y) + x))
        if y.shape[2] > 4:
            y = F.max_pool2d(y, 2)
        return self.fc(self.relu(y).mean((2, 3)) + side)


@pytest.fixture
def model() -> Branching:
    torch.manual_seed(3)
    return Branching().eval()


@pytest.mark.parametrize("layer", ["conv", "late", "stem"])
def test_silencing_a_convolutions_channel_is_removing_its_filter(model: Branching, layer: str) -> None:
    found = gn.ablate(model, data(), layer)
    assert found.is_prefix_reused
    inputs, labels = (torch.cat(parts) for parts in zip(*data(), strict=True))
    with torch.no_grad():
        whole = model(inputs).argmax(1)
        assert found.accuracy == pytest.approx(float((whole == labels).float().mean()))
        for row in found.rows:
            without = copy.deepcopy(model)
            getattr(without, layer).weight[row.channel] = 0
            getattr(without, layer).bias[row.channel] = 0
            answers = without(inputs).argmax(1)
            assert row.accuracy == pytest.approx(float((answers == labels).float().mean()))
            assert row.num_changed == int((answers != whole).sum())
            assert row.drop == pytest.approx(found.accuracy - row.accuracy)
    assert found.num_examples == 40
    assert len(found.rows) == found.num_channels == 4


def test_a_reused_prefix_gives_the_numbers_of_whole_passes(model: Branching, monkeypatch: pytest.MonkeyPatch) -> None:
    reused = gn.ablate(model, data(), "late", value="mean")
    monkeypatch.setattr(Suffix, "_check", lambda self, answer: setattr(self, "is_replayed", False))
    whole = gn.ablate(model, data(), "late", value="mean")
    assert (reused.is_prefix_reused, whole.is_prefix_reused) == (True, False)
    assert reused.rows == whole.rows
    assert reused.whole_layer == whole.whole_layer


def test_the_prefix_is_not_computed_again(model: Branching) -> None:
    with torch.no_grad():
        suffix = Suffix(model, model.late)
        suffix.start(data()[0][0])
        again = operations(lambda: suffix.run(lambda output: output.clone()))
        whole = operations(lambda: model(data()[0][0]))
    assert (whole.count("convolution"), again.count("convolution")) == (3, 0)
    assert (whole.count("addmm"), again.count("addmm")) == (1, 1)
    assert suffix.is_replayed


def operations(run: Callable[[], Tensor]) -> list[str]:
    """Return the primitive operations that truly run."""
    names: list[str] = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Names():
        run()
    return names


def test_a_model_that_looks_at_its_numbers_is_computed_whole() -> None:
    class Peeks(nn.Module):
        """Its second pass differs from its first: a repetition cannot be trusted."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
            self.count = 0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            y = self.conv(x).mean((2, 3))
            return self.fc(y) + (self.count == 2)

    found = gn.ablate(Peeks(), data(), "conv")
    assert not found.is_prefix_reused
    assert len(found.rows) == 4


def test_channels_may_be_chosen_and_the_layer_alone(model: Branching) -> None:
    assert [row.channel for row in gn.ablate(model, data(), "conv", [2, 0]).rows] == [2, 0]
    alone = gn.ablate(model, data(), "conv", [])
    assert alone.rows == ()
    assert alone.whole_layer.channel is None
    assert str(alone).startswith("Without conv ")


def test_a_mean_leaves_a_constant_channel_as_it_was() -> None:
    conv = nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[1] = 5
        conv.bias.fill_(3)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(128, 3))
    assert gn.ablate(model, data(), "0", value="mean").rows[0].num_changed == 0


def test_a_run_is_judged_as_it_judges_itself(digits_run: Run, digits: Dataset) -> None:
    found = gn.ablate(digits_run, digits.test, "act3")
    assert found.accuracy == digits_run.evaluate(digits.test).accuracy
    assert found.whole_layer.accuracy < 0.3
    worst = found.most_important(1)[0]
    assert worst.drop == max(row.drop for row in found.rows)
    assert worst.worst_class in digits.class_names
    assert "16 channels" in str(found)
    assert found.to_dict()["num_examples"] == len(digits.test)


def test_the_class_that_loses_most_is_named() -> None:
    """Channel k of the layer is the score of class k: without it that class is never named."""
    fc = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        fc.weight.copy_(torch.eye(3))
    model = nn.Sequential(OrderedDict(scores=fc, end=nn.Identity()))
    inputs = torch.eye(3).repeat(4, 1)
    found = gn.ablate(model, [(inputs, torch.arange(12) % 3)], "scores")
    assert found.accuracy == 1
    assert [(row.worst_class, row.worst_class_drop) for row in found.rows[1:]] == [("1", 1.0), ("2", 1.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "convv"}, "Unknown layer 'convv'. Did you mean 'conv'"),
        ({"channels": [4]}, "Layer 'conv' has the channels 0 to 3; got 4"),
        ({"value": "noise"}, "Unknown value of a silenced channel 'noise'. Choose one of: mean, zero"),
        ({"examples": [torch.zeros(2, 2, 8, 8)]}, "Accuracy needs a class number for each example; got none"),
        ({"examples": []}, "expected at least one example, got none"),
        ({"examples": [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))]}, "does not take inputs of 1x8x8"),
    ],
)
def test_a_users_mistake_is_explained(model: Branching, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gn.ablate(model, **{"examples": data(), "layer": "conv", **arguments})  # type: ignore[arg-type]


def test_the_three_forms_of_a_layer_stand_side_by_side() -> None:
    """By hand: LeNet-5's C1, 1x32x32 to 6x28x28 by 5x5."""
    found = gn.connectivity(nn.Conv2d(1, 6, 5), (1, 32, 32))
    units = 6 * 28 * 28
    assert [(form.num_parameters, form.num_multiplications, form.num_additions) for form in found.forms] == [
        ((1024 + 1) * units, 1024 * units, 1024 * units),
        ((25 + 1) * units, 25 * units, 25 * units),
        ((25 + 1) * 6, 25 * units, 25 * units),
    ]
    assert found.output_shape == (6, 28, 28)
    assert "fully connected" in str(found)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), (4, 9, 9)),
        (nn.Conv1d(2, 3, 5, padding="same"), (2, 12)),
        (nn.Conv3d(1, 2, 3), (1, 5, 6, 7)),
    ],
    ids=repr,
)
def test_a_layers_own_form_has_the_counts_of_the_summary(layer: nn.Module, shape: tuple[int, ...]) -> None:
    own = next(form for form in gn.connectivity(layer, shape).forms if form.name == "convolutional")
    row = gn.summary(layer, shape).rows[0]
    assert (own.num_parameters, own.num_multiplications, own.num_additions) == (
        row.num_parameters, row.num_multiplications, row.num_additions,
    )  # fmt: skip


def test_the_locally_connected_form_has_the_counts_of_the_layer() -> None:
    layer = LocallyConnected2d(2, 3, 6, 3)
    own = gn.connectivity(layer, (2, 6, 6)).forms[1]
    assert own.num_parameters == sum(parameter.numel() for parameter in layer.parameters())
    assert own.num_multiplications == gn.summary(layer, (2, 6, 6)).num_multiplications


def test_connectivity_is_for_layers_with_a_window() -> None:
    with pytest.raises(UsageError, match="Expected a convolution or a locally connected layer; got Linear"):
        gn.connectivity(nn.Linear(3, 4), (3,))
    with pytest.raises(UsageError, match="takes inputs of 1 channels and 2 further axes; got 2x8x8"):
        gn.connectivity(nn.Conv2d(1, 2, 3), (2, 8, 8))
