from __future__ import annotations

import pytest
import torch
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.runs import Run


def edges(channels: int = 1, bias: float = 0.0) -> nn.Module:
    """Channel 0 is brightness to the right less to the left; channel 1 the other way round."""
    conv = nn.Conv2d(channels, 2, (1, 2), bias=True)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, :, 0, 0], conv.weight[0, :, 0, 1] = -1, 1
        conv.weight[1] = -conv.weight[0]
        conv.bias.fill_(bias)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16 * 15, 3)).train()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_climbs_to_what_the_unit_asks_for(channels: int) -> None:
    found = gn.visualize(edges(channels), "0:0@8,6", steps=48, input_shape=(channels, 16, 16))
    image = found.images[0].mean(0)
    assert found.after[0] > found.before[0] + 0.3 * channels
    assert float(image[8, 7]) > float(image[8, 6]) + 0.1
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    assert not found.was_dead


def test_it_repeats_by_its_seed() -> None:
    model = edges()
    one, again, other = (gn.visualize(model, "0:1", steps=4, seed=seed, input_shape=(1, 16, 16)) for seed in (1, 1, 2))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)


def test_a_dead_start_is_woken() -> None:
    """The ReLU is off at grey, so its gradient is 0; only steps of 0.2 and more between pixels wake it."""
    found = gn.visualize(edges(bias=-0.2), "1:0@8,6", steps=80, input_shape=(1, 16, 16))
    assert found.was_dead
    assert found.before == (0.0,)
    assert found.after[0] > 0.1
    assert "started without a gradient" in str(found)


def test_a_layer_is_climbed_before_work_in_place_goes_over_it() -> None:
    model = edges(bias=-0.2)
    model[1] = nn.ReLU(inplace=True)
    assert gn.visualize(model, "0:0", steps=1, input_shape=(1, 16, 16)).before[0] < -0.1


def test_several_images_are_driven_apart() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 5), nn.Tanh(), nn.Conv2d(8, 4, 5))

    def alike(diversity: float) -> float:
        found = gn.visualize(model, "2:1", n=3, steps=60, diversity=diversity, input_shape=(1, 16, 16))
        with torch.no_grad():
            maps = model((found.images - 0.5) / 0.5).flatten(2)
        grams = nn.functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        return float((grams @ grams.T).triu(1).sum())

    assert alike(4.0) < alike(0.0)


def test_a_class_of_a_run_is_recognised_by_the_run(digits_run: Run) -> None:
    found = gn.visualize(digits_run, "class:3", steps=48)
    assert found.class_name == "3"
    pixels = (found.images * 255).round().to(torch.uint8)
    with torch.no_grad():
        logits = digits_run.model.eval()(digits_run.preprocessing.normalise(pixels))
    assert int(logits.argmax()) == 3
    assert found.after[0] == pytest.approx(float(logits.max()), rel=0.05)


def test_a_whole_layer_and_another_size() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    found = gn.visualize(model, "1", steps=32, size=(12, 20), input_shape=(3, 32, 32))
    assert tuple(found.images.shape) == (1, 3, 12, 20)
    assert found.after[0] > found.before[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"unit": "conv:1"}, "Unknown layer 'conv'"),
        ({"unit": "0:7"}, "a channel is 0 to 1; got 7"),
        ({"unit": "class:9"}, "tells 3 classes apart: a class is 0 to 2; got 9"),
        ({"unit": "class"}, "Expected class:number"),
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"size": 20}, "does not take inputs of 1x20x20"),
        ({"input_shape": (2, 16, 16)}, "grey or RGB images; got an input of 2x16x16"),
    ],
)
def test_what_was_off_is_said_and_the_model_left_as_it_was(arguments: dict[str, object], text: str) -> None:
    model = edges()
    with pytest.raises(UsageError) as caught:
        gn.visualize(model, **{"unit": "0:1", "steps": 2, "input_shape": (1, 16, 16), **arguments})  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
