"""Where connections come from: a pool of our own from a URL, or the caller's pool or engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from sift_store.deadline import Deadline
from sift_store.errors import InvalidInputError, LocationError
from sift_store.location import Location
from sift_store_pgvector.codec import VectorDumper, VectorParameter

__all__ = [
    "PATIENCE",
    "POOL_SIZE",
    "Connections",
    "GuardedAsyncConnection",
    "GuardedConnection",
    "check_driver",
    "check_encoding",
    "connection_options",
    "connections",
    "is_async_client",
    "is_ours",
    "parameters_of",
    "pool_options",
    "same_place",
]

T = TypeVar("T")

POOL_SIZE = 10
# Of every connection that is made here. Text is UTF-8 whatever environment, role or URL say; a statement that a server
# keeps prepared is another's behind a pooler.
_OURS: dict[str, Any] = {"client_encoding": "utf8", "prepare_threshold": None}
# A server that is asked to stop a statement gets this long to do so before the connection is dropped.
_GRACE = 1.0
# A pool is waited for so long before a connection is tried beside it, to learn why there is none.
PATIENCE = 2.0
_CONNECT_TIMEOUT = 10


class GuardedConnection(psycopg.Connection[Any]):
    """A connection that is dropped when its server does not answer within the deadline, whatever the reason."""

    deadline: Deadline | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, until the deadline."""
        if self.deadline is None or timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.deadline.left() + _GRACE)
        except psycopg.Error as exc:
            _give_up(self, self.deadline, exc)
            raise


class GuardedAsyncConnection(psycopg.AsyncConnection[Any]):
    """The same for the async driver."""

    deadline: Deadline | None = None

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, until the deadline."""
        if self.deadline is None or timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, self.deadline.left() + _GRACE)
        except psycopg.Error as exc:
            _give_up(self, self.deadline, exc)
            raise


def _give_up(connection: Any, deadline: Deadline, error: psycopg.Error) -> None:
    """Drop a connection whose server did not even stop the statement in time."""
    if error.sqlstate is None and not deadline.left():
        connection.pgconn.finish()
        raise deadline.error() from error


class Connections(Protocol):
    """Connections in autocommit mode, lent one at a time."""

    def lend(self, deadline: Deadline | None) -> Any:
        """A context manager that gives a connection; a broken one is not lent again."""

    def close(self) -> None:
        """Close what is ours."""


def parameters_of(location: Location, client: Any) -> dict[str, Any]:
    """What to give to `psycopg.connect`; nothing where a client is given, whose connections tell by themselves.

    Raises:
        LocationError: the URL cannot be read. InvalidInputError: a client of another kind.
    """
    if client is None:
        return _from_url(location.address)
    if isinstance(client, Engine | AsyncEngine | ConnectionPool | AsyncConnectionPool):
        return {}
    raise InvalidInputError(
        f"client: {type(client).__name__} given; a SQLAlchemy engine over psycopg or a psycopg_pool pool wanted"
    )


def same_place(connection: Any) -> dict[str, Any]:
    """What to give to `psycopg.connect` for another connection like this one, however it was made."""
    info = connection.info
    named = {"host": info.host, "port": info.port, "user": info.user, "dbname": info.dbname, "password": info.password}
    return {**info.get_parameters(), **{name: value for name, value in named.items() if value}}


def is_async_client(client: Any) -> bool:
    """Whether a client needs an event loop."""
    return isinstance(client, AsyncEngine | AsyncConnectionPool)


def _from_url(address: str) -> dict[str, Any]:
    """What the driver's own library reads in a URL: sockets, services, several hosts, whatever it takes."""
    scheme, _, rest = address.partition("://")
    try:
        parameters: dict[str, Any] = conninfo_to_dict(f"{scheme.partition('+')[0]}://{rest}")
    except (psycopg.Error, ValueError):  # both may repeat the text, where a password may stand
        raise LocationError(
            "the URL cannot be read; postgresql://user:password@host:5432/database wanted, with percent-encoded "
            "characters, and only parameters that PostgreSQL knows"
        ) from None
    if "@" in str(parameters.get("host", "")):
        raise LocationError("the URL cannot be read: an @ in the password is written %40")
    return parameters


def _adapters() -> psycopg.adapt.AdaptersMap:
    adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    adapters.register_dumper(VectorParameter, VectorDumper)
    return adapters


class _Context:
    """What a connection of ours is made with: it knows how to send vectors."""

    adapters = _adapters()
    connection = None


