"""LeNet-5's output layer: the distance to a picture of each class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._seed import seeded_generator

DIGIT_BITMAPS: tuple[str, ...] = (
    """
    ..###..
    .#####.
    ##...##
    ##...##
    ##...##
    ##...##
    ##...##
    ##...##
    ##...##
    ##...##
    .#####.
    ..###..
    """,
    """
    ...##..
    ..###..
    .####..
    ##.##..
    ...##..
    ...##..
    ...##..
    ...##..
    ...##..
    ...##..
    #######
    #######
    """,
    """
    .#####.
    #######
    ##...##
    .....##
    .....##
    ....##.
    ...##..
    ..##...
    .##....
    ##.....
    #######
    #######
    """,
    """
    .#####.
    #######
    ##...##
    .....##
    .....##
    ..####.
    ..####.
    .....##
    .....##
    ##...##
    #######
    .#####.
    """,
    """
    ....##.
    ...###.
    ...###.
    ..####.
    ..#.##.
    .##.##.
    .#..##.
    ##..##.
    #######
    #######
    ....##.
    ....##.
    """,
    """
    #######
    #######
    ##.....
    ##.....
    ##.....
    ######.
    #######
    .....##
    .....##
    ##...##
    #######
    .#####.
    """,
    """
    ..####.
    .#####.
    ##.....
    ##.....
    ##.....
    ######.
    #######
    ##...##
    ##...##
    ##...##
    #######
    .#####.
    """,
    """
    #######
    #######
    .....##
    .....##
    ....##.
    ....##.
    ...##..
    ...##..
    ..##...
    ..##...
    .##....
    .##....
    """,
    """
    .#####.
    #######
    ##...##
    ##...##
    ##...##
    .#####.
    .#####.
    ##...##
    ##...##
    ##...##
    #######
    .#####.
    """,
    """
    .#####.
    #######
    ##...##
    ##...##
    ##...##
    #######
    .######
    .....##
    .....##
    .....##
    .#####.
    .####..
    """,
)
"""The ten digits, 7 wide and 12 high, `#` for ink. Drawn for glassnet: the paper prints its own only as a figure."""


def digit_centres() -> Tensor:
    """Return `DIGIT_BITMAPS` as RBF centres `(10, 84)`, row by row from the top: 1 for ink, -1 for paper."""
    pixels = [[1.0 if mark == "#" else -1.0 for mark in "".join(bitmap.split())] for bitmap in DIGIT_BITMAPS]
    return torch.tensor(pixels)


def random_centres(num_classes: int, num_features: int, *, seed: int = 0) -> Tensor:
    """Return codes of 1 and -1 drawn with equal chance, `(num_classes, num_features)`.

    The same seed gives the same codes, and fewer classes give the first rows of more. Two codes of n features differ
    in n / 2 places on average.
    """
    generator = seeded_generator(seed, "rbf centres", num_features)
    bits = torch.randint(2, (num_classes, num_features), generator=generator, device="cpu")
    return (2.0 * bits - 1.0).to(torch.get_default_device())


class RBFOutput(nn.Module):
    """Euclidean radial basis functions with fixed centres: `y_i = sum_j (x_j - w_ij)^2`, returned as logits `-y_i`.

    `x` `(B, num_features)` -> logits `(B, num_classes)`. The `centres` `(num_classes, num_features)` are a buffer:
    stored with the weights, not trained. The paper's `y_i` is a penalty, smallest for the right class
    (`penalties(x)`); as a logit its negative is the better the larger, as everywhere in glassnet. The softmax of these
    logits is the class posterior under Gaussians of variance 1/2 around the centres, and cross-entropy is the paper's
    discriminative loss, equation 9, without its constant term. LeCun, Bottou, Bengio and Haffner, "Gradient-based
    learning applied to document recognition" (1998), equation 7.

    The differences are held at once: `B * num_classes * num_features` numbers.

    Raises `UsageError` for inputs of another width than the centres.
    """

    centres: Tensor

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        if centres.ndim != 2:
            raise UsageError(f"centres must be (num_classes, num_features); got {tuple(centres.shape)}.")
        self.register_buffer("centres", centres.detach().clone())

    def penalties(self, x: Tensor) -> Tensor:
        """Return the squared distance to each centre, `(B, num_classes)`: 0 on the centre."""
        num_features = self.centres.shape[1]
        if x.ndim != 2 or x.shape[1] != num_features:
            raise UsageError(f"The RBF output takes features (B, {num_features}); got {tuple(x.shape)}.")
        return (x[:, None, :] - self.centres).square().sum(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the penalties with the opposite sign: the logits."""
        return -self.penalties(x)

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"{self.centres.shape[0]} centres of {self.centres.shape[1]} features"
