"""ZFNet: AlexNet with the first kernels made finer after looking at what they had learned."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from glassnet._types import Shape
from glassnet.models.alexnet import check_options, draw_weights, head, stage
from glassnet.models.sizes import channels_of, walk_sizes, windows_of


def zfnet(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 224, 224),
    normalisation: str = "local_response",
    dropout: float = 0.5,
    hidden: int = 4096,
    initialisation: str = "he",
) -> nn.Module:
    """ZFNet, the network of figure 3: 7x7 kernels with stride 2 in conv1, no groups; 62,357,608 parameters.

    The paper gives the sizes 224 -> conv1 110 -> pool1 55 -> conv2 26 -> pool2 13 -> pool5 6 and no paddings. They
    follow: conv1 takes padding 1, `floor((224 + 2 - 7)/2) + 1 = 110` (109 without). 3x3 poolings with stride 2 are
    rounded up, `ceil((110 - 3)/2) + 1 = 55`, `ceil((26 - 3)/2) + 1 = 13` and `ceil((13 - 3)/2) + 1 = 6`: rounding
    down gives 54 and 12, and a padding of 1 gives 55 and 13 but then 7. conv2 takes none, `(55 - 5)/2 + 1 = 26`;
    conv3 to conv5 keep 13x13 by padding 1. Another image size is taken as it is, and changes the inputs of fc6.

    Local response normalisation follows the pooling here. Its constants, which the paper does not give, are
    AlexNet's. `normalisation` (`local_response`, `batch` or `none`), `dropout`, `hidden` and `initialisation` are
    those of `alexnet`; `published` draws weights from N(0, 0.01^2) with biases 0, our reading of "initialized to
    10^-2" in section 3.

    Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014). Raises `UsageError` for an
    input too small, an unknown name or an impossible option.
    """
    check_options("zfnet", normalisation, dropout, hidden, initialisation)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    first = nn.Conv2d(channels_of("zfnet", input_shape), 96, 7, stride=2, padding=1)
    layers |= stage(1, first, "pool norm", normalisation, ceil_mode=True)
    layers |= stage(2, nn.Conv2d(96, 256, 5, stride=2), "pool norm", normalisation, ceil_mode=True)
    layers |= stage(3, nn.Conv2d(256, 384, 3, padding=1), "", normalisation)
    layers |= stage(4, nn.Conv2d(384, 384, 3, padding=1), "", normalisation)
    layers |= stage(5, nn.Conv2d(384, 256, 3, padding=1), "pool", normalisation, ceil_mode=True)
    height, width = walk_sizes("zfnet", input_shape, windows_of(nn.Sequential(layers)))
    layers |= head(256 * height * width, hidden, num_classes, dropout)
    model = nn.Sequential(layers)
    draw_weights(model, logits=("fc8",), published=initialisation == "published")
    return model
