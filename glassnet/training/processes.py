"""Several processes that train one model, as torchrun starts them: who does which part of a batch.

Every process goes through the same batches in the same order and takes its part of each; the gradients are averaged
over the whole batch. So a run has the same result, to rounding, however many processes share it.
"""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from glassnet._errors import UsageError, WorkError

SETTLING_S = 1.0
"""Seconds for exchanges with a process that has ended to fail, each of which takes milliseconds."""
TIMEOUT_S = 600
"""How long the others wait for a process; decoding a folder for the first time happens in one of them."""


@dataclass(frozen=True)
class Processes:
    """The processes of one training, and which of them this is."""

    rank: int = 0
    """Of this process, from 0; 0 writes."""
    count: int = 1

    @property
    def is_first(self) -> bool:
        """True for the process that writes and shows."""
        return self.rank == 0

    def part(self, size: int) -> tuple[slice, float]:
        """Return which rows of a batch of `size` are this process's, and the weight of their mean loss.

        The weights are such that the mean over the processes of weight times mean loss is the mean over the batch. No
        process gets a single row of several, over which batch normalisation has no spread: one for which nothing is
        left takes the first rows with weight 0, so that all take part in each exchange.
        """
        num_busy = max(1, min(self.count, size // 2))
        if self.rank >= num_busy:
            return slice(0, min(2, size)), 0.0
        start, stop = size * self.rank // num_busy, size * (self.rank + 1) // num_busy
        return slice(start, stop), (stop - start) * self.count / size

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes, the same on each; in place where there are several."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def shared(self, value: Any) -> Any:
        """Return the first process's `value` on each."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def align(self, values: Iterable[Tensor]) -> None:
        """Give each process the first one's `values`, in place."""
        if self.count > 1:
            for value in values:
                dist.broadcast(value, src=0)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()


@contextmanager
def distributed(model: nn.Module, processes: Processes, sync_batch_norm: bool) -> Iterator[nn.Module]:
    """Yield `model` such that its backward pass averages gradients over the processes; as it is where there is one.

    With `sync_batch_norm`, batch normalisation takes its statistics over the whole batch; the model's own layers are
    put back at the end. Raises `UsageError` where that is asked for without GPUs, for which alone torch has it.
    """
    if processes.count == 1:
        yield model
        return
    device = next(model.parameters()).device
    if sync_batch_norm and device.type != "cuda":
        raise UsageError(
            f"sync_batch_norm needs GPUs (torch's SyncBatchNorm); this training is on {device.type}. Leave it out."
        )
    own = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(model) if sync_batch_norm else model
    try:
        ids = [device.index] if device.type == "cuda" else None
        yield nn.parallel.DistributedDataParallel(synchronised, device_ids=ids)
    finally:
        if sync_batch_norm:  # the layers put in share their parameters and statistics with the model's own
            for parent, name, child in own:
                setattr(parent, name, child)


def was_launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, by NCCL on GPUs and gloo elsewhere; alone where there are none.

    Raises `WorkError` where the others cannot be reached. A group that the caller has made already is used.
    """
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if not was_launched():
        yield Processes()
        return
    try:
        _make_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise WorkError(f"Could not join the other processes: {error}. Start them with torchrun.") from None
    try:
        with loss_of_others_named():
            yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _make_group(backend: str) -> None:
    from torch.distributed.distributed_c10d import PrefixStore  # not where torch is built without processes
    from torch.distributed.rendezvous import rendezvous

    timeout = datetime.timedelta(seconds=TIMEOUT_S)
    store, rank, count = next(rendezvous("env://", timeout=timeout))
    # torchrun's store may outlive a restart, and what the dead have left in it must not be read.
    store = PrefixStore(f"attempt {num_restarts()}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)


@contextmanager
def loss_of_others_named() -> Iterator[None]:
    """Turn the error of an exchange with another process, which has ended, into a `WorkError` that says so."""
    try:
        yield
    except RuntimeError as error:
        is_exchange = isinstance(error, dist.DistError) or "gloo" in str(error)
        if isinstance(error, WorkError) or not is_exchange:
            raise
        # torch's group, when it is freed, waits for its thread, whose last exchanges wait for Python's lock: both would
        # wait for ever. So the thread is given the time to end them before anything is freed.
        time.sleep(SETTLING_S)
        reason = re.sub(r"^\[[^\]]*\]\s*", "", str(error)).strip().splitlines()[0].partition(". ")[0]
        raise WorkError(
            f"Another process of this training ended, or cannot be reached ({reason}); its own last words tell why."
        ) from None


def num_restarts() -> int:
    """Return how often torchrun has started the processes of this training again, after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launch_name() -> str | None:
    """Return what names the launch by torchrun that this process belongs to, over its restarts; None without one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return f"{os.environ['TORCHELASTIC_RUN_ID']}-{os.environ.get('MASTER_PORT', '')}-{os.getppid()}"


def local_device(name: str) -> str:
    """Return the device for this process: of several GPUs, the one of its number on this machine."""
    if name in ("auto", "cuda") and torch.cuda.is_available() and was_launched():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return name
