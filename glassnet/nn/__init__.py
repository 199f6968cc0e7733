"""Layers that torch.nn lacks, and initial weights by name.

What torch.nn has is used as it is: `nn.ReLU`, `nn.LeakyReLU`, `nn.RReLU`, `nn.ELU`, `nn.Softplus`, `nn.Sigmoid`,
`nn.Tanh`, pooling, dropout, batch, layer, instance and group normalisation. `glassnet.nn.activation` says how
`nn.RReLU` relates to its paper, `glassnet.nn.normalisation` how `nn.LocalResponseNorm` does.
"""

from __future__ import annotations

from glassnet.nn.activation import ScaledSoftmax as ScaledSoftmax
from glassnet.nn.activation import ScaledTanh as ScaledTanh
from glassnet.nn.connection import LENET5_C3_TABLE as LENET5_C3_TABLE
from glassnet.nn.connection import TableConv2d as TableConv2d
from glassnet.nn.convolution import TrueConv1d as TrueConv1d
from glassnet.nn.convolution import TrueConv2d as TrueConv2d
from glassnet.nn.convolution import TrueConv3d as TrueConv3d
from glassnet.nn.initialisation import INITIALISATIONS as INITIALISATIONS
from glassnet.nn.initialisation import initialise as initialise
from glassnet.nn.local import LocallyConnected2d as LocallyConnected2d
from glassnet.nn.maxout import Maxout as Maxout
from glassnet.nn.normalisation import LocalResponseNorm as LocalResponseNorm
from glassnet.nn.rbf import DIGIT_BITMAPS as DIGIT_BITMAPS
from glassnet.nn.rbf import RBFOutput as RBFOutput
from glassnet.nn.rbf import digit_centres as digit_centres
from glassnet.nn.rbf import random_centres as random_centres
from glassnet.nn.shortcut import ZeroPadShortcut as ZeroPadShortcut
from glassnet.nn.subsampling import TrainableSubsampling2d as TrainableSubsampling2d
from glassnet.nn.threshold import Sign as Sign
from glassnet.nn.threshold import Step as Step
