"""Image files decoded by a pool of threads, in order; Pillow lets threads run at once while it decodes and resizes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from glassnet.data.content import Entry
from glassnet.data.images import UnreadableImageError, pillow_warnings

TASK_IMAGES = 8
"""Images that a thread takes at a time."""

Fit = Callable[[Entry], Tensor]
"""Makes pixels `uint8` `(C, H, W)` of a file, as `Preprocessing.fit_image` does."""


def pixels_or_reason(path: Entry, fit: Fit) -> np.ndarray | str:
    """Return the pixels `uint8` `(C, H, W)` of a file, or the reason why there are none."""
    try:
        return fit(path).numpy()
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return f"the file cannot be reached ({error.strerror or error})"


def decoded_blocks(
    paths: Iterable[Entry], fit: Fit, block_images: int, num_threads: int, advance: Callable[[int], None]
) -> Generator[tuple[np.ndarray, dict[int, str]], None, None]:
    """Yield the pixels of `paths`, in order, `block_images` at a time: rows `uint8` `(K, C, H, W)` of those that can
    be read, and why each of the others cannot, by its position in the block.

    While the caller deals with one block, the next is being decoded; there are never more than two, and no more of
    `paths` is asked for. The rows lie in one of two buffers, which are used in turn, and are valid until the next block
    is asked for: memory that was never touched costs a page fault every 4 KiB, which for a fitted image can be as long
    as a tenth of its decoding. `advance` is called with each number of images as they are done. What has not begun when
    the generator is closed is dropped.
    """
    Image.init()  # else Pillow loads its plugins at the first need, which two threads must not have at once
    waiting: deque[_Block] = deque()
    idle = [_Buffer(block_images), _Buffer(block_images)]
    left = iter(paths)
    with pillow_warnings(), _pool(num_threads) as pool:
        while block := list(islice(left, block_images)):
            waiting.append(_submitted(pool, block, fit, idle.pop()))
            if len(waiting) > 1:
                done = waiting.popleft()
                yield _collected(done, advance)
                idle.append(done.buffer)
        while waiting:
            yield _collected(waiting.popleft(), advance)


class _Buffer:
    """Room for the rows of one block, made when the shape of an image is known."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.rows = np.empty((0,), np.uint8)
        self._lock = threading.Lock()

    def put(self, index: int, pixels: np.ndarray) -> None:
        """Copy the pixels `uint8` `(C, H, W)` of an image into the row `index`."""
        with self._lock:
            if not len(self.rows):
                self.rows = np.empty((self.num_rows, *pixels.shape), np.uint8)
        self.rows[index] = pixels


class _Block(NamedTuple):
    """A block of images that is being decoded."""

    buffer: _Buffer
    tasks: list[Future[list[str | None]]]
    """Each gives the reasons of some images, None for one that is in the buffer."""


@contextmanager
def _pool(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ThreadPoolExecutor, paths: Sequence[Entry], fit: Fit, buffer: _Buffer) -> _Block:
    def fitted(start: int) -> list[str | None]:
        reasons: list[str | None] = []
        for index, path in enumerate(paths[start : start + TASK_IMAGES], start):
            found = pixels_or_reason(path, fit)
            if not isinstance(found, str):
                buffer.put(index, found)
            reasons.append(found if isinstance(found, str) else None)
        return reasons

    return _Block(buffer, [pool.submit(fitted, start) for start in range(0, len(paths), TASK_IMAGES)])


def _collected(block: _Block, advance: Callable[[int], None]) -> tuple[np.ndarray, dict[int, str]]:
    reasons: list[str | None] = []
    for task in block.tasks:
        some = task.result()
        advance(len(some))
        reasons += some
    failures = {index: reason for index, reason in enumerate(reasons) if reason is not None}
    if not failures:
        return block.buffer.rows[: len(reasons)], {}
    return block.buffer.rows[[index for index in range(len(reasons)) if index not in failures]], failures
