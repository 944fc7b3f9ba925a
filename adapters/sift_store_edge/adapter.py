"""`EdgeAdapter`: one open collection of Qdrant Edge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import qdrant_edge as q

from sift_store.adapter import (
    CandidateQuery,
    Candidates,
    Capabilities,
    EmbedderIdentity,
    Finding,
    Key,
    Replacement,
    Statistics,
)
from sift_store.errors import PartialWriteError, StorageError, StoreClosedError
from sift_store.filters import Filter
from sift_store.records import Id, Payload, Record
from sift_store_edge.filters import translate
from sift_store_edge.index import IndexBuilder
from sift_store_edge.layout import Layout, Meta, Version
from sift_store_edge.lock import Lock, hold
from sift_store_edge.points import METADATA, PointId, point_id, to_point, to_record
from sift_store_edge.shard import create_shard, declare_fields, engine_errors, load_shard
from sift_store_edge.vectors import VectorCache

__all__ = ["EdgeAdapter"]

T = TypeVar("T")

# The engine holds the interpreter lock while it writes: short turns let other threads in.
_WRITE_CHUNK = 256


class EdgeAdapter:
    """One open collection. Reads and writes may come from any thread; the engine does one thing at a time."""

    capabilities = Capabilities(
        engine=f"Qdrant Edge {version('qdrant-edge-py')}",
        persistent=True,
        exclusive=True,
        approximate=True,
        native_filter="qdrant_edge.Filter",
    )

    def __init__(self, layout: Layout, indexed: Mapping[str, str]) -> None:
        self._layout = layout
        self._declared = dict(indexed)
        self._lock = threading.RLock()  # the shard and what is kept of it
        self._write_lock = threading.RLock()  # taken before the other by all that changes data
        self._held: Lock | None = None
        self._shard: q.EdgeShard | None = None
        self._version: Version | None = None
        self._meta: Meta | None = None
        self._cache: VectorCache | None = None
        self._fields: dict[str, str] = {}
        self._replacing = False
        self._closed = False
        self._builder = IndexBuilder(self)
        if layout.folder.is_dir():
            self._held = hold(layout.lock_file)
            try:
                self._open_current()
            except BaseException:
                self.close()
                raise

    def _open_current(self) -> None:
        current = self._layout.current()
        self._layout.remove_leftovers()
        if current is not None:
            self._serve(current, load_shard(current.shard), Meta.read(current.meta))

    def _serve(self, current: Version, shard: q.EdgeShard, meta: Meta) -> None:
        self._version, self._shard, self._meta = current, shard, meta
        self._cache = VectorCache(meta.dimension)
        self._fields = declare_fields(shard, self._declared)

    # --- state --------------------------------------------------------------------------------------------------------

    def statistics(self) -> Statistics:  # noqa: D102  # the seam says what each method does
        with self._lock:
            self._check_open()
            if self._shard is None or self._meta is None:
                return Statistics(0, 0, None, "cosine", self._declared, None)
            with engine_errors("reading the shard's state"):
                info = self._shard.info()
            return Statistics(
                count=info.points_count,
                indexed=info.indexed_vectors_count,
                dimension=self._meta.dimension,
                metric="cosine",
                fields=self._fields,
                embedder=self._meta.embedder,
                building=self._builder.running,
            )

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        with self._write_lock, self._lock:
            self._check_open()
            if self._held is None:
                self._layout.make()
                self._held = hold(self._layout.lock_file)
            if self._shard is None:
                fresh, shard, meta = self.new_version(dimension, embedder)
                self._layout.switch_to(fresh)
                self._serve(fresh, shard, meta)

    def new_version(self, dimension: int, embedder: EmbedderIdentity) -> tuple[Version, q.EdgeShard, Meta]:
        """An empty version beside the live one, with the same payload indexes."""
        fresh, meta = self._layout.new_version(), Meta(dimension, embedder)
        meta.write(fresh.meta)
        shard = create_shard(fresh.shard, dimension)
        declare_fields(shard, {**self._fields, **self._declared})
        shard.flush()
        return fresh, shard, meta

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed; open it again")

    def _live(self) -> q.EdgeShard:
        self._check_open()
        if self._shard is None:
            raise StorageError("the collection is empty; add something first")
        return self._shard

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, records: Sequence[Record]) -> None:  # noqa: D102
        done = 0
        try:
            for start in range(0, len(records), _WRITE_CHUNK):
                chunk = records[start : start + _WRITE_CHUNK]
                points = [to_point(record) for record in chunk]
                self._write(q.UpdateOperation.upsert_points(points), [cast(PointId, point.id) for point in points])
                done += len(chunk)
            self.flush()
        except StorageError as exc:
            if not done:
                raise
            raise PartialWriteError(f"{done} of {len(records)} written: {exc}", [r.id for r in records[:done]]) from exc
        self._builder.consider()

    def update_payload(self, ids: Sequence[Id], payload: Payload) -> None:  # noqa: D102
        for start in range(0, len(ids), _WRITE_CHUNK):
            points = [point_id(id_) for id_ in ids[start : start + _WRITE_CHUNK]]
            if None in payload.values():  # the engine takes null for "remove this key"
                self._merge(points, payload)
            else:
                self._write(q.UpdateOperation.set_payload(list(points), dict(payload), METADATA), points)
        self.flush()

    def _merge(self, points: Sequence[PointId], payload: Payload) -> None:
        with self._write_lock:
            with self._lock, engine_errors("reading"):
                stored = self._live().retrieve(list(points), True, False)
            for point in stored:
                whole = dict(point.payload or {})
                whole[METADATA] = {**whole.get(METADATA, {}), **payload}
                self._write(q.UpdateOperation.overwrite_payload([point.id], whole), [cast(PointId, point.id)])

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        condition = self._condition(ids, where)
        with self._write_lock:
            gone = self._matching(condition)
            for start in range(0, len(gone), _WRITE_CHUNK):
                points = gone[start : start + _WRITE_CHUNK]
                self._write(q.UpdateOperation.delete_points(list(points)), points)
            self.flush()
        return len(gone)

    def _write(self, operation: q.UpdateOperation, points: Sequence[PointId]) -> None:
        with self._write_lock, self._lock:
            shard = self._live()
            if self._replacing:
                raise StorageError("the collection is being re-embedded; write when that has ended")
            with engine_errors("writing"):
                shard.update(operation)
            self.written(points)

    def written(self, points: Iterable[PointId]) -> None:
        """Note that points changed: what is kept of them is stale, and an index being built must hear of it."""
        points = list(points)
        cast(VectorCache, self._cache).drop(points)
        self._builder.note(points)

    def flush(self) -> None:
        """Make all that was written safe against a loss of power."""
        with self._lock, engine_errors("flushing"):
            self._live().flush()

    # --- reading ------------------------------------------------------------------------------------------------------

    def candidates(self, queries: Sequence[CandidateQuery]) -> list[Candidates]:  # noqa: D102
        with self._lock:
            shard = self._live()
            requests = [self._request(query) for query in queries]
            with engine_errors("searching"):
                answers = shard.query_batch(q.QueryBatchRequest(requests)) if len(requests) > 1 else None
                found = answers if answers is not None else [shard.query(requests[0])]
            return [self._candidates(query, points) for query, points in zip(queries, found, strict=True)]

    def _request(self, query: CandidateQuery) -> q.QueryRequest:
        return q.QueryRequest(
            limit=query.limit,
            query=q.Query.Nearest(query.vector.tolist()),
            filter=translate(query.where, self._fields),
            params=q.SearchParams(hnsw_ef=query.ef, exact=query.exact),
            with_vector=False,
            with_payload=False,
        )

    def _candidates(self, query: CandidateQuery, points: Sequence[q.ScoredPoint]) -> Candidates:
        keys = [point.id for point in points]
        scores = np.array([point.score for point in points], dtype=np.float32)
        if not query.with_vectors:
            return Candidates(keys, scores, None)
        vectors, loaded = cast(VectorCache, self._cache).gather(cast(list[PointId], keys), self._load_vectors)
        return Candidates(keys, scores, vectors, loaded * vectors.shape[1] * 4)

    def _load_vectors(self, points: list[PointId]) -> npt.NDArray[np.float32]:
        with engine_errors("reading vectors"):
            records = self._live().retrieve(list(points), False, True)
        by_id = {record.id: record.vector for record in records}
        return np.array([by_id[point] for point in points], dtype=np.float32)

    def fetch(self, keys: Sequence[Key]) -> list[Record]:  # noqa: D102
        points = cast(Sequence[PointId], keys)
        found = self._retrieve(points, vectors=False)
        return [found[point] for point in points]

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        points = [point_id(id_) for id_ in ids]
        found = self._retrieve(points, vectors=vectors)
        return [found.get(point) for point in points]

    def _retrieve(self, points: Sequence[PointId], *, vectors: bool) -> dict[PointId, Record]:
        with self._lock, engine_errors("reading"):
            stored = self._live().retrieve(list(dict.fromkeys(points)), True, vectors)
        return {cast(PointId, point.id): to_record(point) for point in stored}

    def count(self, where: Filter | None) -> int:  # noqa: D102
        condition = translate(where, self._fields)
        with self._lock, engine_errors("counting"):
            return self._live().count(q.CountRequest(exact=True, filter=condition))

    def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        start = cast(PointId | None, after)
        request = q.ScrollRequest(offset=start, limit=limit, with_payload=True, with_vector=vectors)
        with self._lock, engine_errors("reading"):
            points, rest = self._live().scroll(request)
        return [to_record(point) for point in points], rest

    def _matching(self, condition: q.Filter | None) -> list[PointId]:
        points: list[PointId] = []
        after: PointId | None = None
        while True:
            request = q.ScrollRequest(offset=after, limit=10_000, filter=condition, with_payload=False)
            with self._lock, engine_errors("reading"):
                page, rest = self._live().scroll(request)
            points.extend(cast(PointId, point.id) for point in page)
            if rest is None:
                return points
            after = cast(PointId, rest)

    def _condition(self, ids: Sequence[Id] | None, where: Filter | None) -> q.Filter | None:
        condition = translate(where, self._fields)
        if ids is None:
            return condition
        named = q.HasIdCondition({point_id(id_) for id_ in ids})
        return q.Filter(must=[named] if condition is None else [named, condition])

    # --- the whole collection -----------------------------------------------------------------------------------------

    def replace(self, dimension: int, embedder: EmbedderIdentity) -> Replacement:  # noqa: D102
        with self._write_lock:
            self._live()
            self._builder.stop()
            self._replacing = True
            return _EdgeReplacement(self, *self.new_version(dimension, embedder))

    def take(self, fresh: Version, shard: q.EdgeShard, meta: Meta) -> None:
        """Make another version the live one; call with the write lock held."""
        with engine_errors("flushing"):
            shard.flush()
        self._layout.switch_to(fresh)
        with self._lock:
            old_version, old_shard = cast(Version, self._version), self._live()
            same_vectors, cache = self._meta == meta, self._cache
            self._serve(fresh, shard, meta)
            if same_vectors:
                self._cache = cache
            with engine_errors("closing the old version"):
                old_shard.close()
        old_version.remove()

    def end_replacement(self) -> None:
        """Allow writes again."""
        self._replacing = False

    def exclusively(self, action: Callable[[q.EdgeShard, Version, Meta, Layout], T]) -> T:
        """Run something with the live shard while no writer is at work; readers go on."""
        with self._write_lock:
            shard = self._live()
            return action(shard, cast(Version, self._version), cast(Meta, self._meta), self._layout)

    def optimize(self, *, wait: bool) -> None:  # noqa: D102
        self._check_open()
        self._builder.start()
        if wait:
            self._builder.wait()

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        return self._builder.doctor(self.statistics())

    def close(self) -> None:  # noqa: D102
        self._builder.stop()
        with self._write_lock, self._lock:
            self._closed = True
            shard, self._shard = self._shard, None
            try:
                if shard is not None:
                    with engine_errors("closing"):
                        shard.flush()
                        shard.close()
            finally:
                if self._held is not None:
                    self._held.release()
                    self._held = None


class _EdgeReplacement:
    """New content in a version of its own, live at `commit`."""

    def __init__(self, adapter: EdgeAdapter, fresh: Version, shard: q.EdgeShard, meta: Meta) -> None:
        self._adapter, self._fresh, self._shard, self._meta = adapter, fresh, shard, meta

    def write(self, records: Sequence[Record]) -> None:
        for start in range(0, len(records), _WRITE_CHUNK):
            points = [to_point(record) for record in records[start : start + _WRITE_CHUNK]]
            with engine_errors("writing"):
                self._shard.update(q.UpdateOperation.upsert_points(points))

    def commit(self) -> None:
        self._adapter.exclusively(lambda *_: self._adapter.take(self._fresh, self._shard, self._meta))
        self._adapter.end_replacement()

    def abandon(self) -> None:
        self._adapter.end_replacement()
        with engine_errors("closing"):
            self._shard.close()
        self._fresh.remove()
