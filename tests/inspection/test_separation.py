from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.inspection import layer_features as gathering
from glassnet.inspection.batches import stream
from glassnet.inspection.separation import area_under_curve
from glassnet.runs import Run


def seen() -> nn.Module:
    """A layer that gives the image back, so that everything can be worked out from the pixels."""
    return nn.Sequential(nn.Identity(), nn.Flatten()).train()


def images(count: int = 7) -> Tensor:
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(0))


NAMES = ("cup", "cup", "dog", "cup", "dog", "hat", "hat")


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_the_figures_are_those_of_a_loop_over_the_pairs(measure: str) -> None:
    pixels = images()
    row = gn.separation(seen(), pixels, NAMES, "0", measure).of("0")
    for part, rows in ((row.whole, pixels.flatten(1)), (row.pooled, pixels.flatten(2).mean(2))):
        assert part is not None
        values: dict[tuple[int, int], float] = {}
        for a, b in itertools.combinations(range(7), 2):
            x, y = rows[a].double().numpy(), rows[b].double().numpy()
            cosine = float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
            values[a, b] = cosine if measure == "cosine" else float(np.linalg.norm(x - y))
        same = {pair: value for pair, value in values.items() if NAMES[pair[0]] == NAMES[pair[1]]}
        different = {pair: value for pair, value in values.items() if pair not in same}
        sign = 1 if measure == "cosine" else -1
        assert part.same == pytest.approx(np.mean(list(same.values())), rel=1e-6)
        assert part.different == pytest.approx(np.mean(list(different.values())), rel=1e-6)
        wins = [sign * a > sign * b for a in same.values() for b in different.values()]
        assert part.auc == pytest.approx(np.mean(wins))
        assert part.furthest_same == min(same, key=lambda pair: sign * same[pair])
        assert part.closest_different == max(different, key=lambda pair: sign * different[pair])
        assert part.furthest_value == pytest.approx(same[part.furthest_same], rel=1e-6)
        assert part.closest_value == pytest.approx(different[part.closest_different], rel=1e-6)


def test_the_probability_is_the_area_under_the_curve_with_ties() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 6, (40,), generator=generator).double()
    is_positive = torch.arange(40) % 3 == 0
    expected = roc_auc_score(is_positive.numpy(), scores.numpy())
    assert area_under_curve(scores[is_positive], scores[~is_positive]) == pytest.approx(expected)
    assert area_under_curve(torch.ones(3), torch.ones(4)) == 0.5
    assert area_under_curve(torch.tensor([2.0]), torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(0.5)


def test_averaging_over_positions_undoes_a_shift_that_the_whole_map_does_not_bear() -> None:
    """Two textures of one pixel a channel, each at four places: the whole maps share nothing."""
    pixels = torch.zeros(8, 2, 4, 4)
    for place in range(4):
        pixels[place, 0, place, place] = 1
        pixels[4 + place, 1, place, place] = 1
    found = gn.separation(seen(), pixels, ["a"] * 4 + ["b"] * 4, "0")
    row = found.of("0")
    assert row.pooled is not None
    assert (row.whole.same, row.whole.different, row.whole.auc) == (0.0, 0.0, 0.5)
    assert (row.pooled.same, row.pooled.different, row.pooled.auc) == pytest.approx((1.0, 0.0, 1.0))
    assert "in 50% of 12 x 16 comparisons" in str(found)
    assert "averaged over positions, 0 does so in 100%" in str(found)


def test_a_layer_that_says_the_same_of_all_tells_nothing_apart() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3))
    with torch.no_grad():
        model[0].weight.zero_()
    for measure in ("cosine", "euclidean"):
        assert gn.separation(model, images(), NAMES, measure=measure).rows[0].whole.auc == 0.5


