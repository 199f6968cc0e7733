"""Ctrl-C, and a request to end, as a wish: the first asks, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed, or SIGTERM came, since the block began.

    The first only sets the flag; a second does what it always did. The handlers found before are put back. Where a
    signal is ignored, and outside the main thread, where Python allows no handlers, the flag never rises.
    """
    is_asked = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if threading.current_thread() is not threading.main_thread():
        yield is_asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        is_asked.set()
        _restore(before)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # a job in the background ignores Ctrl-C
            signal.signal(number, ask)
    try:
        yield is_asked.is_set
    finally:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
