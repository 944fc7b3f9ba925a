"""A Qdrant for the tests: one that is named, one in a container, or the engine itself behind both wires.

TEST_QDRANT_URL=qdrant://…    one that is there (qdrants:// with TLS; &grpc_port= if it is not 6334; QDRANT_API_KEY)
TEST_QDRANT=container         an image, by testcontainers, where Docker answers
(nothing)                     `edge_server`: real sockets, answered by Qdrant Edge

Tests of faults, and those that look at what was asked, always use the last.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from edge_server import EdgeServer, serve
from qdrant_client import QdrantClient
from sift_store_qdrant.connecting import access_to

from sift_store.location import parse_location

IMAGE = "qdrant/qdrant:v1.19.0"


class Qdrant:
    """A running server. `host`: with ports, as it stands in a URL; `secure`: whether by TLS."""

    def __init__(self, host: str, grpc_port: int, scheme: str = "qdrant") -> None:
        self.host, self.grpc_port, self.scheme = host, grpc_port, scheme
        self.closed_port = unused_port()

    def url(self, collection: str, *, rest: bool = False, **options: str) -> str:
        """The URL of a collection; over REST by naming a port where nobody speaks gRPC."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        port = self.closed_port if rest else self.grpc_port
        return f"{self.scheme}://{self.host}?collection={collection}&grpc_port={port}{more}"

    def client(self, *, rest: bool = False) -> QdrantClient:
        """A client as anybody would make it."""
        location = parse_location(self.url("none", rest=rest))
        made: QdrantClient = access_to(location, None, asynchronous=False).sync_client()
        return made

    @contextmanager
    def name(self) -> Iterator[str]:
        """A name of a collection that is not there; all that was made under it goes."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        try:
            yield name
        finally:
            client = self.client()
            for item in client.get_collections().collections:
                if item.name.startswith(name):
                    client.delete_collection(item.name)
            client.close()


def of_edge(server: EdgeServer) -> Qdrant:
    """As the tests address it."""
    return Qdrant(f"127.0.0.1:{server.port}", server.grpc_port)


def unused_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def any_server() -> Iterator[Qdrant]:
    """The server that the environment names, else the engine behind both wires."""
    if url := os.environ.get("TEST_QDRANT_URL"):
        location = parse_location(url)
        scheme, _, host = location.address.partition("://")
        yield Qdrant(host.rstrip("/"), int(location.options.get("grpc_port", 6334)), scheme)
    elif os.environ.get("TEST_QDRANT") == "container":
        from testcontainers.community.qdrant import QdrantContainer

        with QdrantContainer(IMAGE) as container:
            yield Qdrant(container.rest_host_address, int(container.exposed_grpc_port))
    else:
        with serve() as server:
            yield of_edge(server)
