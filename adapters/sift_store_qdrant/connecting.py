"""Where clients come from: a URL, or the caller's own. gRPC if it answers, else REST, and that is said."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import grpc
import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import QdrantException

from sift_store.errors import InvalidInputError, LocationError, StorageError
from sift_store.location import Location
from sift_store_qdrant.grpc_wire import GrpcWire
from sift_store_qdrant.identity import is_one_server
from sift_store_qdrant.local_wire import LocalWire
from sift_store_qdrant.rest_wire import RestWire
from sift_store_qdrant.session import Wire
from sift_store_qdrant.work import Call, Work

__all__ = ["Access", "Server", "access_to", "is_local"]

_PORT, _GRPC_PORT = 6333, 6334
_KEY = "QDRANT_API_KEY"
_WANTED = "qdrant://host:6333?collection=NAME, a key percent-encoded,"
# Seconds in which gRPC must answer when a store is opened, and for each request that has no deadline of its own.
_PROBE, _TIMEOUT = 3, 60
# Else a server that was down for some seconds is not tried again for as many.
_RECONNECT = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1000}
# A server compresses its answers if it may, which takes it longer than sending floats, and most of a search.
_UNCOMPRESSED = {"grpc.compression_enabled_algorithms_bitset": 1}
_UNCOMPRESSED_REST = {"Accept-Encoding": "identity"}
# What the adapter needs: the query API; for collections of our own, metadata of a collection.
_LEAST, _LEAST_OWN = (1, 10), (1, 16)


@dataclass(frozen=True, slots=True)
class Access:
    """A way to a server.

    Attributes:
        client: the caller's, or None. options: to make one of our own with; of the caller's, if that is of the other
            kind (sync or asynchronous) than is wanted. wire: how searches travel. note: why not by gRPC, or "".
    """

    client: Any
    options: dict[str, Any] = field(repr=False)
    wire: Wire
    note: str = ""

    @property
    def ours(self) -> bool:
        """Whether the client is made here, and to be closed."""
        return self.client is None

    def sync_client(self) -> Any:
        """A `QdrantClient`."""
        return _made(QdrantClient, self.options) if self.client is None else self.client

    def async_client(self) -> Any:
        """An `AsyncQdrantClient`."""
        return _made(AsyncQdrantClient, self.options) if self.client is None else self.client


@dataclass(slots=True)
class Server:
    """What was seen of a server: its version, how searches travel to it, and why not by gRPC."""

    wire: str
    note: str
    version: str = "of unknown version"

    @property
    def engine(self) -> str:
        """For people."""
        return f"Qdrant {self.version} over {self.wire}"

    def look(self, own: bool) -> Work[None]:
        """Read the version.

        Raises:
            StorageError: it is too old.
        """
        found = yield Call("info")
        self.version = str(found.version)
        parts = self.version.removeprefix("v").split("-")[0].split(".")
        least = _LEAST_OWN if own else _LEAST
        if all(part.isdigit() for part in parts[:2]) and tuple(map(int, parts[:2])) < least:
            what = "a collection of our own" if own else "searching"
            raise StorageError(
                f"the server is Qdrant {self.version}; {what} wants {least[0]}.{least[1]} or later: update the server"
            )


def is_local(client: Any) -> bool:
    """Whether a client is its own engine, so that no other can stand for it."""
    made_with = client.init_options
    return made_with.get("location") == ":memory:" or bool(made_with.get("path"))


def access_to(location: Location, client: Any, *, asynchronous: bool, local: bool = False) -> Access:
    """The way to the server that a URL names or a client leads to. Asks the server whether gRPC answers.

    Args:
        local: whether a client in local mode will do.

    Raises:
        LocationError: the URL cannot be read. InvalidInputError: a client of another kind.
    """
    if client is not None:
        return _given(client, asynchronous, local)
    options = _options(location)
    why = _why_not_grpc(options, location)
    if why:
        return Access(None, {**options, "timeout": _TIMEOUT}, RestWire(), f"REST, because {why}")
    return Access(None, {**options, "prefer_grpc": True, "timeout": _TIMEOUT}, GrpcWire())


def _why_not_grpc(options: Mapping[str, Any], location: Location) -> str:
    """What speaks against gRPC; "" if it answers and is the same server's.

    Ports are not guessed: what answers at another server's port would get the key and all that is written.
    """
    named, port = "grpc_port" in location.options, options["grpc_port"]
    if not named and (options["port"] != _PORT or options["prefix"]):
        return "it is not at port 6333 alone, and the URL names no port of gRPC; say &grpc_port= if there is one"
    try:
        with closing(_made(QdrantClient, {**options, "prefer_grpc": True, "timeout": _PROBE})) as probe:
            probe.info()
            same = is_one_server(probe, location.options.get("collection"))
    except (grpc.RpcError, QdrantException) as exc:
        why = exc.details() if isinstance(exc, grpc.RpcError) else str(exc)
        return f"no gRPC answers at port {port} ({_short(why)})"
    if same is False:
        return f"the gRPC at port {port} is another server's"
    if same is None and not named:
        return f"nothing shows that the gRPC at port {port} is the same server's; say &grpc_port={port} if it is"
    return ""


def _made(kind: type[Any], options: Mapping[str, Any]) -> Any:
    channel = dict(options.get("grpc_options") or {})
    channel.pop("grpc.primary_user_agent", None)  # a client writes its own into what it is given
    headers = {**_UNCOMPRESSED_REST, **(options.get("metadata") or {})}
    return kind(**{**options, "grpc_options": {**_RECONNECT, **_UNCOMPRESSED, **channel}, "metadata": headers})


def _key(parts: SplitResult) -> str | None:
    """The key, from the URL or the environment; files and shells like to end it with a line."""
    key = unquote(parts.password or parts.username or "").strip() or os.environ.get(_KEY, "").strip()
    if not key.isascii() or not key.isprintable():
        raise LocationError(f"the key holds characters that no header can; see {_KEY}, or percent-encode it in the URL")
    return key or None


def _short(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 80 else line[:79] + "…"


def _given(client: Any, asynchronous: bool, local: bool = False) -> Access:
    if not isinstance(client, QdrantClient | AsyncQdrantClient):
        raise InvalidInputError(
            f"client: {type(client).__name__} given; a qdrant_client.QdrantClient or AsyncQdrantClient wanted"
        )
    made_with, fits = client.init_options, isinstance(client, AsyncQdrantClient) == asynchronous
    if is_local(client):
        if local and fits:
            return Access(client, {}, LocalWire())
        if local:
            raise InvalidInputError(f"client: {type(client).__name__} in local mode given, of the other kind wanted")
        raise InvalidInputError(
            "client: one in local mode given, which can be attached only; for a store of ours in the process give "
            "SiftStore.open a path"
        )
    wire = GrpcWire() if made_with.get("prefer_grpc") else RestWire()
    return Access(client, {}, wire) if fits else Access(None, made_with, wire)


def _options(location: Location) -> dict[str, Any]:
    """What a client is made with. The key stands in the URL or in the environment, never in a message."""
    try:
        parts = urlsplit(location.address)
        port = parts.port or _PORT
        grpc_port = int(location.options.get("grpc_port", _GRPC_PORT))
    except ValueError:  # its text quotes the URL, where the key may stand
        raise LocationError(f"the URL cannot be read; {_WANTED} wanted") from None
    if parts.hostname in ("http", "https") and parts.path.startswith("//"):
        scheme = "qdrants" if parts.hostname == "https" else "qdrant"
        raise LocationError(f"the URL has two schemes; {scheme}://HOST:PORT?collection=NAME wanted, without http")
    if not parts.hostname:
        raise LocationError(f"the URL names no host; {_WANTED} wanted, or give client=")
    if parts.query or parts.fragment:
        name = re.fullmatch(r"([A-Za-z_]+)=?.*", parts.query)
        what = f"{name[1]}=" if name and "@" not in parts.query else "something in it"
        raise LocationError(f"{what} has no meaning in a qdrant:// URL; {_WANTED} wanted")
    return {
        "host": f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname,
        "port": port,
        "grpc_port": grpc_port,
        "https": parts.scheme == "qdrants",
        "prefix": parts.path.strip("/") or None,
        "api_key": _key(parts),
        "check_compatibility": False,  # a request of its own, on a thread of its own; `Server.look` reads the version
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20),  # off for localhost otherwise
    }
