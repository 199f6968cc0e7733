"""The tensors that are alive during a pass, by the memory they share: views, and what writing in place changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]
"""Size, stride and offset of a view of a memory block, in elements."""


@dataclass(slots=True, eq=False)
class Live:
    """A tensor object that the program may still hold, and the value that it has now."""

    tensor: Tensor
    value: int
    writes: tuple[tuple[int, Geometry], ...] = ()
    """What other tensors wrote to its memory since `value`, by the written value's number; not yet a value here."""


class Memory:
    """All live tensors, by identity and by memory block. Holding them keeps identities from being used again."""

    def __init__(self) -> None:
        self._by_id: dict[int, Live] = {}
        self._by_block: dict[int, list[Live]] = {}
        self._unsorted: list[Live] = []
        """Those whose block was not asked for yet: many passes never write in place."""

    def find(self, tensor: Tensor) -> Live | None:
        """Return what is known of a tensor object."""
        return self._by_id.get(id(tensor))

    def hold(self, tensor: Tensor, value: int) -> None:
        """Note that `tensor` now has `value`, whatever it had before."""
        live = self._by_id.get(id(tensor))
        if live is not None:
            live.value = value
            live.writes = ()
            return
        live = self._by_id[id(tensor)] = Live(tensor, value)
        self._unsorted.append(live)

    def sharing(self, tensor: Tensor) -> list[Live]:
        """Return the live tensors, itself among them, that have an element in common with `tensor`."""
        self._sort()
        block = block_of(tensor)
        if block is None:
            live = self.find(tensor)
            return [live] if live is not None else []
        return [live for live in self._by_block.get(block, ()) if overlap(live.tensor, tensor)]

    def _sort(self) -> None:
        for live in self._unsorted:
            block = block_of(live.tensor)
            if block is not None:
                self._by_block.setdefault(block, []).append(live)
        self._unsorted.clear()


def block_of(tensor: Tensor) -> int | None:
    """Return what tells a tensor's memory block from others; None where it has none of its own (sparse, and so on)."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


def geometry(tensor: Tensor) -> Geometry:
    """Return where a tensor's elements lie in its memory block."""
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def overlap(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors of one memory block share an element. Where types differ, True to be safe."""
    if one is other or one.dtype != other.dtype:
        return True
    if one.numel() == 0 or other.numel() == 0:
        return False
    places = geometry(one), geometry(other)
    if places[0] == places[1]:
        return True
    (first, last), (other_first, other_last) = _extent(places[0]), _extent(places[1])
    if last < other_first or other_last < first:
        return False
    start = min(first, other_first)
    marked = torch.zeros(max(last, other_last) - start + 1, dtype=torch.bool)
    marked.as_strided(places[0][0], places[0][1], places[0][2] - start).fill_(True)
    return bool(marked.as_strided(places[1][0], places[1][1], places[1][2] - start).any())


def overwrite(base: Tensor, place: Geometry, *written: Tensor, places: tuple[Geometry, ...]) -> Tensor:
    """Return `base` after each of `written` was written to the memory that they share.

    `place` and `places` say where base and written lie in it. Autograd sees both ways.
    """
    extents = [_extent(found) for found in (place, *places)]
    start = min(first for first, _ in extents)
    cells = torch.arange(max(last for _, last in extents) - start + 1, device=base.device)

    def at(found: Geometry) -> Tensor:
        return cells.as_strided(found[0], found[1], found[2] - start).reshape(-1)

    block = base.new_zeros(len(cells)).index_put((at(place),), base.reshape(-1))
    for tensor, found in zip(written, places, strict=True):
        block = block.index_put((at(found),), tensor.reshape(-1).to(base.dtype))
    return block[at(place)].reshape(place[0])


def _extent(place: Geometry) -> tuple[int, int]:
    """Return the first and last element's place in the block."""
    size, stride, offset = place
    return offset, offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
