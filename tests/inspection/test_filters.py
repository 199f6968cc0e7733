from __future__ import annotations

import pytest
import torch
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.nn import TableConv2d


def test_lengths_change_and_turn_are_those_of_the_filters_as_vectors() -> None:
    model, initial = gn.build_model("lenet5", seed=1), gn.build_model("lenet5", seed=0)
    found = gn.filters(model, "c3", initial=initial)
    now, then = model.c3.weight.detach().flatten(1), initial.c3.weight.detach().flatten(1)
    torch.testing.assert_close(found.norms, now.norm(dim=1))
    assert found.change is not None
    assert found.turn is not None
    torch.testing.assert_close(found.change, (now - then).norm(dim=1) / then.norm(dim=1))
    torch.testing.assert_close(found.turn, (now * then).sum(1) / now.norm(dim=1) / then.norm(dim=1))
    same = gn.filters(model, "c3", initial=model.state_dict())
    assert same.change is not None
    assert float(same.change.abs().max()) == 0
    assert "since the start" in str(found)


def test_without_a_start_nothing_is_said_of_change() -> None:
    found = gn.filters(gn.build_model("lenet5"))
    assert found.change is None
    assert found.turn is None
    assert "since" not in str(found)
    assert found.to_dict()["change"] is None


def test_the_histogram_counts_every_weight_around_zero() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([-1.0, -0.99, 0.01, 0.02, 0.03, 0.5, 0.5, 1.0]).reshape(2, 1, 2, 2))
    histogram = gn.filters(model).histogram
    assert sum(histogram.counts) == 8
    assert (histogram.counts[0], histogram.counts[20], histogram.counts[-1]) == (2, 3, 1)
    assert (histogram.edges[0], histogram.edges[-1]) == (-1, 1)
    assert len(histogram.edges) == len(histogram.counts) + 1


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 3, 5), (3, 2, 5)),
        (nn.Conv3d(2, 3, 2), (3, 2, 2, 2, 2)),
        (nn.Conv2d(4, 6, 3, groups=2), (6, 2, 3, 3)),
        (nn.ConvTranspose2d(4, 6, 3), (6, 4, 3, 3)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (6, 2, 3, 3)),
        (TableConv2d(2, ((0,), (0, 1)), 3), (2, 2, 3, 3)),
    ],
    ids=repr,
)
def test_any_convolution_has_its_filters_by_output_channel(layer: nn.Module, shape: tuple[int, ...]) -> None:
    found = gn.filters(nn.Sequential(layer), "0", initial=nn.Sequential(layer).state_dict())
    assert tuple(found.weights.shape) == shape
    assert found.change is not None
    assert float(found.change.abs().max()) == 0


def test_a_transposed_filter_is_what_one_output_channel_is_made_with() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False)
    kernels = gn.filters(nn.Sequential(layer), "0").weights
    for out in range(6):
        point = torch.zeros(1, 4, 1, 1)
        point[0, 2 * (out // 3) + 1] = 1  # the second input channel of the group
        with torch.no_grad():
            assert torch.equal(layer(point)[0, out], kernels[out, 1])


def test_a_parametrised_convolution_shows_the_weights_it_computes_with() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    assert torch.equal(gn.filters(nn.Sequential(layer)).weights, layer.weight.detach())


def test_a_wrong_start_and_a_missing_image_convolution_are_explained() -> None:
    model = gn.build_model("lenet5")
    with pytest.raises(UsageError, match=r"a convolution 'c1' of \(6, 1, 5, 5\); got \(6, 3, 5, 5\)"):
        gn.filters(model, "c1", initial=gn.build_model("lenet5", input_shape=(3, 32, 32)))
    with pytest.raises(UsageError, match="got none. Give the model as it was before training"):
        gn.filters(model, "c1", initial={})
    with pytest.raises(UsageError, match="has no 2-D one. Name one of its others: 0"):
        gn.filters(nn.Sequential(nn.Conv1d(1, 1, 1)))
