"""New content for a whole collection, beside the old and then in its place: what re-embedding writes to."""

from __future__ import annotations

from collections.abc import Sequence

import qdrant_edge as q

from sift_store.adapter import EmbedderIdentity
from sift_store.records import Record
from sift_store_edge.host import WRITE_CHUNK, Host, Live
from sift_store_edge.layout import Meta
from sift_store_edge.points import to_point
from sift_store_edge.shard import engine_errors

__all__ = ["EdgeReplacement"]


class EdgeReplacement:
    """New content in a version of its own, made at the first write, live at `commit`."""

    def __init__(self, host: Host, embedder: EmbedderIdentity) -> None:
        self._host, self._embedder = host, embedder
        self._begun: Live | None = None

    def write(self, records: Sequence[Record], dimension: int) -> None:  # noqa: D102  # the seam says what each does
        if self._begun is None:
            self._begun = Live(*self._host.begin_version(dimension), Meta(dimension, self._embedder))
        for start in range(0, len(records), WRITE_CHUNK):
            self._host.check_space(records[start : start + WRITE_CHUNK])
            points = [to_point(record) for record in records[start : start + WRITE_CHUNK]]
            with engine_errors("writing"):
                self._begun.shard.update(q.UpdateOperation.upsert_points(points))

    def commit(self) -> int:  # noqa: D102
        fresh = self._begun
        if fresh is not None:
            self._host.exclusively(lambda _: self._host.take(fresh, same_vectors=False))
        self._host.end_replacement()
        return self._host.statistics().generation

    def abandon(self) -> int | None:  # noqa: D102
        self._host.end_replacement()
        if self._begun is None:
            return None
        if self._host.layout.is_current(self._begun.version):
            return self._host.statistics().generation
        with engine_errors("closing"):
            self._begun.shard.close()
        self._host.layout.discard(self._begun.version)
        return None
