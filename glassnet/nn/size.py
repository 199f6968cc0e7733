"""Sizes as a caller may give them, made pairs."""

from __future__ import annotations

from glassnet._errors import UsageError


def pair(value: int | tuple[int, int], name: str, *, least: int = 1) -> tuple[int, int]:
    """Return `value` as `(vertical, horizontal)`; one number stands for both.

    Raises `UsageError`, naming the argument `name`, where it is neither, or where a number is below `least`.
    """
    both = value if isinstance(value, tuple) else (value, value)
    if len(both) != 2 or not all(type(number) is int and number >= least for number in both):
        raise UsageError(
            f"{name} must be a whole number of at least {least}, or a pair (vertical, horizontal) of such numbers; "
            f"got {value!r}."
        )
    return both
