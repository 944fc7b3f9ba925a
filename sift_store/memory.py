"""The exact store in numpy: nothing persists, nothing is approximate. The executable specification of the seam.

``SiftStore.open("memory://")`` for tests, small corpora and notebooks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as with_changes
from typing import cast

import numpy as np
import numpy.typing as npt

from sift_store.adapter import (
    Adapter,
    CandidateQuery,
    Candidates,
    Capabilities,
    EmbedderIdentity,
    Finding,
    Key,
    Replacement,
    Statistics,
)
from sift_store.errors import StoreClosedError
from sift_store.filters import Filter, matches
from sift_store.location import Location
from sift_store.records import Id, Payload, Record

__all__ = ["MemoryAdapter", "drop_collection", "list_collections", "open_store"]


class MemoryAdapter:
    """All records in one dictionary; a search compares with every vector."""

    capabilities = Capabilities(
        engine=f"numpy {np.__version__}",
        persistent=False,
        exclusive=False,
        approximate=False,
        native_filter="a predicate on the payload",
    )

    def __init__(self, indexed: Mapping[str, str]) -> None:
        self._fields = dict(indexed)
        self._lock = threading.RLock()
        self._records: dict[Id, Record] | None = {}
        self._dimension: int | None = None
        self._embedder: EmbedderIdentity | None = None
        self._matrix: npt.NDArray[np.float32] | None = None  # rows of _open(), remade after a write

    def statistics(self) -> Statistics:  # noqa: D102  # the seam says what each method does
        records = self._open()
        return Statistics(len(records), 0, self._dimension, "cosine", self._fields, self._embedder)

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        self._dimension, self._embedder = dimension, embedder

    def upsert(self, records: Sequence[Record]) -> None:  # noqa: D102
        with self._lock:
            self._open().update((record.id, record) for record in records)
            self._matrix = None

    def candidates(self, queries: Sequence[CandidateQuery]) -> list[Candidates]:  # noqa: D102
        with self._lock:
            return [self._nearest(query) for query in queries]

    def _nearest(self, query: CandidateQuery) -> Candidates:
        records = list(self._open().values())
        matrix = self._vectors()
        rows = np.arange(len(records))
        if query.where is not None:
            rows = rows[[matches(query.where, record.payload) for record in records]]
        scores = matrix[rows] @ query.vector if len(rows) else np.empty(0, np.float32)
        best = np.argsort(-scores, kind="stable")[: query.limit]
        vectors = matrix[rows[best]] if query.with_vectors else None
        keys = cast(list[Key], [records[row].id for row in rows[best]])
        return Candidates(keys, scores[best], vectors, 0 if vectors is None else vectors.nbytes)

    def _vectors(self) -> npt.NDArray[np.float32]:
        if self._matrix is None:
            rows = [record.vector for record in self._open().values() if record.vector is not None]
            self._matrix = np.stack(rows) if rows else np.empty((0, self._dimension or 0), np.float32)
        return self._matrix

    def fetch(self, keys: Sequence[Key]) -> list[Record]:  # noqa: D102
        records = self._open()
        return [with_changes(records[cast(Id, key)], vector=None) for key in keys]

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        found = [self._open().get(id_) for id_ in ids]
        return found if vectors else [record and with_changes(record, vector=None) for record in found]

    def update_payload(self, ids: Sequence[Id], payload: Payload) -> None:  # noqa: D102
        with self._lock:
            records = self._open()
            for id_ in ids:
                records[id_] = with_changes(records[id_], payload={**records[id_].payload, **payload})

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        with self._lock:
            records = self._open()
            named = list(records) if ids is None else [id_ for id_ in dict.fromkeys(ids) if id_ in records]
            gone = [id_ for id_ in named if matches(where, records[id_].payload)]
            for id_ in gone:
                del records[id_]
            self._matrix = None
            return len(gone)

    def count(self, where: Filter | None) -> int:  # noqa: D102
        with self._lock:
            return sum(matches(where, record.payload) for record in self._open().values())

    def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        with self._lock:
            ids = list(self._open())
            start = 0 if after is None else ids.index(cast(Id, after))
            page = self.get(ids[start : start + limit], vectors=vectors)
            rest = ids[start + limit : start + limit + 1]
            return cast(list[Record], page), rest[0] if rest else None

    def replace(self, dimension: int, embedder: EmbedderIdentity) -> Replacement:  # noqa: D102
        return _MemoryReplacement(self, dimension, embedder)

    def take(self, other: MemoryAdapter) -> None:
        """Make the other's content this one's."""
        with self._lock:
            self._records, self._dimension, self._embedder = other._open(), other._dimension, other._embedder
            self._matrix = None

    def optimize(self, *, wait: bool) -> None:  # noqa: ARG002, D102
        self._open()

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        return [
            Finding("note", "kept in memory, lost at exit", "give a path to keep it: SiftStore.open('./corpus.sift')")
        ]

    def close(self) -> None:  # noqa: D102
        self._records = None

    def _open(self) -> dict[Id, Record]:
        if self._records is None:
            raise StoreClosedError("the store is closed; open it again")
        return self._records


class _MemoryReplacement:
    def __init__(self, target: MemoryAdapter, dimension: int, embedder: EmbedderIdentity) -> None:
        self._target, self._new = target, MemoryAdapter({})
        self._new.create(dimension, embedder)

    def write(self, records: Sequence[Record]) -> None:
        self._new.upsert(records)

    def commit(self) -> None:
        self._target.take(self._new)

    def abandon(self) -> None:
        pass


def open_store(location: Location, *, indexed: Mapping[str, str]) -> Adapter:
    """A new, empty store; every call gives another one."""
    del location
    return MemoryAdapter(indexed)


def list_collections(location: Location) -> list[str]:
    """Nothing outlives its store, so there is nothing to list."""
    del location
    return []


def drop_collection(location: Location) -> bool:
    """Nothing outlives its store, so there is nothing to drop."""
    del location
    return False