def test_layers_stand_in_the_order_they_run_and_only_those_with_rows() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 2)
            self.total = Total()
            self.first = nn.Conv2d(2, 3, 3)
            self.unused = nn.Linear(1, 1)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.first(x))
            return self.last(x.mean((2, 3)) + self.total(x))

    class Total(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum()

    model = Crossed()
    found = gn.separation(model, images(), NAMES)
    assert [row.layer for row in found.rows] == ["first", "act", "last"]
    with torch.no_grad():
        whole = model.first(images()).flatten(1)  # not what the ReLU in place made of it
    expected = nn.functional.cosine_similarity(whole[:1], whole[1:2])
    alone = gn.separation(model, images()[[0, 1, 2]], NAMES[:3], ["first"])
    assert alone.rows[0].whole.same == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(UsageError, match=r"layer 'total' to give a row of numbers for each of 7 images; got .*float32"):
        gn.separation(model, images(), NAMES, ["first", "total"])
    with pytest.raises(UsageError, match="'unused' ran on none of the images"):
        gn.separation(model, images(), NAMES, ["first", "unused"])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    one = gn.separation(seen(), images(), NAMES, batch_size=batch_size)
    assert one.to_dict() == gn.separation(seen(), images(), NAMES).to_dict()


def test_a_run_tells_its_classes_apart_better_behind_than_in_front(digits_run: Run, digits: Dataset) -> None:
    chosen = digits.test[:60]
    found = gn.separation(digits_run, chosen, chosen.labels.tolist())
    assert found.images.dtype == torch.uint8
    assert found.of("act5").whole.auc > found.of("c1").whole.auc > 0.5
    assert found.best.whole.auc == max(row.whole.auc for row in found.rows)
    assert found.num_same + found.num_different == 60 * 59 // 2
    assert f"{found.best.layer} tells 10 objects apart best" in str(found)
    assert repr(found) == f"Separation({len(found.rows)} layers, 10 objects, 60 images)"


def test_outputs_beyond_the_memory_are_refused_before_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST_BYTES", 7 * 32 * 4)
    assert len(gn.separation(seen(), images(), NAMES, "1").rows) == 1
    with pytest.raises(UsageError, match="those of 7 images up to layer '1' take .* Name fewer layers"):
        gn.separation(seen(), images(), NAMES)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gn.separation(seen(), images(), NAMES, "9"), "Unknown layer '9'"),
        (lambda: gn.separation(seen(), images(), NAMES, []), "one or more layers; got none"),
        (lambda: gn.separation(seen(), images(), NAMES, measure="cka"), "Choose one of: cosine, euclidean"),
        (lambda: gn.separation(seen(), images(), NAMES[:6]), "each of 7 images; got 6 names"),
        (lambda: gn.separation(seen(), images(), ["cup"] * 7), "two objects at least; got 7 of 1"),
        (lambda: gn.separation(seen(), images(), range(7)), "two images at least of one of the objects"),
        (lambda: gn.separation(seen(), images(), "cupdogs"), "got one text, 'cupdogs'"),
        (lambda: gn.separation(seen(), images(), [0, 0, 1] * 700), "at most 2,000 images to compare; got 2,100"),
        (lambda: gn.separation(seen(), images() / 0, NAMES), "not finite on these images"),
        (lambda: gn.separation(seen(), images(), NAMES).of("5"), "Unknown layer '5'"),
    ],
)
def test_what_was_off_is_said(call: object, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert text in str(caught.value)


def test_layers_whose_outputs_differ_in_shape_or_are_missing_for_some_images_are_named() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) if len(x) > 3 else self.a(x)

    with pytest.raises(UsageError, match="'b' ran on some images and not on others"):
        gn.separation(Moody(), images(), NAMES, batch_size=4)
    model = nn.Sequential(nn.Identity())
    parts = [(torch.zeros(2, 1, 4, 4), torch.zeros(2)), (torch.zeros(1, 1, 5, 4), torch.zeros(1))]
    with pytest.raises(UsageError, match="layer '0' to give 1x4x4 for every image; got 1x5x4 too"):
        gathering.layer_features(model, None, stream(parts, model, None).batches, None, 3)
    assert not model[0]._forward_hooks
