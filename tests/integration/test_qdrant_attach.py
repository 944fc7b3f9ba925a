"""Attaching to what others keep in Qdrant: written by LangChain, LlamaIndex and Haystack themselves, and collections of
any kind. Nothing is ever written.
"""

import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from edge_server import serve
from haystack import Document as HaystackDocument
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings
from langchain_qdrant import SparseVector as LangChainSparse
from llama_index.core.schema import TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexStore
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_server import Qdrant, of_edge
from sift_store_qdrant.connecting import _options
from word_embeddings import ANSWER, QUESTION, Words

from sift_store import (
    AccessError,
    AsyncSiftStore,
    EmbedderError,
    FilterError,
    InvalidInputError,
    LocationError,
    NotFoundError,
    ReadOnlyError,
    SiftStore,
    StorageError,
    select,
)
from sift_store.adapter import CandidateQuery
from sift_store.location import parse_location
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN


class SparseWords(SparseEmbeddings):
    """A weight for each word, at an index that is a checksum of it."""

    def embed_documents(self, texts: list[str]) -> list[LangChainSparse]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> LangChainSparse:
        words = sorted({zlib.crc32(word.strip(".,?").encode()) % 100_000 for word in text.lower().split()})
        return LangChainSparse(indices=words, values=[1.0] * len(words))


def documents() -> list[Document]:
    texts = [*JORDAN, JORDAN[0]]
    return [Document(page_content=text, metadata={"year": 2000 + i, "tags": ["a"]}) for i, text in enumerate(texts)]


@pytest.fixture
def client(qdrant: Qdrant) -> Iterator[QdrantClient]:
    made = qdrant.client()
    yield made
    made.close()


@pytest.fixture(params=["gRPC", "REST"])
def rest(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "REST")


# --- written by others ------------------------------------------------------------------------------------------------


def test_a_langchain_collection(qdrant: Qdrant, collection: str, client: QdrantClient, rest: bool) -> None:
    client.create_collection(collection, models.VectorParams(size=32, distance=models.Distance.COSINE))
    theirs = QdrantVectorStore(client, collection, Words())
    theirs.add_documents(documents())
    with SiftStore.attach(qdrant.url(collection, rest=rest), embedder=WordEmbedder()) as store:
        hits = store.search(QUESTION, k=2)
        assert {hit.text for hit in hits} == ANSWER
        assert [item.reason for item in hits.suppressed if item.text == JORDAN[0]] == ["copy"]
        assert store.count() == 6
        assert store.count({"year": {"$gte": 2003}, "tags": "a"}) == 3
        ((document, score),) = theirs.similarity_search_with_score("Paris", k=1)
        nearest = store.search("Paris", k=1, method="knn")[0]
        assert nearest.text == document.page_content
        assert str(nearest.id) == document.metadata["_id"]
        assert nearest.score == pytest.approx(score, abs=1e-5)
        assert nearest.payload == {key: value for key, value in document.metadata.items() if not key.startswith("_")}
        assert store.get([nearest.id, str(nearest.id), "no UUID", uuid4(), 3, -3])[:2] == store.get([nearest.id] * 2)
        assert store.get(["no UUID", uuid4(), 3, -3]) == [None] * 4
        assert any("LangChain" in finding.what for finding in store.doctor())


def test_a_langchain_collection_under_other_keys(qdrant: Qdrant, collection: str, client: QdrantClient) -> None:
    client.create_collection(collection, {"words": models.VectorParams(size=32, distance=models.Distance.DOT)})
    keys = {"content_payload_key": "body", "metadata_payload_key": "about", "vector_name": "words"}
    QdrantVectorStore(client, collection, Words(), distance=models.Distance.DOT, **keys).add_documents(documents())
    with SiftStore.attach(qdrant.url(collection, text="body", metadata="about"), embedder=WordEmbedder()) as store:
        assert {hit.text for hit in store.search(QUESTION, k=2)} == ANSWER
        assert store.count({"year": 2001}) == 1
        assert store.search("Paris", k=1).metric == "dot"
    with SiftStore.attach(qdrant.url(collection, text="body"), embedder=WordEmbedder()) as store:
        assert store.count({"about.year": 2001}) == 1
        assert store.search("Paris", k=1, method="knn")[0].payload["about"]["tags"] == ["a"]


