"""`Session`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.rows import tuple_row
from tenacity import AsyncRetrying

from sift_store.deadline import Deadline
from sift_store.errors import StorageError
from sift_store_pgvector.async_connecting import AsyncConnections
from sift_store_pgvector.connecting import check_encoding, same_place
from sift_store_pgvector.failures import driver_errors
from sift_store_pgvector.session import (
    COMMIT_LOST,
    FATE,
    FATE_TIMEOUT,
    READ_ONLY,
    RETRY,
    WRITE_TIMEOUT,
    XID,
    Written,
    binary_cursor,
    fate_unknown,
    is_brief,
    merged,
    settings,
)
from sift_store_pgvector.work import TIMEOUT, CopyIn, Rows, Statement, Work

__all__ = ["AsyncSession"]

T = TypeVar("T")


class AsyncSession:
    """Operations over async connections."""

    def __init__(self, connections: AsyncConnections) -> None:
        self._connections = connections
        self.vector_oids: Sequence[int] = ()

    async def parameters(self) -> dict[str, Any]:
        """As `Session.parameters`."""
        with driver_errors("connecting"):
            async with self._connections.lend(Deadline.after(TIMEOUT)) as connection:
                check_encoding(connection)
                return same_place(connection)

    async def read(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline | None = None) -> T:
        """As `Session.read`."""
        deadline = deadline or Deadline.after(TIMEOUT)
        with driver_errors(doing, deadline):
            async for attempt in AsyncRetrying(**RETRY):
                with attempt:
                    deadline.check()
                    return await _run(make(), lambda step: self._ask(step, deadline))
        raise AssertionError  # tenacity raises what the last attempt raised

    async def write(self, doing: str, make: Callable[[], Work[T]]) -> T:
        """As `Session.write`; cancelled before the commit, nothing is written."""
        deadline = Deadline.after(WRITE_TIMEOUT)
        with driver_errors(doing, deadline):
            written = await self._written(doing, make, deadline)
        if written.lost is not None and not await self._committed(doing, written.transaction):
            raise StorageError(f"{doing}: the connection broke and nothing was written; try again") from written.lost
        return written.result

    async def _written(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline) -> Written[T]:
        async for attempt in AsyncRetrying(**RETRY):
            with attempt:
                async with self._connections.lend(deadline) as connection:
                    await _execute(connection, "BEGIN")
                    return await self._write_on(doing, connection, make, deadline)
        raise AssertionError

    async def _write_on(
        self, doing: str, connection: Any, make: Callable[[], Work[T]], deadline: Deadline
    ) -> Written[T]:
        with driver_errors(doing, deadline):
            await _execute(connection, *settings({}, deadline))
            result = await _run(make(), lambda step: _on(connection, step))
            (transaction,) = await (await _execute(connection, XID)).fetchone()
            try:
                await _execute(connection, "COMMIT")
            except COMMIT_LOST as exc:
                return Written(result, transaction, exc)
            return Written(result, transaction)

    async def _committed(self, doing: str, transaction: str | None) -> bool:
        if transaction is None:
            return True
        deadline = Deadline.after(FATE_TIMEOUT)
        while deadline.left():
            try:
                async with self._connections.lend(deadline) as connection:
                    (fate,) = await (await _execute(connection, FATE, (transaction,))).fetchone()
            except psycopg.Error:
                fate = "in progress"
            if fate in ("committed", "aborted"):
                return bool(fate == "committed")
            await asyncio.sleep(0.1)
        raise fate_unknown(doing)

    async def _ask(self, statements: Sequence[Statement], deadline: Deadline) -> list[Rows]:
        async with self._connections.lend(deadline) as connection:
            if is_brief(statements, connection):
                cursor = binary_cursor(connection, self.vector_oids)
                await cursor.execute(statements[0].sql, statements[0].parameters, prepare=False)
                return [await cursor.fetchall()]
            async with connection.pipeline():
                await _execute(connection, *settings({**READ_ONLY, **merged(statements)}, deadline))
                cursors = [binary_cursor(connection, self.vector_oids) for _ in statements]
                for cursor, statement in zip(cursors, statements, strict=True):
                    await cursor.execute(statement.sql, statement.parameters, prepare=False)
                return [await cursor.fetchall() for cursor in cursors]

    async def close(self) -> None:
        """Close the connections that are ours."""
        await self._connections.close()


async def _run(work: Work[T], do: Callable[[Any], Awaitable[Any]]) -> T:
    try:
        step = next(work)
        while True:
            step = work.send(await do(step))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a generator's return value


async def _execute(connection: Any, sql: str, parameters: Any = None) -> Any:
    return await connection.cursor(row_factory=tuple_row).execute(sql, parameters, prepare=False)


async def _on(connection: Any, step: Sequence[Statement] | CopyIn) -> list[Rows]:
    if isinstance(step, CopyIn):
        async with binary_cursor(connection).copy(step.sql) as copy:
            for block in step.blocks(connection.info.encoding):
                await copy.write(block)
        return []
    found = []
    for statement in step:
        cursor = binary_cursor(connection)
        await cursor.execute(statement.sql, statement.parameters, prepare=False)
        found.append(await cursor.fetchall() if cursor.description else [])
    return found
