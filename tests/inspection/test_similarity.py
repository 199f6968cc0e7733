from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.inspection.likeness import bounds, compared
from glassnet.runs import Run


def seen() -> nn.Module:
    """A layer that gives the image back, so that everything can be worked out from the pixels."""
    return nn.Sequential(nn.Identity(), nn.Flatten(), nn.Identity()).train()


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def test_cosine_and_distance_are_those_of_the_outputs() -> None:
    pixels = images()
    flat = pixels.flatten(1).double()
    cosine = gn.similarity(seen(), pixels, "0").matrix
    distance = gn.similarity(seen(), pixels, "0", "euclidean").matrix
    for a in range(6):
        for b in range(6):
            expected = float(flat[a] @ flat[b] / flat[a].norm() / flat[b].norm())
            assert float(cosine[a, b]) == pytest.approx(expected)
            assert float(distance[a, b]) == pytest.approx(float((flat[a] - flat[b]).norm()), abs=1e-12)


def test_cka_is_the_published_formula_and_ignores_rotations_of_the_channels() -> None:
    pixels = images(2)
    found = gn.similarity(seen(), pixels, "0", "cka").matrix
    x, y = (image.flatten(1).T.double() for image in pixels)
    x, y = x - x.mean(0), y - y.mean(0)
    expected = (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert float(found[0, 1]) == pytest.approx(float(expected))
    assert float(found[0, 0]) == pytest.approx(1.0)
    turn = torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    turned = torch.einsum("dc,nchw->ndhw", turn, pixels[:1])
    assert float(gn.similarity(seen(), torch.cat([pixels[:1], turned]), "0", "cka").matrix[0, 1]) == pytest.approx(1.0)


def test_the_closest_and_the_furthest_pair_are_named() -> None:
    pixels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.99, 0.1], [-1.0, 0.0]])[:, :, None, None]
    for measure in ("cosine", "euclidean"):
        found = gn.similarity(seen(), pixels, "0", measure)
        assert found.closest == (0, 2)
        assert found.furthest == (0, 3)
    assert "images 1 and 3 of 4 are most alike" in str(found)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("measure", ["cosine", "euclidean", "cka"])
def test_the_nearest_are_those_of_the_whole_matrix_whatever_the_batches(batch_size: int, measure: str) -> None:
    pixels = images(30)
    found = gn.nearest(seen(), pixels[0], pixels[1:], "0", 4, measure, batch_size=batch_size)
    row = gn.similarity(seen(), pixels, "0", measure).matrix[0, 1:]
    order = row.argsort(descending=measure != "euclidean")[:4]
    assert [entry.position for entry in found] == order.tolist()
    assert [entry.value for entry in found] == pytest.approx(row[order].tolist())
    assert torch.equal(found[0].image, pixels[1 + found[0].position])


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_the_nearest_are_exact_where_float32_cannot_tell_them_apart(measure: str) -> None:
    """Far from zero all outputs point the same way: in float32 the products say nothing of which is nearest."""
    pixels = 1000 + images(40) * 0.01
    flat = pixels.flatten(1).double()
    expected = (flat[1:] - flat[:1]).norm(dim=1)
    if measure == "cosine":
        expected = nn.functional.cosine_similarity(flat[1:], flat[:1])
    order = expected.argsort(descending=measure == "cosine", stable=True)[:5]
    found = gn.nearest(seen(), pixels[0], pixels[1:], "0", 5, measure, batch_size=9)
    assert [entry.position for entry in found] == order.tolist()
    assert [entry.value for entry in found] == pytest.approx(expected[order].tolist(), rel=1e-12)


@pytest.mark.parametrize("measure", ["cosine", "euclidean", "cka"])
def test_of_equals_the_first_is_nearest(measure: str) -> None:
    pixels = images(3)[[1, 2, 2, 0, 2, 0, 0]]
    found = gn.nearest(seen(), images(1), pixels, "0", 4, measure, batch_size=2)
    assert [entry.position for entry in found][:3] == [3, 5, 6]
    alike = gn.similarity(seen(), pixels, "0", measure).matrix
    assert float(alike[3, 5]) == pytest.approx(0.0 if measure == "euclidean" else 1.0, abs=1e-15)


