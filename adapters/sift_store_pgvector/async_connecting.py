"""Connections of the async driver: the twin of connecting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from sift_store.deadline import Deadline
from sift_store_pgvector.connecting import PATIENCE, GuardedAsyncConnection, check_driver, pool_options

__all__ = ["AsyncConnections", "async_connections"]


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
        return _AsyncPoolConnections(client, None)
    pool = AsyncConnectionPool(connection_class=GuardedAsyncConnection, **pool_options(parameters))
    await _try_async(pool)
    await pool.open()
    return _AsyncPoolConnections(pool, parameters)


async def _try_async(pool: AsyncConnectionPool[Any]) -> None:
    connection = await GuardedAsyncConnection.connect(**pool.kwargs)  # type: ignore[arg-type]  # a dict, as given
    await connection.close()


class _AsyncPoolConnections:
    def __init__(self, pool: AsyncConnectionPool[Any], ours: dict[str, Any] | None) -> None:
        self._pool, self._ours = pool, ours

    @asynccontextmanager
    async def lend(self, deadline: Deadline | None) -> AsyncIterator[Any]:
        connection = await self._get(deadline)
        try:
            async with _prepared_async(connection, deadline) as ready:
                yield ready
        finally:
            await asyncio.shield(self._pool.putconn(connection))  # cancelled on its way back, it would be lost

    async def _get(self, deadline: Deadline | None) -> Any:
        left = PATIENCE if deadline is None else deadline.left()
        try:
            return await self._pool.getconn(timeout=min(left, PATIENCE))
        except PoolTimeout:
            if self._ours is not None:
                await _try_async(self._pool)
            if deadline is None or not deadline.left():
                raise
            return await self._pool.getconn(timeout=deadline.left())

    async def close(self) -> None:
        if self._ours is not None:
            await self._pool.close()


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
                if getattr(raw, "broken", False):
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
    except BaseException:
        if not connection.closed:
            await connection.rollback()
        raise
    finally:
        if isinstance(connection, GuardedAsyncConnection):
            connection.deadline = None
        if not before and not connection.closed:
            await connection.set_autocommit(False)
