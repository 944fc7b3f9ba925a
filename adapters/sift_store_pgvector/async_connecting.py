"""Connections of the async driver: the twin of connecting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from sift_store.deadline import Deadline
from sift_store_pgvector.connecting import PATIENCE, POOL_SIZE, GuardedAsyncConnection, check_driver, pool_options

__all__ = ["AsyncConnections", "async_connections"]

# Seconds after which a connection is made anew, as psycopg_pool does: servers and what is in front of them change.
_LIFETIME = 3600.0


class AsyncConnections(Protocol):
    """The same for the async driver."""

    def lend(self, deadline: Deadline | None) -> Any:
        """An async context manager that gives a connection."""

    async def close(self) -> None:
        """Close what is ours."""


async def async_connections(parameters: dict[str, Any], client: Any) -> AsyncConnections:
    """The async source for a client, or a pool of our own."""
    if isinstance(client, AsyncEngine):
        check_driver(client.dialect.driver)
        return _AsyncEngineConnections(client)
    if isinstance(client, AsyncConnectionPool):
        return _AsyncPoolConnections(client)
    ours = _AsyncOwnConnections(parameters)
    async with ours.lend(None):  # says why, if there is none to be had
        return ours


class _AsyncOwnConnections:
    """A pool without tasks in the background.

    A loop that ends cancels all its tasks and waits for them. Those of psycopg_pool can miss that while they connect
    (seen with Python 3.11), and then `asyncio.run` never returns.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._options = pool_options(parameters)["kwargs"]
        self._room = asyncio.Semaphore(POOL_SIZE)
        self._idle: list[tuple[float, Any]] = []  # with the time it was made
        self._closed = False

    @asynccontextmanager
    async def lend(self, deadline: Deadline | None) -> AsyncIterator[Any]:
        await self._enter(deadline)
        try:
            made, connection = await self._ready(deadline)
            try:
                async with _prepared_async(connection, deadline) as ready:
                    yield ready
            finally:
                if self._closed or not _is_usable(connection) or time.monotonic() - made > _LIFETIME:
                    await asyncio.shield(connection.close())
                else:
                    self._idle.append((made, connection))
        finally:
            self._room.release()

    async def _enter(self, deadline: Deadline | None) -> None:
        if self._closed:
            raise PoolClosed("the connections are closed")
        try:
            async with asyncio.timeout(None if deadline is None else deadline.left()):
                await self._room.acquire()
        except TimeoutError as exc:
            raise PoolTimeout(f"{POOL_SIZE} connections are in use") from exc

    async def _ready(self, deadline: Deadline | None) -> tuple[float, Any]:
        while self._idle:
            made, connection = self._idle.pop()
            if _is_usable(connection):
                return made, connection
            await connection.close()
        try:
            async with asyncio.timeout(None if deadline is None else deadline.left()):
                return time.monotonic(), await GuardedAsyncConnection.connect(**self._options)
        except TimeoutError as exc:
            if deadline is None:
                raise
            raise deadline.error() from exc

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            await self._idle.pop()[1].close()


def _is_usable(connection: Any) -> bool:
    return not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE


class _AsyncPoolConnections:
    """A pool of the caller's."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    @asynccontextmanager
    async def lend(self, deadline: Deadline | None) -> AsyncIterator[Any]:
        connection = await self._pool.getconn(timeout=PATIENCE if deadline is None else deadline.left())
        try:
            async with _prepared_async(connection, deadline) as ready:
                yield ready
        finally:
            await asyncio.shield(self._pool.putconn(connection))  # cancelled on its way back, it would be lost

    async def close(self) -> None:
        pass


class _AsyncEngineConnections:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def lend(self, deadline: Deadline | None) -> AsyncIterator[Any]:
        async with self._engine.connect() as borrowed:
            raw = (await borrowed.get_raw_connection()).driver_connection
            try:
                async with _prepared_async(raw, deadline) as ready:
                    yield ready
            except BaseException:
                if raw is None or raw.closed:
                    await borrowed.invalidate()
                raise

    async def close(self) -> None:
        pass


@asynccontextmanager
async def _prepared_async(connection: Any, deadline: Deadline | None) -> AsyncIterator[Any]:
    before = connection.autocommit
    if not before:
        await connection.set_autocommit(True)
    if isinstance(connection, GuardedAsyncConnection):
        connection.deadline = deadline
    try:
        yield connection
    except Exception:
        if not connection.closed:
            await connection.rollback()
        raise
    except BaseException:  # cancelled: answers may be on their way that the next statement would take for its own
        await asyncio.shield(connection.close())
        raise
    finally:
        if isinstance(connection, GuardedAsyncConnection):
            connection.deadline = None
        if not before and not connection.closed:
            await connection.set_autocommit(False)
