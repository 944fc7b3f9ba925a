"""Work on a whole collection with a connection of its own: migrating, building indexes, holding locks. Always sync."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sift_store_migrations import MigrationError, migrate
from sqlalchemy import Index, Table

from sift_store.errors import StorageError, StoreClosedError
from sift_store_pgvector.connecting import connection_options
from sift_store_pgvector.failures import driver_errors
from sift_store_pgvector.indexing import drop_statement_of, field_indexes, hnsw_index, statement_of
from sift_store_pgvector.schema import lock_key
from sift_store_pgvector.state import State
from sift_store_pgvector.work import quoted

__all__ = ["Held", "Maintenance", "beside_lock"]

# Below so many passages a walk of an index costs no less than comparing all of them, and the planner would not use it.
_WORTH_AN_INDEX = 2_000
# HNSW is built many times faster if all of it fits into maintenance_work_mem: so much is asked for at most.
_MOST_MEMORY = 1 << 30
_POLL = 0.1
# Writers hold their shared lock for one batch.
_LOCK_TIMEOUT = 30.0
# What would end a transaction that only holds a lock; the second since PostgreSQL 17.
_ENDINGS = ("idle_in_transaction_session_timeout", "transaction_timeout")


class Held:
    """A lock that lasts as long as a transaction on a connection of its own; the server ends it if this process dies.

    A transaction keeps its connection to the server whatever stands between: a lock of the session would stay on a
    pooler's connection, for whoever gets that next. Between its statements it holds no snapshot and no table, so that
    neither VACUUM nor index builds wait for it.

    Attributes:
        holder: the server's process that holds the lock. pooled: whether a pooler stands between.
    """

    def __init__(self, connection: psycopg.Connection[Any], closing: threading.Event) -> None:
        self._connection, self._closing = connection, closing
        self.holder, self.pooled = 0, False
        weakref.finalize(
            self, connection.pgconn.finish
        ).atexit = False  # a loop that ends while a thread takes the lock

    def take(self, lock: int, timeout: float) -> bool:
        """Ask for the lock until it is there, or nobody has built an index for so many seconds; whether it is there.

        Each question has a snapshot of its own, and none is held between them: to wait in the server would hold one
        that index builds wait for.
        """
        end = time.monotonic() + timeout
        # Without parameters: in the extended protocol the portal stays, and its snapshot, until the next statement.
        question = f"SELECT pg_try_advisory_xact_lock({lock:d}), pg_backend_pid()".encode()
        under_way = "SELECT EXISTS (SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database())"
        while True:
            self._connection.execute("BEGIN")
            for name in self._endings():
                self._connection.execute(f"SET LOCAL {name} = 0".encode())
            there, self.holder = self._connection.execute(question).fetchone() or (False, 0)
            if there:
                self.pooled = self.holder != self._connection.info.backend_pid
                return True
            # A build that saw this transaction's snapshot waits for its end, so each question has one of its own.
            self._connection.execute("ROLLBACK")
            (builds,) = self._connection.execute(under_way.encode()).fetchone() or (False,)
            end = time.monotonic() + timeout if builds else end
            if time.monotonic() > end:
                return False
            if self._closing.wait(_POLL):
                raise StoreClosedError("the store was closed while it waited; open it again")

    def _endings(self) -> tuple[str, ...]:
        return _ENDINGS if self._connection.info.server_version >= 170000 else _ENDINGS[:1]

    def release(self) -> None:
        """Give the lock back; on a broken connection the server has done so."""
        with contextlib.suppress(psycopg.Error):
            self._connection.execute("ROLLBACK")
        self.drop()

    def drop(self) -> None:
        """Give it back without a word to the server, which a finalizer may not wait for."""
        self._connection.pgconn.finish()


@contextmanager
def beside_lock(held: Held) -> Iterator[None]:
    """What else is asked while a lock is held; a pooler may have no second connection for it.

    Raises:
        StorageError: says so, where it failed behind a pooler.
    """
    try:
        yield
    except StorageError as exc:
        if not held.pooled:
            raise
        raise StorageError(
            f"{exc} The pooler may have no connection beside the one that shuts out writers: give it more, or give the "
            "direct address of the server for this"
        ) from exc


class Maintenance:
    """Connections of its own to the same database."""

    def __init__(self, parameters: Mapping[str, Any], schema: str) -> None:
        self._parameters, self._schema = dict(parameters), schema
        self._building: threading.Thread | None = None
        self._closing = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def _options(self) -> dict[str, Any]:
        return connection_options(self._parameters)

    @contextmanager
    def connected(self, doing: str) -> Iterator[psycopg.Connection[Any]]:
        """A connection in autocommit mode."""
        with driver_errors(doing):
            connection = psycopg.connect(**self._options, autocommit=True)
            try:
                yield connection
            finally:
                connection.close()

    def prepare_schema(self) -> None:
        """Make our schema where there is none; an older one is for `sift-store migrate`, which its owner runs.

        Raises:
            StorageError: the role may not.
        """
        with self.connected("looking for the schema") as connection:
            name = sql.Identifier(self._schema, "alembic_version")
            found = "SELECT to_regclass(%s) IS NOT NULL"
            (there,) = connection.execute(found, (name.as_string(connection),)).fetchone() or (False,)
            there = there and connection.execute(sql.SQL("SELECT 1 FROM {}").format(name)).fetchone()
        if not there:  # none, or one that was taken down to base
            self.migrate("head")

    def migrate(self, revision: str, *, wait: float = 60.0) -> tuple[str | None, str | None]:
        """Bring the schema to a revision; the one before and the one after."""
        try:
            return migrate(self._options, self._schema, revision, wait=wait)
        except MigrationError as exc:
            raise StorageError(f"{exc}; a role that may create in the database runs: sift-store migrate URL") from exc

    def hold(self, lock: int) -> Held:
        """Take a lock that shuts out writers, once those at work have ended.

        Raises:
            StorageError: another process holds it.
        """
        taken = "the collection is being re-embedded already; wait until that has ended"
        return self._hold(lock, "locking the collection", _LOCK_TIMEOUT, taken)

    def _hold(self, lock: int, doing: str, timeout: float, taken: str) -> Held:
        with driver_errors(doing):
            held = Held(psycopg.connect(**self._options, autocommit=True), self._closing)
        try:
            with driver_errors(doing):
                if not held.take(lock, timeout):
                    raise StorageError(taken)
        except BaseException:
            held.drop()
            raise
        return held

    @contextmanager
    def _alone(self, state: State, doing: str, timeout: float) -> Iterator[None]:
        """No two build indexes on one collection. What is built concurrently cannot be in the lock's transaction."""
        taken = "another process builds an index on this collection and does not end; try again later"
        held = self._hold(lock_key(self._schema, "index", state.number), doing, timeout, taken)
        try:
            yield
        finally:
            held.release()

    # --- indexes ------------------------------------------------------------------------------------------------------

    def optimize(self, state: State, *, wait: bool) -> None:
        """Build the HNSW index beside reads and writes, if it is worth one, and refresh the planner's statistics."""
        if wait:
            self._build_all(state)  # after the one under way, if there is one
            return
        if self._building is not None and self._building.is_alive():
            return
        self._building = threading.Thread(
            target=self._build_quietly, args=(state,), daemon=True, name="sift-store-index"
        )
        self._building.start()

    def _build_quietly(self, state: State) -> None:
        """In the background: a failure is found by `doctor`, as a missing index."""
        try:
            self._build_all(state)
        except (StorageError, StoreClosedError):
            return

    def _build_all(self, state: State) -> None:
        doing = "building the index"
        with self._alone(state, doing, _LOCK_TIMEOUT), self.connected(doing) as connection:
            self._connection = connection
            try:
                if _at_least(connection, state.vector, _WORTH_AN_INDEX):
                    self._give_memory(connection, state)
                    self._build(connection, hnsw_index(state.vector, state.kind), state.vector)
                for table in (state.passage, state.vector):
                    connection.execute(f"ANALYZE {quoted(table)}".encode())
            finally:
                self._connection = None

    def declare(self, state: State, fields: Mapping[str, str]) -> None:
        """Build the indexes of more fields, beside reads and writes."""
        doing = "building payload indexes"
        with self._alone(state, doing, _LOCK_TIMEOUT), self.connected(doing) as connection:
            for index in field_indexes(state.passage, fields, self._schema):
                self._build(connection, index, state.passage)

    def _build(self, connection: psycopg.Connection[Any], index: Index, table: Table) -> None:
        """Anew where an interrupted build left an invalid index; serially where the server lacks shared memory."""
        invalid = connection.execute(
            "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = %s::regclass AND "
            "c.relname = %s AND NOT i.indisvalid",
            (quoted(table), index.name),
        ).fetchone()
        if invalid:
            connection.execute(drop_statement_of(index).replace("%%", "%").encode())
        build = statement_of(index, concurrently=True).replace("%%", "%").encode()
        try:
            connection.execute(build)
        except psycopg.errors.DiskFull:  # of /dev/shm, which containers keep small
            if not _is_session(connection):
                raise
            connection.execute(drop_statement_of(index).replace("%%", "%").encode())
            connection.execute("SET max_parallel_maintenance_workers = 0")
            connection.execute(build)

    @staticmethod
    def _give_memory(connection: psycopg.Connection[Any], state: State) -> None:
        if not _is_session(connection):
            return
        ((size, held),) = connection.execute(
            "SELECT pg_total_relation_size(%s::regclass), pg_size_bytes(current_setting('maintenance_work_mem'))",
            (quoted(state.vector),),
        ).fetchall()
        wanted = min(int(size * 1.5), _MOST_MEMORY)
        if wanted > held:
            connection.execute(f"SET maintenance_work_mem = '{wanted // 1024}kB'".encode())

    def close(self) -> None:
        """Stop a build under way; what it leaves is dropped by the next."""
        self._closing.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=5.0)
        if self._building is not None:
            self._building.join(5.0)


def _is_session(connection: psycopg.Connection[Any]) -> bool:
    """Whether what is set on a connection is set for us alone: a pooler tells a process number of its own making."""
    (process,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    return bool(process == connection.info.backend_pid)


def _at_least(connection: psycopg.Connection[Any], table: Table, count: int) -> bool:
    some = f"SELECT count(*) >= {count} FROM (SELECT 1 FROM {quoted(table)} LIMIT {count}) AS found"
    (enough,) = connection.execute(some.encode()).fetchone() or (False,)
    return bool(enough)
