"""Runs operations on connections: what is read may be tried again, what is written is written once or not at all.

`Session` here and `AsyncSession` in async_session do the same, step by step; the operations know of neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.string import ByteaBinaryLoader
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from sift_store.deadline import Deadline
from sift_store.errors import DeadlineError, StorageError
from sift_store_pgvector.codec import VectorDumper, VectorParameter
from sift_store_pgvector.connecting import Connections, check_encoding, is_ours, same_place
from sift_store_pgvector.failures import driver_errors, is_transient
from sift_store_pgvector.work import TIMEOUT, CopyIn, Rows, Statement, Work

__all__ = [
    "COMMIT_LOST",
    "FATE",
    "FATE_TIMEOUT",
    "READ_ONLY",
    "RETRY",
    "WRITE_TIMEOUT",
    "XID",
    "Session",
    "Written",
    "binary_cursor",
    "fate_unknown",
    "is_brief",
    "merged",
    "settings",
]

T = TypeVar("T")

# Seconds for one transaction that writes.
WRITE_TIMEOUT = 300.0
# A server that restarts is back within these seconds.
_SECONDS = 6.0
RETRY: dict[str, Any] = {
    "stop": stop_after_delay(_SECONDS),
    "wait": wait_exponential(multiplier=0.05, max=1.0) + wait_random(0, 0.05),
    "retry": retry_if_exception(is_transient),
    "reraise": True,
}
# How long the fate of a transaction is asked for whose commit was not answered.
FATE_TIMEOUT = 10.0


def settings(given: Mapping[str, str], deadline: Deadline) -> tuple[str, dict[str, str]]:
    """One statement that sets configuration parameters until the transaction ends."""
    wanted = {**given, "statement_timeout": str(max(int(deadline.left() * 1000), 1))}
    calls = ", ".join(f"set_config('{name}', %({name.replace('.', '_')})s, true)" for name in wanted)
    return f"SELECT {calls}", {name.replace(".", "_"): value for name, value in wanted.items()}


def binary_cursor(connection: Any, oids: Sequence[int] = ()) -> Any:
    """A cursor that fetches in binary and sends vectors. Nothing is set on a connection of the caller's."""
    cursor = connection.cursor(binary=True, row_factory=tuple_row)
    if not is_ours(connection):
        cursor.adapters.register_dumper(VectorParameter, VectorDumper)
        for oid in oids:  # the caller may have taught the connection to make something else of vectors
            cursor.adapters.register_loader(oid, ByteaBinaryLoader)
    return cursor


def is_brief(statements: Sequence[Statement], connection: Any) -> bool:
    """Whether there is one statement that cannot take long, over a connection that watches the deadline by itself.

    Then it needs no transaction with a time limit around it, and half the time.
    """
    return len(statements) == 1 and statements[0].brief and is_ours(connection)


def merged(statements: Sequence[Statement]) -> dict[str, str]:
    """The settings of all statements."""
    return {name: value for statement in statements for name, value in statement.settings.items()}


READ_ONLY = {"transaction_read_only": "on"}
XID = "SELECT pg_current_xact_id_if_assigned()::text"
FATE = "SELECT pg_xact_status(%s::xid8)"


def fate_unknown(doing: str) -> StorageError:
    """What to raise when nobody can say whether a transaction is in the database."""
    return StorageError(
        f"{doing}: the connection broke while the server was asked to commit, and it cannot be asked whether it did; "
        "writing the same again is safe"
    )


COMMIT_LOST = (psycopg.OperationalError, psycopg.InterfaceError, DeadlineError)


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """A write that was asked to commit.

    Attributes:
        transaction: its number, None if it changed nothing. lost: why the answer to its commit did not come, or None.
    """

    result: T
    transaction: str | None
    lost: Exception | None = None


