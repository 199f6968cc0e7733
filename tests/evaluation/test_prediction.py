from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from glassnet import UsageError
from glassnet.data.preprocessing import Preprocessing
from glassnet.evaluation.prediction import predict_images, predict_outputs, takes_channels_last

RECORD = Preprocessing(class_names=("dark", "light"), mode="L", size=(4, 4), mean=(0.5,), std=(0.5,))
COLOUR = Preprocessing(class_names=("a", "b"), mode="RGB", size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.5, 0.5, 0.5))
CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Logits (-mean, +mean) of the image: light images are 'light'."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = self.dropout(images).mean((1, 2, 3)) * self.scale
        return torch.stack((-mean, mean), dim=1)


def light(value: int, mode: str = "L", size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("L", size, value).convert(mode)


def test_files_of_every_kind_are_answered_in_order_and_a_broken_one_is_named(tmp_path: Path) -> None:
    light(250).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    light(3, "RGB", (50, 20)).save(tmp_path / "c.jpg")
    answers = predict_images(Brightness(), [tmp_path / n for n in ("a.png", "b.png", "c.jpg")], RECORD, device=CPU)
    assert [(Path(row.source).name, row.class_name) for row in answers] == [("a.png", "light"), ("c.jpg", "dark")]
    assert [(Path(item.source).name, item.reason) for item in answers.set_aside] == [
        ("b.png", "expected an image that Pillow can read, got another kind of file")
    ]


@pytest.mark.parametrize(
    "image",
    [
        light(250),
        light(250, "RGBA"),
        np.full((4, 4), 250, dtype=np.uint8),
        np.full((1, 4, 4), 250, dtype=np.uint8),
        torch.full((9, 9), 250, dtype=torch.uint8),
        torch.full((1, 1, 4, 4), 250, dtype=torch.uint8),
        [light(250)],
        [np.full((4, 4), 250, dtype=np.uint8)],
    ],
)
def test_an_image_in_any_form_gives_one_answer(image: object) -> None:
    answers = predict_images(Brightness(), image, RECORD, device=CPU)
    assert [row.class_name for row in answers] == ["light"]
    expected = torch.tensor([-1.0, 1.0]).mul((250 / 255 - 0.5) / 0.5 * 3).softmax(0)[1]
    assert answers[0].probability == pytest.approx(float(expected), abs=1e-6)


def test_probabilities_sum_to_one_and_come_best_first() -> None:
    (answer,) = predict_images(Brightness(), light(200), RECORD, device=CPU, top_k=9)
    names, probabilities = zip(*answer.top, strict=True)
    assert names == ("light", "dark")
    assert sum(probabilities) == pytest.approx(1)
    assert list(probabilities) == sorted(probabilities, reverse=True)


def test_the_batch_size_does_not_change_the_answers() -> None:
    pixels = torch.randint(0, 256, (37, 1, 4, 4), dtype=torch.uint8)
    whole, parts = (predict_outputs(Brightness(), pixels, RECORD, batch_size=size) for size in (64, 5))
    assert torch.allclose(whole, parts, atol=1e-6)
    assert whole.shape == (37, 2)
    assert predict_outputs(Brightness(), pixels[:0], RECORD).shape == (0, 2)


def test_predicting_leaves_every_module_in_its_mode_also_after_an_error() -> None:
    model = nn.Sequential(Brightness(), nn.Identity())
    model.train()
    model[1].eval()
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    predict_outputs(model, pixels, RECORD)
    assert [module.training for module in model.modules()] == [True, True, True, False]
    with pytest.raises(TypeError):
        predict_outputs(nn.Sequential(model, nn.Bilinear(2, 2, 2)), pixels, RECORD)
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert torch.is_grad_enabled()


def test_other_things_are_refused() -> None:
    with pytest.raises(UsageError, match="Expected an image file, a Pillow image or a uint8 array; got int"):
        predict_images(Brightness(), [3], RECORD, device=CPU)  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"got torch.float32"):
        predict_images(Brightness(), torch.zeros(1, 4, 4), RECORD, device=CPU)
    with pytest.raises(UsageError, match=r"An input is \(H, W\) or \(C, H, W\) as uint8; got shape \(4,\)"):
        predict_images(Brightness(), torch.zeros(4, dtype=torch.uint8), RECORD, device=CPU)
    with pytest.raises(UsageError, match="top_k must be a whole number of at least 1; got 0"):
        predict_images(Brightness(), light(1), RECORD, device=CPU, top_k=0)


class Flattening(nn.Module):
    """Flattens with `view`, which takes one layout of memory alone, and notes the layouts it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.layouts: list[bool] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.layouts.append(images.is_contiguous())
        return self.conv(images).view(len(images), -1)


def test_a_network_whose_code_takes_one_layout_alone_is_given_that() -> None:
    model, record = Flattening(), COLOUR
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    outputs = predict_outputs(model, images, record, batch_size=2)
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(record.normalise(images)))
    assert model.layouts[:4] == [False, True, True, True]
    assert not takes_channels_last(model, record.normalise(images))


def test_images_are_laid_out_as_convolutions_are_fastest_with() -> None:
    seen: list[bool] = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    model[0].register_forward_pre_hook(lambda module, given: seen.append(given[0].is_contiguous()))
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    record = COLOUR
    outputs = predict_outputs(model, images, record)
    assert seen == [False]
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(record.normalise(images)))
    assert takes_channels_last(model, record.normalise(images))
