"""Which server an address leads to: never another than the one that it names, whoever answers at a port of gRPC."""

import asyncio
from collections.abc import Iterator

import pytest
import sift_store_qdrant.connecting as connecting
from edge_server import EdgeServer, serve

from sift_store import AsyncSiftStore, SiftStore, drop_collection, list_collections
from sift_store.location import parse_location
from sift_store.testing import WordEmbedder


@pytest.fixture
def servers() -> Iterator[tuple[EdgeServer, EdgeServer]]:
    """Two on one host: one with a collection "x" of its own, and one that is named by the addresses."""
    with serve() as other, serve() as named:
        with SiftStore.open(explicit(other), embedder=WordEmbedder()) as store:
            store.add(["kept by the other"], ids=["other"])
        other.requests.clear()
        yield other, named


def explicit(server: EdgeServer, grpc_port: int | None = None) -> str:
    return f"qdrant://127.0.0.1:{server.port}?collection=x&grpc_port={grpc_port or server.grpc_port}"


@pytest.fixture(params=["no port of gRPC named", "the usual ports", "another's port named", "under a prefix"])
def address(
    request: pytest.FixtureRequest, servers: tuple[EdgeServer, EdgeServer], monkeypatch: pytest.MonkeyPatch
) -> str:
    """An address of the second server; at the usual or the named port of gRPC the first one answers."""
    other, named = servers
    monkeypatch.setattr(connecting, "_GRPC_PORT", other.grpc_port)
    if request.param == "the usual ports":
        monkeypatch.setattr(connecting, "_PORT", named.port)
    if request.param == "another's port named":
        return explicit(named, other.grpc_port)
    return f"qdrant://127.0.0.1:{named.port}?collection=x"


def test_what_is_written_and_read_is_the_named_servers(servers: tuple[EdgeServer, EdgeServer], address: str) -> None:
    other, named = servers
    with SiftStore.open(address, embedder=WordEmbedder()) as store:
        store.add(["a secret of the named"], ids=["named"])
        assert [record and record.text for record in store.get(["named", "other"])] == ["a secret of the named", None]
    with SiftStore.open(address, embedder=WordEmbedder()) as again:
        assert again.count() == 1
        assert "REST" in again.doctor()[0].what
    with SiftStore.attach(address, embedder=WordEmbedder()) as attached:
        assert attached.search("secret", k=1)[0].id == "named"
    assert list_collections(address) == ["x"]
    assert drop_collection(address) is True
    assert named.collections.names() == []
    assert other.collections.names() == ["x.v0"]
    assert set(other.requests) <= {"health", "cluster_info"}


async def test_the_asynchronous_store_as_well(servers: tuple[EdgeServer, EdgeServer], address: str) -> None:
    other, named = servers
    async with await AsyncSiftStore.open(address, embedder=WordEmbedder()) as store:
        await store.add(["a secret of the named"], ids=["named"])
        assert await store.count() == 1
    assert named.collections.names() == ["x.v0"]
    assert set(other.requests) <= {"health", "cluster_info"}


def test_grpc_is_used_where_it_is_the_same_server(
    servers: tuple[EdgeServer, EdgeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, _ = servers
    monkeypatch.setattr(connecting, "_PORT", other.port)
    monkeypatch.setattr(connecting, "_GRPC_PORT", other.grpc_port)
    with SiftStore.open(f"qdrant://127.0.0.1:{other.port}?collection=x", embedder=WordEmbedder()) as store:
        assert "over gRPC" in store.doctor()[0].what
    with SiftStore.open(f"qdrant://127.0.0.1:{other.port}?collection=new", embedder=WordEmbedder()) as store:
        store.add(["a"])  # another collection shows it, where the wanted one is not there yet
        assert "over gRPC" in store.doctor()[0].what


def test_no_answer_is_compressed(servers: tuple[EdgeServer, EdgeServer]) -> None:
    _, named = servers
    with SiftStore.open(f"qdrant://127.0.0.1:{named.port}?collection=x", embedder=WordEmbedder()) as store:
        store.add(["a"])
        store.search("a")
        asyncio.run(search_once(f"qdrant://127.0.0.1:{named.port}?collection=x"))
    assert set(named.encodings) == {"identity"}
    location = parse_location(explicit(named))
    client = connecting.access_to(location, None, asynchronous=False).sync_client()
    assert client.init_options["grpc_options"]["grpc.compression_enabled_algorithms_bitset"] == 1
    client.close()


async def search_once(address: str) -> None:
    async with await AsyncSiftStore.open(address, embedder=WordEmbedder()) as store:
        await store.search("a")
