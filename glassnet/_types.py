"""Types that several parts share."""

from __future__ import annotations

from os import PathLike

Shape = tuple[int, ...]
"""Sizes by axis, without the batch axis unless said."""

PathArg = str | PathLike[str]
"""A path as a caller may give it."""
