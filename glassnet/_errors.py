"""The errors a user meets, and the help that goes with them.

A message says what was expected, what came, and what to do, in that order. `UsageError` is for words that
were off (an unknown name, a wrong combination): exit code 2. `WorkError` is for work that failed although the
words were right (a truncated archive, an unwritable folder): exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GlassnetError(Exception):
    """Base of every error that glassnet raises on purpose; its text is a whole message for the user."""

    exit_code = 1


class UsageError(GlassnetError, ValueError):
    """The request itself was off: a name, a value, a combination. Exit code 2."""

    exit_code = 2


class WorkError(GlassnetError, RuntimeError):
    """The request was right and the work failed: a broken file, no network, a full disk. Exit code 1."""

    exit_code = 1


def nearest_names(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of `names` that are spelled most like `word`, best first."""
    by_lower = {name.lower(): name for name in names}
    if word.lower() in by_lower:
        return [by_lower[word.lower()]]
    close = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.5)
    return [by_lower[name] for name in close]


def unknown_name(kind: str, word: str, names: Iterable[str], more: str = "") -> UsageError:
    """Return the error for a `word` that is no `kind`, with the nearest names, or all where none is near."""
    names = sorted(names)
    if not names:
        return UsageError(" ".join(part for part in (f"Unknown {kind} '{word}'. There are none.", more) if part))
    nearest = nearest_names(word, names)
    if nearest:
        remedy = "Did you mean " + " or ".join(f"'{name}'" for name in nearest) + "?"
    else:
        remedy = "Choose one of: " + ", ".join(names) + "."
    return UsageError(" ".join(part for part in (f"Unknown {kind} '{word}'.", remedy, more) if part))
