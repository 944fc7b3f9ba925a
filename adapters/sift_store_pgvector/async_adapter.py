"""`AsyncPgAdapter`: `PgAdapter` as coroutine functions. What needs a connection of its own runs on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Iterable, Sequence
from functools import partial

from sqlalchemy import Table

from sift_store.adapter import EmbedderIdentity, Finding
from sift_store.errors import StorageError
from sift_store.records import Record
from sift_store.served import AsyncServedAdapter
from sift_store_pgvector.async_session import AsyncSession
from sift_store_pgvector.attached import AttachedCollection
from sift_store_pgvector.doctor import examine
from sift_store_pgvector.maintenance import Held, Maintenance, beside_lock
from sift_store_pgvector.own import OwnCollection

__all__ = ["AsyncPgAdapter"]


class AsyncPgAdapter(AsyncServedAdapter[OwnCollection | AttachedCollection]):
    """One collection, our own or attached, on one event loop."""

    def __init__(
        self, session: AsyncSession, collection: OwnCollection | AttachedCollection, maintenance: Maintenance
    ) -> None:
        super().__init__(session, collection)
        self._maintenance = maintenance

    async def declare(self) -> None:
        """Build the indexes of fields that were declared at open and that an existing collection does not have."""
        own: OwnCollection = self._own
        if (await self.statistics()).dimension is not None and (missing := own.undeclared()):
            await asyncio.to_thread(self._maintenance.declare, own.serving(), missing)
            await self._write("declaring fields", own.declare)

    async def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        own: OwnCollection = self._own
        self._check_open()
        await asyncio.to_thread(self._maintenance.prepare_schema)
        await self._write("creating the collection", partial(own.create, dimension, embedder))
        await self.statistics()

    async def replace(self, embedder: EmbedderIdentity) -> _AsyncPgReplacement:  # noqa: D102
        own: OwnCollection = self._own
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
            with beside_lock(held):
                await self.statistics()
            own.check_same(before)
        except BaseException:
            held.drop()
            raise
        return _AsyncPgReplacement(self, own, embedder, held)

    async def optimize(self, *, wait: bool) -> None:  # noqa: D102
        own: OwnCollection = self._own
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
        findings: list[Finding] = await self._read("examining", partial(examine, self._collection))
        return findings

    async def close(self) -> None:  # noqa: D102
        if not self._closed:
            await asyncio.to_thread(self._maintenance.close)
        await super().close()


class _AsyncPgReplacement:
    """New vectors in a table of their own, taken in one transaction. A lock shuts out writers of every process."""

    def __init__(self, adapter: AsyncPgAdapter, own: OwnCollection, embedder: EmbedderIdentity, held: Held) -> None:
        self._adapter, self._own, self._embedder = adapter, own, embedder
        self._begun: tuple[Table, int] | None = None
        self._taken = False
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
            self._begun, self._taken = None, True
            with contextlib.suppress(StorageError):  # a long reader is in the way: the next re-embedding drops them
                await self._adapter._write("dropping the old vectors", self._own.drop_others)
        await self._end()
        return (await self._adapter.statistics()).generation

    async def abandon(self) -> int | None:
        try:
            if self._adapter._closed:
                return None
            if self._begun is not None:
                await self._adapter._write("dropping a table", self._own.drop_others)
            generation = (await self._adapter.statistics()).generation
            return generation if self._taken or self._own.lives_in(self._begun) else None
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._lost.detach() is not None:
            await asyncio.shield(asyncio.to_thread(self._held.release))  # cancelled before it runs, it never would


def _drop(holding: asyncio.Future[Held]) -> None:
    if not holding.cancelled() and holding.exception() is None:
        holding.result().drop()
