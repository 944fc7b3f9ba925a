"""PostgreSQL with pgvector: collections in a schema of our own, and tables of others, attached to be read.

    postgresql://user@host:5432/database?collection=handbook        ours; &schema=… and &vector_type=halfvec if wanted
    postgresql://user@host:5432/database?table=docs&id=…&vector=…&text=…&metadata=…      attached

The password comes from the URL, or as PostgreSQL's own programs take it: PGPASSWORD, a password file, a service file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sift_store.adapter import Adapter
from sift_store.errors import LocationError
from sift_store.location import Location, check_options
from sift_store.registry import needs_extra

with needs_extra("pgvector"):
    import psycopg as _psycopg  # noqa: F401  # first what a pip line mends
    import psycopg_pool as _pool  # noqa: F401
    import sqlalchemy as _sqlalchemy  # noqa: F401
    import tenacity as _tenacity  # noqa: F401

from sift_store_pgvector.adapter import PgAdapter
from sift_store_pgvector.async_adapter import AsyncPgAdapter
from sift_store_pgvector.async_connecting import async_connections
from sift_store_pgvector.async_session import AsyncSession
from sift_store_pgvector.attached import attach
from sift_store_pgvector.catalog import collection_names, drop
from sift_store_pgvector.connecting import connections, is_async_client, parameters_of
from sift_store_pgvector.failures import driver_errors
from sift_store_pgvector.maintenance import Maintenance
from sift_store_pgvector.own import OwnCollection
from sift_store_pgvector.schema import DEFAULT_SCHEMA
from sift_store_pgvector.server import Server
from sift_store_pgvector.session import Session

__all__ = [
    "attach_async_store",
    "attach_store",
    "drop_collection",
    "list_collections",
    "migrate_schema",
    "open_async_store",
    "open_store",
    "takes_async",
]

_OWN = frozenset({"collection", "schema", "vector_type"})
_ATTACHED = frozenset({"collection", "columns", "id", "metadata", "metric", "schema", "table", "text", "vector"})
_KINDS = ("vector", "halfvec")


def open_store(location: Location, *, indexed: Mapping[str, str], client: Any = None) -> Adapter:
    """Open a collection of our own, existing or not; `client` is a psycopg_pool pool or a SQLAlchemy engine."""
    check_options(location, _OWN, "SiftStore.attach")
    with _connected(location, client) as (session, server, parameters):
        own, maintenance = _own(server, location, indexed), Maintenance(parameters, _schema(location))
        adapter = PgAdapter(session, own, maintenance)
        adapter.declare()
        return adapter


async def open_async_store(location: Location, *, indexed: Mapping[str, str], client: Any = None) -> AsyncPgAdapter:
    """The same with the async driver."""
    check_options(location, _OWN, "AsyncSiftStore.attach")
    async with _connected_async(location, client) as (session, server, parameters):
        own, maintenance = _own(server, location, indexed), Maintenance(parameters, _schema(location))
        adapter = AsyncPgAdapter(session, own, maintenance)
        await adapter.declare()
        return adapter


def attach_store(location: Location, *, client: Any = None) -> Adapter:
    """Attach a table or view, or a LangChain collection in its table."""
    check_options(location, _ATTACHED, "SiftStore.open")
    with _connected(location, client) as (session, server, parameters):
        found = session.read("looking at the table", lambda: attach(server, location.options))
        return PgAdapter(session, found, Maintenance(parameters, found.found.schema))


async def attach_async_store(location: Location, *, client: Any = None) -> AsyncPgAdapter:
    """The same with the async driver."""
    check_options(location, _ATTACHED, "AsyncSiftStore.open")
    async with _connected_async(location, client) as (session, server, parameters):
        found = await session.read("looking at the table", lambda: attach(server, location.options))
        return AsyncPgAdapter(session, found, Maintenance(parameters, found.found.schema))


@contextmanager
def _connected(location: Location, client: Any) -> Iterator[tuple[Session, Server, dict[str, Any]]]:
    """A session, what its server is, and where it leads; closed if what follows fails."""
    parameters = parameters_of(location, client)
    with driver_errors("connecting"):
        session = Session(connections(parameters, client))
    try:
        parameters = parameters or session.parameters()
        server = Server()
        session.read("looking at the server", server.look)
        session.vector_oids = server.vector_oids
        yield session, server, parameters
    except BaseException:
        session.close()
        raise


@asynccontextmanager
async def _connected_async(
    location: Location, client: Any
) -> AsyncIterator[tuple[AsyncSession, Server, dict[str, Any]]]:
    parameters = parameters_of(location, client)
    with driver_errors("connecting"):
        session = AsyncSession(await async_connections(parameters, client))
    try:
        parameters = parameters or await session.parameters()
        server = Server()
        await session.read("looking at the server", server.look)
        session.vector_oids = server.vector_oids
        yield session, server, parameters
    except BaseException:
        await session.close()
        raise


def takes_async(client: Any) -> bool:
    """Whether the async driver can use a client: none, an async pool or an async engine."""
    return client is None or is_async_client(client)


def list_collections(location: Location) -> list[str]:
    """Names of our collections in the database, sorted."""
    schema = _schema(location)
    return collection_names(Maintenance(parameters_of(location, None), schema), schema)


def drop_collection(location: Location) -> bool:
    """Drop a collection of ours; whether there was one."""
    check_options(location, _OWN, "the program that it belongs to")
    schema = _schema(location)
    return drop(Maintenance(parameters_of(location, None), schema), schema, location.collection)


def migrate_schema(location: Location, revision: str) -> tuple[str | None, str | None]:
    """Bring our schema to a revision ("head", "base" or a number): the one before and the one after."""
    check_options(location, frozenset({"schema"}), "the URL of the database alone")
    return Maintenance(parameters_of(location, None), _schema(location)).migrate(revision)


def _schema(location: Location) -> str:
    return location.options.get("schema", DEFAULT_SCHEMA)


def _own(server: Server, location: Location, indexed: Mapping[str, str]) -> OwnCollection:
    kind = location.options.get("vector_type")
    if kind is not None and kind not in _KINDS:
        raise LocationError(f"vector_type={kind}: one of {', '.join(_KINDS)} wanted")
    return OwnCollection(server, _schema(location), location.collection, indexed, kind)
