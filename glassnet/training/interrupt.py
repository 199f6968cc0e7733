"""Ctrl-C as a request: the first asks, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed since the block began.

    The first Ctrl-C only sets the flag; a second raises `KeyboardInterrupt` as usual. The handler found before is
    put back. Where Ctrl-C is ignored, and outside the main thread, where Python allows no handlers, it never rises.
    """
    is_asked = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background ignores Ctrl-C
        yield is_asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        is_asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield is_asked.is_set
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
