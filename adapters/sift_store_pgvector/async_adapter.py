"""`AsyncPgAdapter`: `PgAdapter` as coroutine functions. What needs a connection of its own runs on a thread."""

from __future__ import annotations

import asyncio
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
    Statistics,
)
from sift_store.deadline import Deadline
from sift_store.errors import StorageError, StoreClosedError
from sift_store.filters import Filter
from sift_store.records import Id, Payload, Record
from sift_store_pgvector.adapter import owned
from sift_store_pgvector.async_session import AsyncSession
from sift_store_pgvector.attached import AttachedCollection
from sift_store_pgvector.doctor import examine
from sift_store_pgvector.maintenance import Held, Maintenance
from sift_store_pgvector.own import OwnCollection
from sift_store_pgvector.work import Work

__all__ = ["AsyncPgAdapter"]

T = TypeVar("T")


class AsyncPgAdapter:
    """One collection, our own or attached, on one event loop."""

    def __init__(
        self, session: AsyncSession, collection: OwnCollection | AttachedCollection, maintenance: Maintenance
    ) -> None:
        self._session, self._collection, self._maintenance = session, collection, maintenance
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:  # noqa: D102  # the seam says what each method does
        return self._collection.capabilities

    async def statistics(self, *, deadline: Deadline | None = None) -> Statistics:  # noqa: D102  # the seam says what each method does
        self._check_open()
        if (known := self._collection.known_statistics()) is not None:
            return known
        return await self._read("reading the state", self._collection.statistics, deadline)

    async def declare(self) -> None:
        """Build the indexes of fields that were declared at open and that an existing collection does not have."""
        own = owned(self._collection)
        if (await self.statistics()).dimension is not None and (missing := own.undeclared()):
            await asyncio.to_thread(self._maintenance.declare, own.serving(), missing)
            await self._write("declaring fields", own.declare)

    async def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        own = owned(self._collection)
        self._check_open()
        await asyncio.to_thread(self._maintenance.prepare_schema)
        await self._write("creating the collection", partial(own.create, dimension, embedder))
        await self.statistics()

    async def upsert(  # noqa: D102
        self, records: Sequence[Record], *, generation: int | None = None, within: Filter | None = None
    ) -> None:
        own = owned(self._collection)
        await self._write("writing", partial(own.upsert, records, generation, within))

    async def candidates(  # noqa: D102
        self, queries: Sequence[CandidateQuery], *, deadline: Deadline | None = None
    ) -> list[Candidates]:
        layout, generation = self._collection.layout, self._collection.generation
        return await self._read("searching", partial(layout.candidates, queries, generation), deadline)

    async def fetch(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Record | None]:  # noqa: D102
        return await self._read("reading", partial(self._collection.layout.fetch, keys), deadline)

    async def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        return await self._read("reading", partial(self._collection.get, ids, vectors=vectors))

    async def update_payload(self, ids: Sequence[Id], payload: Payload, *, within: Filter | None = None) -> None:  # noqa: D102
        own = owned(self._collection)
        await self._write("changing payloads", partial(own.update_payload, ids, payload, within))

    async def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        own = owned(self._collection)
        return await self._write("deleting", partial(own.delete, ids, where))

    async def count(self, where: Filter | None) -> int:  # noqa: D102
        return await self._read("counting", partial(self._collection.layout.count, where))

    async def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        return await self._read("reading", partial(self._collection.layout.scan, after, limit, vectors=vectors))

    async def replace(self, embedder: EmbedderIdentity) -> _AsyncPgReplacement:  # noqa: D102
        own = owned(self._collection)
        self._check_open()
        before = own.serving()
        holding = asyncio.ensure_future(asyncio.to_thread(self._maintenance.hold, own.replacement_lock()))
        try:
            held = await asyncio.shield(holding)
        except asyncio.CancelledError:  # the thread goes on and takes the lock, for nobody
            holding.add_done_callback(_drop)
            raise
        try:
            own.forget()
            await self.statistics()
            own.check_same(before)
        except BaseException:
            held.drop()
            raise
        return _AsyncPgReplacement(self, own, embedder, held)

    async def optimize(self, *, wait: bool) -> None:  # noqa: D102
        own = owned(self._collection)
        if (await self.statistics()).dimension is not None:
            building = asyncio.ensure_future(asyncio.to_thread(self._maintenance.optimize, own.serving(), wait=wait))
            try:
                await asyncio.shield(building)
            except asyncio.CancelledError:  # the thread would go on
                await asyncio.to_thread(self._maintenance.close)
                await asyncio.wait([building])
                raise
            self._collection.forget()

    async def doctor(self) -> Iterable[Finding]:  # noqa: D102
        return await self._read("examining", partial(examine, self._collection))

    async def close(self) -> None:  # noqa: D102
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._maintenance.close)
            await self._session.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed; open it again")

    async def _read(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline | None = None) -> T:
        self._check_open()
        try:
            return await self._session.read(doing, make, deadline)
        except BaseException:
            self._collection.forget()
            raise

    async def _write(self, doing: str, make: Callable[[], Work[T]]) -> T:
        self._check_open()
        try:
            return await self._session.write(doing, make)
        finally:
            self._collection.forget()


class _AsyncPgReplacement:
    """New vectors in a table of their own, taken in one transaction. A lock shuts out writers of every process."""

    def __init__(self, adapter: AsyncPgAdapter, own: OwnCollection, embedder: EmbedderIdentity, held: Held) -> None:
        self._adapter, self._own, self._embedder = adapter, own, embedder
        self._begun: tuple[Table, int] | None = None
        self._held = held
        self._lost = weakref.finalize(self, held.drop)

    async def write(self, records: Sequence[Record], dimension: int) -> None:
        run = self._adapter._write
        if self._begun is None:
            self._begun = self._own.next_vectors(dimension), dimension
            await run("making a new table", partial(self._own.begin_vectors, self._begun[0]))
        await run("writing", partial(self._own.write_vectors, self._begun[0], records))

    async def commit(self) -> int:
        if self._begun is not None:
            table, dimension = self._begun
            take = partial(self._own.take_vectors, table, dimension, self._embedder, self._held.holder)
            await self._adapter._write("changing over", take)
            self._begun = None
            with contextlib.suppress(StorageError):  # a long reader is in the way: the next re-embedding drops them
                await self._adapter._write("dropping the old vectors", self._own.drop_others)
        await self._end()
        return (await self._adapter.statistics()).generation

    async def abandon(self) -> None:
        try:
            if self._begun is not None and not self._adapter._closed:
                await self._adapter._write("dropping a table", self._own.drop_others)
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._lost.detach() is not None:
            await asyncio.shield(asyncio.to_thread(self._held.release))  # cancelled before it runs, it never would


def _drop(holding: asyncio.Future[Held]) -> None:
    if not holding.cancelled() and holding.exception() is None:
        holding.result().drop()
