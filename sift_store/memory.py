"""The exact store in numpy: nothing persists, nothing is approximate. The executable specification of the seam.

``SiftStore.open("memory://")`` for tests, small corpora and notebooks.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
    check_dimension,
    check_generation,
    no_client,
    outside,
)
from sift_store.deadline import Deadline
from sift_store.errors import InvalidInputError, StorageError, StoreClosedError
from sift_store.filters import Filter, predicate
from sift_store.location import Location, check_options
from sift_store.records import Id, Payload, Record

__all__ = ["MemoryAdapter", "attach_store", "copied", "drop_collection", "list_collections", "open_store"]


# By how much a score may differ with the order in which its products are added up.
_ROUNDING = np.float32(1e-6)


class MemoryAdapter:
    """All records in one dictionary; a search compares with every vector."""

    capabilities = Capabilities(
        engine=f"numpy {np.__version__}",
        persistent=False,
        native_filter="a predicate on the payload",
    )

    def __init__(self, indexed: Mapping[str, str]) -> None:
        self._fields = dict(indexed)
        self._lock = threading.RLock()
        self._records: dict[Id, Record] | None = {}
        self._dimension: int | None = None
        self._embedder: EmbedderIdentity | None = None
        self._matrix: npt.NDArray[np.float32] | None = None  # of the records in `_rows`; both remade after a write
        self._rows: list[Record] = []
        self._generation = 0
        self._replacement: Callable[[], object | None] = lambda: None  # a weak reference: one that is lost is over

    def statistics(self, *, deadline: Deadline | None = None) -> Statistics:  # noqa: ARG002, D102  # the seam says what each method does
        records = self._open()
        return Statistics(
            len(records),
            0,
            self._dimension,
            "cosine",
            self._fields,
            self._embedder,
            generation=self._generation,
        )

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        with self._lock:
            self._open()
            if self._dimension is None:
                self._dimension, self._embedder = dimension, embedder

    def upsert(  # noqa: D102
        self, records: Sequence[Record], *, generation: int | None = None, within: Filter | None = None
    ) -> None:
        with self._lock:
            stored = self._writable()
            check_generation(self._generation, generation)
            if within is not None:
                outside([stored.get(record.id) for record in records], within)
            stored.update((record.id, record) for record in records)
            self._matrix = None

    def candidates(  # noqa: D102
        self,
        queries: Sequence[CandidateQuery],
        *,
        deadline: Deadline | None = None,  # noqa: ARG002  # see the seam
    ) -> list[Candidates]:
        with self._lock:
            self._open()
            matrix = self._vectors()
            for query in queries:
                check_dimension(query, matrix.shape[1])
            together = matrix @ np.stack([query.vector for query in queries]).T
            return [self._nearest(query, scores) for query, scores in zip(queries, together.T, strict=True)]

    def _nearest(self, query: CandidateQuery, similarities: npt.NDArray[np.float32]) -> Candidates:
        records, matrix = self._rows, self._vectors()
        rows = self._matching(query.where)
        scores = similarities if rows is None else similarities[rows]
        places = _largest(scores, query.limit)
        best = places if rows is None else rows[places]
        # Row by row, so that a question has the same scores whatever else is asked beside it.
        exact = np.einsum("ij,j->i", matrix[best], query.vector)
        order = np.lexsort((best, -exact))[: query.limit]
        best, exact = best[order], exact[order]
        vectors = matrix[best] if query.with_vectors else None
        keys = cast(list[Key], [records[row].id for row in best])
        return Candidates(keys, exact, vectors, 0 if vectors is None else vectors.nbytes, self._generation)

    def _matching(self, where: Filter | None) -> npt.NDArray[np.intp] | None:
        """Rows that satisfy a filter, None for all."""
        if where is None:
            return None
        holds = self.test(where)
        return np.array([row for row, record in enumerate(self._rows) if holds(record)], dtype=np.intp)

    def _vectors(self) -> npt.NDArray[np.float32]:
        """The vectors of `_rows`, (n, d)."""
        if self._matrix is None:
            self._rows = [record for record in self._open().values() if record.vector is not None]
            rows = [record.vector for record in self._rows if record.vector is not None]
            self._matrix = np.stack(rows) if rows else np.empty((0, self._dimension or 0), np.float32)
        return self._matrix

    def fetch(  # noqa: D102
        self,
        keys: Sequence[Key],
        *,
        deadline: Deadline | None = None,  # noqa: ARG002
    ) -> list[Record | None]:
        return self.get(cast(Sequence[Id], keys))

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        found = [self._open().get(id_) for id_ in ids]
        return [record and copied(record, vectors) for record in found]

    def update_payload(self, ids: Sequence[Id], payload: Payload, *, within: Filter | None = None) -> None:  # noqa: D102
        with self._lock:
            records = self._writable()
            present = [id_ for id_ in ids if id_ in records]
            if within is not None:
                outside([records[id_] for id_ in present], within)
            self._matrix = None
            for id_ in present:
                merged = {**records[id_].payload, **copy.deepcopy(dict(payload))}
                records[id_] = with_changes(records[id_], payload=merged)

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        with self._lock:
            records = self._writable()
            named = list(records) if ids is None else [id_ for id_ in dict.fromkeys(ids) if id_ in records]
            holds = self.test(where)
            gone = [id_ for id_ in named if holds(records[id_])]
            for id_ in gone:
                del records[id_]
            self._matrix = None
            return len(gone)

    def count(self, where: Filter | None) -> int:  # noqa: D102
        with self._lock:
            return sum(map(self.test(where), self._open().values()))

    def test(self, where: Filter | None) -> Callable[[Record], bool]:
        """A filter as a function of a record."""
        holds = predicate(where)
        return lambda record: holds(record.payload)

    def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        with self._lock:
            ids = list(self._open())
            if after is not None and after not in self._open():
                raise StorageError(f"the record {after!r}, where this page was to begin, was deleted; scan again")
            start = 0 if after is None else ids.index(cast(Id, after))
            page = self.get(ids[start : start + limit], vectors=vectors)
            rest = ids[start + limit : start + limit + 1]
            return cast(list[Record], page), rest[0] if rest else None

    def replace(self, embedder: EmbedderIdentity) -> Replacement:  # noqa: D102
        with self._lock:
            self._writable()
            replacement = _MemoryReplacement(self, embedder)
            self._replacement = weakref.ref(replacement)
            return replacement

    def take(self, other: MemoryAdapter, embedder: EmbedderIdentity) -> None:
        """Make the other's content this one's."""
        with self._lock:
            self._open()
            self._records, self._dimension, self._embedder = other._open(), other._dimension, embedder
            self._matrix = None
            self._generation += 1

    def end_replacement(self) -> None:
        """Allow writes again."""
        self._replacement = lambda: None

    def optimize(self, *, wait: bool) -> None:  # noqa: ARG002, D102
        self._open()

    def bulk(self) -> AbstractContextManager[None]:  # noqa: D102
        return nullcontext()

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        return [
            Finding("note", "kept in memory, lost at exit", "give a path to keep it: SiftStore.open('./corpus.sift')")
        ]

    def close(self) -> None:  # noqa: D102
        self._records = None

    def _writable(self) -> dict[Id, Record]:
        if self._replacement() is not None:
            raise StorageError("the collection is being re-embedded; write when that has ended")
        return self._open()

    def _open(self) -> dict[Id, Record]:
        if self._records is None:
            raise StoreClosedError("the store is closed; open it again")
        return self._records


def _largest(scores: npt.NDArray[np.float32], limit: int) -> npt.NDArray[np.intp]:
    """Places of the largest scores, in any order, with all that equal the least of them."""
    if len(scores) <= limit:
        return np.arange(len(scores))
    least = np.partition(scores, -limit)[-limit]
    return np.flatnonzero(scores >= least - _ROUNDING)


class _MemoryReplacement:
    def __init__(self, target: MemoryAdapter, embedder: EmbedderIdentity) -> None:
        self._target, self._embedder, self._new = target, embedder, MemoryAdapter({})

    def write(self, records: Sequence[Record], dimension: int) -> None:
        self._new.create(dimension, self._embedder)
        self._new.upsert(records)

    def commit(self) -> int:
        self._target.take(self._new, self._embedder)
        self._target.end_replacement()
        return self._target.statistics().generation

    def abandon(self) -> None:
        self._target.end_replacement()


def copied(record: Record, vectors: bool) -> Record:
    """What leaves is the caller's own: changing it changes nothing here."""
    payload = copy.deepcopy(dict(record.payload))
    vector = record.vector.copy() if vectors and record.vector is not None else None
    return with_changes(record, payload=payload, vector=vector)


def open_store(location: Location, *, indexed: Mapping[str, str], client: object = None) -> Adapter:
    """A new, empty store; every call gives another one."""
    no_client(location, client)
    return MemoryAdapter(indexed)


def attach_store(location: Location, *, client: object = None) -> Adapter:
    """Attach vectors that another program keeps in this process; `client` is a `sift_store.mapped.Source`."""
    from sift_store.mapped import MappedAdapter, Source  # stands on this module

    check_options(location, frozenset(), "a URL without it")
    if not isinstance(client, Source):
        raise InvalidInputError(f"client: {type(client).__name__} given, an object with entries and texts wanted")
    return MappedAdapter(client)


def list_collections(location: Location) -> list[str]:
    """Nothing outlives its store, so there is nothing to list."""
    del location
    return []


def drop_collection(location: Location) -> bool:
    """Nothing outlives its store, so there is nothing to drop."""
    del location
    return False