class Session:
    """Operations over sync connections."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.vector_oids: Sequence[int] = ()

    def parameters(self) -> dict[str, Any]:
        """For a connection of its own to where these lead."""
        with driver_errors("connecting"), self._connections.lend(Deadline.after(TIMEOUT)) as connection:
            check_encoding(connection)
            return same_place(connection)

    def read(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline | None = None) -> T:
        """Run an operation that only reads, each of its steps in a transaction of its own and one round trip.

        Tried again, from the start, if the connection is lost. Raises what `driver_errors` says.
        """
        deadline = deadline or Deadline.after(TIMEOUT)
        with driver_errors(doing, deadline):
            for attempt in Retrying(**RETRY):
                with attempt:
                    deadline.check()
                    return _run(make(), lambda step: self._ask(step, deadline))
        raise AssertionError  # tenacity raises what the last attempt raised

    def write(self, doing: str, make: Callable[[], Work[T]]) -> T:
        """Run an operation in one transaction, once. Only a connection that is dead before it begins is replaced."""
        deadline = Deadline.after(WRITE_TIMEOUT)
        with driver_errors(doing, deadline):
            written = self._written(doing, make, deadline)
        if written.lost is not None and not self._committed(doing, written.transaction):
            raise StorageError(f"{doing}: the connection broke and nothing was written; try again") from written.lost
        return written.result

    def _written(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline) -> Written[T]:
        for attempt in Retrying(**RETRY):
            with attempt, self._connections.lend(deadline) as connection:
                _execute(connection, "BEGIN")
                return self._write_on(doing, connection, make, deadline)
        raise AssertionError

    def _write_on(self, doing: str, connection: Any, make: Callable[[], Work[T]], deadline: Deadline) -> Written[T]:
        """Run a write once. Writes are never retried."""
        with driver_errors(doing, deadline):
            _execute(connection, *settings({}, deadline))
            result = _run(make(), lambda step: _on(connection, step))
            (transaction,) = _execute(connection, XID).fetchone()
            try:
                _execute(connection, "COMMIT")
            except COMMIT_LOST as exc:  # asked about once the connection is back: all others may wait for theirs
                return Written(result, transaction, exc)
            return Written(result, transaction)

    def _committed(self, doing: str, transaction: str | None) -> bool:
        """Whether a transaction that did not answer is in the database."""
        if transaction is None:
            return True  # it wrote nothing
        deadline = Deadline.after(FATE_TIMEOUT)
        while deadline.left():
            try:
                with self._connections.lend(deadline) as connection:
                    (fate,) = _execute(connection, FATE, (transaction,)).fetchone()
            except psycopg.Error:
                fate = "in progress"
            if fate in ("committed", "aborted"):
                return bool(fate == "committed")
            time.sleep(0.1)
        raise fate_unknown(doing)

    def _ask(self, statements: Sequence[Statement], deadline: Deadline) -> list[Rows]:
        with self._connections.lend(deadline) as connection:
            if is_brief(statements, connection):
                cursor = binary_cursor(connection, self.vector_oids)
                cursor.execute(statements[0].sql, statements[0].parameters, prepare=False)
                return [cursor.fetchall()]
            with connection.pipeline():
                # Statements of a pipeline up to its end are one transaction; "local" to it is what is set here.
                _execute(connection, *settings({**READ_ONLY, **merged(statements)}, deadline))
                cursors = [binary_cursor(connection, self.vector_oids) for _ in statements]
                for cursor, statement in zip(cursors, statements, strict=True):
                    cursor.execute(statement.sql, statement.parameters, prepare=False)
                return [cursor.fetchall() for cursor in cursors]

    def close(self) -> None:
        """Close the connections that are ours."""
        self._connections.close()


def _run(work: Work[T], do: Callable[[Any], Any]) -> T:
    try:
        step = next(work)
        while True:
            step = work.send(do(step))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a generator's return value


def _execute(connection: Any, sql: str, parameters: Any = None) -> Any:
    return connection.cursor(row_factory=tuple_row).execute(sql, parameters, prepare=False)


def _on(connection: Any, step: Sequence[Statement] | CopyIn) -> list[Rows]:
    """One step inside a transaction that writes."""
    if isinstance(step, CopyIn):
        with binary_cursor(connection).copy(step.sql) as copy:
            for block in step.blocks(connection.info.encoding):
                copy.write(block)
        return []
    found = []
    for statement in step:
        cursor = binary_cursor(connection)
        cursor.execute(statement.sql, statement.parameters, prepare=False)
        found.append(cursor.fetchall() if cursor.description else [])
    return found
