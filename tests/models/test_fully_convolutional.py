from __future__ import annotations

import copy
from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.models.alexnet import alexnet_torchvision
from glassnet.models.fully_convolutional import FullyConvolutional, Window, fully_convolutional
from glassnet.models.gates import threshold_unit
from glassnet.models.lenet import lenet5
from glassnet.models.linear import logistic_regression
from glassnet.models.mlp import mlp
from glassnet.models.resnet_cifar import resnet20
from glassnet.models.spec import ModelSpec
from glassnet.nn import LENET5_C3_TABLE, LocallyConnected2d, Maxout, ScaledTanh, TableConv2d, TrainableSubsampling2d

logits_everywhere = partial(fully_convolutional, probabilities=False)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def window_by_window(model: nn.Module, images: Tensor, size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Return what the classifier gives for every window of `images`, cut out one after the other."""
    rows = []
    for top in range(0, images.shape[2] - size[0] + 1, stride[0]):
        row = []
        for left in range(0, images.shape[3] - size[1] + 1, stride[1]):
            row.append(model(images[:, :, top : top + size[0], left : left + size[1]]))
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def assert_equal_on_every_window(
    model: nn.Module, input_shape: tuple[int, int, int], image_size: tuple[int, int], stride: tuple[int, int]
) -> FullyConvolutional:
    model.eval()
    result = logits_everywhere(model, input_shape)
    images = draw(2, input_shape[0], *image_size)
    with torch.no_grad():
        expected = window_by_window(model, images, (input_shape[1], input_shape[2]), stride)
        torch.testing.assert_close(result(images), expected, atol=1e-5, rtol=1e-4)
    assert result.window == Window(size=(input_shape[1], input_shape[2]), stride=stride, is_exact=True)
    assert expected.shape[2] > 1
    assert expected.shape[3] > 1
    return result


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "pooling": "average"}])
@pytest.mark.parametrize("image_size", [(44, 60), (39, 41)])
def test_lenet5_gives_its_logits_for_every_window_at_its_stride_of_four(
    options: dict[str, str], image_size: tuple[int, int]
) -> None:
    assert_equal_on_every_window(lenet5(num_classes=7, **options), (1, 32, 32), image_size, (4, 4))


def test_lenet5_for_larger_images_reads_several_positions_of_c5() -> None:
    result = assert_equal_on_every_window(lenet5(num_classes=3, input_shape=(1, 40, 36)), (1, 40, 36), (49, 48), (4, 4))
    assert result.f6.kernel_size == (3, 2)


def test_at_the_classifiers_own_size_there_is_one_location() -> None:
    model = lenet5()
    images = draw(3, 1, 32, 32)
    logits = logits_everywhere(model, (1, 32, 32))(images)
    assert logits.shape == (3, 10, 1, 1)
    torch.testing.assert_close(logits[:, :, 0, 0], model(images))


def test_a_network_without_convolutions_slides_pixel_by_pixel() -> None:
    model = mlp(num_classes=3, input_shape=(2, 4, 5), hidden=(6,), dropout=0.5)
    assert_equal_on_every_window(model, (2, 4, 5), (7, 9), (1, 1))
    unit = logistic_regression(input_shape=(1, 3, 3))
    assert_equal_on_every_window(unit, (1, 3, 3), (5, 5), (1, 1))


def test_the_layers_of_1998_slide_as_well() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5),
        TrainableSubsampling2d(6),
        ScaledTanh(),
        TableConv2d(6, LENET5_C3_TABLE, 5),
        TrainableSubsampling2d(16),
        ScaledTanh(),
        nn.Flatten(),
        nn.Linear(400, 12),
        Maxout(4),
    )
    assert_equal_on_every_window(model, (1, 32, 32), (41, 38), (4, 4))


@pytest.mark.parametrize(
    ("pool", "patch"), [(nn.AdaptiveAvgPool2d(2), (4, 3)), (nn.AdaptiveMaxPool2d((4, None)), (2, 1))]
)
def test_an_adaptive_pooling_becomes_a_fixed_one_that_steps_pixel_by_pixel(
    pool: nn.Module, patch: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    features[1].running_mean += 0.3
    num_features = 3 * (8 // patch[0]) * (6 // patch[1])
    model = nn.Sequential(
        OrderedDict(
            features=features,
            pool=pool,
            flatten=nn.Flatten(),
            classifier=nn.Sequential(nn.Dropout(), nn.Linear(num_features, 5), nn.Tanh(), nn.Linear(5, 4)),
        )
    )
    result = assert_equal_on_every_window(model, (1, 18, 14), (24, 21), (2, 2))
    assert result.pool.kernel_size == patch
    assert result.classifier[1].dilation == patch


def test_rounding_up_is_dropped_where_the_classifier_has_nothing_to_round() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten(), nn.Linear(9, 2))
    assert_equal_on_every_window(model, (1, 7, 7), (12, 11), (2, 2))
    with pytest.raises(UsageError, match=r"got padding in 0\. Pass exact=False"):
        logits_everywhere(model, (1, 6, 6))


class Functional(nn.Module):
    """A classifier with functional calls and layers that are used again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.again = nn.Conv2d(4, 4, 3)
        self.act = nn.ReLU()
        self.head = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.max_pool2d(self.act(self.conv(images)), 2)
        maps = self.act(self.again(maps))
        maps = torch.tanh(self.again(maps)).relu()
        return self.head(maps.view(maps.size(0), -1))


def test_a_module_with_a_forward_of_its_own_is_read_step_by_step() -> None:
    torch.manual_seed(0)
    result = assert_equal_on_every_window(Functional(), (1, 14, 14), (17, 19), (2, 2))
    names = ["conv", "act", "max_pool2d", "again", "act_1", "again_1", "tanh", "relu", "head"]
    assert [name for name, _ in result.named_children()] == names


class Examples(nn.Module):
    """The form of PyTorch's own MNIST example."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.fc1 = nn.Linear(36, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.dropout(functional.avg_pool2d(functional.relu(self.conv1(images)), 2), training=self.training)
        return functional.log_softmax(self.fc1(torch.flatten(maps, 1)), dim=1)


def test_functional_dropout_pooling_and_log_softmax_are_layers() -> None:
    torch.manual_seed(0)
    model = Examples()
    result = assert_equal_on_every_window(model, (1, 8, 8), (11, 12), (2, 2))
    assert [type(layer) for layer in result][-1] is nn.LogSoftmax
    assert not result.dropout.training
    assert logits_everywhere(model.train(), (1, 8, 8)).dropout.training
    images = draw(2, 1, 8, 8)
    probabilities = fully_convolutional(model.eval(), (1, 8, 8), probabilities=True)(images)
    torch.testing.assert_close(probabilities[:, :, 0, 0], model(images).exp())


def test_layers_keep_their_names_so_that_addresses_and_weights_stay() -> None:
    model = alexnet_torchvision(num_classes=4, input_shape=(3, 63, 63), hidden=8)
    result = logits_everywhere(
        nn.Sequential(model[0][:2], nn.Flatten(), nn.Linear(64 * 15 * 15, 2)), (3, 63, 63), exact=False
    )
    assert list(result.state_dict()) == ["0.0.weight", "0.0.bias", "2.weight", "2.bias"]
    model.avgpool = nn.Identity()
    model.classifier[1] = nn.Linear(256, 8)
    state = model.state_dict()
    converted = logits_everywhere(model, (3, 63, 63), exact=False).state_dict()
    assert list(converted) == list(state)
    for key, value in converted.items():
        torch.testing.assert_close(value.reshape(state[key].shape), state[key], atol=0, rtol=0)


def test_the_original_is_left_alone_and_shares_nothing() -> None:
    model = lenet5()
    model.c1.eval()
    model.c3.weight.requires_grad_(False)
    model.f6.weight.requires_grad_(False)
    before, layers = copy.deepcopy(model.state_dict()), list(model.modules())
    result = logits_everywhere(model, (1, 32, 32))
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert list(model.modules()) == layers
    assert [model.training, model.c1.training, model.c5.training] == [True, False, True]
    assert [result.training, result.c1.training, result.c5.training] == [True, False, True]
    assert not result.c3.weight.requires_grad
    assert not result.f6.weight.requires_grad
    assert result.output.weight.requires_grad
    assert not any(module.training for module in logits_everywhere(model.eval(), (1, 32, 32)).modules())


def test_probabilities_sum_to_one_at_every_location() -> None:
    model = lenet5(num_classes=5).eval()
    images = draw(2, 1, 40, 44)
    probabilities = fully_convolutional(model, (1, 32, 32), probabilities=True)(images)
    assert probabilities.shape == (2, 5, 3, 4)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2, 3, 4))
    torch.testing.assert_close(probabilities[:, :, 1, 2], model(images[:, :, 4:36, 8:40]).softmax(dim=1))


def test_one_logit_becomes_the_probability_of_class_1_and_a_softmax_is_not_doubled() -> None:
    unit = logistic_regression(input_shape=(1, 3, 3))
    images = draw(2, 1, 4, 4)
    probability = fully_convolutional(unit, (1, 3, 3), probabilities=True)(images)
    torch.testing.assert_close(probability[:, :, 1, 0], unit(images[:, :, 1:, :3]).sigmoid())
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3), nn.Softmax(dim=-1))
    probabilities = fully_convolutional(model, (1, 3, 3), probabilities=True)(images)
    torch.testing.assert_close(probabilities[:, :, 0, 1], model(images[:, :, :3, 1:]))


def test_a_location_has_its_box_of_pixels() -> None:
    window = logits_everywhere(lenet5(input_shape=(1, 32, 36)), (1, 32, 36)).window
    assert window.box(0, 0) == (0, 0, 32, 36)
    assert window.box(2, 3) == (8, 12, 40, 48)


def test_a_network_with_padding_is_refused_unless_asked_for() -> None:
    torch.manual_seed(0)
    model = alexnet_torchvision(num_classes=4, input_shape=(3, 63, 63), hidden=8).eval()
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier[1] = nn.Linear(256, 8)
    with pytest.raises(UsageError, match=r"without padding.*got padding in features\.0, features\.3, .* exact=False"):
        logits_everywhere(model, (3, 63, 63))
    result = logits_everywhere(model, (3, 63, 63), exact=False)
    assert result.window == Window(size=(63, 63), stride=(32, 32), is_exact=False)
    images = draw(1, 3, 127, 95)
    logits = result(images)
    assert logits.shape == (1, 4, 3, 2)
    torch.testing.assert_close(result(images[:, :, :63, :63])[:, :, 0, 0], model(images[:, :, :63, :63]))
    assert not torch.allclose(logits[:, :, 0, 0], model(images[:, :, :63, :63]))  # neighbours instead of zeros


def test_the_input_shape_comes_from_build_models_record() -> None:
    model = lenet5(input_shape=(1, 36, 40))
    model.spec = ModelSpec("lenet5", {"input_shape": (1, 36, 40)}, (1, 36, 40))
    assert logits_everywhere(model).window.size == (36, 40)
    model = lenet5()
    model.spec = ModelSpec("lenet5", {}, (1, 32, 32))
    assert logits_everywhere(model).window.size == (32, 32)
    with pytest.raises(UsageError, match=r"expects the input_shape \(C, H, W\).*got none.*input_shape=\(3, 224, 224\)"):
        logits_everywhere(lenet5())


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (resnet20(input_shape=(1, 6, 6)), r"chain of layers.*got the step 'add' in forward"),
        (Branching(), r"do not depend on its input; reading Branching\.forward failed: .*nn\.Sequential"),
        (Pair(), r"one tensor passed from layer to layer; got \(images, images\)"),
        (
            nn.Sequential(LocallyConnected2d(1, 2, 6, 3), nn.Flatten()),
            r"the same at every place.*got '0' \(LocallyConn",
        ),
        (nn.Sequential(nn.Linear(6, 2)), r"got '0' \(Linear\)"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(4)), r"got '1' \(LayerNorm\)"),
        (nn.Sequential(nn.Flatten(), nn.Conv1d(1, 1, 3)), r"got '1' \(Conv1d\)"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(1, 1, 2)), r"got '1' \(Conv2d\)"),
        (nn.Sequential(nn.Flatten(), Maxout(2)), r"got '1' \(Maxout\)"),
        (nn.Sequential(nn.Softmax(dim=2)), r"got '0' \(Softmax\).* works along axis 2; the channels are axis 1"),
        (nn.Sequential(nn.Flatten(2)), r"got '0' \(Flatten\).* must flatten all axes after the first: start_dim=1"),
        (
            nn.Sequential(nn.AdaptiveAvgPool2d(4)),
            r"got '0' \(Adap.*patches differ in size: 6x6 pixels do not divide into 4x4",
        ),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), r"a linear layer after flattening; got none for maps of 4x4"),
        (nn.Sequential(nn.Flatten(), nn.Linear(35, 2)), r"Layer '1' reads 35 features, but maps of 6x6 pixels.*of 36"),
        (nn.Sequential(nn.Conv2d(1, 2, 7)), r"Layer '0' of the classifier: A kernel that reaches over 7 does not fit"),
        (nn.Sequential(), r"a network with layers; got none"),
    ],
)
def test_what_cannot_slide_is_refused_by_name(model: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        logits_everywhere(model, (1, 6, 6))


def test_an_input_that_is_no_image_is_refused() -> None:
    with pytest.raises(UsageError, match=r"that of one image, \(channels, height, width\); got \(2,\)"):
        logits_everywhere(threshold_unit((1, 1), 1), (2,))
