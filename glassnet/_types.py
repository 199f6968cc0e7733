"""Types that several parts share."""

from __future__ import annotations

from os import PathLike

Shape = tuple[int, ...]
"""Sizes by axis, without the batch axis unless said."""

PathArg = str | PathLike[str]
"""A path as a caller may give it."""


def by(shape: Shape) -> str:
    """Return sizes as one says them: `3x32x32`."""
    return "x".join(str(size) for size in shape)
