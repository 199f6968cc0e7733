from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.inspection.grids import image_grid, moved
from glassnet.runs import Run


def images(count: int = 4, size: int = 16) -> Tensor:
    return torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(0))


def seeded(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def test_a_convolution_of_stride_1_is_exactly_equivariant_to_shifts_inside_the_border() -> None:
    model = seeded(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 5, padding=2))
    found = gn.equivariance(model, images(), "translate", amounts=(1, 3, -2))
    assert found.layers == ("0", "1", "2")
    for row in found.rows:
        assert row.inside_error == pytest.approx(0.0, abs=1e-6)
        assert row.error > 0.05
        assert "only at the border" in row.reason
    assert "3 of 3 layers are exactly equivariant inside the border" in str(found)
    # By hand: fields of 7 pixels around the unit's own; a shift by 3 takes 3 more columns on the left.
    third = found.of("2")[1]
    assert third.inside_share == pytest.approx((16 - 6) * (16 - 6 - 3) / 16**2)


def test_a_shift_down_is_a_shift_to_the_right_of_the_image_on_its_side() -> None:
    model, turned = (seeded(nn.Conv2d(2, 4, (3, 5), stride=(2, 1), padding=(1, 2)), nn.ReLU()) for _ in range(2))
    turned[0] = nn.Conv2d(2, 4, (5, 3), stride=(1, 2), padding=(2, 1))
    with torch.no_grad():
        turned[0].weight.copy_(model[0].weight.transpose(2, 3))
        turned[0].bias.copy_(model[0].bias)
    down = gn.equivariance(model, images(), "translate-down", amounts=(1, 2, -4))
    right = gn.equivariance(turned, images().transpose(2, 3), "translate", amounts=(1, 2, -4))
    for one, other in zip(down.rows, right.rows, strict=True):
        assert one.error == pytest.approx(other.error, rel=1e-5)
        assert one.inside_share == other.inside_share
        assert one.reason == other.reason
    assert down.rows[0].reason == "the shift is no multiple of the stride 2"
    assert down.rows[1].inside_error == pytest.approx(0.0, abs=1e-6)


def test_a_convolution_of_stride_1_is_exactly_equivariant_to_shifts_down_inside_the_border() -> None:
    model = seeded(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, (5, 3), padding=(2, 1)))
    found = gn.equivariance(model, images(), "translate-down", amounts=(1, 3, -2))
    for row in found.rows:
        assert row.inside_error == pytest.approx(0.0, abs=1e-6)
        assert "only at the border" in row.reason
    # By hand: fields of 7 by 5 pixels around the unit's own; a shift by 3 takes 3 more rows at the top.
    assert found.of("2")[1].inside_share == pytest.approx((16 - 6 - 3) * (16 - 4) / 16**2)
    assert "shift down by 3 pixels" in str(found)


def test_inside_is_where_the_naive_comparison_of_both_is_zero() -> None:
    model = seeded(nn.Conv2d(2, 3, 3, padding=1))
    pixels = images(1)
    shifted = torch.cat([pixels[..., :1].expand(-1, -1, -1, 4), pixels[..., :-4]], 3)
    with torch.no_grad():
        difference = (model(shifted)[..., 4:] - model(pixels)[..., :-4]).abs().amax((0, 1))
    is_zero = difference < 1e-5
    assert is_zero[1:-1, 1:-1].all()
    assert not is_zero[:, 0].any()
    found = gn.equivariance(model, pixels, "translate", "0", (4,))
    assert found.rows[0].inside_share == pytest.approx(14 * (14 - 4) / 16**2)


def test_a_stride_is_equivariant_to_its_multiples_alone() -> None:
    model = seeded(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.MaxPool2d(2))
    found = gn.equivariance(model, images(size=32), "translate", amounts=(1, 2, 3, 4))
    first, pooled = found.of("0"), found.of("1")
    assert [row.inside_error == pytest.approx(0.0, abs=1e-6) for row in first] == [False, True, False, True]
    assert [row.inside_error == pytest.approx(0.0, abs=1e-6) for row in pooled] == [False, False, False, True]
    assert first[0].reason == "the shift is no multiple of the stride 2"
    assert pooled[1].reason == "the shift is no multiple of the stride 4"


