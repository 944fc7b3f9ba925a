"""`PgAdapter`: one open collection of PostgreSQL. Its twin of coroutine functions is in async_adapter."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Sequence
from functools import partial

from sqlalchemy import Table

from sift_store.adapter import EmbedderIdentity, Finding, Replacement
from sift_store.errors import StorageError
from sift_store.records import Record
from sift_store.served import ServedAdapter
from sift_store_pgvector.attached import AttachedCollection
from sift_store_pgvector.doctor import examine
from sift_store_pgvector.maintenance import Held, Maintenance, beside_lock
from sift_store_pgvector.own import OwnCollection
from sift_store_pgvector.session import Session

__all__ = ["PgAdapter"]


class PgAdapter(ServedAdapter[OwnCollection | AttachedCollection]):
    """One collection, our own or attached. Safe to use from several threads; each call borrows a connection."""

    def __init__(
        self, session: Session, collection: OwnCollection | AttachedCollection, maintenance: Maintenance
    ) -> None:
        super().__init__(session, collection)
        self._maintenance = maintenance

    def declare(self) -> None:
        """Build the indexes of fields that were declared at open and that an existing collection does not have."""
        own: OwnCollection = self._own
        if self.statistics().dimension is not None and (missing := own.undeclared()):
            self._maintenance.declare(own.serving(), missing)
            self._write("declaring fields", own.declare)

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        own: OwnCollection = self._own
        self._check_open()
        self._maintenance.prepare_schema()
        self._write("creating the collection", partial(own.create, dimension, embedder))
        self.statistics()

    def replace(self, embedder: EmbedderIdentity) -> Replacement:  # noqa: D102
        own: OwnCollection = self._own
        self._check_open()
        before = own.serving()
        held = self._maintenance.hold(own.replacement_lock())
        try:
            own.forget()
            with beside_lock(held):
                self.statistics()
            own.check_same(before)  # while the lock was waited for, somebody else may have re-embedded
        except BaseException:
            held.drop()
            raise
        return _PgReplacement(self, own, embedder, held)

    def optimize(self, *, wait: bool) -> None:  # noqa: D102
        own: OwnCollection = self._own
        if self.statistics().dimension is not None:
            self._maintenance.optimize(own.serving(), wait=wait)
            self._collection.forget()

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        findings: list[Finding] = self._read("examining", partial(examine, self._collection))
        return findings

    def close(self) -> None:  # noqa: D102
        if not self._closed:
            self._maintenance.close()
        super().close()


class _PgReplacement:
    """New vectors in a table of their own, taken in one transaction. A lock shuts out writers of every process."""

    def __init__(self, adapter: PgAdapter, own: OwnCollection, embedder: EmbedderIdentity, held: Held) -> None:
        self._adapter, self._own, self._embedder = adapter, own, embedder
        self._begun: tuple[Table, int] | None = None
        self._taken = False
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
            self._begun, self._taken = None, True
            with contextlib.suppress(StorageError):  # a long reader is in the way: the next re-embedding drops them
                self._adapter._write("dropping the old vectors", self._own.drop_others)
        self._end()
        return self._adapter.statistics().generation

    def abandon(self) -> int | None:
        try:
            if self._adapter._closed:
                return None
            if self._begun is not None:
                self._adapter._write("dropping a table", self._own.drop_others)
            generation = self._adapter.statistics().generation
            return generation if self._taken or self._own.lives_in(self._begun) else None
        finally:
            self._end()

    def _end(self) -> None:
        if self._lost.detach() is not None:
            self._held.release()
