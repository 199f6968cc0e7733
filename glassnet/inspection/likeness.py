"""Measures of how alike two outputs of a layer are: cosine, Euclidean distance, and centred kernel alignment.

Centred kernel alignment: Kornblith, Norouzi, Lee and Hinton, "Similarity of neural network representations revisited"
(2019). Of two images it compares, with channels as features and positions as examples, what varies over the positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError, unknown_name
from glassnet._types import by

MEASURES = ("cosine", "euclidean", "cka")
ROWS_AT_ONCE, COLUMNS_AT_ONCE = 256, 2**14
"""Images, and numbers of each, that are multiplied in float64 at a time."""
SAME = 1e-14
"""Squared distance, relative to the squared lengths, below which two outputs in float32 are the same."""


def check_measure(measure: str) -> None:
    """Raise `UsageError` for an unknown measure."""
    if measure not in MEASURES:
        raise unknown_name("measure", str(measure), MEASURES)


def compared(one: Tensor, others: Tensor, measure: str, layer: str) -> Tensor:
    """Return the measure between one output `(1, C, ...)` and each of others `(N, C, ...)` as float64 `(N,)`."""
    one, others = one.double().to(others.device), others.double()
    if measure == "cka":
        return _cka(one, others, layer)[0]
    a, b = one.flatten(1), others.flatten(1)
    if measure == "euclidean":
        distances: Tensor = torch.linalg.vector_norm(b - a, dim=1)
        return distances
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(1)


def compared_among(outputs: Tensor, measure: str, layer: str) -> Tensor:
    """Return the measure between every two of outputs `(N, C, ...)` as float64 `(N, N)`, symmetric."""
    if measure == "cka":
        matrix = _cka(outputs.double(), outputs.double(), layer)
        return (matrix + matrix.T) / 2
    products = _products(flattened(outputs, outputs), is_centred=measure == "euclidean")
    squares = products.diagonal().clone()
    if measure == "euclidean":
        total = squares[:, None] + squares[None]
        found = total - 2 * products
        return torch.where(found <= SAME * total, 0.0, found).sqrt()  # what is no number stays none
    sizes = squares.sqrt()
    return products / (sizes[:, None] * sizes[None]).clamp(min=torch.finfo(torch.float64).tiny)


def bounds(one: Tensor, others: Tensor, measure: str) -> tuple[Tensor, Tensor]:
    """Return between what the likeness of each of others `(N, C, ...)` to one output lies, both `(N,)`.

    Worked out in the outputs' own precision, float32 or better, to rank by: larger is more alike, the cosine or the
    negative of the squared distance. Sums of D products are off by about `sqrt(D)` roundings: Higham, "Accuracy and
    stability of numerical algorithms" (2002), section 3.1, gives D as the worst case and its root as what is met.
    """
    dtype = torch.promote_types(others.dtype, torch.float32)
    others, one = others.to(dtype), one.to(device=others.device, dtype=dtype)
    rows = flattened(others, others)
    wanted = flattened(one, others)[0]
    slack = max(1e-5, 16 * torch.finfo(torch.float32).eps * math.sqrt(len(wanted)))
    products, lengths = rows @ wanted, torch.linalg.vector_norm(rows, dim=1)
    own = torch.linalg.vector_norm(wanted)
    if measure == "euclidean":
        total = lengths.square() + own.square()
        middle, slacks = 2 * products - total, slack * total
    else:
        middle = products / (lengths * own).clamp(min=torch.finfo(dtype).tiny)
        slacks = torch.full_like(middle, slack)
    return middle - slacks, middle + slacks


def flattened(outputs: Tensor, like: Tensor) -> Tensor:
    """Return outputs `(N, C, ...)` as rows `(N, F)`, in the order in which `like` lies in memory, so that it is a view.

    A measure does not depend on the order, as long as both sides have the same one.
    """
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        return outputs.permute(0, 2, 3, 1).flatten(1)
    return outputs.flatten(1)


def _products(rows: Tensor, *, is_centred: bool) -> Tensor:
    """Return the products of every two rows `(N, F)` in float64, the half below the diagonal mirrored.

    With the rows' mean taken off, distances stay, and a large mean does not blur them.
    """
    count = len(rows)
    products = torch.zeros(count, count, dtype=torch.float64)
    for start in range(0, rows.shape[1], COLUMNS_AT_ONCE):
        part = rows[:, start : start + COLUMNS_AT_ONCE].double()
        part = part - part.mean(0) if is_centred else part
        for top in range(0, count, ROWS_AT_ONCE):
            products[top : top + ROWS_AT_ONCE, top:].addmm_(part[top : top + ROWS_AT_ONCE], part[top:].T)
    upper = products.triu(1)
    return upper + upper.T + products.diagonal().diag()


def _cka(first: Tensor, second: Tensor, layer: str) -> Tensor:
    """Return linear CKA: `|X'Y|^2 / (|X'X| |Y'Y|)`, X and Y centred, `(positions, channels)`."""
    if first.ndim < 3 or math.prod(first.shape[2:]) < 2:
        raise UsageError(
            f"CKA compares what varies over positions; layer '{layer}' gives {by(tuple(first.shape[1:]))}. Choose a "
            "convolution, or measure='cosine'."
        )
    a, b = (part.flatten(2) - part.flatten(2).mean(2, keepdim=True) for part in (first, second))
    own = [torch.linalg.matrix_norm(part @ part.transpose(1, 2)) for part in (a, b)]
    cross = torch.stack([(row @ b.transpose(1, 2)).square().sum((1, 2)) for row in a])
    sizes = own[0][:, None] * own[1][None]
    return torch.where(sizes > 0, cross / sizes.clamp(min=torch.finfo(sizes.dtype).tiny), 0.0)