@pytest.mark.parametrize("fusion", ["rrf", "dbsf"])
def test_a_hybrid_langchain_collection(
    qdrant: Qdrant, collection: str, client: QdrantClient, rest: bool, fusion: str
) -> None:
    """Fused scores say what is relevant, vectors what is said twice."""
    client.create_collection(
        collection,
        {"dense": models.VectorParams(size=32, distance=models.Distance.COSINE)},
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    theirs = QdrantVectorStore(
        client,
        collection,
        Words(),
        RetrievalMode.HYBRID,
        vector_name="dense",
        sparse_embedding=SparseWords(),
        sparse_vector_name="words",
    )
    theirs.add_documents([*documents()[:5], *(Document(page_content=f"Filler number {i}.") for i in range(30))])
    url = qdrant.url(collection, rest=rest, vector="dense", sparse="words", fusion=fusion)
    with SiftStore.attach(url, embedder=WordEmbedder(), sparse_embedder=SparseWords()) as store:
        words = models.SparseVector(**SparseWords().embed_query(QUESTION).model_dump())
        points = client.query_points(
            collection,
            prefetch=[
                models.Prefetch(query=Words().embed_query(QUESTION), using="dense", limit=200),
                models.Prefetch(query=words, using="words", limit=200),
            ],
            query=models.FusionQuery(fusion=models.Fusion.RRF if fusion == "rrf" else models.Fusion.DBSF),
            with_vectors=["dense"],
            limit=200,
        ).points
        fused = [point.score for point in points]
        nearest = store.search(QUESTION, k=5, candidates=200, method="knn")
        assert [hit.score for hit in nearest] == pytest.approx(fused[:5], abs=1e-6)
        assert nearest.metric == "fused"
        vectors = np.array([point.vector["dense"] for point in points], dtype=np.float32)
        chosen = select(vectors, WordEmbedder().embed_query(QUESTION), k=4, relevance=fused)
        hits = store.search(QUESTION, k=4)
        assert [str(hit.id) for hit in hits] == [points[row].id for row in chosen.indices]
        assert [hit.score for hit in hits] == pytest.approx([fused[row] for row in chosen.indices], abs=1e-6)
        ranked = store.search_batch([QUESTION, "Paris"], k=5, candidates=200)[0]
        assert ranked.found == hits.found
        assert len(store.search(QUESTION, k=4, where={"year": {"$lt": 2002}})) == 2
        by_vector = store.search(vector=WordEmbedder().embed_query(QUESTION), k=2)
        assert by_vector.metric == "cosine"
        with pytest.raises(InvalidInputError, match="cannot be weighed"):
            store.search(queries=["a", "b"], weights=[1, 0], k=2)
        several = store.search(queries=["children of Michael Jordan", "capital of Germany"], k=2)
        assert {hit.text for hit in several} == {JORDAN[2], JORDAN[4]}
        assert several.metric == "fused"


def test_hybrid_search_is_asked_for_whole_or_refused(qdrant: Qdrant, collection: str, client: QdrantClient) -> None:
    client.create_collection(
        collection,
        {"dense": models.VectorParams(size=32, distance=models.Distance.COSINE)},
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    client.upsert(collection, [models.PointStruct(id=1, vector={"dense": [1.0] * 32}, payload={"text": "a"})])
    with pytest.raises(InvalidInputError, match="give sparse_embedder="):
        SiftStore.attach(qdrant.url(collection, sparse="words"))
    with pytest.raises(InvalidInputError, match="say &sparse=NAME"):
        SiftStore.attach(qdrant.url(collection), sparse_embedder=SparseWords())
    with pytest.raises(LocationError, match="sparse=bm25: no such sparse vector; there are: words"):
        SiftStore.attach(qdrant.url(collection, sparse="bm25"), sparse_embedder=SparseWords())
    with pytest.raises(LocationError, match="fusion=best: one of rrf, dbsf wanted"):
        SiftStore.attach(qdrant.url(collection, sparse="words", fusion="best"), sparse_embedder=SparseWords())
    with pytest.raises(LocationError, match="fusion= has no meaning without sparse="):
        SiftStore.attach(qdrant.url(collection, fusion="rrf"))
    url, dense = qdrant.url(collection, sparse="words"), WordEmbedder()
    with pytest.raises(EmbedderError, match="sparse_embedder: int given"):
        SiftStore.attach(url, embedder=dense, sparse_embedder=3)
    bad = [{-1: 1.0}, {1: float("nan")}, {2**32: 1.0}, {1.7: 1.0}, "words"]
    for wrong in [lambda text, given=given: given for given in bad]:
        with (
            SiftStore.attach(url, embedder=dense, sparse_embedder=wrong) as store,
            pytest.raises(EmbedderError, match="the sparse embedder"),
        ):
            store.search("a")


def test_a_llama_index_collection(qdrant: Qdrant, collection: str, client: QdrantClient, rest: bool) -> None:
    theirs = LlamaIndexStore(collection, client=client)
    nodes = [
        TextNode(text=text, id_=str(UUID(int=i + 1)), metadata={"year": 2000 + i}, embedding=Words().embed_query(text))
        for i, text in enumerate(JORDAN)
    ]
    theirs.add(nodes)
    with SiftStore.attach(qdrant.url(collection, rest=rest), embedder=WordEmbedder()) as store:
        hits = store.search(QUESTION, k=2)
        assert {hit.text for hit in hits} == ANSWER
        assert {hit.id for hit in hits} == {UUID(int=1), UUID(int=3)}
        assert hits[0].payload["_node_type"] == "TextNode"
        assert hits[0].payload["year"] in (2000, 2002)
        assert store.count({"year": {"$lt": 2002}}) == 2
        assert [record and record.text for record in store.get([UUID(int=4), "nobody"])] == [JORDAN[3], None]


def test_a_haystack_collection(qdrant: Qdrant, collection: str, rest: bool) -> None:
    theirs = QdrantDocumentStore(
        url=f"http://{qdrant.host}", index=collection, embedding_dim=32, similarity="cosine", wait_result_from_api=True
    )
    made = [
        HaystackDocument(content=text, meta={"year": 2000 + i}, embedding=Words().embed_query(text))
        for i, text in enumerate(JORDAN)
    ]
    theirs.write_documents(made)
    with SiftStore.attach(qdrant.url(collection, rest=rest), embedder=WordEmbedder()) as store:
        hits = store.search(QUESTION, k=2)
        assert {hit.text for hit in hits} == ANSWER
        assert {hit.id for hit in hits} == {made[0].id, made[2].id}
        assert hits[0].payload in ({"year": 2000}, {"year": 2002})
        assert [record and record.text for record in store.get([made[3].id, "nobody"])] == [JORDAN[3], None]
        assert store.count({"year": {"$gte": 2003}}) == 2
    theirs._client.close()


def test_payloads_as_mcp_server_qdrant_and_others_write_them(
    qdrant: Qdrant, collection: str, client: QdrantClient
) -> None:
    layouts: list[tuple[Any, dict[str, str]]] = [
        (lambda text, i: {"document": text, "metadata": {"year": i}}, {}),  # mcp-server-qdrant
        (lambda text, i: {"document": text, "year": i}, {}),  # qdrant-client's add
        (lambda text, i: {"text": text, "year": i}, {}),
        (lambda text, i: {"text": text, "metadata": {"year": i}}, {}),
        (lambda text, i: {"body": text, "year": i}, {}),  # the only text there is
        (lambda text, i: {"body": text, "author": "ann", "year": i}, {"text": "body"}),
    ]
    for place, (payload, options) in enumerate(layouts):
        name = f"{collection}-{place}"
        client.create_collection(name, {"fast-bge": models.VectorParams(size=32, distance=models.Distance.COSINE)})
        points = [
            models.PointStruct(id=i, vector={"fast-bge": Words().embed_query(text)}, payload=payload(text, i))
            for i, text in enumerate(JORDAN)
        ]
        client.upsert(name, points)
        with SiftStore.attach(qdrant.url(name, **options), embedder=WordEmbedder()) as store:
            hits = store.search(QUESTION, k=2)
            assert {hit.text for hit in hits} == ANSWER, place
            assert store.count({"year": {"$gte": 3}}) == 2, place
            assert {hit.payload["year"] for hit in hits} == {0, 2}, place


def test_ids_out_of_the_payload(qdrant: Qdrant, collection: str, client: QdrantClient) -> None:
    client.create_collection(collection, models.VectorParams(size=4, distance=models.Distance.COSINE))
    named: list[Any] = [7, "seven", None, 12, "12"]
    points = [
        models.PointStruct(id=i + 10, vector=[1.0, 0, 0, i], payload={"body": f"body {i}", "doc": name})
        for i, name in enumerate(named)
    ]
    client.upsert(collection, points)
    with SiftStore.attach(qdrant.url(collection, text="body", id="doc")) as store:
        records = store.get([7, "seven", 12, "12", 10, 13, "nobody", str(UUID(int=7))])
        assert [record and record.text for record in records] == [f"body {i}" for i in (0, 1)] + [
            "body 3",
            "body 4",
        ] + [None if i != 12 else "body 2" for i in (10, 13, 0, 0)]
        assert [record and record.text for record in store.get([12])] == ["body 3"]  # the point's own id is 13
        scoped = store.scoped({"doc": "seven"})
        assert [hit.text for hit in scoped.search(vector=[1, 0, 0, 0], k=3)] == ["body 1"]
        with pytest.raises(FilterError, match="it holds the text"):
            store.count({"body": "body 1"})


def test_metadata_below_a_key_of_any_name(qdrant: Qdrant, collection: str, client: QdrantClient) -> None:
    client.create_collection(collection, models.VectorParams(size=4, distance=models.Distance.COSINE))
    payload = {"body": "text", "my meta": {"year": 3}, "a.b": {"year": 4}}
    client.upsert(collection, [models.PointStruct(id=1, vector=[1.0, 0, 0, 0], payload=payload)])
    client.create_payload_index(collection, '"my meta".year', models.PayloadSchemaType.INTEGER)
    with SiftStore.attach(qdrant.url(collection, text="body", metadata="my%20meta")) as store:
        assert store.count({"year": 3}) == 1
        assert store.search(vector=[1, 0, 0, 0], k=1)[0].payload == {"year": 3}
        assert store.statistics().fields == {"year": "integer"}
    with SiftStore.attach(qdrant.url(collection, text="body", metadata="a.b")) as store:
        assert store.count({"year": 4}) == 1


def test_an_attached_collection_of_ours_notices_a_reembedding(qdrant: Qdrant, collection: str) -> None:
    url = qdrant.url(collection)
    with SiftStore.open(url, embedder=WordEmbedder()) as own:
        own.add(JORDAN, ids=[-1, 2, "c", "d", "e"])
        with SiftStore.attach(url, embedder=WordEmbedder().embed_documents) as store:
            assert [record and record.id for record in store.get([-1, 2, "c", 3])] == [-1, 2, "c", None]
            assert len(store.search("Jordan", k=2)) == 2
            own.reembed(WordEmbedder(32, "others"))
            with pytest.raises((StorageError, NotFoundError)):
                store.search("Jordan", k=2)
            with pytest.raises(StorageError, match="attach it again"):
                store.search("Jordan", k=2)


def test_a_collection_of_ours_can_be_attached_too(qdrant: Qdrant, collection: str) -> None:
    with SiftStore.open(qdrant.url(collection), embedder=WordEmbedder()) as own:
        own.add(JORDAN, ids=list("abcde"), payloads=[{"year": i} for i in range(5)])
    with SiftStore.attach(qdrant.url(collection), embedder=WordEmbedder()) as store:
        hits = store.search(QUESTION, k=2)
        assert {hit.id for hit in hits} == {"a", "c"}
        assert store.count({"year": {"$gte": 3}}) == 2
        assert [record and record.id for record in store.get(["a", "nobody"])] == ["a", None]
    with pytest.raises(EmbedderError, match=r"'words'.*'others'"):
        SiftStore.attach(qdrant.url(collection), embedder=WordEmbedder(name="others"))


def test_commands_read_what_others_keep(
    run: Callable[..., tuple[int, str, str]], qdrant: Qdrant, collection: str, client: QdrantClient
) -> None:
    client.create_collection(collection, models.VectorParams(size=384, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=i, vector=np.eye(384)[i].tolist(), payload={"page_content": text, "metadata": {}})
        for i, text in enumerate(JORDAN)
    ]
    client.upsert(collection, points)
    url = qdrant.url(collection)
    code, out, _ = run("doctor", url)
    assert code == 0
    assert "LangChain" in out
    code, _, err = run("search", url, "Jordan")
    assert code == 2
    assert "no embedder" in err
    code, _, err = run("doctor", qdrant.url("nowhere"))
    assert code == 2
    assert "no collection at qdrant://…?collection=nowhere" in err
    code, _, err = run("drop", url, "--yes")
    assert code == 2
    assert client.collection_exists(collection)


# --- any collection ---------------------------------------------------------------------------------------------------


def fill(client: QdrantClient, name: str, distance: models.Distance, **options: Any) -> np.ndarray:
    """Vectors of all lengths beside a second vector that is of no use here."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 32)).astype(np.float32) * rng.uniform(0.5, 4, size=(60, 1)).astype(np.float32)
    other = models.VectorParams(
        size=4,
        distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection(name, {"emb": models.VectorParams(size=32, distance=distance), "late": other}, **options)
    points = [
        models.PointStruct(
            id=i,
            vector={"emb": vector.tolist(), "late": [[1.0, 0, 0, i]]},
            payload={"text": f"body {i}", "at": f"2020-01-0{i % 9 + 1}", "deep": {"er": i}, 'key "quoted"': i},
        )
        for i, vector in enumerate(vectors)
    ]
    client.upsert(name, points)
    return vectors


@pytest.mark.parametrize("distance", [models.Distance.COSINE, models.Distance.DOT, models.Distance.EUCLID])
def test_scores_follow_the_metric(
    qdrant: Qdrant, collection: str, client: QdrantClient, rest: bool, distance: models.Distance
) -> None:
    vectors = fill(client, collection, distance)
    query = np.random.default_rng(1).normal(size=32).astype(np.float32)
    wanted = {
        models.Distance.COSINE: vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query),
        models.Distance.DOT: vectors @ query,
        models.Distance.EUCLID: -np.linalg.norm(vectors - query, axis=1),
    }[distance]
    order = np.argsort(-wanted)
    with SiftStore.attach(qdrant.url(collection, rest=rest, vector="emb")) as store:
        nearest = store.search(vector=query, k=20, method="knn")
        assert [hit.id for hit in nearest] == order[:20].tolist()
        np.testing.assert_allclose([hit.score for hit in nearest], wanted[order[:20]], rtol=1e-5, atol=1e-5)
        assert nearest.metric == distance.value.lower()
        assert len(store.search(vector=query, k=5)) == 5
        pool = store._context.adapter.candidates
        (found,) = pool([CandidateQuery(query, 10)])
        unit = vectors[order[:10]] / np.linalg.norm(vectors[order[:10]], axis=1, keepdims=True)
        assert found.vectors is not None
        np.testing.assert_allclose(found.vectors, unit, atol=1e-6)
        assert store.count({"deep.er": {"$gte": 50}}) == 10
        assert store.count({"at": {"$lt": datetime(2020, 1, 2, tzinfo=UTC)}}) == 7


@pytest.mark.parametrize(
    "quantization",
    [
        models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)),
        models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    ],
)
def test_a_quantised_collection_scores_by_whole_vectors(
    qdrant: Qdrant, collection: str, client: QdrantClient, quantization: Any
) -> None:
    vectors = fill(client, collection, models.Distance.COSINE, quantization_config=quantization)
    query = np.random.default_rng(1).normal(size=32).astype(np.float32)
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    with SiftStore.attach(qdrant.url(collection, vector="emb")) as store:
        hits = store.search(vector=query, k=60, method="knn")
        np.testing.assert_allclose([hit.score for hit in hits], cosines[[int(str(hit.id)) for hit in hits]], atol=1e-5)
        assert any("quantized" in finding.what for finding in store.doctor())


def test_which_vector_and_which_text_are_asked_for_where_they_are_in_doubt(
    qdrant: Qdrant, collection: str, client: QdrantClient
) -> None:
    small = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection(collection, {"a": small, "b": small})
    with pytest.raises(LocationError, match=r"which vector\? Say &vector=NAME in the URL; there are: 'a', 'b'"):
        SiftStore.attach(qdrant.url(collection))
    with pytest.raises(LocationError, match="vector=c: the collection has no such dense vector"):
        SiftStore.attach(qdrant.url(collection, vector="c"))
    with pytest.raises(LocationError, match="the collection is empty"):
        SiftStore.attach(qdrant.url(collection, vector="a"))
    payload = {"body": "text", "author": "ann", "number": 3}
    client.upsert(collection, [models.PointStruct(id=1, vector={"a": [1.0, 0, 0, 0]}, payload=payload)])
    with pytest.raises(LocationError, match=r"which payload key holds the text.*there are: author, body, number"):
        SiftStore.attach(qdrant.url(collection, vector="a"))
    with pytest.raises(NotFoundError, match=r"no collection 'nowhere'; there are: .*test-"):
        SiftStore.attach(qdrant.url("nowhere"))
    with pytest.raises(LocationError, match="table= has no meaning here"):
        SiftStore.attach(qdrant.url(collection, table="docs"))
    with pytest.raises(LocationError, match=r"which collection\? Say \?collection=NAME; there are: .*test-"):
        SiftStore.attach(f"qdrant://{qdrant.host}?grpc_port={qdrant.grpc_port}")
    with pytest.raises(EmbedderError, match="gives dimension 32, the store has 4"):
        SiftStore.attach(qdrant.url(collection, vector="a", text="body"), embedder=WordEmbedder())
    with pytest.raises(LocationError, match="that another program keeps"):
        SiftStore.open(qdrant.url(collection))


def test_several_vectors_a_point_cannot_be_compared(qdrant: Qdrant, collection: str, client: QdrantClient) -> None:
    fill(client, collection, models.Distance.COSINE)
    with SiftStore.attach(qdrant.url(collection)) as store:  # the other one is the only one that can
        assert store.search(vector=np.ones(32), k=1)[0].text.startswith("body")
    with pytest.raises(LocationError, match="vector=late: several vectors a point"):
        SiftStore.attach(qdrant.url(collection, vector="late"))


def test_points_without_the_vector_or_without_text(
    qdrant: Qdrant, collection: str, client: QdrantClient, rest: bool
) -> None:
    small = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection(
        collection, {"a": small, "b": small}, sparse_vectors_config={"w": models.SparseVectorParams()}
    )
    words = models.SparseVector(indices=[1, 2], values=[1.0, 1.0])
    points = [
        models.PointStruct(id=1, vector={"a": [1.0, 0, 0, 0.1], "w": words}, payload={"text": "both", "year": 1}),
        models.PointStruct(id=2, vector={"b": [1.0, 0, 0, 0], "w": words}, payload={"text": "only b"}),
        models.PointStruct(id=3, vector={"a": [1.0, 0.1, 0, 0]}, payload={"text": None, "year": 3}),
        models.PointStruct(id=4, vector={"a": [1.0, 0, 0.1, 0]}, payload={}),
    ]
    client.upsert(collection, points)
    url = qdrant.url(collection, rest=rest, vector="a")
    with SiftStore.attach(url, embedder=lambda texts: np.eye(4)[[0] * len(texts)]) as store:
        hits = store.search("x", k=4)
        assert {hit.id for hit in hits} == {1, 3, 4}
        assert {hit.text for hit in hits} == {"both", ""}
        assert store.count() == 4
        findings = {finding.what for finding in store.doctor() if finding.level == "warning"}
        assert any("1 of 4 points looked at have no vector 'a'" in what for what in findings)
        assert any("2 of 4 points looked at have no text in 'text'" in what for what in findings)
    with SiftStore.attach(
        url + "&sparse=w", embedder=lambda texts: np.eye(4)[[0] * len(texts)], sparse_embedder=lambda _: {1: 1.0}
    ) as store:
        hits = store.search("x", k=4)
        assert {hit.id for hit in hits} == {1, 3, 4}
        assert "1 candidates have no vector 'a' and were left out" in str(hits.plan.lines())


def test_filters_meet_keys_and_indexes_of_others(qdrant: Qdrant, collection: str, client: QdrantClient) -> None:
    client.create_collection(collection, models.VectorParams(size=4, distance=models.Distance.COSINE))
    for field, kind in (("year", "integer"), ("at", "datetime"), ("place", "geo"), ("body", "text")):
        client.create_payload_index(collection, field, models.PayloadSchemaType(kind))
    payload = {"body": "text", "year": 2020, "at": "2020-01-01T00:00:00Z", "a key": 1, "ключ": "x", "langs": ["a", "b"]}
    client.upsert(collection, [models.PointStruct(id=1, vector=[1.0, 0, 0, 0], payload=payload)])
    with SiftStore.attach(qdrant.url(collection, text="body")) as store:
        for where in (
            {"year": 2020},
            {"a key": 1},
            {"ключ": "x"},
            {"langs": "b"},
            {"at": {"$gte": datetime(2020, 1, 1)}},
        ):
            assert store.count(where) == 1, where
            assert store.count({"$not": where}) == 0, where
        native = models.Filter(must=[models.FieldCondition(key="year", match=models.MatchValue(value=2020))])
        assert len(store.search(vector=[1, 0, 0, 0], where=native)) == 1
        assert store.scoped({"langs": "a"}).count(native) == 1
        assert store.scoped({"langs": "z"}).count(native) == 0
        for wrong in ({"year": {"$gt": datetime(2020, 1, 1)}}, {"at": {"$gt": 3}}, object()):
            with pytest.raises(FilterError):
                store.count(wrong)
        plan = store.search(vector=[1, 0, 0, 0], where={"langs": "a"}).plan
        assert "no payload index on langs" in str(plan.lines())


def test_nothing_is_written_and_a_read_only_key_is_enough() -> None:
    with serve(api_key="secret", read_only_key="look") as server:
        qdrant = of_edge(server)
        writer = QdrantClient(url=f"http://{qdrant.host}", headers={"api-key": "secret"}, check_compatibility=False)
        fill(writer, "docs", models.Distance.COSINE)
        writer.close()
        server.requests.clear()
        url = qdrant.url("docs", vector="emb").replace("qdrant://", "qdrant://:look@")
        for asked in (url, url.replace(f"grpc_port={qdrant.grpc_port}", f"grpc_port={qdrant.closed_port}")):
            with pytest.warns(UserWarning, match="insecure connection"):
                attached = SiftStore.attach(asked)
            with attached as store:
                assert len(store.search(vector=np.ones(32), k=3)) == 3
                assert store.count({"deep.er": 3}) == 1
                assert store.get([3])[0] is not None
                store.doctor()
                for write in (
                    lambda: store.add(["a"], vectors=np.ones((1, 32))),
                    lambda: store.delete([1]),
                    lambda: store.update_payload([1], {"x": 1}),
                    lambda: store.reembed(WordEmbedder()),
                    store.optimize,
                ):
                    with pytest.raises(ReadOnlyError):
                        write()
                assert "look" not in repr(store) + str(store.doctor()) + str(store.explain)
        reads = {"health", "cluster_info", "get_collection", "scroll", "count", "query_batch", "retrieve"}
        assert set(server.requests) <= reads
        with (
            pytest.warns(UserWarning, match="insecure"),
            pytest.raises(AccessError, match="QDRANT_API_KEY") as refused,
        ):
            SiftStore.attach(url.replace(":look@", ":mistaken@"))
        assert "mistaken" not in str(refused.value)
        with pytest.warns(UserWarning, match="insecure connection"):
            store = SiftStore.open(qdrant.url("ours").replace("qdrant://", "qdrant://:look@"))
        with store, pytest.raises(AccessError, match="may not do this"):
            store.add(["a"], vectors=[[1.0, 0.0]])


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(api_key="secret") as server:
        qdrant = of_edge(server)
        with pytest.raises(StorageError, match="QDRANT_API_KEY"):
            SiftStore.open(qdrant.url("handbook"))
        monkeypatch.setenv("QDRANT_API_KEY", "secret")
        with pytest.warns(UserWarning, match="insecure connection"):
            store = SiftStore.open(qdrant.url("handbook"))
        with store:
            store.add(["a"], vectors=[[1.0, 0.0]])
            assert store.count() == 1


# --- clients of the caller's ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefer_grpc", [True, False])
async def test_a_client_of_the_callers_is_used_and_left_open(
    qdrant: Qdrant, collection: str, prefer_grpc: bool
) -> None:
    options: dict[str, Any] = {
        "url": f"http://{qdrant.host}",
        "grpc_port": qdrant.grpc_port,
        "prefer_grpc": prefer_grpc,
        "check_compatibility": False,
    }
    client = QdrantClient(**options)
    with SiftStore.open(f"qdrant://?collection={collection}", client=client, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        assert {hit.text for hit in store.search(QUESTION, k=2)} == ANSWER
        assert ("gRPC" if prefer_grpc else "REST") in store._context.adapter.capabilities.engine
    assert client.collection_exists(collection)
    with SiftStore.attach(f"qdrant://?collection={collection}", client=client, embedder=WordEmbedder()) as store:
        assert store.count() == 5
    with SiftStore.open(f"qdrant://?collection={collection}", client=AsyncQdrantClient(**options)) as store:
        assert store.count() == 5
    with pytest.raises(InvalidInputError, match="local mode"):
        SiftStore.open("qdrant://?collection=a", client=QdrantClient(":memory:"))
    with pytest.raises(InvalidInputError, match="object given"):
        SiftStore.open("qdrant://?collection=a", client=object())
    other = AsyncQdrantClient(**options)
    for given in (client, other):
        async with await AsyncSiftStore.attach(
            f"qdrant://?collection={collection}", client=given, embedder=WordEmbedder()
        ) as attached:
            assert {hit.text for hit in await attached.search(QUESTION, k=2)} == ANSWER
    assert await other.collection_exists(collection)
    await other.close()
    client.close()


def test_a_key_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(api_key="S3CRETKEY") as server:
        qdrant = of_edge(server)
        plain = qdrant.url("handbook")
        monkeypatch.setenv("QDRANT_API_KEY", "S3CRETKEY \n")  # as files give it
        with pytest.warns(UserWarning, match="insecure connection"):
            store = SiftStore.open(plain)
        assert store.count() == 0
        store.close()
        for url in (
            plain.replace("qdrant://", "qdrant://:S3CRET/KEY@"),
            plain.replace("qdrant://", "qdrant://:S3CRET#KEY@"),
            plain.replace("qdrant://", "qdrant://:S3CRET?KEY@"),
            plain.replace("qdrant://", "qdrant://:S3CRET%0AKEY@"),
        ):
            with pytest.raises(LocationError) as refused:
                SiftStore.open(url)
            told: BaseException | None = refused.value
            while told is not None:
                assert "S3CRET" not in str(told)
                told = None if told.__suppress_context__ else told.__context__


def test_an_address_of_the_newer_kind() -> None:
    options = _options(parse_location("qdrants://[::1]:6333/below?collection=a"))
    assert (options["host"], options["port"], options["prefix"], options["https"]) == ("[::1]", 6333, "below", True)


def test_urls_that_cannot_be_honoured(qdrant: Qdrant) -> None:
    for url, why in (
        ("qdrant://?collection=a", "names no host"),
        (f"qdrant://{qdrant.host}?collection=a&grpc_port=many", "cannot be read"),
        ("qdrant://host:port?collection=a", "cannot be read"),
        (f"qdrant://{qdrant.host}?collection=a&shards=3", "shards= has no meaning"),
        (f"qdrant://{qdrant.host}?collection=a&vector=dense", "vector= has no meaning here"),
    ):
        with pytest.raises(LocationError, match=why):
            SiftStore.open(url)
