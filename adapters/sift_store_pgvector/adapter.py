"""`PgAdapter`: one open collection of PostgreSQL. Its twin of coroutine functions is in async_adapter."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Table

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
from sift_store.deadline import Deadline
from sift_store.errors import ReadOnlyError, StorageError, StoreClosedError
from sift_store.filters import Filter
from sift_store.records import Id, Payload, Record
from sift_store_pgvector.attached import AttachedCollection
from sift_store_pgvector.doctor import examine
from sift_store_pgvector.maintenance import Held, Maintenance
from sift_store_pgvector.own import OwnCollection
from sift_store_pgvector.session import Session
from sift_store_pgvector.work import Work

__all__ = ["PgAdapter", "owned"]

T = TypeVar("T")


class PgAdapter:
    """One collection, our own or attached. Safe to use from several threads; each call borrows a connection."""

    def __init__(
        self, session: Session, collection: OwnCollection | AttachedCollection, maintenance: Maintenance
    ) -> None:
        self._session, self._collection, self._maintenance = session, collection, maintenance
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:  # noqa: D102  # the seam says what each method does
        return self._collection.capabilities

    def statistics(self, *, deadline: Deadline | None = None) -> Statistics:  # noqa: D102  # the seam says what each method does
        self._check_open()
        known = self._collection.known_statistics()
        return known or self._read("reading the state", self._collection.statistics, deadline)

    def declare(self) -> None:
        """Build the indexes of fields that were declared at open and that an existing collection does not have."""
        own = owned(self._collection)
        if self.statistics().dimension is not None and (missing := own.undeclared()):
            self._maintenance.declare(own.serving(), missing)
            self._write("declaring fields", own.declare)

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        own = owned(self._collection)
        self._check_open()
        self._maintenance.prepare_schema()
        self._write("creating the collection", partial(own.create, dimension, embedder))
        self.statistics()

    def upsert(  # noqa: D102
        self, records: Sequence[Record], *, generation: int | None = None, within: Filter | None = None
    ) -> None:
        own = owned(self._collection)
        self._write("writing", partial(own.upsert, records, generation, within))

    def candidates(  # noqa: D102
        self, queries: Sequence[CandidateQuery], *, deadline: Deadline | None = None
    ) -> list[Candidates]:
        layout, generation = self._collection.layout, self._collection.generation
        return self._read("searching", partial(layout.candidates, queries, generation), deadline)

    def fetch(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Record | None]:  # noqa: D102
        return self._read("reading", partial(self._collection.layout.fetch, keys), deadline)

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        return self._read("reading", partial(self._collection.get, ids, vectors=vectors))

    def update_payload(self, ids: Sequence[Id], payload: Payload, *, within: Filter | None = None) -> None:  # noqa: D102
        own = owned(self._collection)
        self._write("changing payloads", partial(own.update_payload, ids, payload, within))

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        own = owned(self._collection)
        return self._write("deleting", partial(own.delete, ids, where))

    def count(self, where: Filter | None) -> int:  # noqa: D102
        return self._read("counting", partial(self._collection.layout.count, where))

    def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        return self._read("reading", partial(self._collection.layout.scan, after, limit, vectors=vectors))

    def replace(self, embedder: EmbedderIdentity) -> Replacement:  # noqa: D102
        own = owned(self._collection)
        self._check_open()
        before = own.serving()
        held = self._maintenance.hold(own.replacement_lock())
        try:
            own.forget()
            self.statistics()
            own.check_same(before)  # while the lock was waited for, somebody else may have re-embedded
        except BaseException:
            held.drop()
            raise
        return _PgReplacement(self, own, embedder, held)

    def optimize(self, *, wait: bool) -> None:  # noqa: D102
        own = owned(self._collection)
        if self.statistics().dimension is not None:
            self._maintenance.optimize(own.serving(), wait=wait)
            self._collection.forget()

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        return self._read("examining", partial(examine, self._collection))

    def close(self) -> None:  # noqa: D102
        if not self._closed:
            self._closed = True
            self._maintenance.close()
            self._session.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed; open it again")

    def _read(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline | None = None) -> T:
        self._check_open()
        try:
            return self._session.read(doing, make, deadline)
        except BaseException:
            self._collection.forget()
            raise

    def _write(self, doing: str, make: Callable[[], Work[T]]) -> T:
        self._check_open()
        try:
            return self._session.write(doing, make)
        finally:
            self._collection.forget()


def owned(collection: OwnCollection | AttachedCollection) -> OwnCollection:
    """A collection that may be written.

    Raises:
        ReadOnlyError: it was attached.
    """
    if isinstance(collection, OwnCollection):
        return collection
    raise ReadOnlyError("an attached collection is only read; write to it with the program that it belongs to")


class _PgReplacement:
    """New vectors in a table of their own, taken in one transaction. A lock shuts out writers of every process."""

    def __init__(self, adapter: PgAdapter, own: OwnCollection, embedder: EmbedderIdentity, held: Held) -> None:
        self._adapter, self._own, self._embedder = adapter, own, embedder
        self._begun: tuple[Table, int] | None = None
        self._held = held
        self._lost = weakref.finalize(self, held.drop)

    def write(self, records: Sequence[Record], dimension: int) -> None:
        run = self._adapter._write
        if self._begun is None:
            self._begun = self._own.next_vectors(dimension), dimension
            run("making a new table", partial(self._own.begin_vectors, self._begun[0]))
        run("writing", partial(self._own.write_vectors, self._begun[0], records))

    def commit(self) -> int:
        if self._begun is not None:
            table, dimension = self._begun
            take = partial(self._own.take_vectors, table, dimension, self._embedder, self._held.holder)
            self._adapter._write("changing over", take)
            self._begun = None
            with contextlib.suppress(StorageError):  # a long reader is in the way: the next re-embedding drops them
                self._adapter._write("dropping the old vectors", self._own.drop_others)
        self._end()
        return self._adapter.statistics().generation

    def abandon(self) -> None:
        try:
            if self._begun is not None and not self._adapter._closed:
                self._adapter._write("dropping a table", self._own.drop_others)
        finally:
            self._end()

    def _end(self) -> None:
        if self._lost.detach() is not None:
            self._held.release()
