"""Image files, or other content, that stand for a tensor of images until a network's input size is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.data.content import Entry
from glassnet.data.content import content_digest as content_digest

CHANNELS = {"L": 1, "RGB": 3}
"""Number of channels by Pillow's colour mode."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The inputs of an `ExampleSet` as files of many sizes; decoded only at a network's input size.

    Every file is one that opened when it was listed. Raises `UsageError` where the fields differ in length.
    """

    paths: tuple[Entry, ...]
    """Paths of files, or content that lies elsewhere."""
    mode: str
    """The colour mode that all files are read in: `L` (one grey channel) or `RGB`."""
    sizes: Tensor
    """`int64` `(N, 2)`: height and width of each image in pixels, upright (EXIF rotation applied)."""
    digests: tuple[str, ...]
    """`content_digest` of each file, in hexadecimal."""

    def __post_init__(self) -> None:
        if self.mode not in CHANNELS:
            raise UsageError(f"Image files are read in the mode {' or '.join(CHANNELS)}; got {self.mode!r}.")
        if self.sizes.dtype != torch.int64 or self.sizes.shape != (len(self.paths), 2):
            raise UsageError(
                f"sizes must be int64 ({len(self.paths)}, 2), height and width of each file; "
                f"got {self.sizes.dtype} {tuple(self.sizes.shape)}."
            )
        if len(self.digests) != len(self.paths):
            raise UsageError(f"Expected a digest for each of {len(self.paths)} files; got {len(self.digests)}.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: slice | Tensor) -> ImageFiles:
        """Return the files at `index`: a slice, positions `int64` `(K,)`, or a mask `bool` `(N,)`."""
        chosen = torch.arange(len(self))[index].tolist()
        return ImageFiles(
            tuple(self.paths[position] for position in chosen),
            self.mode,
            self.sizes[chosen],
            tuple(self.digests[position] for position in chosen),
        )

    def __repr__(self) -> str:
        return f"ImageFiles({len(self)} files, {self.mode}, median size {self.typical_shape[1:]})"

    @property
    def num_channels(self) -> int:
        """1 for `L`, 3 for `RGB`."""
        return CHANNELS[self.mode]

    @property
    def typical_shape(self) -> Shape:
        """`(C, H, W)` with the median height and the median width; `(C, 0, 0)` where there is no file."""
        if not len(self):
            return (self.num_channels, 0, 0)
        return (self.num_channels, *self.sizes.median(0).values.tolist())
