"""Local response normalisation as AlexNet prints it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError


class LocalResponseNorm(nn.Module):
    """A map divided by the activity of its `size` neighbouring maps: `b_c = a_c / (k + alpha * sum_j a_j^2)^beta`.

    `x` `(B, C, ...)` -> same shape; the sum runs over the maps `j` from `c - size // 2` to `c + size // 2` that
    exist. Defaults are AlexNet's. Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    neural networks" (2012), section 3.3.

    torch's `nn.LocalResponseNorm` divides `alpha` by `size`, so that it multiplies the mean and not the sum:
    this layer with `alpha` is torch's with `size * alpha`. At size 5 and alpha 1e-4 that is 5e-4 there. (The authors'
    own program, cuda-convnet, divides by the size too: the printed formula and the network trained may differ.)

    Raises `UsageError` for an even `size`, which has no middle map.
    """

    def __init__(self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise UsageError(
                f"size must be an odd number of maps, the map itself and as many on either side; got {size}. "
                "For torch's lopsided even window use torch.nn.LocalResponseNorm."
            )
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` divided by the activity around each map."""
        return F.local_response_norm(x, self.size, alpha=self.size * self.alpha, beta=self.beta, k=self.k)

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
