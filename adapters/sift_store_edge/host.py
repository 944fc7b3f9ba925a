"""What an index build and a re-embedding see of the open collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import qdrant_edge as q

from sift_store.adapter import Statistics
from sift_store.records import Record
from sift_store_edge.layout import Layout, Meta, Version

__all__ = ["WRITE_CHUNK", "Host", "Live"]

T = TypeVar("T")

# The engine holds the interpreter lock while it writes: short turns let other threads in.
WRITE_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Live:
    """A version that is open: the one that is served, or one that will be."""

    version: Version
    shard: q.EdgeShard
    meta: Meta


class Host(Protocol):
    """The open collection."""

    layout: Layout

    @property
    def replacing(self) -> bool:
        """Whether the whole content is being replaced."""

    def statistics(self) -> Statistics:
        """The state now."""

    def check_space(self, records: Sequence[Record]) -> None:
        """Refuse to write records for which the disk has no room."""

    def exclusively(self, action: Callable[[Live], T]) -> T:
        """Run something with what is live while no writer is at work; readers go on."""

    def begin_version(self, dimension: int) -> tuple[Version, q.EdgeShard]:
        """An empty version to be filled and taken."""

    def take(self, fresh: Live, *, same_vectors: bool) -> None:
        """Make another version the live one. Call with the write lock held."""

    def end_replacement(self) -> None:
        """Allow writes again."""
