"""`EdgeAdapter`: one open collection of Qdrant Edge."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version as installed_version
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
    check_dimension,
    check_generation,
    outside,
)
from sift_store.deadline import Deadline
from sift_store.errors import PartialWriteError, StorageError, StoreClosedError
from sift_store.filters import Filter
from sift_store.points import METADATA, PointId, merged_payload, merges_in_place, point_id
from sift_store.records import Id, Payload, Record, canonical
from sift_store_edge.filters import exact_path, to_engine_filter
from sift_store_edge.host import WRITE_CHUNK, Live
from sift_store_edge.index import IndexBuilder
from sift_store_edge.layout import Layout, Meta, Version, check_space
from sift_store_edge.lock import Lock, hold
from sift_store_edge.points import to_point, to_record
from sift_store_edge.replacement import EdgeReplacement
from sift_store_edge.seal import Seal
from sift_store_edge.shard import create_shard, declare_fields, engine_errors, load_shard
from sift_store_edge.spelling import SpeltKeys
from sift_store_edge.vectors import VectorCache

__all__ = ["EdgeAdapter"]

# Free disk that a write wants beyond what it writes: the engine prepares files of 32 MiB. A deletion writes little.
_MARGIN, _LEAST = 80 << 20, 16 << 20
# A record goes to the log and to the data, as text and as numbers.
_COPIES = 6

T = TypeVar("T")


class EdgeAdapter:
    """One open collection. Reads and writes may come from any thread; the engine does one thing at a time.

    Two locks, always taken in this order: the write lock by all that changes data, the other by all that touches the
    shard. An index build and a re-embedding take the write lock for short turns.
    """

    capabilities = Capabilities(
        engine=f"Qdrant Edge {installed_version('qdrant-edge-py')}",
        persistent=True,
        native_filter="qdrant_edge.Filter",
    )

    def __init__(self, layout: Layout, indexed: Mapping[str, str]) -> None:
        self.layout = layout
        self._declared = dict(indexed)
        self._lock = threading.RLock()
        self._write_lock = threading.RLock()
        self._held: Lock | None = None
        self._live: Live | None = None
        self._cache = VectorCache(1)
        self._fields: dict[str, str] = dict(indexed)
        self._spelt = SpeltKeys()
        self._seal: Seal | None = None
        self._generation = 0
        self._replacement: Callable[[], object | None] = lambda: None  # a weak reference: one that is lost is over
        self._closed = False
        self._builder = IndexBuilder(self)
        try:
            self._open_existing()
        except BaseException:
            self.close()
            raise

    def _open_existing(self) -> None:
        """Open what is there, if anything is; another process may have made it since we last looked."""
        if self._live is None and not self._closed and self.layout.folder.is_dir():
            if self._held is None:
                self._held = hold(self.layout.lock_file)
            with engine_errors(f"opening {self.layout.folder}"):
                current = self.layout.current()
            if current is not None:
                self._open_version(current)
            with engine_errors(f"opening {self.layout.folder}"):
                self.layout.remove_leftovers()

    def _open_version(self, version: Version) -> None:
        """Have the engine open a version that is as it was closed."""
        doing = f"opening {self.layout.folder}"
        check_space(self.layout.folder, _MARGIN, doing)
        with engine_errors(doing):
            self._seal = Seal.read(version)
            if self._seal is not None:
                self._seal.check(version)
            meta = Meta.read(version.meta)
        shard = load_shard(version.shard)
        try:
            if self._seal is not None:
                with engine_errors(doing):
                    self._seal.check_count(version, shard.info().points_count)
                Seal.take_off(version)
            self._serve(Live(version, shard, meta), declare_fields(shard, self._declared))
        except BaseException:
            shard.close()
            raise

    def _serve(self, live: Live, fields: dict[str, str]) -> None:
        self._live, self._fields = live, fields
        self._spelt = SpeltKeys()
        self._cache = VectorCache(live.meta.dimension)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def replacing(self) -> bool:
        """Whether the whole content is being replaced."""
        return self._replacement() is not None

    def statistics(self, *, deadline: Deadline | None = None) -> Statistics:  # noqa: ARG002, D102  # the seam says what each method does
        with self._lock:
            if self._closed:
                raise StoreClosedError("the store is closed; open it again")
            self._open_existing()
            if self._live is None:
                return Statistics(0, 0, None, "cosine", self._fields, None)
            with engine_errors("reading the shard's state"):
                info = self._live.shard.info()
            meta = self._live.meta
            return Statistics(
                count=info.points_count,
                indexed=info.indexed_vectors_count,
                dimension=meta.dimension,
                metric="cosine",
                fields=self._fields,
                embedder=meta.embedder,
                building=self._builder.running,
                generation=self._generation,
            )

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        with self._write_lock, self._lock, engine_errors(f"creating {self.layout.folder}"):
            if self._closed:
                raise StoreClosedError("the store is closed; open it again")
            check_space(self.layout.folder, _MARGIN, f"creating {self.layout.folder}")
            self.layout.make()
            self._open_existing()
            if self._live is None:
                version, shard, fields = self._new_version(dimension)
                meta = Meta(dimension, embedder)
                version.complete(meta)
                self.layout.switch_to(version)
                self._serve(Live(version, shard, meta), fields)

    def _new_version(self, dimension: int) -> tuple[Version, q.EdgeShard, dict[str, str]]:
        """An empty version beside the live one, on disk, with the same payload indexes."""
        check_space(self.layout.folder, _MARGIN, f"creating {self.layout.folder}")
        version = self.layout.new_version()
        try:
            shard = create_shard(version.shard, dimension)
            fields = declare_fields(shard, {**self._fields, **self._declared})
            shard.flush()
            version.sync()
        except BaseException:
            self.layout.discard(version)
            raise
        return version, shard, fields

    def _serving(self) -> Live:
        if self._closed:
            raise StoreClosedError("the store is closed; open it again")
        if self._live is None:
            raise StorageError("the collection is empty; add something first")
        return self._live

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(  # noqa: D102
        self, records: Sequence[Record], *, generation: int | None = None, within: Filter | None = None
    ) -> None:
        done = 0
        with self._write_lock:
            check_generation(self._generation, generation)
            if within is not None:
                outside(self.get([record.id for record in records]), within)
            try:
                for start in range(0, len(records), WRITE_CHUNK):
                    chunk = records[start : start + WRITE_CHUNK]
                    self.check_space(chunk)
                    points = [to_point(record) for record in chunk]
                    with self._lock:
                        for record in chunk:
                            self._spelt.expect(record.payload)
                        self._write(
                            q.UpdateOperation.upsert_points(points), [cast(PointId, point.id) for point in points]
                        )
                    done += len(chunk)
                self._flush()
            except StorageError as exc:
                if not done:
                    raise
                what = f"{done} of {len(records)} written: {exc}"
                raise PartialWriteError(what, [record.id for record in records[:done]]) from exc
        self._builder.consider()

    def check_space(self, records: Sequence[Record]) -> None:
        """Refuse to write records for which the disk has no room."""
        check_space(self.layout.folder, _MARGIN + sum(map(_bytes_of, records)), "writing")

    def update_payload(self, ids: Sequence[Id], payload: Payload, *, within: Filter | None = None) -> None:  # noqa: D102
        with self._write_lock:
            check_space(self.layout.folder, _MARGIN, "changing payloads")
            if within is not None:
                outside(self.get(ids), within)
            for start in range(0, len(ids), WRITE_CHUNK):
                self._merge([point_id(id_) for id_ in ids[start : start + WRITE_CHUNK]], payload)
            self._flush()

    def _merge(self, points: Sequence[PointId], changes: Payload) -> None:
        """Merge keys into some payloads; one point at a time where its exact spellings change with them."""
        with self._lock:
            self._spelt.expect(changes)
            with engine_errors("reading"):
                stored = self._serving().shard.retrieve(list(points), True, False)
            payloads = {cast(PointId, point.id): point.payload or {} for point in stored}
            together = [point for point, payload in payloads.items() if merges_in_place(payload, changes)]
            if together:
                self._write(q.UpdateOperation.set_payload(list(together), dict(changes), METADATA), together)
            for point in payloads.keys() - set(together):
                whole = merged_payload(payloads[point], changes)
                self._write(q.UpdateOperation.overwrite_payload([point], whole), [point])

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        with self._write_lock:
            check_space(self.layout.folder, _LEAST, "deleting")
            gone = self._matching(self._condition(ids, where))
            for start in range(0, len(gone), WRITE_CHUNK):
                points = gone[start : start + WRITE_CHUNK]
                self._write(q.UpdateOperation.delete_points(list(points)), points)
            self._flush()
        return len(gone)

    def _write(self, operation: q.UpdateOperation, points: Sequence[PointId]) -> None:
        """One operation, with the write lock held."""
        with self._lock:
            live = self._serving()
            if self.replacing:
                raise StorageError("the collection is being re-embedded; write when that has ended")
            try:
                with engine_errors("writing"):
                    live.shard.update(operation)
            finally:  # what is kept of the points is stale, and an index being built must hear of them
                self._cache.drop(points)
                self._builder.note(points)

    def _flush(self) -> None:
        with self._lock, engine_errors("flushing"):
            self._serving().shard.flush()

    # --- reading ------------------------------------------------------------------------------------------------------

    def candidates(  # noqa: D102
        self,
        queries: Sequence[CandidateQuery],
        *,
        deadline: Deadline | None = None,  # noqa: ARG002  # see the seam
    ) -> list[Candidates]:
        with self._lock:
            shard = self._serving().shard
            for query in queries:
                check_dimension(query, self._serving().meta.dimension)
            requests = [self._request(query) for query in queries]
            with engine_errors("searching"):
                answers = shard.query_batch(q.QueryBatchRequest(requests)) if len(requests) > 1 else None
                found = answers if answers is not None else [shard.query(requests[0])]
            return [self._candidates(query, points) for query, points in zip(queries, found, strict=True)]

    def _request(self, query: CandidateQuery) -> q.QueryRequest:
        return q.QueryRequest(
            limit=query.limit,
            query=q.Query.Nearest(query.vector.tolist()),
            filter=self._translated(query.where),
            params=q.SearchParams(hnsw_ef=query.ef, exact=query.exact),
            with_vector=False,
            with_payload=False,
        )

    def _candidates(self, query: CandidateQuery, points: Sequence[q.ScoredPoint]) -> Candidates:
        keys = [point.id for point in points]
        scores = np.array([point.score for point in points], dtype=np.float32)
        if not query.with_vectors:
            return Candidates(keys, scores, None, 0, self._generation)
        vectors, loaded = self._cache.gather(cast(list[PointId], keys), self._load_vectors)
        return Candidates(keys, scores, vectors, loaded * vectors.shape[1] * 4, self._generation)

    def _load_vectors(self, points: list[PointId]) -> npt.NDArray[np.float32]:
        with engine_errors("reading vectors"):
            records = self._serving().shard.retrieve(list(points), False, True)
        by_id = {record.id: record.vector for record in records}
        return np.array([by_id[point] for point in points], dtype=np.float32)

    def fetch(  # noqa: D102
        self,
        keys: Sequence[Key],
        *,
        deadline: Deadline | None = None,  # noqa: ARG002
    ) -> list[Record | None]:
        points = cast(Sequence[PointId], keys)
        found = self._retrieve(points, vectors=False)
        return [found.get(point) for point in points]

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        points = [point_id(id_) for id_ in ids]
        found = self._retrieve(points, vectors=vectors)
        return [found.get(point) for point in points]

    def _retrieve(self, points: Sequence[PointId], *, vectors: bool) -> dict[PointId, Record]:
        with self._lock, engine_errors("reading"):
            stored = self._serving().shard.retrieve(list(dict.fromkeys(points)), True, vectors)
        return {cast(PointId, point.id): to_record(point) for point in stored}

    def count(self, where: Filter | None) -> int:  # noqa: D102
        condition = self._translated(where)
        with self._lock, engine_errors("counting"):
            return self._serving().shard.count(q.CountRequest(exact=True, filter=condition))

    def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        start = cast(PointId | None, after)
        request = q.ScrollRequest(offset=start, limit=limit, with_payload=True, with_vector=vectors)
        with self._lock, engine_errors("reading"):
            points, rest = self._serving().shard.scroll(request)
        return [to_record(point) for point in points], rest

    def _matching(self, condition: q.Filter | None) -> list[PointId]:
        points: list[PointId] = []
        after: PointId | None = None
        while True:
            request = q.ScrollRequest(offset=after, limit=10_000, filter=condition, with_payload=False)
            with self._lock, engine_errors("reading"):
                page, rest = self._serving().shard.scroll(request)
            points.extend(cast(PointId, point.id) for point in page)
            if rest is None:
                return points
            after = cast(PointId, rest)

    def _translated(self, where: Filter | None) -> q.Filter | None:
        return to_engine_filter(where, self._fields, self._is_spelt)

    def _is_spelt(self, key: str) -> bool:
        """Whether any passage has floats or dates at a key."""
        somewhere = q.CountRequest(exact=True, filter=q.Filter(must_not=[q.IsEmptyCondition(exact_path(key))]))
        with self._lock, engine_errors("reading"):
            shard = self._serving().shard
            return self._spelt.holds(key, lambda: bool(shard.count(somewhere)))

    def _condition(self, ids: Sequence[Id] | None, where: Filter | None) -> q.Filter | None:
        condition = self._translated(where)
        if ids is None:
            return condition
        named = q.HasIdCondition({point_id(id_) for id_ in ids})
        return q.Filter(must=[named] if condition is None else [named, condition])

    # --- the whole collection -----------------------------------------------------------------------------------------

    def replace(self, embedder: EmbedderIdentity) -> Replacement:  # noqa: D102
        replacement = EdgeReplacement(self, embedder)
        with self._write_lock:
            self._serving()
            if self.replacing:
                raise StorageError("the collection is being re-embedded already")
            self._replacement = weakref.ref(replacement)
        self._builder.stop()  # not with the write lock held: the build may wait for it
        return replacement

    def begin_version(self, dimension: int) -> tuple[Version, q.EdgeShard]:
        """An empty version to be filled and taken."""
        with engine_errors("making a new version"):
            return self._new_version(dimension)[:2]

    def take(self, fresh: Live, *, same_vectors: bool) -> None:
        """Make another version the live one. Call with the write lock held."""
        with engine_errors("changing over to a new version"):
            fresh.shard.flush()
            fields = declare_fields(fresh.shard, self._fields)
            fresh.version.complete(fresh.meta)
            with self._lock:
                old, cache = self._serving(), self._cache
                try:
                    self.layout.switch_to(fresh.version)
                finally:
                    if self.layout.is_current(fresh.version):  # from here on there is no way back
                        self._seal = None
                        self._serve(fresh, fields)
                        if same_vectors:
                            self._cache = cache
                        else:
                            self._generation += 1
                old.shard.close()
            self.layout.discard(old.version)

    def exclusively(self, action: Callable[[Live], T]) -> T:
        """Run something with what is live while no writer is at work; readers go on."""
        with self._write_lock:
            return action(self._serving())

    def end_replacement(self) -> None:
        """Allow writes again."""
        self._replacement = lambda: None

    def optimize(self, *, wait: bool) -> None:  # noqa: D102
        self.statistics()
        if self.replacing:
            raise StorageError("the collection is being re-embedded; build the index when that has ended")
        build, fresh = self._builder.start()
        if not wait or build is None:
            return
        build.wait()
        if not fresh:  # it began before, from an older copy: what came since may be due
            build, _ = self._builder.start()
            if build is not None:
                build.wait()

    def bulk(self) -> AbstractContextManager[None]:  # noqa: D102
        return self._builder.held_back()

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        findings = list(self._builder.doctor(self.statistics()))
        with self._write_lock:
            damaged = [] if self._seal is None else self._seal.damaged(self._serving().version)
        if damaged:
            what = f"{len(damaged)} files hold other bytes than when they were written, first {damaged[0]}"
            findings.append(Finding("error", what, "copy what can be read to another store, or restore from a backup"))
        return findings

    def close(self) -> None:  # noqa: D102
        with self._lock:
            self._closed = True
        self._builder.stop(for_good=True)
        with self._write_lock, self._lock:
            live, self._live = self._live, None
            try:
                if live is not None:
                    with engine_errors("closing"):
                        live.shard.flush()
                        count = live.shard.info().points_count
                        live.shard.close()
                        Seal.put_on(live.version, count, self._seal)
            finally:
                if self._held is not None:
                    self._held.release()
                    self._held = None


def _bytes_of(record: Record) -> int:
    """About what a record takes of the disk, rather too much."""
    vector = 0 if record.vector is None else record.vector.nbytes
    return _COPIES * (vector + 4 * len(record.text) + len(canonical(record.payload)))
