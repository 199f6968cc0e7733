from __future__ import annotations

import pytest
import torch
from torch import nn

from glassnet import UsageError, build_model, list_models
from glassnet.models import spec_of


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("lenet5", {}, 61_706),
        ("lenet5", {"input_shape": (3, 32, 32)}, 61_706 + 2 * 25 * 6),
        ("lenet5", {"num_classes": 26}, 61_706 + 16 * 85),
        ("lenet5", {"input_shape": (1, 36, 36)}, 61_706 + 3 * 120 * 84),
        ("softmax", {}, 784 * 10 + 10),
        ("mlp", {}, 785 * 256 + 257 * 128 + 129 * 10),
        ("mlp", {"hidden": ()}, 784 * 10 + 10),
    ],
)
def test_the_parameters_are_as_many_as_the_layers_say(name: str, options: dict, count: int) -> None:
    assert num_parameters(build_model(name, **options)) == count


def test_a_model_depends_on_its_seed_and_not_on_the_global_one() -> None:
    torch.manual_seed(1)
    first = build_model("lenet5", seed=4)
    torch.manual_seed(2)
    second, other = build_model("lenet5", seed=4), build_model("lenet5", seed=5)
    assert torch.equal(first.c1.weight, second.c1.weight)
    assert not torch.equal(first.c1.weight, other.c1.weight)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(torch.rand(1), drawn)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet", {}, "Unknown model 'lenet'. Did you mean 'lenet5'"),
        ("xyzzy", {}, "Unknown model 'xyzzy'. Choose one of: "),
        ("lenet5", {"num_clases": 3}, "Unknown option of model 'lenet5' 'num_clases'. Did you mean 'num_classes'"),
        ("lenet5", {"num_classes": 0}, "num_classes must be a whole number of at least 1; got 0"),
        ("lenet5", {"num_classes": 2.0}, "num_classes must be a whole number of at least 1; got 2.0"),
        ("lenet5", {"input_shape": (1, 28, 28)}, "at least 32x32 pixels.*Got 28x28"),
        ("lenet5", {"input_shape": (32, 32)}, r"input_shape \(channels, height, width\); got \(32, 32\)"),
        ("lenet5", {"input_shape": (1, 0, 32)}, "positive whole numbers, channels first"),
        ("lenet5", {"activation": "rely"}, "Unknown activation 'rely'. Did you mean 'relu'"),
        ("lenet5", {"pooling": "median"}, "Unknown pooling 'median'"),
        ("mlp", {"hidden": (3, 0)}, r"positive layer widths.*got \(3, 0\)"),
        ("mlp", {"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
    ],
)
def test_a_wrong_word_is_answered_with_what_is_right(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(name, **options)


def test_a_model_changed_after_building_no_longer_counts_as_built_by_name() -> None:
    model = build_model("lenet5")
    assert spec_of(model).name == "lenet5"
    model.act1 = nn.Tanh()
    assert spec_of(model) is None
    wider = build_model("lenet5")
    wider.output = nn.Linear(84, 11)
    assert spec_of(wider) is None
    assert spec_of(nn.Linear(1, 1)) is None


def test_the_list_is_that_of_a_course_from_a_gate_to_resnet() -> None:
    gates = [f"gate-{name}" for name in ("and", "or", "not", "nand", "nor", "xor")]
    small = ["perceptron", "linear-regression", "logistic-regression", "softmax", "mlp", "cnn1d", "cnn2d", "cnn3d"]
    fast = ["speednet", "airbench94"]
    classic = ["lenet5", "lenet5-1998", "alexnet", "alexnet-2012", "alexnet-torchvision", "zfnet"]
    vgg = [f"vgg{depth}{suffix}" for suffix in ("", "-bn") for depth in (11, 13, 16, 19)]
    residual = [f"resnet{depth}" for depth in ("18", "34", "50", "101", "152", "18-lecture", 20, 32, 44, 56, 110)]
    assert list_models() == gates + small + fast + classic + vgg + ["googlenet", "googlenet-torchvision"] + residual
