"""What nothing may leave behind: modes, random state, weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import UsageError
from glassnet._modes import evaluating
from glassnet._seed import seeded
from glassnet.data.examples import Dataset


class Careless(nn.Module):
    """Drops units in evaluation too, as `F.dropout` does where `training=` is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.output(F.dropout(images.flatten(1)))


def test_a_careless_model_trains_the_same_whatever_was_drawn_before(small_data: Dataset, tmp_path: Path) -> None:
    accuracies = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = Careless()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        run = gn.train(model, small_data, gn.TrainConfig(epochs=2, batch_size=16), out=tmp_path / "r", progress=False)
        gn.summary(model, (1, 8, 8))
        run.predict(small_data.test.inputs)
        assert torch.equal(torch.get_rng_state(), state)
        accuracies.append(run.evaluate(small_data.test))
    assert accuracies[0] == accuracies[1]


class LazyModel(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.parametrize(
    "look",
    [
        lambda model, data, out: gn.summary(model, (1, 8, 8)),
        lambda model, data, out: gn.train(model, data, gn.TrainConfig(batch_size=16), out=out, progress=False),
        lambda model, data, out: gn.activation_statistics(model, torch.zeros(2, 1, 8, 8)),
    ],
)
def test_a_lazy_model_is_refused_and_stays_lazy(look: Callable, small_data: Dataset, tmp_path: Path) -> None:
    model = LazyModel()
    with pytest.raises(UsageError, match="'1.weight' gets its shape in the first forward pass"):
        look(model, small_data, tmp_path / "run")
    assert isinstance(model[1], nn.LazyLinear)
    assert not (tmp_path / "run").exists()


def test_evaluating_does_not_call_an_overridden_train() -> None:
    class Noisy(nn.Linear):
        def train(self, mode: bool = True) -> nn.Module:
            raise AssertionError("train() has side effects here")

    model = nn.Sequential(Noisy(2, 2))
    with evaluating(model):
        assert not model[0].training
    assert model[0].training


def test_seeding_a_block_leaves_the_users_own_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(0, "anything"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(0, "anything"):
        assert torch.equal(torch.rand(3), inside)


def test_the_auxiliary_logits_of_a_training_pass_survive_a_look_at_the_network() -> None:
    model = gn.build_model("googlenet", num_classes=2, input_shape=(1, 79, 79))
    images = torch.rand(2, 1, 79, 79)
    model(images)
    before = model.auxiliary_logits
    gn.summary(model, (1, 79, 79))
    gn.activation_statistics(model, images)
    assert len(before) == 2
    assert all(kept is given for kept, given in zip(model.auxiliary_logits, before, strict=True))