def test_what_is_no_number_is_nearest_to_nothing() -> None:
    pixels = images(5)
    pixels[1] = math.nan
    for measure in ("cosine", "euclidean"):
        found = gn.nearest(seen(), images(1), pixels[1:], "0", 4, measure)
        assert found[-1].position == 0
        assert math.isnan(found[-1].value)


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_the_bounds_hold_the_exact_figures(measure: str) -> None:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(50, 3000, generator=generator) + torch.randn(50, 1, generator=generator) * 5
    low, high = bounds(rows[:1], rows, measure)
    exact = compared(rows[:1], rows, measure, "0")
    exact = -exact.square() if measure == "euclidean" else exact
    assert ((low <= exact) & (exact <= high)).all()
    assert (high - low).max() < 1e-3 * (1 if measure == "cosine" else rows.square().sum(1).max())


def test_a_layer_is_read_before_work_in_place_goes_over_it() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    pixels = images()
    before = gn.similarity(seen(), pixels, "0").matrix
    assert torch.equal(gn.similarity(model, pixels.clone(), "0", batch_size=2).matrix, before)
    found = gn.nearest(model, pixels[0], pixels[1:].clone(), "0", 5, batch_size=2)
    assert [entry.value for entry in found] == pytest.approx(sorted(before[0, 1:].tolist(), reverse=True))


def test_a_run_finds_its_own_class(digits_run: Run, digits: Dataset) -> None:
    found = gn.nearest(digits_run, digits.test.inputs[0], digits.train, "act5")
    assert found[0].image.dtype == torch.uint8
    assert [entry.label for entry in found] == [int(digits.test.labels[0])] * 5
    assert f"5 of the 5 nearest are '{int(digits.test.labels[0])}'" in str(found)


def test_pca_finds_the_plane_that_the_points_lie_in() -> None:
    generator = torch.Generator().manual_seed(2)
    plane = torch.randn(40, 2, generator=generator) * torch.tensor([3.0, 1.0])
    points = (plane @ torch.linalg.qr(torch.randn(32, 2, generator=generator))[0].T).reshape(40, 2, 4, 4)
    found = gn.project(seen(), points, "0")
    assert sum(found.explained or ()) == pytest.approx(1.0)
    centred = (plane - plane.mean(0)).double()
    assert torch.allclose(torch.cdist(found.points, found.points), torch.cdist(centred, centred), atol=1e-4)


def test_tsne_repeats_by_its_seed_and_keeps_classes_together(digits_run: Run, digits: Dataset) -> None:
    first, again = (gn.project(digits_run, digits.test[:80], "act5", "tsne", seed=3) for _ in range(2))
    assert torch.equal(first.points, again.points)
    assert first.explained is None
    assert first.purity is not None
    assert first.purity > 0.7


def test_constant_outputs_are_laid_on_one_point() -> None:
    found = gn.project(seen(), torch.ones(5, 2, 4, 4), "0")
    assert not found.points.any()
    assert found.explained == (0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gn.similarity(seen(), images(), "9"), "Unknown layer '9'"),
        (lambda: gn.similarity(seen(), images(), "0", "cosin"), "Did you mean 'cosine'?"),
        (lambda: gn.similarity(seen(), images(1), "0"), "at least 2 images; got 1"),
        (lambda: gn.similarity(seen(), images(), "1", "cka"), "layer '1' gives 32. Choose a convolution"),
        (lambda: gn.nearest(seen(), images(2), images(), "0"), "one image with the examples; got 2"),
        (lambda: gn.nearest(seen(), images(1), images(), "0", 0), "n must be a whole number of at least 1; got 0"),
        (lambda: gn.nearest(seen(), images(1), images(0), "0"), "got none"),
        (lambda: gn.project(seen(), images(), "0", "umap"), "Unknown projection 'umap'"),
        (lambda: gn.project(seen(), images(2), "0"), "at least 3 examples; got 2"),
        (lambda: gn.project(seen(), images(), "0", perplexity=3), "perplexity is t-SNE's"),
        (lambda: gn.project(seen(), images(), "0", "tsne", perplexity=6), "number of examples, 6; got 6"),
    ],
)
def test_what_was_off_is_said(call: object, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert text in str(caught.value)


def test_the_model_is_left_as_it_was() -> None:
    model = seen()
    gn.similarity(model, images(), "2")
    with pytest.raises(UsageError):
        gn.nearest(model, images(1), [torch.zeros(2, 2, 4, 4), 3], "0")
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
