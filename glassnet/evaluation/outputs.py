"""From what a network puts out to one logit a class."""

from __future__ import annotations

import torch
from torch import Tensor


def class_logits(outputs: Tensor, num_classes: int, *, are_probabilities: bool = False) -> Tensor:
    """Return logits `(B, num_classes)` for `outputs` `(B, num_classes)`, or `(B, 1)` for two classes.

    One logit `z` becomes `(0, z)`, whose softmax is the sigmoid of `z`; one probability `p` becomes
    `(log(1 - p), log p)`, whose softmax is `(1 - p, p)`.
    """
    if outputs.shape[1] == num_classes:
        return outputs
    if are_probabilities:
        p = outputs.clamp(1e-7, 1 - 1e-7)
        return torch.cat(((1 - p).log(), p.log()), dim=1)
    return torch.cat((torch.zeros_like(outputs), outputs), dim=1)