def check_encoding(connection: Any) -> None:
    """Refuse a caller's connections that cannot say how their text is encoded.

    Raises:
        InvalidInputError: they speak SQL_ASCII, in which bytes mean what anybody takes them for.
    """
    encoding = connection.info.parameter_status("client_encoding")
    if encoding == "SQL_ASCII":
        raise InvalidInputError(
            "client: its connections speak SQL_ASCII, which is no encoding; make them with client_encoding=utf8"
        )


def is_ours(connection: Any) -> bool:
    """Whether a connection is of a pool of our own."""
    return isinstance(connection, GuardedConnection | GuardedAsyncConnection)


def connection_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What every connection of ours is made with."""
    application = {"application_name": "sift-store", "connect_timeout": _CONNECT_TIMEOUT}
    return {**application, **parameters, **_OURS}


def pool_options(parameters: dict[str, Any]) -> dict[str, Any]:
    """How a pool of ours is made."""
    return {
        "kwargs": {**connection_options(parameters), "autocommit": True, "context": _Context()},
        "min_size": 1,
        "max_size": POOL_SIZE,
        "open": False,
        "name": "sift-store",
    }


# --- sync -------------------------------------------------------------------------------------------------------------


def connections(parameters: dict[str, Any], client: Any) -> Connections:
    """The sync source for a client, or a pool of our own."""
    if is_async_client(client):
        raise InvalidInputError(
            f"client: {type(client).__name__} given to SiftStore, a sync engine or pool wanted; or use AsyncSiftStore"
        )
    if isinstance(client, Engine):
        check_driver(client.dialect.driver)
        return _EngineConnections(client)
    if isinstance(client, ConnectionPool):
        return _PoolConnections(client, None)
    pool = ConnectionPool(connection_class=GuardedConnection, **pool_options(parameters))
    GuardedConnection.connect(**pool.kwargs).close()  # type: ignore[arg-type]  # says why, where the pool would wait
    pool.open()
    return _PoolConnections(pool, parameters)


def check_driver(driver: str) -> None:
    """Refuse an engine over another driver than psycopg."""
    if driver not in ("psycopg", "psycopg_async"):
        raise InvalidInputError(
            f"client: an engine over {driver} given, over psycopg wanted; give the URL instead, or an engine of "
            "create_engine('postgresql+psycopg://…')"
        )


class _PoolConnections:
    def __init__(self, pool: ConnectionPool[Any], ours: dict[str, Any] | None) -> None:
        self._pool, self._ours = pool, ours

    @contextmanager
    def lend(self, deadline: Deadline | None) -> Iterator[Any]:
        connection = self._get(deadline)
        try:
            with _prepared(connection, deadline) as ready:
                yield ready
        finally:
            self._pool.putconn(connection)

    def _get(self, deadline: Deadline | None) -> Any:
        left = PATIENCE if deadline is None else deadline.left()
        try:
            return self._pool.getconn(timeout=min(left, PATIENCE))
        except PoolTimeout:
            if self._ours is not None:
                GuardedConnection.connect(**self._pool.kwargs).close()  # type: ignore[arg-type]  # raises the reason
            if deadline is None or not deadline.left():
                raise
            return self._pool.getconn(timeout=deadline.left())

    def close(self) -> None:
        if self._ours is not None:
            self._pool.close()


class _EngineConnections:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def lend(self, deadline: Deadline | None) -> Iterator[Any]:
        borrowed = self._engine.raw_connection()
        try:
            with _prepared(borrowed.driver_connection, deadline) as ready:
                yield ready
        except BaseException:
            if borrowed.driver_connection is None or borrowed.driver_connection.closed:
                borrowed.invalidate()
            raise
        finally:
            borrowed.close()

    def close(self) -> None:
        pass


@contextmanager
def _prepared(connection: Any, deadline: Deadline | None) -> Iterator[Any]:
    """In autocommit mode and with the deadline, and as it was afterwards."""
    before = connection.autocommit
    if not before:
        connection.autocommit = True
    if isinstance(connection, GuardedConnection):
        connection.deadline = deadline
    try:
        yield connection
    except Exception:
        if not connection.closed:
            connection.rollback()
        raise
    except BaseException:  # an interrupt: answers may be on their way that the next statement would take for its own
        connection.close()
        raise
    finally:
        if isinstance(connection, GuardedConnection):
            connection.deadline = None
        if not before and not connection.closed:
            connection.autocommit = False
