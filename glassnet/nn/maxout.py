"""Maxout."""

from __future__ import annotations

from torch import Tensor, nn

from glassnet._errors import UsageError


class Maxout(nn.Module):
    """The largest of each `num_pieces` neighbouring channels: `h_i = max_j z_(i k + j)`, `j = 0 .. k - 1`.

    `x` with `k * channels` entries along `dim` -> `channels` entries there. After a layer with k times the outputs it
    is a maxout unit, a convex, piecewise linear function that is learned:
    `nn.Sequential(nn.Linear(n, 5 * m), Maxout(5))`, or `nn.Conv2d(n, 2 * m, 3)` and `Maxout(2)`. Goodfellow,
    Warde-Farley, Mirza, Courville and Bengio, "Maxout networks" (2013), section 3.

    Where pieces tie for the largest, they share the gradient equally.

    Raises `UsageError` where the channels do not divide by `num_pieces`.
    """

    def __init__(self, num_pieces: int, *, dim: int = 1) -> None:
        super().__init__()
        if num_pieces < 1:
            raise UsageError(f"num_pieces must be at least 1; got {num_pieces}.")
        self.num_pieces = num_pieces
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest piece of each unit."""
        num_inputs = x.shape[self.dim]
        if num_inputs % self.num_pieces:
            raise UsageError(
                f"Maxout over {self.num_pieces} pieces needs a multiple of {self.num_pieces} channels; got "
                f"{num_inputs} = {num_inputs // self.num_pieces}*{self.num_pieces} + {num_inputs % self.num_pieces}. "
                "Give the layer before it num_pieces times the outputs that are wanted."
            )
        dim = self.dim % x.ndim
        pieces: Tensor = x.unflatten(dim, (-1, self.num_pieces))
        return pieces.amax(dim + 1)

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"{self.num_pieces}, dim={self.dim}"