def test_symmetric_kernels_are_equivariant_to_flips_and_right_angles_and_others_are_not() -> None:
    model = seeded(nn.Conv2d(2, 3, 3, padding=1, bias=False))
    assert gn.equivariance(model, images(), "flip").rows[0].reason == "the kernels prefer a direction or size"
    with torch.no_grad():
        weight = model[0].weight
        weight.copy_(torch.stack([weight.rot90(k, (2, 3)) for k in range(4)]).mean(0))
        weight.copy_((weight + weight.flip(3)) / 2)
    for transform, amounts in (("flip", None), ("rotate", (90, 180, -90))):
        for row in gn.equivariance(model, images(), transform, amounts=amounts).rows:
            assert row.inside_error == pytest.approx(0.0, abs=1e-6)
            assert row.inside_share == pytest.approx(14**2 / 16**2)


def test_the_mean_over_positions_of_a_symmetric_layer_is_invariant_to_flips() -> None:
    model = seeded(nn.Conv2d(2, 3, 1))
    found = gn.equivariance(model, images(), "flip")
    assert found.rows[0].pooled_change == pytest.approx(0.0, abs=1e-6)
    assert found.rows[0].error == pytest.approx(0.0, abs=1e-6)
    assert found.rows[0].reason == ""


def test_images_are_turned_as_torch_turns_them() -> None:
    pixels = images()
    grid = image_grid((16, 16))
    assert torch.equal(moved(pixels, grid, grid, "rotate", 90)[0], pixels.rot90(1, (2, 3)))
    assert torch.equal(moved(pixels, grid, grid, "flip", 1)[0], pixels.flip(3))
    assert torch.equal(moved(pixels, grid, grid, "translate-down", 2)[0][:, :, 2:], pixels[:, :, :-2])
    half, _ = moved(pixels, grid, grid, "translate", 0.5)
    assert torch.allclose(half[..., 1:], (pixels[..., 1:] + pixels[..., :-1]) / 2, atol=1e-6)
    large, _ = moved(pixels, grid, grid, "scale", 2)
    assert torch.allclose(large[..., 7:9, 7:9].mean((2, 3)), pixels[..., 7:9, 7:9].mean((2, 3)), atol=1e-6)


def test_an_in_place_relu_behind_a_layer_does_not_change_what_is_measured() -> None:
    plain = seeded(nn.Conv2d(2, 3, 3), nn.ReLU())
    in_place = seeded(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True))
    first, second = (gn.equivariance(model, images(), "rotate", amounts=(30,)).rows[0] for model in (plain, in_place))
    assert first == second


def test_the_batch_size_changes_nothing() -> None:
    model = seeded(nn.Conv2d(2, 3, 3))
    one, many = (gn.equivariance(model, images(5), "scale", batch_size=size) for size in (2, 5))
    assert [row.error for row in one.rows] == pytest.approx([row.error for row in many.rows])
    assert one.num_images == 5


def test_a_run_keeps_more_classes_under_a_small_shift_than_under_a_large_turn(digits_run: Run, digits: Dataset) -> None:
    shifted = gn.equivariance(digits_run, digits.test[:60], "translate", amounts=(1,))
    turned = gn.equivariance(digits_run, digits.test[:60], "rotate", amounts=(90,))
    assert shifted.agreement[0] > turned.agreement[0]
    assert shifted.of("c1")[0].inside_error == pytest.approx(0.0, abs=1e-6)
    assert "images keep their class" in str(shifted)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("shear",), "Unknown transform 'shear'"),
        (("translate", "1"), "Unknown layer '1'"),
        (("flip", None, (1,)), "A flip has no amount"),
        (("scale", None, (0,)), "factors above 0; got [0]"),
        (("translate", None, ()), "one or more numbers; got []"),
    ],
)
def test_what_was_off_is_said(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        gn.equivariance(seeded(nn.Conv2d(2, 3, 3)), images(), *arguments)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_a_layer_without_maps_is_refused() -> None:
    model = seeded(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 14 * 14, 2))
    with pytest.raises(UsageError, match="'2' gives 2. Choose a convolution or a pooling"):
        gn.equivariance(model, images(), "flip", "2")
    assert all(module.training and not module._forward_hooks for module in model.modules())
