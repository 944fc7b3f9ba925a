"""What a store in Qdrant does beyond the contract: what travels, the index, names, threads and tasks."""

import asyncio
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from edge_server import EdgeServer, serve
from qdrant_client import QdrantClient, models
from qdrant_server import of_edge

from sift_store import AsyncSiftStore, LocationError, SiftStore, drop_collection, list_collections
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

ROWS, DIMENSION = 8_000, 384


def clustered(rows: int, seed: int = 0, dimension: int = DIMENSION) -> np.ndarray:
    """Vectors as embedders make them: around centres. Random ones have no neighbours to find."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(200, dimension))
    return (centres[rng.integers(0, 200, rows)] + 0.5 * rng.normal(size=(rows, dimension))).astype(np.float32)


@pytest.fixture(scope="module")
def server() -> Iterator[EdgeServer]:
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def big(server: EdgeServer) -> Iterator[SiftStore]:
    """Eight thousand passages with an index."""
    with SiftStore.open(of_edge(server).url("big"), indexed={"hundredth": "integer", "half": "keyword"}) as store:
        payloads = [{"hundredth": i % 100, "half": "ab"[i % 2], "free": i % 100} for i in range(ROWS)]
        store.add([f"text {i}" for i in range(ROWS)], list(range(ROWS)), payloads, clustered(ROWS))
        store.optimize()
        yield store


@pytest.fixture(params=["gRPC", "REST"])
def url(request: pytest.FixtureRequest, server: EdgeServer) -> str:
    return of_edge(server).url(f"small-{uuid.uuid4().hex}", rest=request.param == "REST")


def asked(server: EdgeServer, since: int) -> list[str]:
    return server.requests[since:]


# --- what travels -----------------------------------------------------------------------------------------------------


def test_a_search_is_two_requests_and_so_is_a_batch(server: EdgeServer, url: str) -> None:
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        store.add([f"word{i} common" for i in range(300)])
        store.search("common word3", k=5)
        before = len(server.requests)
        store.search("common word3", k=5)
        assert asked(server, before) == ["query_batch", "retrieve"]
        before = len(server.requests)
        batch = store.search_batch([f"common word{i}" for i in range(20)], k=5)
        assert asked(server, before)[:2] == ["query_batch", "retrieve"]
        assert set(asked(server, before)[2:]) <= {"retrieve"}  # where picks are alike their texts come first
        assert len(asked(server, before)) <= 4
        assert [len(hits) for hits in batch] == [5] * 20
        before = len(server.requests)
        store.search("common word3", k=5, method="knn")
        assert asked(server, before) == ["query_batch", "retrieve"]


def test_one_vector_a_candidate_travels_and_no_payload(
    server: EdgeServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = of_edge(server)
    client = QdrantClient(url=f"http://{plain.host}", check_compatibility=False)
    small = models.VectorParams(size=4, distance=models.Distance.COSINE)
    name = url.partition("collection=")[2].partition("&")[0]
    client.create_collection(name, {"a": small, "b": small}, sparse_vectors_config={"w": models.SparseVectorParams()})
    words = models.SparseVector(indices=[1], values=[1.0])
    vector = {"a": [1.0, 0, 0, 0], "b": [0, 1.0, 0, 0], "w": words}
    client.upsert(name, [models.PointStruct(id=1, vector=vector, payload={"text": "a"})])
    client.close()
    seen: list[Any] = []
    query = server.collections.query
    monkeypatch.setattr(
        server.collections, "query", lambda name, given, *more: seen.extend(given) or query(name, given, *more)
    )
    embedders: dict[str, Any] = {"embedder": lambda _: np.eye(4)[1:2], "sparse_embedder": lambda _: {1: 1.0}}
    with SiftStore.attach(f"{url}&vector=b&sparse=w", **embedders) as store:
        assert store.search("x", k=1)[0].text == "a"
        store.search(vector=[0, 1, 0, 0], k=1)
        store.search("x", k=1, method="knn")
    fused, dense, nearest = seen
    assert fused.with_vector == dense.with_vector == ["b"]
    assert nearest.with_vector is False
    assert not any(given.with_payload for given in seen)
    assert [part.using for part in fused.prefetch] == ["b", "w"]
    assert (fused.limit, [part.limit for part in fused.prefetch]) == (200, [200, 200])
    assert dense.using == "b"


def test_answers_may_be_larger_than_grpc_takes_by_itself(url: str) -> None:
    vectors = clustered(1000, dimension=1536)
    with SiftStore.open(url) as store:
        store.add([f"text {i}" for i in range(1000)], list(range(1000)), vectors=vectors)
        hits = store.search(vector=vectors[3], k=10, candidates=1000)
        assert hits.found == 1000
        assert hits.moved == 1000 * 1536 * 4  # gRPC takes four million bytes
        assert hits[0].id == 3


def test_vectors_arrive_as_they_were_stored(url: str) -> None:
    vectors = clustered(50)
    with SiftStore.open(url) as store:
        store.add([f"text {i}" for i in range(50)], list(range(50)), vectors=vectors)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        records = store._context.adapter.get(list(range(50)), vectors=True)
        np.testing.assert_allclose([record.vector for record in records if record], unit, atol=1e-6)


# --- the index --------------------------------------------------------------------------------------------------------


def test_the_index_is_built_when_asked_and_told(big: SiftStore) -> None:
    statistics = big.statistics()
    assert (statistics.count, statistics.indexed) == (ROWS, ROWS)
    assert statistics.fields == {"hundredth": "integer", "half": "keyword"}
    assert {finding.level for finding in big.doctor()} <= {"ok", "note"}
    assert "HNSW, ef 200" in str(big.search(vector=clustered(1, 5)[0], k=5).plan.lines())


@pytest.mark.parametrize("candidates", [40, 200, 700, 1500])
def test_as_many_candidates_come_as_are_asked(big: SiftStore, candidates: int) -> None:
    query = clustered(1, seed=5)[0]
    nearest = big.search(vector=query, k=candidates, method="knn")
    assert len(nearest) == candidates
    vectors = clustered(ROWS)
    best = np.argsort(-(vectors @ query) / np.linalg.norm(vectors, axis=1))[:candidates]
    assert len(set(best.tolist()) & {hit.id for hit in nearest}) > 0.9 * candidates
    assert big.search(vector=query, k=10, candidates=candidates).found == candidates


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({"hundredth": 17}, ROWS // 100),
        ({"free": 17}, ROWS // 100),
        ({"half": "a"}, ROWS // 2),
        ({"hundredth": 17, "half": "a"}, 0),
        ({"hundredth": {"$gte": 98}}, ROWS // 50),
    ],
)
def test_a_filter_under_the_index_leaves_all_that_match(big: SiftStore, where: Any, count: int) -> None:
    hits = big.search(vector=clustered(1, seed=6)[0], k=100, method="knn", where=where)
    assert len(hits) == min(100, count)
    assert big.count(where) == count
    assert bool(hits.shortfall) == (count < 100)


def test_doctor_tells_what_makes_searches_slow(server: EdgeServer) -> None:
    plain = of_edge(server)
    client = QdrantClient(url=f"http://{plain.host}", check_compatibility=False)
    params = models.VectorParams(size=8, distance=models.Distance.COSINE)
    client.create_collection("unindexed", params, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0))
    no_graph = models.HnswConfigDiff(m=0)
    client.create_collection("flat", params, hnsw_config=no_graph, shard_number=3, replication_factor=2)
    rng = np.random.default_rng(0)
    for name in ("unindexed", "flat"):
        points = [models.PointStruct(id=i, vector=rng.normal(size=8).tolist(), payload={"text": "a"}) for i in range(9)]
        client.upsert(name, points)
    client.close()
    with SiftStore.attach(plain.url("unindexed")) as store:
        assert any("indexing_threshold = 0" in f.what for f in store.doctor() if f.level == "warning")
    with SiftStore.attach(plain.url("flat")) as store:
        assert any("HNSW is switched off" in f.what for f in store.doctor() if f.level == "note")
        assert any("3 shards, 2 copies of each" in f.what for f in store.doctor())


# --- names, threads, tasks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with space", "ünï·cødé", "a{b}c", "semi;colon&amp", "v0", "x.v1"])
def test_any_name_that_the_server_takes(server: EdgeServer, name: str) -> None:
    plain = of_edge(server)
    for rest in (False, True):
        url = plain.url(quote(name + ("-r" if rest else "")), rest=rest)
        with SiftStore.open(url, embedder=WordEmbedder()) as store:
            store.add(JORDAN, ids=list("abcde"))
            assert store.search(JORDAN[1], k=1)[0].id == "b"
            assert store.reembed(WordEmbedder(16, "others")) == 5
            assert store.count() == 5
        with SiftStore.attach(url) as store:
            assert store.count() == 5
        assert name + ("-r" if rest else "") in list_collections(url)


@pytest.mark.parametrize("name", ["a#b", "a%20b", "a/b", "..", "a?b", "a\\b"])
def test_names_with_a_meaning_in_paths_are_refused(server: EdgeServer, name: str) -> None:
    for opened in (SiftStore.open, SiftStore.attach, drop_collection):
        with pytest.raises(LocationError, match="has a meaning in paths"):
            opened(of_edge(server).url(quote(name, safe="")))


def test_stores_whose_names_begin_alike_are_apart(server: EdgeServer) -> None:
    plain = of_edge(server)
    stores = [SiftStore.open(plain.url(name), embedder=WordEmbedder()) for name in ("alike", "alike.v", "alike-1")]
    for place, store in enumerate(stores):
        store.add([f"text {place}", "more"][: place + 1])
    for store in stores:
        store.reembed(WordEmbedder(8, "eight"))
    assert [store.count() for store in stores] == [1, 2, 2]
    for store in stores:
        store.close()


def test_two_openers_make_one_collection(url: str) -> None:
    def add(place: int) -> None:
        with SiftStore.open(url, embedder=WordEmbedder()) as store:
            store.add([f"text {place}"], ids=[place])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        assert store.count() == 8


def test_threads_share_a_store(url: str) -> None:
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        store.add([f"word{i} common" for i in range(300)], ids=list(range(300)))
        wanted = [[hit.id for hit in store.search(f"common word{i}", k=5)] for i in range(40)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: [hit.id for hit in store.search(f"common word{i}", k=5)], range(40)))
        assert found == wanted


async def test_tasks_share_a_store(url: str) -> None:
    async with await AsyncSiftStore.open(url, embedder=WordEmbedder()) as store:
        await store.add([f"word{i} common" for i in range(300)], ids=list(range(300)))
        wanted = [[hit.id for hit in await store.search(f"common word{i}", k=5)] for i in range(40)]
        found = await asyncio.gather(*(store.search(f"common word{i}", k=5) for i in range(40)))
        assert [[hit.id for hit in hits] for hits in found] == wanted


def test_connections_are_kept_and_closed(server: EdgeServer) -> None:
    plain = of_edge(server)
    with SiftStore.open(plain.url("kept", rest=True), embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        for _ in range(20):
            store.search("Jordan", k=2)
        pool = store._context.adapter._session._client.http.client._client._transport._pool  # type: ignore[attr-defined]
        assert len(pool.connections) == 1
    assert not pool.connections


def test_a_path_before_the_api_is_a_prefix(server: EdgeServer) -> None:
    """As behind a proxy that serves Qdrant below a path."""
    seen: list[str] = []

    def forward(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        path = request.url.raw_path.decode().removeprefix("/below/here")
        return httpx.request(
            request.method,
            f"http://127.0.0.1:{server.port}{path}",
            content=request.content,
            headers={"content-type": request.headers.get("content-type", "application/json")},
        )

    client = QdrantClient(
        url="http://proxy/below/here", transport=httpx.MockTransport(forward), check_compatibility=False
    )
    with SiftStore.open("qdrant://?collection=below", client=client, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        assert len(store.search("Jordan", k=2)) == 2
    assert all(path.startswith("/below/here/") for path in seen)
    client.close()
