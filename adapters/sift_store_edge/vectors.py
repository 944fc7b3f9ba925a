"""Vectors that the engine has handed out once, kept as one float32 block.

The engine gives vectors as lists of Python floats; making an array of 200 × 384 of them costs as much as the search.
The store holds the only lock, so it knows every write: a vector is dropped when its point is written or deleted, and
what is kept is what the engine itself returned. Bounded; the oldest go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from sift_store.points import PointId

__all__ = ["VectorCache"]

_MAX_BYTES = 256 * 2**20
_FIRST_ROWS = 1024

Rows = npt.NDArray[np.float32]


class VectorCache:
    """At most `max_bytes` of vectors of one dimension. Not thread-safe: the adapter's lock guards it."""

    def __init__(self, dimension: int, max_bytes: int = _MAX_BYTES) -> None:
        self._capacity = max(max_bytes // (4 * dimension), 1)
        self._block: Rows = np.empty((min(_FIRST_ROWS, self._capacity), dimension), np.float32)
        self._slots: dict[PointId, int] = {}
        self._owners: list[PointId | None] = []
        self._next = 0

    def gather(self, ids: Sequence[PointId], load: Callable[[list[PointId]], Rows]) -> tuple[Rows, int]:
        """Vectors of points, (n, d), in order, and how many had to be loaded.

        Args:
            ids: the points. load: gives the vectors, (m, d), of those that are not kept.
        """
        slots = list(map(self._slots.get, ids))
        if None not in slots:
            return self._block.take(cast(list[int], slots), axis=0, mode="clip"), 0  # faster than an index
        missing = [place for place, slot in enumerate(slots) if slot is None]
        rows = self._block[[slot or 0 for slot in slots]]  # those that are missing are overwritten below
        loaded = load([ids[place] for place in missing])
        rows[missing] = loaded
        for place, row in zip(missing, loaded, strict=True):
            self._keep(ids[place], row)
        return rows, len(missing)

    def drop(self, ids: Iterable[PointId]) -> None:
        """Forget points that were written or deleted."""
        for id_ in ids:
            slot = self._slots.pop(id_, None)
            if slot is not None:
                self._owners[slot] = None

    def _keep(self, id_: PointId, row: Rows) -> None:
        if id_ in self._slots:
            return
        slot = self._next
        self._next = (slot + 1) % self._capacity
        if slot < len(self._owners):
            old = self._owners[slot]
            if old is not None:
                del self._slots[old]
            self._owners[slot] = id_
        else:
            self._owners.append(id_)
            if slot >= len(self._block):
                more = min(2 * len(self._block), self._capacity) - len(self._block)
                self._block = np.concatenate([self._block, np.empty((more, self._block.shape[1]), np.float32)])
        self._block[slot] = row
        self._slots[id_] = slot
