"""Image files decoded by a pool of threads, in order; Pillow lets threads run at once while it decodes and resizes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import numpy as np
from PIL import Image
from torch import Tensor

from glassnet.data.content import Entry
from glassnet.data.decoding import pillow_warnings
from glassnet.data.images import UnreadableImageError

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
) -> Generator[list[np.ndarray | str], None, None]:
    """Yield `pixels_or_reason` of `paths`, in order, `block_images` at a time.

    While the caller deals with one block, the next is being decoded; there are never more than two, and no more of
    `paths` is asked for. `advance` is called with each number of images as they are done. What has not begun when the
    generator is closed is dropped.
    """
    Image.init()  # else Pillow loads its plugins at the first need, which two threads must not have at once
    waiting: deque[list[Future[list[np.ndarray | str]]]] = deque()
    with pillow_warnings(), _pool(num_threads) as pool:
        left = iter(paths)
        while block := list(islice(left, block_images)):
            waiting.append(_submitted(pool, block, fit))
            if len(waiting) > 1:
                yield _collected(waiting.popleft(), advance)
        while waiting:
            yield _collected(waiting.popleft(), advance)


@contextmanager
def _pool(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ThreadPoolExecutor, paths: Sequence[Entry], fit: Fit) -> list[Future[list[np.ndarray | str]]]:
    def fitted(some: Sequence[Entry]) -> list[np.ndarray | str]:
        return [pixels_or_reason(path, fit) for path in some]

    return [pool.submit(fitted, paths[start : start + TASK_IMAGES]) for start in range(0, len(paths), TASK_IMAGES)]


def _collected(
    tasks: Sequence[Future[list[np.ndarray | str]]], advance: Callable[[int], None]
) -> list[np.ndarray | str]:
    block: list[np.ndarray | str] = []
    for task in tasks:
        images = task.result()
        advance(len(images))
        block += images
    return block
