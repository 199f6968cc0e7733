"""Pictures of what inspection finds: that they show it, at sizes to look at."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.views import attribution_sheets, paper
from glassnet.views.attribution_sheets import line_chart
from glassnet.views.object_sheets import ROLE_COLOURS
from glassnet.views.paper import ACCENT, QUIET, enlarged, heat, image_of, plain, shortened, text
from glassnet.views.pictures import POSITIVE, diverging


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()}


def model(dead: bool = True) -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 6, 3, padding=1)
    with torch.no_grad():
        conv.weight[2].zero_()
        conv.bias[2] = -1 if dead else 1
    return nn.Sequential(OrderedDict(conv=conv, act=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(384, 3)))


def inputs(count: int = 12) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_map_sheet_has_a_tile_for_each_channel_and_hatches_the_dead() -> None:
    found = gn.feature_maps(model(), inputs(), "act")
    sheet = gn.picture(found)
    assert ACCENT in colours(sheet)
    assert QUIET in colours(sheet)
    few = gn.picture(found, most=2)
    assert few.width < sheet.width or few.height < sheet.height
    assert QUIET not in colours(few)


@pytest.mark.parametrize("image", [0, 7])
def test_each_kept_image_has_a_sheet_of_its_own(image: int) -> None:
    found = gn.feature_maps(model(), inputs(), "conv", keep=8)
    assert gn.picture(found, image=image).width > 300


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (nn.Conv1d(2, 3, 3), (4, 2, 20)),
        (nn.Conv3d(1, 3, 3), (2, 1, 6, 6, 6)),
        (nn.Linear(5, 90), (2, 5)),
    ],
    ids=["signals", "volumes", "vectors"],
)
def test_maps_of_every_rank_are_drawn(layers: nn.Module, shape: tuple[int, ...]) -> None:
    found = gn.feature_maps(nn.Sequential(layers), torch.randn(shape), "0")
    assert gn.picture(found, most=20).height > 150


def test_filters_are_drawn_in_colour_where_they_read_colour() -> None:
    rgb = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False))
    with torch.no_grad():
        rgb[0].weight.zero_()
        rgb[0].weight[0, 0] = 1  # red alone: the others lie at grey
    assert {(255, 128, 128), (128, 128, 128)} <= colours(gn.picture(gn.filters(rgb)))


def test_filters_of_other_layers_are_drawn_on_one_scale() -> None:
    layer = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([2.0, -0.4]).reshape(1, 2, 1, 1))
    shown = colours(gn.picture(gn.filters(layer)))
    assert {diverging(1.0), diverging(-0.2)} <= shown


def test_filters_with_a_start_show_how_far_they_moved() -> None:
    now, then = model(), model(dead=False)
    without, with_start = gn.picture(gn.filters(now)), gn.picture(gn.filters(now, initial=then))
    assert with_start.height > without.height


def test_a_field_is_drawn_with_its_padding_and_what_counts() -> None:
    field = gn.receptive_field(model(), (1, 8, 8), "conv", effective=True)
    inside, border = gn.picture(field), gn.picture(field, unit=(0, 0), image=inputs(1)[0].numpy())
    assert ACCENT in colours(inside)
    assert inside.width > 600
    assert ACCENT in colours(border)


def test_a_field_inside_the_image_has_no_key_for_padding() -> None:
    field = gn.receptive_field(model(), (1, 8, 8), "conv")
    assert QUIET in colours(gn.picture(field, unit=(0, 0)))
    assert QUIET not in colours(gn.picture(field, unit=(4, 4)))


@pytest.mark.parametrize("transform", ["translate", "rotate", "scale", "flip"])
def test_why_a_layer_is_not_equivariant_is_never_cut_off(transform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(paper, "shortened", lambda line, *rest: said.append((line, shortened(line, *rest))) or line)
    gn.picture(gn.equivariance(model(), inputs(2), transform))
    assert said
    assert all(short == line for line, short in said)


def test_curves_of_a_class_among_many_reach_up_to_their_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    monkeypatch.setattr(
        attribution_sheets,
        "line_chart",
        lambda lines, across, up, size: ends.append(up) or line_chart([], (0, 1), up, size),
    )
    torch.manual_seed(0)
    many = nn.Sequential(nn.Flatten(), nn.Linear(64, 500))
    for net in (model(), many):
        gn.picture(gn.attribute(net, inputs(1)[0], 1, "saliency"))
    assert ends[:2] == [(0.0, 1.0)] * 2
    assert 0 < ends[2][1] < 0.1


def test_a_field_of_signals_is_drawn() -> None:
    field = gn.receptive_field(nn.Sequential(nn.Conv1d(1, 2, 5, padding=2)), (1, 30), "0")
    assert ACCENT in colours(gn.picture(field, unit=(0,)))
    assert QUIET in colours(gn.picture(field, unit=(0,)))
    assert QUIET not in colours(gn.picture(field, unit=(15,)))


def test_top_images_and_an_ablation_are_drawn() -> None:
    top = gn.top_images(model(), inputs(), "conv:1", n=5)
    assert ACCENT in colours(gn.picture(top))
    ablation = gn.ablate(model(), [(inputs(), torch.arange(12) % 3)], "act")
    tall = gn.picture(ablation)
    assert gn.picture(ablation, most=2).height < tall.height


def test_objects_told_apart_and_put_together_are_drawn() -> None:
    separated = gn.separation(model(), inputs(), [place % 3 for place in range(12)])
    whole = gn.picture(separated)
    assert {ACCENT, POSITIVE} <= colours(whole)
    assert gn.picture(gn.separation(model(), inputs(), [place % 3 for place in range(12)], "fc")).height < whole.height
    composed = gn.picture(gn.composition(model(), *inputs(3)))
    assert set(ROLE_COLOURS.values()) <= colours(composed)


def test_a_dashed_curve_has_gaps() -> None:
    line = ((0.0, 1.0), (0.5, 0.5), ACCENT)
    whole, dashed = (
        line_chart(*lines) for lines in (([line], (0, 1), (0, 1), (200, 90)), ([], (0, 1), (0, 1), (200, 90), [line]))
    )
    inks = [(np.asarray(chart)[49] == ACCENT).all(1).sum() for chart in (whole, dashed)]
    assert 0.3 < inks[1] / inks[0] < 0.7


def test_what_is_no_result_of_inspection_is_refused() -> None:
    with pytest.raises(UsageError, match=r"that can be drawn \(FeatureMaps, Filters, .*; got dict"):
        gn.picture({})


def test_a_heat_map_has_zero_at_the_middle_of_its_scale() -> None:
    pixels = np.asarray(heat(np.array([[-2.0, 0.0, 2.0, np.nan]]), 2.0, is_signed=True))
    assert [tuple(pixel) for pixel in pixels[0].tolist()] == [diverging(-1), diverging(0), diverging(1), QUIET]
    unsigned = np.asarray(heat(np.array([[0.0, 1.0, 4.0]]), 4.0, is_signed=False)).sum(2)[0]
    assert unsigned[0] > unsigned[1] > unsigned[2]


def test_pixels_stay_as_they_are_and_numbers_span_black_to_white() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    assert np.array_equal(np.asarray(image_of(pixels)), pixels.transpose(1, 2, 0))
    grey = np.asarray(image_of(np.array([[[-1.0, 0.0, 1.0]]])))
    assert grey[0, :, 0].tolist() == [0, 128, 255]
    assert image_of(np.zeros((2, 7))).size == (7, 1)
    assert image_of(np.zeros((1, 5, 4, 3))).size == (3, 4)


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_shrunk() -> None:
    assert enlarged(Image.new("RGB", (7, 5)), 100).size == (98, 70)
    assert enlarged(Image.new("RGB", (400, 200)), 100).size == (100, 50)


def test_text_is_broken_shortened_and_kept_to_signs_the_typeface_has() -> None:
    assert text("one two three four", width=60).height > text("one").height
    assert shortened("a very long name of a class", 14, 60).endswith("…")
    assert plain("−1 %") == "-1 %"
