"""Qdrant servers: collections of our own, and those of others, attached to be read.

    qdrant://host:6333?collection=handbook            ours, or with SiftStore.attach any; qdrants:// for TLS
    qdrant://host:6333?collection=docs&vector=dense&text=body&metadata=meta&sparse=bm25&fusion=dbsf      attached
    …&grpc_port=7334                                  gRPC is tried there first; without, at 6334 if REST is at 6333

gRPC is used where it is shown to be the same server's, else REST, and `doctor` says why.

The key comes from the environment (QDRANT_API_KEY) or the URL: qdrants://:KEY@host.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

from sift_store.adapter import Adapter
from sift_store.location import Location, check_options
from sift_store.registry import needs_extra

with needs_extra("qdrant"):
    import tenacity as _tenacity  # noqa: F401
    from qdrant_client import QdrantClient  # first what a pip line mends

from sift_store_qdrant.adapter import AsyncQdrantAdapter, QdrantAdapter
from sift_store_qdrant.attached import attach
from sift_store_qdrant.catalog import check_name, collection_names, drop
from sift_store_qdrant.connecting import Server, access_to, is_local
from sift_store_qdrant.failures import client_errors
from sift_store_qdrant.own import OwnCollection
from sift_store_qdrant.session import AsyncSession, Session

__all__ = [
    "attach_async_store",
    "attach_store",
    "drop_collection",
    "list_collections",
    "open_async_store",
    "open_store",
    "takes_async",
]

_OWN = frozenset({"collection", "grpc_port"})
_ATTACHED = _OWN | {"fusion", "id", "metadata", "sparse", "text", "vector"}


def open_store(location: Location, *, indexed: Mapping[str, str], client: Any = None) -> Adapter:
    """Open a collection of our own, existing or not.

    `client` is a `QdrantClient` of a server, or an `AsyncQdrantClient`, in whose place one of this kind is made.
    """
    _check(location, _OWN, "SiftStore.attach")
    with _connected(location, client) as (session, server):
        session.read("connecting", lambda: server.look(own=True))
        adapter = QdrantAdapter(session, OwnCollection(server, location.collection, indexed))
        adapter.declare()
        return adapter


async def open_async_store(location: Location, *, indexed: Mapping[str, str], client: Any = None) -> AsyncQdrantAdapter:
    """The same with an `AsyncQdrantClient`."""
    _check(location, _OWN, "AsyncSiftStore.attach")
    async with _connected_async(location, client) as (session, server):
        await session.read("connecting", lambda: server.look(own=True))
        adapter = AsyncQdrantAdapter(session, OwnCollection(server, location.collection, indexed))
        await adapter.declare()
        return adapter


def attach_store(location: Location, *, client: Any = None) -> Adapter:
    """Attach any collection, or an alias of one; here `client` may be in local mode, too."""
    _check(location, _ATTACHED, "SiftStore.open")
    with _connected(location, client, local=True) as (session, server):
        return QdrantAdapter(session, session.read("attaching", lambda: attach(server, location.options)))


async def attach_async_store(location: Location, *, client: Any = None) -> AsyncQdrantAdapter:
    """The same with an `AsyncQdrantClient`."""
    _check(location, _ATTACHED, "AsyncSiftStore.open")
    async with _connected_async(location, client, local=True) as (session, server):
        return AsyncQdrantAdapter(session, await session.read("attaching", lambda: attach(server, location.options)))


@contextmanager
def _connected(location: Location, client: Any, *, local: bool = False) -> Iterator[tuple[Session, Server]]:
    """A session and what its server is; closed if what follows fails."""
    with client_errors("connecting"):
        access = access_to(location, client, asynchronous=False, local=local)
        session = Session(access.sync_client(), access.wire, ours=access.ours)
    try:
        yield session, Server(access.wire.name, access.note)
    except BaseException:
        session.close()
        raise


@asynccontextmanager
async def _connected_async(
    location: Location, client: Any, *, local: bool = False
) -> AsyncIterator[tuple[AsyncSession, Server]]:
    with client_errors("connecting"):
        access = await asyncio.to_thread(access_to, location, client, asynchronous=True, local=local)
        session = AsyncSession(access.async_client(), access.wire, ours=access.ours)
    try:
        yield session, Server(access.wire.name, access.note)
    except BaseException:
        await session.close()
        raise


def takes_async(client: Any) -> bool:
    """Whether an asynchronous client can be used: unless one was given that is its own engine, and not such a one."""
    return not isinstance(client, QdrantClient) or not is_local(client)


def list_collections(location: Location) -> list[str]:
    """Names of our collections on the server, sorted."""
    with _connected(location, None) as (session, _), closing(session):
        return session.read("listing collections", collection_names)


def drop_collection(location: Location) -> bool:
    """Drop a collection of ours; whether there was one."""
    _check(location, _OWN, "the program that it belongs to")
    with _connected(location, None) as (session, _), closing(session):
        return session.write("dropping the collection", lambda: drop(location.collection))


def _check(location: Location, allowed: frozenset[str], instead: str) -> None:
    """What cannot be honoured is refused."""
    check_options(location, allowed, instead)
    check_name(location.collection)
