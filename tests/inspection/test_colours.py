from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import ExampleSet
from glassnet.data.preprocessing import Preprocessing
from glassnet.inspection.colours import IMAGENET, colours_of, square_root
from glassnet.runs import Run

MODEL = nn.Sequential(nn.Conv2d(3, 4, 3))


def pixels(count: int = 10) -> Tensor:
    """Red and green go together, blue goes its own way, of half the spread."""
    generator = torch.Generator().manual_seed(0)
    warm, cold = (torch.rand(count, 1, 8, 8, generator=generator) for _ in range(2))
    return torch.cat([warm, warm, cold / 2], 1)


def test_the_square_root_of_a_covariance_gives_it_back() -> None:
    root = torch.tensor(IMAGENET, dtype=torch.float64)
    found = square_root(root @ root.T)
    assert torch.allclose(found @ found.T, root @ root.T, atol=1e-12)
    lengths = found.norm(dim=0)
    assert lengths[0] > lengths[1] > lengths[2]
    assert torch.allclose(found[:, 0], root[:, 0], atol=0.01)  # brightness, as published to two digits


def test_the_axes_are_those_of_the_covariance_of_all_pixels() -> None:
    shown = pixels()
    found = colours_of(MODEL, MODEL, None, shown * 2 - 1)
    covariance = np.cov(shown.transpose(0, 1).flatten(1).double().numpy(), bias=True)
    product = (found.axes @ found.axes.T).double().numpy()
    assert product / product.max() == pytest.approx(covariance / covariance.max(), abs=1e-5)
    assert float(found.axes.norm(dim=0)[0]) == pytest.approx(1.0)
    assert found.axes[:, 0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0], abs=0.05)
    assert found.source == "10 images given"


def test_pixels_count_as_they_are_whatever_the_normalisation() -> None:
    shown = (pixels() * 255).round().to(torch.uint8)
    axes = []
    for mean, std in (((0.5,) * 3, (0.5,) * 3), ((0.1, 0.4, 0.7), (0.9, 0.3, 0.2))):
        record = Preprocessing(class_names=("a",), mode="RGB", size=(8, 8), mean=mean, std=std)
        axes.append(colours_of(MODEL, MODEL, record, ExampleSet(shown, torch.zeros(10).long(), ("a",))).axes)
    assert torch.allclose(axes[0], axes[1], atol=1e-5)


def test_of_many_images_some_are_taken_evenly() -> None:
    shown = torch.zeros(1000, 3, 2, 2)
    shown[::4] = torch.rand(250, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    few, all_of_them = (colours_of(MODEL, MODEL, None, part) for part in (shown[::4], shown))
    assert all_of_them.source == "250 images given"
    assert torch.equal(few.axes, all_of_them.axes)


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("colours")
    shown = torch.randint(0, 256, (36, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parts = {"train": slice(0, 30), "test": slice(30, None)}
    inputs = {f"x_{name}": shown[part].numpy() for name, part in parts.items()}
    labels = {f"y_{name}": (torch.arange(36) % 3)[part].numpy() for name, part in parts.items()}
    np.savez(folder / "data.npz", **inputs, **labels)
    data = gn.load_data(folder / "data.npz")
    config = gn.TrainConfig(epochs=1, batch_size=16, seed=0, precision="fp32")
    return gn.train(
        gn.build_model("cnn2d", num_classes=3, input_shape=(3, 32, 32)),
        data,
        config,
        out=folder / "run",
        progress=False,
    )


def test_a_run_lends_the_colours_of_its_own_data_while_they_are_here(colour_run: Run) -> None:
    own = gn.visualize(colour_run, "conv1:0", steps=2)
    again = gn.visualize(colour_run, "conv1:0", steps=2)
    assert own.colours == f"{len(colour_run.load_data().train)} images of the run's data"
    assert "in colours that vary as those of 27 images of the run's data" in str(own)
    assert torch.equal(own.images, again.images)
    general = gn.visualize(colour_run, "conv1:0", steps=2, colours="imagenet")
    assert general.to_dict()["colours"] == "ImageNet"
    assert not torch.equal(own.images, general.images)
    source = Path(colour_run.record["data"]["source"])
    source.rename(source.with_suffix(".away"))
    try:
        assert gn.visualize(colour_run, "conv1:0", steps=1).colours == "ImageNet"
    finally:
        source.with_suffix(".away").rename(source)


def test_grey_images_need_no_colours(digits_run: Run) -> None:
    found = gn.visualize(digits_run, "c1:0", steps=1)
    assert found.colours == ""
    assert "colours" not in str(found)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: colours_of(MODEL, MODEL, None, None, "imagnet"), "Did you mean 'imagenet'?"),
        (lambda: colours_of(MODEL, MODEL, None, pixels(), "imagenet"), "got both. Leave one out"),
        (lambda: colours_of(MODEL, MODEL, None, torch.ones(2, 3, 4, 4)), "2 were given that have one colour alone"),
        (lambda: colours_of(MODEL, MODEL, None, torch.ones(2, 1, 4, 4)), "Expected RGB images"),
    ],
)
def test_what_was_off_is_said(call: object, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert text in str(caught.value)
