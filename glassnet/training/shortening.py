"""The shortest way through a network in training: all that computes the same in less time, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from glassnet._native import compile_native
from glassnet.nn import gelu, narrow, normalising, pooling, winograd
from glassnet.training.activation import quick_gelu
from glassnet.training.config import TrainConfig
from glassnet.training.filtering import minimal_filtering
from glassnet.training.narrow import narrow_convolutions
from glassnet.training.normalising import quick_normalisation
from glassnet.training.pooling import quick_pooling
from glassnet.training.reordering import pooled_first

SOURCES = (narrow.SOURCE, winograd.SOURCE, normalising.SOURCE, pooling.SOURCE, gelu.SOURCE)
"""The C files, that which takes longest first."""


@contextmanager
def shortened(model: nn.Module, config: TrainConfig, is_possible: bool) -> Iterator[int]:
    """Let layers take the shortest way there is for a block; yield how many convolutions do by minimal filtering.

    `is_possible` says whether C of our own may be called, which is for fp32 on a CPU and for models whose code takes
    outputs with their channels innermost.
    """
    is_possible = is_possible and not config.compile
    may_round = is_possible and config.convolution == "auto"
    if may_round and any(isinstance(module, nn.Conv2d) for module in model.modules()):
        compile_native(SOURCES)
    with (
        pooled_first(model),
        quick_pooling(model) if is_possible else nullcontext(),
        quick_normalisation(model) if may_round else nullcontext(),
        quick_gelu(model) if may_round else nullcontext(),
        narrow_convolutions(model) if may_round else nullcontext(),
        minimal_filtering(model) if may_round else nullcontext(0) as num_filtered,
    ):
        yield num_filtered
