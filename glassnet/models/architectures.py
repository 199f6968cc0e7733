"""The whole list of networks that can be built by name, as a literal: what is not in it does not exist."""

from __future__ import annotations

from glassnet.models.airbench import airbench94
from glassnet.models.alexnet import alexnet, alexnet_2012, alexnet_torchvision
from glassnet.models.cnn import cnn1d, cnn2d, cnn3d
from glassnet.models.gates import gate_and, gate_nand, gate_nor, gate_not, gate_or, gate_xor
from glassnet.models.googlenet import googlenet, googlenet_torchvision
from glassnet.models.lenet import lenet5
from glassnet.models.lenet_1998 import lenet5_1998
from glassnet.models.linear import linear_regression, logistic_regression, perceptron
from glassnet.models.mlp import mlp
from glassnet.models.resnet import resnet18, resnet18_lecture, resnet34, resnet50, resnet101, resnet152
from glassnet.models.resnet_cifar import resnet20, resnet32, resnet44, resnet56, resnet110
from glassnet.models.softmax import softmax
from glassnet.models.spec import Architecture
from glassnet.models.speednet import speednet
from glassnet.models.vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from glassnet.models.zfnet import zfnet

MCCULLOCH_PITTS = "McCulloch and Pitts 1943, a logical calculus of the ideas immanent in nervous activity"
KRIZHEVSKY = "Krizhevsky, Sutskever and Hinton 2012"
SIMONYAN = "Simonyan and Zisserman 2015, very deep convolutional networks, table 1"
SZEGEDY = "Szegedy et al. 2015, going deeper with convolutions"
HE = "He, Zhang, Ren and Sun 2016, deep residual learning"

CIFAR = (3, 32, 32)


def _gate(build: object, input_shape: tuple[int, ...] = (2,)) -> Architecture:
    return Architecture(build=build, input_shape=input_shape, num_classes=2, source=MCCULLOCH_PITTS)  # type: ignore[arg-type]


def _imagenet(build: object, source: str, *, size: int = 224, any_size: bool = False) -> Architecture:
    return Architecture(
        build=build,  # type: ignore[arg-type]
        input_shape=(3, size, size),
        num_classes=1000,
        any_size=any_size,
        source=source,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "gate-and": _gate(gate_and),
    "gate-or": _gate(gate_or),
    "gate-not": _gate(gate_not, (1,)),
    "gate-nand": _gate(gate_nand),
    "gate-nor": _gate(gate_nor),
    "gate-xor": _gate(gate_xor),
    "perceptron": Architecture(
        build=perceptron,
        input_shape=(2,),
        num_classes=2,
        any_size=True,
        losses={"binary": "perceptron", "multi-class": "multi-class-perceptron"},
        source="Rosenblatt 1958, the perceptron",
    ),
    "linear-regression": Architecture(
        build=linear_regression,
        input_shape=(1,),
        num_classes=1,
        any_size=True,
        is_regression=True,
        source="Bishop 2006, section 3.1",
    ),
    "logistic-regression": Architecture(
        build=logistic_regression, input_shape=(2,), num_classes=2, any_size=True, source="Bishop 2006, section 4.3.2"
    ),
    "softmax": Architecture(
        build=softmax,
        input_shape=(1, 28, 28),
        any_size=True,
        source="softmax (multinomial logistic) regression: Bishop 2006, section 4.3.4",
    ),
    "mlp": Architecture(
        build=mlp,
        input_shape=(1, 28, 28),
        any_size=True,
        source="multi-layer perceptron: Rumelhart, Hinton and Williams 1986",
    ),
    "cnn1d": Architecture(
        build=cnn1d, input_shape=(1, 128), any_size=True, source="a small configurable CNN over signals"
    ),
    "cnn2d": Architecture(
        build=cnn2d, input_shape=(1, 28, 28), any_size=True, source="a small configurable CNN over images"
    ),
    "cnn3d": Architecture(
        build=cnn3d, input_shape=(1, 16, 16, 16), any_size=True, source="a small configurable CNN over volumes"
    ),
    "speednet": Architecture(
        build=speednet, input_shape=(1, 28, 28), source="a small CNN for fast training on images like MNIST's"
    ),
    "airbench94": Architecture(
        build=airbench94, input_shape=CIFAR, source="Jordan 2024, 94% on CIFAR-10 in 3.29 seconds on a single GPU"
    ),
    "lenet5": Architecture(
        build=lenet5,
        input_shape=(1, 32, 32),
        source="LeNet-5 in its common form: LeCun, Bottou, Bengio and Haffner 1998, section II.B",
    ),
    "lenet5-1998": Architecture(
        build=lenet5_1998,
        input_shape=(1, 32, 32),
        source="LeNet-5 as published: LeCun, Bottou, Bengio and Haffner 1998, section II.B",
    ),
    "alexnet": _imagenet(alexnet, f"one column: {KRIZHEVSKY}", size=227),
    "alexnet-2012": _imagenet(alexnet_2012, f"two groups, as published: {KRIZHEVSKY}", size=227),
    "alexnet-torchvision": _imagenet(alexnet_torchvision, "torchvision's layout: Krizhevsky 2014"),
    "zfnet": _imagenet(zfnet, "Zeiler and Fergus 2014, visualizing and understanding, figure 3"),
    "vgg11": _imagenet(vgg11, f"configuration A: {SIMONYAN}"),
    "vgg13": _imagenet(vgg13, f"configuration B: {SIMONYAN}"),
    "vgg16": _imagenet(vgg16, f"configuration D: {SIMONYAN}"),
    "vgg19": _imagenet(vgg19, f"configuration E: {SIMONYAN}"),
    "vgg11-bn": _imagenet(vgg11_bn, f"A with batch normalisation: {SIMONYAN}"),
    "vgg13-bn": _imagenet(vgg13_bn, f"B with batch normalisation: {SIMONYAN}"),
    "vgg16-bn": _imagenet(vgg16_bn, f"D with batch normalisation: {SIMONYAN}"),
    "vgg19-bn": _imagenet(vgg19_bn, f"E with batch normalisation: {SIMONYAN}"),
    "googlenet": _imagenet(googlenet, f"as published, with auxiliary classifiers: {SZEGEDY}"),
    "googlenet-torchvision": _imagenet(googlenet_torchvision, f"torchvision's layout: {SZEGEDY}"),
    "resnet18": _imagenet(resnet18, HE, any_size=True),
    "resnet34": _imagenet(resnet34, HE, any_size=True),
    "resnet50": _imagenet(resnet50, HE, any_size=True),
    "resnet101": _imagenet(resnet101, HE, any_size=True),
    "resnet152": _imagenet(resnet152, HE, any_size=True),
    "resnet18-lecture": _imagenet(resnet18_lecture, f"as lecture tables count it: {HE}", any_size=True),
    "resnet20": Architecture(build=resnet20, input_shape=CIFAR, any_size=True, source=f"{HE}, section 4.2"),
    "resnet32": Architecture(build=resnet32, input_shape=CIFAR, any_size=True, source=f"{HE}, section 4.2"),
    "resnet44": Architecture(build=resnet44, input_shape=CIFAR, any_size=True, source=f"{HE}, section 4.2"),
    "resnet56": Architecture(build=resnet56, input_shape=CIFAR, any_size=True, source=f"{HE}, section 4.2"),
    "resnet110": Architecture(build=resnet110, input_shape=CIFAR, any_size=True, source=f"{HE}, section 4.2"),
}
"""The networks by name, from a threshold unit to ResNet."""
