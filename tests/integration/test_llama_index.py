"""LlamaIndex's indexes and vector stores, read where they are, and its retrievers, postprocessors and engines by SIFT.

Its own stores and retrievers say what a node, a score and a filter are; ours must say the same.
"""

import asyncio
import copy
import gc
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sqlalchemy
from llama_index.core import QueryBundle, Settings, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import (
    build_metadata_filter_fn,
    metadata_dict_to_node,
    node_to_metadata_dict,
)
from llama_index.vector_stores.postgres import PGVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from postgres_server import Server
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_server import Qdrant
from sift_store_llama_index import SIFTPostprocessor, SIFTRetriever, SiftVectorStore
from sift_store_pgvector.adapter import PgAdapter
from sift_store_pgvector.async_adapter import AsyncPgAdapter
from sift_store_qdrant.adapter import AsyncQdrantAdapter, QdrantAdapter
from word_embeddings import ANSWER, QUESTION

from sift_store import (
    AsyncSiftStore,
    FilterError,
    InvalidInputError,
    NotFoundError,
    Record,
    SiftStore,
    StorageError,
)
from sift_store.reranking import rerank
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN


class Embedding(BaseEmbedding):
    """`texts` and `questions`: what was embedded so far."""

    texts: list[str] = Field(default_factory=list)
    questions: list[str] = Field(default_factory=list)
    _words: WordEmbedder = PrivateAttr(default_factory=WordEmbedder)

    def _get_text_embedding(self, text: str) -> list[float]:
        self.texts.append(text)
        return self._words.embed_query(text).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        self.questions.append(query)
        return self._words.embed_query(query).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def vector(text: str) -> list[float]:
    return [float(number) for number in WordEmbedder().embed_query(text)]


def node_id(number: int) -> str:
    """Qdrant takes UUIDs only."""
    return str(uuid.UUID(int=number))


HIDDEN = ["year", "tags", "lang", "price"]  # from the embedding model, so that a vector is that of the text alone


def text_node(text: str, number: int, **metadata: Any) -> TextNode:
    return TextNode(text=text, id_=node_id(number), metadata=metadata, excluded_embed_metadata_keys=HIDDEN)


def jordan() -> list[TextNode]:
    """Nodes as a splitter leaves them: of two documents, each with its neighbours and its place."""
    nodes = [text_node(text, row, year=2000 + row, tags=["a", "b"][: row % 3]) for row, text in enumerate(JORDAN)]
    for row, node in enumerate(nodes):
        document = "basketball" if row < 3 else "geography"
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(
            node_id=document, node_type=ObjectType.DOCUMENT, metadata={"file": f"{document}.md"}, hash="#"
        )
        if row > 0:
            node.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id=nodes[row - 1].node_id)
        if row < 4:
            node.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id=nodes[row + 1].node_id)
        node.start_char_idx, node.end_char_idx = 100 * row, 100 * row + len(node.text)
    return nodes


def texts(found: Sequence[NodeWithScore]) -> list[str]:
    return [one.node.get_content() for one in found]


def ids(found: Sequence[NodeWithScore]) -> list[str]:
    return [one.node_id for one in found]


def by_id(found: Sequence[NodeWithScore]) -> dict[str, NodeWithScore]:
    return {one.node_id: one for one in found}


# --- what there is to read from ---------------------------------------------------------------------------------------

Make = Callable[..., BasePydanticVectorStore]
THEIRS = ["in the index", "Qdrant by gRPC", "Qdrant by REST", "Qdrant in memory", "PostgreSQL"]
SERVED = ["Qdrant by gRPC", "PostgreSQL"]
OURS = ["a store in memory", "a store on disk", "a store in Qdrant", "a store in PostgreSQL"]
WRAPPED = ["wrapped Qdrant", "wrapped PostgreSQL"]
every_kind = pytest.mark.parametrize("kind", [*THEIRS, *OURS[:2], *WRAPPED])


def address(qdrant: Qdrant) -> dict[str, Any]:
    host, _, port = qdrant.host.partition(":")
    return {"host": host, "port": int(port), "grpc_port": qdrant.grpc_port, "check_compatibility": False}


def client_of(qdrant: Qdrant, *, rest: bool = False) -> QdrantClient:
    client = QdrantClient(**address(qdrant), prefer_grpc=not rest)
    if rest:  # where LlamaIndex uploads, the client leaves a socket open over REST

        def upload_points(collection_name: str, points: Sequence[Any], **options: Any) -> None:
            client.upsert(collection_name, list(points))

        client.upload_points = upload_points  # type: ignore[method-assign]
    return client


@pytest.fixture
def embedding() -> Embedding:
    return Embedding()


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """An empty vector store of a kind; what was opened for it is closed afterwards."""
    with ExitStack() as opened:

        def qdrant_store(client: QdrantClient, **options: Any) -> QdrantVectorStore:
            opened.callback(client.close)
            return QdrantVectorStore(request.getfixturevalue("collection"), client=client, **options)

        def postgres_store(**options: Any) -> PGVectorStore:
            at = request.getfixturevalue("postgres").parameters
            store = PGVectorStore.from_params(
                **{
                    "host": at["host"],
                    "port": str(at["port"]),
                    "user": at["user"],
                    "password": at.get("password") or "none",
                    "database": request.getfixturevalue("database"),
                    "table_name": "jordan",
                    "embed_dim": 32,
                    **options,
                }
            )
            opened.callback(lambda: store._engine.dispose() if store._engine is not None else None)
            return store

        def of_kind(kind: str, **options: Any) -> BasePydanticVectorStore:
            match kind:
                case "in the index":
                    return SimpleVectorStore()
                case "Qdrant by gRPC" | "Qdrant by REST":
                    server: Qdrant = request.getfixturevalue("qdrant")
                    return qdrant_store(client_of(server, rest=kind.endswith("REST")), **options)
                case "Qdrant in memory":
                    return qdrant_store(QdrantClient(":memory:"), index_doc_id=False, **options)
                case "PostgreSQL":
                    return postgres_store(**options)
                case "wrapped Qdrant":
                    return SiftVectorStore(of_kind("Qdrant by gRPC", **options))
                case "wrapped PostgreSQL":
                    return SiftVectorStore(of_kind("PostgreSQL", **options))
            return SiftVectorStore(opened.enter_context(SiftStore.open(location_of(kind, request))))

        yield of_kind


def location_of(kind: str, request: pytest.FixtureRequest) -> str:
    match kind:
        case "a store in memory":
            return "memory://"
        case "a store on disk":
            return str(request.getfixturevalue("tmp_path") / "nodes.sift")
        case "a store in Qdrant":
            url: str = request.getfixturevalue("qdrant").url(request.getfixturevalue("collection"))
            return url
        case "a store in PostgreSQL":
            return f"{request.getfixturevalue('postgres').url(request.getfixturevalue('database'))}?collection=nodes"
    raise ValueError(kind)


@pytest.fixture
def index_over(make: Make, embedding: Embedding) -> Callable[..., VectorStoreIndex]:
    """An index with some nodes, over a vector store or one of a kind."""

    def indexed(over: str | BasePydanticVectorStore, nodes: Sequence[BaseNode], **options: Any) -> VectorStoreIndex:
        store = make(over) if isinstance(over, str) else over
        context = StorageContext.from_defaults(vector_store=store)
        return VectorStoreIndex(list(nodes), storage_context=context, embed_model=embedding, **options)

    return indexed


IndexOver = Callable[..., VectorStoreIndex]


@pytest.fixture
def sift() -> Iterator[Callable[..., SIFTRetriever]]:
    """Makes retrievers, and closes them afterwards."""
    made: list[SIFTRetriever] = []

    def retriever(source: object, *arguments: Any, **options: Any) -> SIFTRetriever:
        made.append(SIFTRetriever(source, *arguments, **options))
        return made[-1]

    yield retriever
    for one in made:
        one.close()


Sift = Callable[..., SIFTRetriever]


# --- a retriever over each --------------------------------------------------------------------------------------------


@every_kind
def test_it_answers_over_every_index_and_embeds_the_question_alone(
    index_over: IndexOver, sift: Sift, embedding: Embedding, kind: str
) -> None:
    index = index_over(kind, jordan())
    assert embedding.texts == JORDAN
    assert set(texts(sift(index, similarity_top_k=2).retrieve(QUESTION))) == ANSWER
    assert embedding.texts == JORDAN
    assert embedding.questions == [QUESTION]


@pytest.mark.parametrize("kind", [*THEIRS[1:], *OURS[:2], *WRAPPED])
def test_a_vector_store_that_keeps_texts_will_do_without_an_index(
    index_over: IndexOver, sift: Sift, embedding: Embedding, kind: str
) -> None:
    store = index_over(kind, jordan()).vector_store
    assert set(texts(sift(store, embed_model=embedding).retrieve(QUESTION))) == ANSWER


def test_the_embedding_model_of_the_settings_is_the_default(
    index_over: IndexOver, sift: Sift, embedding: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "_embed_model", Embedding())
    index = index_over("a store in memory", jordan())
    assert set(texts(sift(index.vector_store).retrieve(QUESTION))) == ANSWER
    assert Settings.embed_model.questions == [QUESTION]  # type: ignore[attr-defined]
    assert embedding.questions == []


@every_kind
def test_nodes_come_back_whole_with_the_scores_of_llama_index(index_over: IndexOver, sift: Sift, kind: str) -> None:
    given = {node.node_id: node for node in jordan()}
    index = index_over(kind, jordan())
    theirs = by_id(index.as_retriever(similarity_top_k=5).retrieve(QUESTION))
    ours = sift(index, similarity_top_k=5).retrieve(QUESTION)
    assert len(ours) == len(theirs) == 5
    for one in ours:
        assert type(one.node) is TextNode
        assert one.node == theirs[one.node_id].node == given[one.node_id]
        assert one.score == pytest.approx(theirs[one.node_id].score, abs=1e-6)
    middle = by_id(ours)[node_id(2)].node
    assert isinstance(middle, TextNode)
    assert (middle.ref_doc_id, middle.start_char_idx, middle.end_char_idx) == ("basketball", 200, 233)
    assert middle.prev_node is not None
    assert middle.next_node is not None
    assert (middle.prev_node.node_id, middle.next_node.node_id) == (node_id(1), node_id(3))
    assert middle.source_node is not None
    assert middle.source_node.metadata == {"file": "basketball.md"}


def of_every_type() -> list[BaseNode]:
    return [
        text_node("The age of Michael Jordan is 61 years.", 1),
        Node(text_resource=MediaResource(text="A node of the newer kind."), id_=node_id(2), metadata={"year": 2}),
        IndexNode(text="What leads on to somewhere else.", index_id="elsewhere", id_=node_id(3)),
        ImageNode(text="The picture of a cat.", image_url="https://example.org/cat.png", id_=node_id(4)),
    ]


@every_kind
def test_nodes_of_every_type_come_back_as_they_were(index_over: IndexOver, sift: Sift, kind: str) -> None:
    given = {node.node_id: node for node in of_every_type()}
    index = index_over(kind, of_every_type())
    theirs = by_id(VectorIndexRetriever(index, similarity_top_k=4).retrieve(QUESTION))
    ours = by_id(sift(index, similarity_top_k=4).retrieve(QUESTION))
    assert ours.keys() == given.keys()
    for id_, node in given.items():
        assert type(ours[id_].node) is type(node)
        assert ours[id_].node == theirs[id_].node == node


@pytest.mark.parametrize("kind", [*THEIRS, "a store in memory"])
def test_nothing_that_is_read_is_written(
    index_over: IndexOver, make: Make, sift: Sift, kind: str, request: pytest.FixtureRequest
) -> None:
    store = make(kind)
    index = index_over(store, jordan())
    before = copy.deepcopy(content(store, request))
    docstore = copy.deepcopy(index.docstore.to_dict()) if isinstance(store, SimpleVectorStore) else None
    for with_scores in (False, True):
        found = sift(index, similarity_top_k=3, with_scores=with_scores).retrieve(QUESTION)
        for one in found:
            one.node.metadata["changed"] = True
    SIFTPostprocessor(source=index, top_n=1).postprocess_nodes(found, query_str=QUESTION)
    assert content(store, request) == before
    assert docstore is None or index.docstore.to_dict() == docstore


def content(store: BasePydanticVectorStore, request: pytest.FixtureRequest) -> Any:
    """All that the engine holds."""
    if isinstance(store, SimpleVectorStore):
        return store.to_dict()
    if isinstance(store, QdrantVectorStore):
        assert store._client is not None
        names = sorted(item.name for item in store._client.get_collections().collections)
        points, _ = store._client.scroll(store.collection_name, with_vectors=True, limit=100)
        held = [(point.id, point.payload, np.round(cast("Any", point.vector), 5).tolist()) for point in points]
        return names, store._client.get_collection(store.collection_name).config, held
    if isinstance(store, PGVectorStore):
        with request.getfixturevalue("postgres").connect(request.getfixturevalue("database")) as connection:
            relations = connection.execute("SELECT relname FROM pg_class WHERE relname !~ '^pg_' ORDER BY 1").fetchall()
            return relations, connection.execute("SELECT xmin, * FROM data_jordan ORDER BY id").fetchall()
    assert isinstance(store, SiftVectorStore)
    records = store.client.get([node_id(row) for row in range(5)], vectors=True)
    return [(record.id, record.text, record.payload, record.vector.tolist()) for record in records]


@every_kind
def test_what_is_inserted_later_is_found_and_what_is_deleted_is_not(
    index_over: IndexOver, sift: Sift, kind: str
) -> None:
    index = index_over(kind, jordan())
    retriever = sift(index, similarity_top_k=1)
    assert texts(retriever.retrieve("How high is Mount Everest?")) != ["Mount Everest is high."]
    index.insert_nodes([text_node("Mount Everest is high.", 9)])
    assert texts(retriever.retrieve("How high is Mount Everest?")) == ["Mount Everest is high."]
    index.delete_nodes([node_id(9)])
    assert texts(retriever.retrieve("How high is Mount Everest?")) != ["Mount Everest is high."]
    index.delete_ref_doc("basketball")
    assert set(texts(sift(index, similarity_top_k=5).retrieve(QUESTION))) == set(JORDAN[3:])


def test_a_store_of_ours_is_a_source_itself_and_embeds_the_question(sift: Sift, embedding: Embedding) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(JORDAN, payloads=[{"year": 2000 + row} for row in range(5)])
        found = sift(store).retrieve(QUESTION)
        assert set(texts(found)) == ANSWER
        assert all(type(one.node) is TextNode for one in found)
        assert {one.metadata["year"] for one in found} == {2000, 2002}
        assert store.get(ids(found))[0] is not None
        assert set(texts(sift(store, embed_model=embedding).retrieve(QUESTION))) == ANSWER
        assert embedding.questions == [QUESTION]  # the one that was asked for
        scoped = store.scoped({"year": 2004})
        assert texts(sift(scoped, similarity_top_k=5).retrieve(QUESTION)) == [JORDAN[4]]
    with pytest.raises(InvalidInputError, match="str given, a SiftStore or an AsyncSiftStore wanted"):
        SIFTRetriever("a name")
    with pytest.raises(InvalidInputError, match="keeps no texts; give the index"):
        SIFTRetriever(SimpleVectorStore())


class Renamed(QdrantVectorStore):
    """As users make them, with an option of their own."""


class Other(BasePydanticVectorStore):
    stores_text: bool = True

    @property
    def client(self) -> None:
        return None

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        return []

    def delete(self, ref_doc_id: str, **kwargs: Any) -> None:
        pass

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        return VectorStoreQueryResult()


def test_a_subclass_of_a_known_store_is_known_and_another_store_is_refused(
    index_over: IndexOver, sift: Sift, embedding: Embedding, collection: str, qdrant: Qdrant
) -> None:
    for refused in (SIFTRetriever, SiftVectorStore):
        with pytest.raises(InvalidInputError, match="Other given; QdrantVectorStore, PGVectorStore, an index over a"):
            refused(Other())
    client = client_of(qdrant)
    index = index_over(Renamed(collection, client=client), jordan())
    assert set(texts(sift(index).retrieve(QUESTION))) == ANSWER
    client.close()


# --- the forms that LlamaIndex's stores have --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"use_jsonb": True},
        {"schema_name": "Apart", "table_name": "odd name-of_a_Table"},
        {"use_halfvec": True},
        {"hybrid_search": True, "text_search_config": "english"},
        {"hnsw_kwargs": {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40}},
    ],
    ids=["jsonb", "names", "halfvec", "hybrid", "hnsw"],
)
def test_every_form_of_a_postgres_table_is_read(
    index_over: IndexOver, make: Make, sift: Sift, options: dict[str, Any]
) -> None:
    index = index_over(make("PostgreSQL", **options), jordan())
    theirs = by_id(index.as_retriever(similarity_top_k=5).retrieve(QUESTION))
    found = sift(index).retrieve(QUESTION)
    assert set(texts(found)) == ANSWER
    for one in found:
        assert one.node == theirs[one.node_id].node
        assert one.score == pytest.approx(theirs[one.node_id].score, abs=1e-4)
    unused = make("PostgreSQL", **options)  # as a program that only reads has it
    assert set(texts(sift(unused, embed_model=index._embed_model).retrieve(QUESTION))) == ANSWER


def test_a_postgres_store_over_engines_of_the_callers_is_read(
    index_over: IndexOver, sift: Sift, postgres: Server, database: str
) -> None:
    url = sqlalchemy.make_url(postgres.url(database)).set(password="p#s/s?w&rd")
    engine = sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg2"))
    other = sqlalchemy.ext.asyncio.create_async_engine(url.set(drivername="postgresql+asyncpg"))
    index = index_over(PGVectorStore(table_name="jordan", embed_dim=32, engine=engine, async_engine=other), jordan())
    assert set(texts(sift(index).retrieve(QUESTION))) == ANSWER
    engine.dispose()


def sparse(given: list[str]) -> tuple[list[list[int]], list[list[float]]]:
    """A weight for each word, at an index that is a checksum of it."""
    words = [sorted({zlib.crc32(word.encode()) % 10_000 for word in text.lower().split()}) for text in given]
    return words, [[1.0] * len(some) for some in words]


@pytest.mark.parametrize("name", [None, "mine"])
def test_a_qdrant_collection_for_hybrid_search_is_read_by_its_dense_vectors(
    index_over: IndexOver, make: Make, sift: Sift, name: str | None
) -> None:
    hybrid = {"enable_hybrid": True, "sparse_doc_fn": sparse, "sparse_query_fn": sparse, "dense_vector_name": name}
    index = index_over(make("Qdrant by gRPC", **hybrid), jordan())
    assert set(texts(sift(index).retrieve(QUESTION))) == ANSWER
    fused = index.as_retriever(similarity_top_k=5, vector_store_query_mode="hybrid").retrieve(QUESTION)
    kept = SIFTPostprocessor(source=index, top_n=2).postprocess_nodes(fused, query_str=QUESTION)
    assert {one.node_id for one in kept} <= set(ids(fused))
    assert len(kept) == 2


def test_an_index_that_was_persisted_and_loaded_is_read(
    index_over: IndexOver, sift: Sift, embedding: Embedding, tmp_path: Path
) -> None:
    index_over("in the index", jordan()).storage_context.persist(str(tmp_path))
    context = StorageContext.from_defaults(persist_dir=str(tmp_path))
    index = load_index_from_storage(context, embed_model=embedding)
    assert set(texts(sift(index).retrieve(QUESTION))) == ANSWER
    assert texts(sift(index, filters=filters(one_filter("year", "==", 2003))).retrieve(QUESTION)) == [JORDAN[3]]
    assert embedding.texts == JORDAN


@pytest.mark.parametrize("both", [False, True], ids=["aclient alone", "both clients"])
async def test_a_qdrant_store_with_an_asynchronous_client_is_read_by_both_kinds_of_code(
    qdrant: Qdrant, collection: str, sift: Sift, embedding: Embedding, both: bool
) -> None:
    aclient = AsyncQdrantClient(**address(qdrant), prefer_grpc=True)
    client = client_of(qdrant) if both else None
    theirs = QdrantVectorStore(collection, client=client, aclient=aclient)
    await theirs.async_add([with_vector(node) for node in jordan()])
    retriever = sift(theirs, embed_model=embedding)
    assert set(texts(await retriever.aretrieve(QUESTION))) == ANSWER
    assert set(texts(retriever.retrieve(QUESTION))) == ANSWER
    await aclient.close()
    if client is not None:
        client.close()


async def test_a_qdrant_in_the_process_is_read_by_the_client_that_has_it(sift: Sift, embedding: Embedding) -> None:
    aclient = AsyncQdrantClient(":memory:")
    theirs = QdrantVectorStore("notes", aclient=aclient, index_doc_id=False)
    await theirs.async_add([with_vector(node) for node in jordan()])
    retriever = sift(theirs, embed_model=embedding)
    assert set(texts(await retriever.aretrieve(QUESTION))) == ANSWER
    with pytest.raises(InvalidInputError, match="AsyncQdrantClient in local mode given, of the other kind wanted"):
        retriever.retrieve(QUESTION)
    await aclient.close()


def with_vector(node: TextNode) -> TextNode:
    return node.model_copy(update={"embedding": vector(node.text)})


def test_a_password_is_never_shown(postgres: Server, database: str, embedding: Embedding) -> None:
    at, said = postgres.parameters, []
    for port, name in ((at["port"], database), (1, database), (at["port"], "nowhere")):
        url = f"{at['user']}:s3cr3t@{at['host']}:{port}/{name}"
        theirs = PGVectorStore(f"postgresql+psycopg2://{url}", f"postgresql+asyncpg://{url}", "nothing", embed_dim=32)
        retriever = SIFTRetriever(theirs, embed_model=embedding)
        postprocessor = SIFTPostprocessor(source=theirs, embed_model=embedding)
        ours = SiftVectorStore(theirs)
        asked: list[Callable[[], object]] = [
            lambda retriever=retriever: retriever.retrieve(QUESTION),
            lambda retriever=retriever: asyncio.run(retriever.aretrieve(QUESTION)),
            lambda ours=ours: ours.query(VectorStoreQuery(vector(QUESTION))),
        ]
        for ask in asked:
            with pytest.raises((NotFoundError, StorageError)) as failed:
                ask()
            error: BaseException | None = failed.value
            while error is not None:
                said += [str(error), repr(error)]
                error = error.__cause__
        said += [repr(one) for one in (retriever, retriever._reading, postprocessor, ours)]
        said += [str(postprocessor), str(postprocessor.to_dict()), str(ours), str(ours.to_dict())]
    assert "s3cr3t" not in "\n".join(said)


# --- index nodes ------------------------------------------------------------------------------------------------------


def inner_index(embedding: Embedding) -> VectorStoreIndex:
    return VectorStoreIndex([text_node("A chapter about his children.", 50)], embed_model=embedding)


def leading_on(embedding: Embedding) -> list[IndexNode]:
    """Index nodes that stand for a node, a retriever, a query engine, and for nothing."""
    inner = inner_index(embedding)
    node = text_node("A page about his age.", 60)
    return [
        IndexNode(text="Michael Jordan is 61 years old.", index_id="age", obj=node, id_=node_id(11)),
        IndexNode(text="Michael Jordan has children.", index_id="kids", obj=inner.as_retriever(), id_=node_id(12)),
        IndexNode(text="Jordan was born.", index_id="birth", obj=inner.as_query_engine(llm=MockLLM()), id_=node_id(13)),
        IndexNode(text="France is a country.", index_id="France", id_=node_id(14)),
    ]


LED_TO = {"A page about his age.", "A chapter about his children.", "France is a country."}


@every_kind
@pytest.mark.parametrize("awaited", [False, True])
def test_index_nodes_lead_on_to_what_they_stand_for(
    index_over: IndexOver, sift: Sift, embedding: Embedding, kind: str, awaited: bool
) -> None:
    index = index_over(kind, jordan()[3:], objects=leading_on(embedding))
    retriever = sift(index, similarity_top_k=6)
    theirs = VectorIndexRetriever(index, similarity_top_k=6, object_map=index._object_map).retrieve(QUESTION)
    found = asyncio.run(retriever.aretrieve(QUESTION)) if awaited else retriever.retrieve(QUESTION)
    (answered,) = [one for one in found if one.text.startswith("Context information")]  # of the query engine
    assert "A chapter about his children." in answered.text
    assert set(texts(found)) - {answered.text} == {*LED_TO, *JORDAN[3:]}
    assert set(texts(found)) == set(texts(theirs))
    for one in found:
        if one.node_id in by_id(theirs):
            assert one.node == by_id(theirs)[one.node_id].node
            assert one.score == pytest.approx(by_id(theirs)[one.node_id].score, abs=1e-6)


@pytest.mark.parametrize("kind", ["in the index", "Qdrant by gRPC", "PostgreSQL", "a store on disk"])
def test_a_node_that_an_index_node_stands_for_is_kept_with_it(index_over: IndexOver, sift: Sift, kind: str) -> None:
    page = text_node("A page about his age.", 60)
    led = IndexNode(text="Michael Jordan is 61 years old.", index_id="age", obj=page, id_=node_id(11))
    index = index_over(kind, [led, *jordan()[3:]])
    assert sift(index, similarity_top_k=1).retrieve(QUESTION)[0].node == page
    if kind != "in the index":  # nothing but the vector store is there in the next process
        there = VectorStoreIndex.from_vector_store(index.vector_store, embed_model=index._embed_model)
        (found,) = sift(there, similarity_top_k=1).retrieve(QUESTION)
        (theirs,) = there.as_retriever(similarity_top_k=1).retrieve(QUESTION)
        assert page.text in found.text
        assert (type(found.node), found.text) == (type(theirs.node), theirs.text)


@pytest.mark.parametrize("kind", ["in the index", "a store in memory", "wrapped PostgreSQL"])
def test_what_index_nodes_stand_for_can_be_given_to_the_retriever(
    index_over: IndexOver, sift: Sift, embedding: Embedding, kind: str
) -> None:
    bare = [IndexNode(text=one.text, index_id=one.index_id, id_=one.id_) for one in leading_on(embedding)[:2]]
    index = index_over(kind, [*jordan()[3:], *bare])
    assert LED_TO & set(texts(sift(index, similarity_top_k=5).retrieve(QUESTION))) == set()
    by_name = {one.index_id: one.obj for one in leading_on(embedding)[:2]}
    for options in ({"object_map": by_name}, {"objects": leading_on(embedding)[:2]}):
        retriever = sift(index, similarity_top_k=5, **options)
        wanted = {"A page about his age.", "A chapter about his children.", *JORDAN[3:]}
        assert set(texts(retriever.retrieve(QUESTION))) == wanted
        assert set(texts(asyncio.run(retriever.aretrieve(QUESTION)))) == wanted


# --- filters ----------------------------------------------------------------------------------------------------------

FIELDS: list[dict[str, Any]] = [
    {"year": 1999, "lang": "en", "tags": ["news", "sport"], "price": 1.5},
    {"year": 2000, "lang": "de", "tags": ["sport"], "price": 2.0},
    {"year": 2001, "lang": "en", "tags": [], "price": -3.25},
    {"year": 2002, "lang": "fr", "tags": ["news", "science"]},
    {"lang": "d"},
    {"year": None, "tags": ["sport", "news", "science"]},
]


def fielded() -> list[TextNode]:
    words = ["apple", "bridge", "castle", "desert", "engine", "forest"]
    return [text_node(f"About the {word}.", row, **FIELDS[row]) for row, word in enumerate(words)]


def one_filter(key: str, operator: str, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


def filters(*parts: MetadataFilter | MetadataFilters, condition: str = "and") -> MetadataFilters:
    return MetadataFilters(filters=list(parts), condition=FilterCondition(condition))


ONE_BY_ONE: list[tuple[MetadataFilter, set[int]]] = [
    (one_filter("year", "==", 2000), {1}),
    (one_filter("lang", "==", "en"), {0, 2}),
    (one_filter("price", "==", 2.0), {1}),
    (one_filter("price", "==", 2), {1}),
    (one_filter("missing", "==", "x"), set()),
    (one_filter("year", "!=", 2000), {0, 2, 3, 4, 5}),
    (one_filter("lang", "!=", "en"), {1, 3, 4, 5}),
    (one_filter("year", ">", 2000), {2, 3}),
    (one_filter("year", ">=", 2000), {1, 2, 3}),
    (one_filter("price", "<", 2.0), {0, 2}),
    (one_filter("price", "<=", 2), {0, 1, 2}),
    (one_filter("year", "in", [1999, 2002, 3000]), {0, 3}),
    (one_filter("lang", "in", ["de", "fr"]), {1, 3}),
    (one_filter("lang", "in", []), set()),
    (one_filter("year", "nin", [1999, 2002]), {1, 2, 4, 5}),
    (one_filter("lang", "nin", ["en", "de"]), {3, 4, 5}),
    (one_filter("lang", "nin", []), {0, 1, 2, 3, 4, 5}),
    (one_filter("tags", "any", ["science", "sport"]), {0, 1, 3, 5}),
    (one_filter("tags", "all", ["news", "sport"]), {0, 5}),
    (one_filter("tags", "all", ["news"]), {0, 3, 5}),
    (one_filter("tags", "contains", "science"), {3, 5}),
    (one_filter("year", "is_empty"), {4, 5}),
    (one_filter("tags", "is_empty"), {2, 4}),
    (one_filter("doc_id", "==", "None"), {0, 1, 2, 3, 4, 5}),
]
everywhere = pytest.mark.parametrize("kind", ["in the index", "Qdrant by gRPC", "PostgreSQL", "a store on disk"])


def let_through(sift: Sift, index: VectorStoreIndex, condition: Any, **options: Any) -> set[int]:
    found = sift(index, similarity_top_k=9, method="knn", filters=condition, **options).retrieve("About")
    return {uuid.UUID(one.node_id).int for one in found}


@everywhere
def test_every_operator_means_the_same_everywhere(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, fielded())
    found = [let_through(sift, index, filters(part)) for part, _ in ONE_BY_ONE]
    assert found == [rows for _, rows in ONE_BY_ONE]


def test_and_that_is_what_llama_index_says() -> None:
    """Of nodes that have the key. Of those without, its versions say different things; the newest says the same."""
    metadata = {node.node_id: node_to_metadata_dict(node) for node in fielded()}
    for part, rows in ONE_BY_ONE:
        allowed = build_metadata_filter_fn(metadata.__getitem__, filters(part))
        for row in range(len(FIELDS)):
            if metadata[node_id(row)].get(part.key) is not None:
                assert allowed(node_id(row)) == (row in rows), (part, row)


@everywhere
def test_conditions_combine_filters_to_any_depth(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, fielded())
    year, language = one_filter("year", "==", 2000), one_filter("lang", "==", "en")  # 1; 0 and 2
    tags, france = one_filter("tags", "any", ["science", "sport"]), one_filter("lang", "==", "fr")  # 0, 1, 3 and 5; 3
    one_of_two = filters(year, language, condition="or")
    for combined, rows in (
        (filters(year), {1}),
        (filters(year, condition="or"), {1}),
        (filters(year, condition="not"), {0, 2, 3, 4, 5}),
        (filters(language, tags), {0}),
        (filters(language, tags, condition="or"), {0, 1, 2, 3, 5}),
        (filters(language, tags, condition="not"), {4}),
        (filters(one_of_two, one_filter("price", ">", 0)), {0, 1}),
        (filters(one_of_two, france, condition="or"), {0, 1, 2, 3}),
        (filters(one_of_two, france, condition="not"), {4, 5}),
        (filters(filters(filters(one_of_two, condition="not"), condition="not")), {0, 1, 2}),
    ):
        assert let_through(sift, index, combined) == rows, combined


@everywhere
def test_a_mapping_in_our_own_language_is_a_filter_too(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, fielded())
    where = {"$or": [{"year": {"$gt": 2001}}, {"tags": "sport", "lang": {"$ne": "en"}}]}
    assert let_through(sift, index, where) == {1, 3, 5}
    assert let_through(sift, index, {"tags": "news"}) == {0, 3, 5}
    assert let_through(sift, index, where, doc_ids=["None"]) == {1, 3, 5}
    if kind == "Qdrant by gRPC":
        of_qdrant = models.FieldCondition(key="lang", match=models.MatchText(text="en"))
        assert let_through(sift, index, models.Filter(must=[of_qdrant])) == {0, 2}


@every_kind
def test_documents_can_be_named(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, jordan())

    def found(**options: Any) -> set[str]:
        return set(texts(sift(index, similarity_top_k=9, method="knn", **options).retrieve(QUESTION)))

    assert found(doc_ids=["geography"]) == set(JORDAN[3:])
    assert found(doc_ids=["geography", "basketball"]) == set(JORDAN)
    assert found(doc_ids=["geography"], filters=filters(one_filter("year", ">", 2003))) == {JORDAN[4]}
    assert found(filters=filters(one_filter("ref_doc_id", "==", "basketball"))) == set(JORDAN[:3])


def test_filters_that_have_no_meaning_here_are_refused_at_once(index_over: IndexOver, sift: Sift) -> None:
    index = index_over("in the index", fielded())
    for operator in ("text_match", "text_match_insensitive"):
        with pytest.raises(FilterError, match=f"filter on 'lang': operator '{operator}' compares parts of a text"):
            sift(index, filters=filters(filters(one_filter("lang", operator, "e")), condition="not"))
    with pytest.raises(FilterError, match=r"unknown operator '\$near'"):
        sift(index, filters={"year": {"$near": 3}}).retrieve("About")
    with pytest.raises(FilterError, match=r"lang \$gt: 'en' given; a number"):
        sift(index, filters=filters(one_filter("lang", ">", "en"))).retrieve("About")


# --- what a retriever is told -----------------------------------------------------------------------------------------


def test_two_nodes_are_the_default_and_the_number_can_be_set(index_over: IndexOver, sift: Sift) -> None:
    index = index_over("in the index", jordan())
    retriever = sift(index)
    assert retriever.similarity_top_k == index.as_retriever().similarity_top_k == 2  # type: ignore[attr-defined]
    assert len(retriever.retrieve(QUESTION)) == 2
    retriever.similarity_top_k = 4
    assert len(retriever.retrieve(QUESTION)) == 4
    assert len(sift(index, 3).retrieve(QUESTION)) == 3


def test_a_copy_takes_no_place(index_over: IndexOver, sift: Sift) -> None:
    copies = [text_node(JORDAN[0], 90 + row, source=f"crawl {row}") for row in range(3)]
    for node in copies:
        node.excluded_embed_metadata_keys.append("source")
    index = index_over("in the index", [*copies, *jordan()])
    assert set(texts(index.as_retriever(similarity_top_k=3).retrieve(QUESTION))) == {JORDAN[0]}
    assert set(texts(sift(index, similarity_top_k=2).retrieve(QUESTION))) == ANSWER


def test_arguments_of_a_search_are_passed_on(index_over: IndexOver, sift: Sift) -> None:
    index = index_over("in the index", jordan())

    def found(**options: Any) -> list[NodeWithScore]:
        return sift(index, **options).retrieve(QUESTION)

    nearest = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
    assert ids(found(method="knn", similarity_top_k=5)) == ids(nearest)
    by_score = found(order="score", similarity_top_k=5)
    assert [one.score for one in by_score] == sorted((one.score for one in by_score), reverse=True)
    assert set(ids(found(candidates=3, similarity_top_k=3))) == set(ids(nearest[:3]))
    assert texts(found(max_tokens=10)) == [JORDAN[0]]
    assert len(found(min_score=0.5, similarity_top_k=5)) == 2
    with pytest.raises(InvalidInputError, match="top_k: no argument of a search; there are candidates, "):
        SIFTRetriever(index, top_k=3)
    with pytest.raises(InvalidInputError, match="method"):
        found(method="best")
    with pytest.raises(InvalidInputError, match="candidates: 1 given, at least k = 2 wanted"):
        found(candidates=1)
    with pytest.raises(InvalidInputError, match="k: 0 given"):
        found(similarity_top_k=0)


@pytest.mark.parametrize("kind", ["in the index", "Qdrant by gRPC", "PostgreSQL", "a store in memory"])
def test_what_sift_says_of_a_node_is_for_programs_and_not_for_models(
    index_over: IndexOver, sift: Sift, kind: str
) -> None:
    index = index_over(kind, jordan())
    plain = sift(index, similarity_top_k=3).retrieve(QUESTION)
    told = sift(index, similarity_top_k=3, with_scores=True).retrieve(QUESTION)
    assert ids(told) == ids(plain)
    nearest = ids(sift(index, similarity_top_k=5, method="knn").retrieve(QUESTION))
    left = 1.0
    for place, one in enumerate(told):
        said = one.metadata["sift"]
        assert said.keys() == {"score", "gain", "variance", "pick", "rank"}
        assert (said["score"], said["pick"]) == (one.score, place + 1)
        assert said["rank"] == nearest.index(one.node_id) + 1
        assert said["variance"] == pytest.approx(left - said["gain"], abs=1e-6)
        left = said["variance"]
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert one.node.get_content(mode) == plain[place].node.get_content(mode)
        assert {**one.metadata, "sift": None} == {**plain[place].metadata, "sift": None}
    assert all("sift" not in one.metadata for one in plain)
    assert [one.node for one in sift(index, similarity_top_k=3).retrieve(QUESTION)] == [one.node for one in plain]
    for said in (one.metadata["sift"] for one in sift(index, with_scores=True, method="knn").retrieve(QUESTION)):
        assert (said["gain"], said["variance"]) == (None, None)


@pytest.mark.parametrize("kind", ["in the index", "PostgreSQL"])
def test_a_question_comes_as_text_or_vector_or_as_several_texts(
    index_over: IndexOver, sift: Sift, embedding: Embedding, kind: str
) -> None:
    retriever = sift(index_over(kind, jordan()), similarity_top_k=1)
    assert texts(retriever.retrieve("capital of France")) == [JORDAN[3]]
    assert texts(retriever.retrieve(QueryBundle("capital of France"))) == [JORDAN[3]]
    embedding.questions.clear()
    assert texts(retriever.retrieve(QueryBundle("France", embedding=vector("capital of Germany")))) == [JORDAN[4]]
    assert embedding.questions == []
    hypothetical = ["Berlin is a capital", "of Germany, the capital"]  # as HyDE makes them
    assert texts(retriever.retrieve(QueryBundle("France", custom_embedding_strs=hypothetical))) == [JORDAN[4]]
    assert embedding.questions == hypothetical
    awaited = retriever.aretrieve(QueryBundle("France", custom_embedding_strs=hypothetical))
    assert texts(asyncio.run(awaited)) == [JORDAN[4]]


# --- asynchronous code ------------------------------------------------------------------------------------------------


@every_kind
async def test_coroutines_give_the_same(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, jordan())
    retriever = sift(index, similarity_top_k=3, filters={"year": {"$ne": 2001}}, with_scores=True)
    awaited = await retriever.aretrieve(QUESTION)
    plain = retriever.retrieve(QUESTION)
    assert [one.node_id for one in awaited] == [one.node_id for one in plain]
    for one, other in zip(awaited, plain, strict=True):
        assert one.node.get_content() == other.node.get_content()
        assert one.node.relationships == other.node.relationships
        assert one.score == pytest.approx(other.score, abs=1e-6)
        assert one.metadata.keys() == other.metadata.keys()
    side_by_side = await asyncio.gather(*(retriever.aretrieve(QUESTION) for _ in range(5)))
    assert all(ids(found) == ids(plain) for found in side_by_side)


@pytest.mark.parametrize(
    ("kind", "native", "plain"),
    [
        ("Qdrant by gRPC", AsyncQdrantAdapter, QdrantAdapter),
        ("Qdrant by REST", AsyncQdrantAdapter, QdrantAdapter),
        ("PostgreSQL", AsyncPgAdapter, PgAdapter),
        ("a store in Qdrant", AsyncQdrantAdapter, QdrantAdapter),
        ("a store in PostgreSQL", AsyncPgAdapter, PgAdapter),
    ],
)
async def test_servers_are_awaited_by_clients_of_their_own(
    index_over: IndexOver, sift: Sift, kind: str, native: type[object], plain: type[object]
) -> None:
    retriever = sift(index_over(kind, jordan()))
    assert set(texts(await retriever.aretrieve(QUESTION))) == ANSWER
    twins = retriever._reading.twins
    assert type((await twins.here())._context.adapter) is native
    assert type(twins.sync()._context.adapter) is plain


@pytest.mark.parametrize("kind", [*THEIRS, *OURS])
def test_one_event_loop_after_another_asks_the_same_retriever(index_over: IndexOver, sift: Sift, kind: str) -> None:
    retriever = sift(index_over(kind, jordan()))
    for _ in range(3):
        assert set(texts(asyncio.run(retriever.aretrieve(QUESTION)))) == ANSWER
    assert retriever._reading.twins._loops == {}
    gc.collect()  # a connection left open would be an error


def test_a_loops_connections_end_with_it(
    index_over: IndexOver, sift: Sift, postgres: Server, database: str, embedding: Embedding
) -> None:
    index = index_over("PostgreSQL", jordan())
    retriever, postprocessor = sift(index), SIFTPostprocessor(source=index, top_n=1)

    async def ask() -> int:
        found = await retriever.aretrieve(QUESTION)
        assert len(await postprocessor.apostprocess_nodes(found, query_str=QUESTION)) == 1
        return connections(postgres, database)

    for _ in range(2):
        assert asyncio.run(ask()) > 0
        assert end_soon(postgres, database)
    retriever.retrieve(QUESTION)
    assert connections(postgres, database) > 0
    retriever.close()
    assert end_soon(postgres, database)


def end_soon(postgres: Server, database: str) -> bool:
    """Whether no connection is left; the server takes note a little later than we."""
    for _ in range(250):
        if not connections(postgres, database):
            return True
        time.sleep(0.02)
    return False


def connections(postgres: Server, database: str) -> int:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sift-store' AND datname = %s"
    with postgres.connect() as connection:
        row = connection.execute(asked, (database,)).fetchone()
    return int(row[0]) if row else 0


async def test_an_asynchronous_store_of_ours_is_a_source_for_coroutines() -> None:
    async with await AsyncSiftStore.open("memory://", embedder=WordEmbedder()) as store:
        await store.add(JORDAN, payloads=[{"year": 2000 + row} for row in range(5)])
        retriever = SIFTRetriever(store)
        found = await retriever.aretrieve(QUESTION)
        assert set(texts(found)) == ANSWER
        kept = await SIFTPostprocessor(source=store, top_n=1).apostprocess_nodes(found, query_str=QUESTION)
        assert kept == found[:1]
        ours = SiftVectorStore(store)
        answered = await ours.aquery(VectorStoreQuery(vector(QUESTION), similarity_top_k=2))
        assert [node.get_content() for node in answered.nodes or []] == texts(found)
        with pytest.raises(InvalidInputError, match="an AsyncSiftStore was given, which only coroutines can use"):
            retriever.retrieve(QUESTION)
        with pytest.raises(InvalidInputError, match="await, or give a SiftStore"):
            ours.query(VectorStoreQuery(vector(QUESTION)))
        assert await store.count() == 5


@pytest.mark.parametrize("kind", SERVED)
async def test_a_retriever_made_before_its_collection_works_once_that_is_there(
    index_over: IndexOver, make: Make, sift: Sift, embedding: Embedding, kind: str
) -> None:
    store = make(kind)
    retriever = sift(store, embed_model=embedding)
    for _ in range(2):
        with pytest.raises(NotFoundError, match=r"no collection 'test-|no table or view .*data_jordan"):
            retriever.retrieve(QUESTION)
        with pytest.raises(NotFoundError, match=r"no collection 'test-|no table or view .*data_jordan"):
            await retriever.aretrieve(QUESTION)
    index_over(store, jordan())
    assert set(texts(await retriever.aretrieve(QUESTION))) == ANSWER
    assert set(texts(retriever.retrieve(QUESTION))) == ANSWER


@pytest.mark.parametrize("kind", ["in the index", "PostgreSQL"])
def test_a_retriever_that_combines_others_takes_it(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, jordan())
    both = [sift(index), sift(index, filters=filters(one_filter("year", "==", 2004)))]
    fusion = QueryFusionRetriever(both, llm=MockLLM(), num_queries=1, similarity_top_k=5, use_async=False)
    assert set(texts(fusion.retrieve(QUESTION))) == {*ANSWER, JORDAN[4]}
    assert set(texts(asyncio.run(fusion.aretrieve(QUESTION)))) == {*ANSWER, JORDAN[4]}


@pytest.mark.parametrize("kind", SERVED)
def test_a_retriever_that_was_closed_connects_again(index_over: IndexOver, sift: Sift, kind: str) -> None:
    retriever = sift(index_over(kind, jordan()))
    for _ in range(2):
        assert set(texts(retriever.retrieve(QUESTION))) == ANSWER
        retriever.close()


@pytest.mark.parametrize("kind", [*THEIRS, "a store on disk"])
def test_threads_may_ask_at_once(index_over: IndexOver, sift: Sift, kind: str) -> None:
    retriever = sift(index_over(kind, jordan()))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(retriever.retrieve, [QUESTION] * 16))
    assert all(set(texts(one)) == ANSWER for one in found)


# --- what LlamaIndex's observers see ----------------------------------------------------------------------------------


class Seen(BaseEventHandler):
    """`events`: all of them, in order."""

    events: list[Any] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Seen"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@pytest.fixture
def seen() -> Iterator[tuple[Seen, SimpleSpanHandler]]:
    root, events, spans = get_dispatcher(), Seen(), SimpleSpanHandler()
    root.add_event_handler(events)
    root.add_span_handler(spans)
    yield events, spans
    root.event_handlers.remove(events)
    root.span_handlers.remove(spans)


def span_names(spans: SimpleSpanHandler) -> set[str]:
    return {span.id_.partition("-")[0] for span in spans.completed_spans}


@pytest.mark.parametrize("awaited", [False, True])
def test_retrieving_sends_the_events_of_every_retriever(
    index_over: IndexOver, sift: Sift, seen: tuple[Seen, SimpleSpanHandler], awaited: bool
) -> None:
    retriever = sift(index_over("in the index", jordan()))
    events, spans = seen
    events.events.clear()
    found = asyncio.run(retriever.aretrieve(QUESTION)) if awaited else retriever.retrieve(QUESTION)
    assert events.names() == [
        "RetrievalStartEvent",
        "EmbeddingStartEvent",
        "EmbeddingEndEvent",
        "RetrievalEndEvent",
    ]
    assert events.events[0].str_or_query_bundle == QUESTION
    assert events.events[-1].nodes == found
    assert f"SIFTRetriever.{'a' if awaited else ''}retrieve" in span_names(spans)
    if not awaited:
        assert "SIFTRetriever._retrieve" in span_names(spans)


@pytest.mark.parametrize("awaited", [False, True])
def test_choosing_among_nodes_sends_the_events_of_every_reranker(
    index_over: IndexOver, seen: tuple[Seen, SimpleSpanHandler], awaited: bool
) -> None:
    index = index_over("in the index", jordan())
    given = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
    postprocessor = SIFTPostprocessor(source=index, top_n=2)
    events, spans = seen
    events.events.clear()
    if awaited:
        kept = asyncio.run(postprocessor.apostprocess_nodes(given, query_str=QUESTION))
    else:
        kept = postprocessor.postprocess_nodes(given, query_str=QUESTION)
        assert "SIFTPostprocessor._postprocess_nodes" in span_names(spans)
    assert events.names() == ["EmbeddingStartEvent", "EmbeddingEndEvent", "ReRankStartEvent", "ReRankEndEvent"]
    start, end = events.events[-2:]
    assert (start.query.query_str, start.nodes, start.top_n) == (QUESTION, given, 2)
    assert start.model_name == "SIFTPostprocessor"
    assert end.nodes == kept


def test_callbacks_are_called_as_by_every_retriever_and_reranker(
    make: Make, embedding: Embedding, index_over: IndexOver
) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    manager = CallbackManager([handler])
    index = index_over("in the index", jordan(), callback_manager=manager)
    found = SIFTRetriever(index).retrieve(QUESTION)  # the index's manager
    ((start, end),) = handler.get_event_pairs(CBEventType.RETRIEVE)
    assert start.payload == {EventPayload.QUERY_STR: QUESTION}
    assert end.payload == {EventPayload.NODES: found}
    other = LlamaDebugHandler(print_trace_on_end=False)
    SIFTRetriever(index, callback_manager=CallbackManager([other])).retrieve(QUESTION)
    assert len(handler.get_event_pairs(CBEventType.RETRIEVE)) == len(other.get_event_pairs(CBEventType.RETRIEVE)) == 1
    postprocessor = SIFTPostprocessor(source=index, top_n=1, callback_manager=manager)
    kept = postprocessor.postprocess_nodes(found, query_str=QUESTION)
    asyncio.run(postprocessor.apostprocess_nodes(found, query_str=QUESTION))
    (start, end), _ = handler.get_event_pairs(CBEventType.RERANKING)
    assert start.payload is not None
    assert (start.payload[EventPayload.NODES], start.payload[EventPayload.QUERY_STR]) == (found, QUESTION)
    assert start.payload[EventPayload.TOP_K] == 1
    assert end.payload == {EventPayload.NODES: kept}


# --- the postprocessor ------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("awaited", [False, True])
def test_it_keeps_of_what_was_retrieved_what_together_tells_most(
    index_over: IndexOver, embedding: Embedding, kind: str, awaited: bool
) -> None:
    index = index_over(kind, [*jordan(), text_node(JORDAN[0], 9, year=1)])
    given = VectorIndexRetriever(index, similarity_top_k=6, vector_store_kwargs=nearest(kind)).retrieve(QUESTION)
    assert len(given) == 6
    embedded = list(embedding.texts)
    embedding.questions.clear()
    for source in (index, index.vector_store) if kind != "in the index" else (index,):
        postprocessor = SIFTPostprocessor(source=source, top_n=2, embed_model=embedding)
        if awaited:
            kept = asyncio.run(postprocessor.apostprocess_nodes(given, query_str=QUESTION))
        else:
            kept = postprocessor.postprocess_nodes(given, query_str=QUESTION)
        assert set(texts(kept)) == ANSWER
        assert all(any(one is other for other in given) for one in kept)
        assert embedding.questions == [QUESTION]
        embedding.questions.clear()
    assert embedding.texts == embedded


def nearest(kind: str) -> dict[str, str]:
    return {"method": "knn"} if kind in (*OURS, *WRAPPED) else {}


def test_kept_nodes_come_in_the_order_picked(index_over: IndexOver) -> None:
    index = index_over("in the index", jordan())
    given = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
    records = [Record(one.node_id, one.text, {}, np.asarray(vector(one.text), dtype=np.float32)) for one in given]
    hits = rerank(records, vector(QUESTION), 4, relevance=[one.score for one in given])
    shuffled = [given[row] for row in (3, 0, 4, 2, 1)]
    for order in (given, shuffled):
        kept = SIFTPostprocessor(source=index, top_n=4).postprocess_nodes(list(order), query_str=QUESTION)
        assert ids(kept) == [hit.id for hit in hits]
    assert SIFTPostprocessor(source=index).top_n == 5


def test_scores_of_a_reranker_say_what_is_relevant_if_all_nodes_have_one(index_over: IndexOver) -> None:
    index = index_over("in the index", jordan())
    postprocessor = SIFTPostprocessor(source=index, top_n=2)
    scored = [NodeWithScore(node=node, score=8.0 if node.text == JORDAN[4] else 0.1) for node in jordan()]
    kept = postprocessor.postprocess_nodes(scored, query_str=QUESTION)
    assert kept[0].text == JORDAN[4]
    assert kept[0].score == 8.0
    scored[1].score = None
    assert set(texts(postprocessor.postprocess_nodes(scored, query_str=QUESTION))) == ANSWER
    bare = [NodeWithScore(node=node) for node in jordan()]
    assert set(texts(postprocessor.postprocess_nodes(bare, query_str=QUESTION))) == ANSWER


def test_nodes_that_bring_their_vectors_need_no_source_of_them(embedding: Embedding) -> None:
    with SiftStore.open("memory://") as empty:
        postprocessor = SIFTPostprocessor(source=empty, top_n=2, embed_model=embedding)
        with_vectors = [NodeWithScore(node=with_vector(node)) for node in jordan()]
        assert set(texts(postprocessor.postprocess_nodes(with_vectors, query_str=QUESTION))) == ANSWER
        assert set(texts(asyncio.run(postprocessor.apostprocess_nodes(with_vectors, query_str=QUESTION)))) == ANSWER
        some = [*with_vectors[1:], NodeWithScore(node=jordan()[0])]
        with pytest.raises(
            InvalidInputError, match=f"1 of 5 nodes have no vector in the source, first '{node_id(0)}'; give as source="
        ):
            postprocessor.postprocess_nodes(some, query_str=QUESTION)


def test_a_question_with_a_vector_is_not_embedded(index_over: IndexOver, embedding: Embedding) -> None:
    index = index_over("in the index", jordan())
    given = [NodeWithScore(node=node) for node in jordan()]
    postprocessor = SIFTPostprocessor(source=index, top_n=1)
    bundle = QueryBundle("Jordan", embedding=vector("capital of Germany"))
    assert texts(postprocessor.postprocess_nodes(given, bundle)) == [JORDAN[4]]
    assert texts(asyncio.run(postprocessor.apostprocess_nodes(given, bundle))) == [JORDAN[4]]
    assert embedding.questions == []
    several = QueryBundle("Jordan", custom_embedding_strs=["capital", "of Germany"])
    assert texts(postprocessor.postprocess_nodes(given, several)) == [JORDAN[4]]
    assert embedding.questions == ["capital", "of Germany"]


def test_nothing_to_choose_from_or_nothing_asked(index_over: IndexOver) -> None:
    index = index_over("in the index", jordan())
    postprocessor = SIFTPostprocessor(source=index)
    assert postprocessor.postprocess_nodes([], query_str=QUESTION) == []
    assert asyncio.run(postprocessor.apostprocess_nodes([])) == []
    given = [NodeWithScore(node=node) for node in jordan()]
    with pytest.raises(InvalidInputError, match="query_bundle: none given; a question wanted"):
        postprocessor.postprocess_nodes(given)
    with pytest.raises(InvalidInputError, match="query_bundle: none given"):
        asyncio.run(postprocessor.apostprocess_nodes(given))
    with pytest.raises(ValueError, match="str given, a SiftStore or an AsyncSiftStore wanted"):
        SIFTPostprocessor(source="a name")
    with pytest.raises(InvalidInputError, match="k: 0 given"):
        SIFTPostprocessor(source=index, top_n=0).postprocess_nodes(given, query_str=QUESTION)


def test_a_node_that_was_retrieved_twice_counts_once(index_over: IndexOver) -> None:
    index = index_over("in the index", jordan())
    twice = [NodeWithScore(node=node, score=1.0) for node in [*jordan(), *jordan()]]
    kept = SIFTPostprocessor(source=index, top_n=9).postprocess_nodes(twice, query_str=QUESTION)
    assert len(kept) == len(set(ids(kept))) == 5
    assert all(any(one is other for other in twice[:5]) for one in kept)


def test_other_options_of_the_choice_are_passed_on(index_over: IndexOver) -> None:
    index = index_over("in the index", jordan())
    given = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)

    def kept(**options: Any) -> list[NodeWithScore]:
        return SIFTPostprocessor(source=index, top_n=5, options=options).postprocess_nodes(given, query_str=QUESTION)

    assert ids(kept(method="knn")) == ids(given)
    assert texts(kept(max_tokens=10)) == [JORDAN[0]]
    assert [one.score for one in kept(order="score")] == [one.score for one in given]
    with pytest.raises(InvalidInputError, match="method"):
        kept(method="best")


async def test_over_a_store_of_ours_its_own_embedder_embeds_the_question(embedding: Embedding) -> None:
    words = WordEmbedder()
    with SiftStore.open("memory://", embedder=words) as store:
        store.add(JORDAN, ids=list("abcde"))
        given = SIFTRetriever(store, similarity_top_k=5, method="knn").retrieve("Jordan")
        postprocessor = SIFTPostprocessor(source=store, top_n=2)
        calls = words.calls
        assert set(texts(postprocessor.postprocess_nodes(given, query_str=QUESTION))) == ANSWER
        assert set(texts(await postprocessor.apostprocess_nodes(given, query_str=QUESTION))) == ANSWER
        assert words.calls == calls + 1
        by_model = SIFTPostprocessor(source=store, top_n=2, embed_model=embedding)
        assert set(texts(by_model.postprocess_nodes(given, query_str=QUESTION))) == ANSWER
        assert embedding.questions == [QUESTION]


# --- the vector store -------------------------------------------------------------------------------------------------

every_store = pytest.mark.parametrize("kind", [*OURS, *WRAPPED])


@every_store
@pytest.mark.parametrize("awaited", [False, True])
def test_an_index_is_built_over_it_and_opened_again(
    index_over: IndexOver, embedding: Embedding, kind: str, awaited: bool
) -> None:
    ours = index_over(kind, jordan()).vector_store
    reopened = VectorStoreIndex.from_vector_store(ours, embed_model=embedding)
    retriever = reopened.as_retriever()
    found = asyncio.run(retriever.aretrieve(QUESTION)) if awaited else retriever.retrieve(QUESTION)
    assert set(texts(found)) == ANSWER
    given = {node.node_id: node for node in jordan()}
    assert all(one.node == given[one.node_id] for one in found)
    assert embedding.texts == JORDAN


@pytest.mark.parametrize("kind", OURS)
async def test_coroutines_write_and_read_as_functions_do(
    make: Make, request: pytest.FixtureRequest, embedding: Embedding, kind: str
) -> None:
    ours = make(kind)
    index = VectorStoreIndex([], storage_context=StorageContext.from_defaults(vector_store=ours), embed_model=embedding)
    assert await index.as_retriever().aretrieve(QUESTION) == []
    await index.ainsert_nodes(jordan())
    assert set(texts(await index.as_retriever().aretrieve(QUESTION))) == ANSWER
    assert set(texts(index.as_retriever().retrieve(QUESTION))) == ANSWER
    assert await ours.aget_nodes([node_id(3), "nobody", node_id(0)]) == [jordan()[3], jordan()[0]]
    assert ours.get_nodes([node_id(3), "nobody", node_id(0)]) == [jordan()[3], jordan()[0]]
    await ours.adelete_nodes([node_id(3)])
    assert await ours.aget_nodes([node_id(3)]) == []
    await index.adelete_ref_doc("basketball")
    assert await ours.aget_nodes([node_id(row) for row in range(5)]) == [jordan()[4]]
    await ours.aclear()
    assert await ours.aget_nodes([node_id(row) for row in range(5)]) == []
    assert await index.as_retriever().aretrieve(QUESTION) == []
    await index.ainsert_nodes(jordan())
    assert set(texts(await index.as_retriever().aretrieve(QUESTION))) == ANSWER


@pytest.mark.parametrize("kind", OURS)
def test_nodes_are_read_and_deleted_by_id_by_document_and_by_filter(
    make: Make, index_over: IndexOver, embedding: Embedding, kind: str
) -> None:
    index = index_over(make(kind), [])
    assert index.as_retriever().retrieve(QUESTION) == []
    index.insert_nodes(jordan())
    ours, everything = index.vector_store, [node_id(row) for row in range(5)]
    assert ours.get_nodes(everything) == jordan()
    assert ours.get_nodes([]) == []
    assert ours.get_nodes(everything, filters(one_filter("year", ">", 2002))) == jordan()[3:]
    ours.delete_nodes([node_id(0), node_id(4)], filters(one_filter("year", "==", 2000)))
    assert ours.get_nodes(everything) == jordan()[1:]
    ours.delete_nodes(filters=filters(one_filter("year", "==", 2001)))
    assert ours.get_nodes(everything) == jordan()[2:]
    index.delete_nodes([node_id(3)])
    assert ours.get_nodes(everything) == [jordan()[2], jordan()[4]]
    index.delete_ref_doc("basketball")
    assert ours.get_nodes(everything) == [jordan()[4]]
    ours.clear()
    assert ours.get_nodes(everything) == []
    assert ours.add([]) == []
    assert ours.add([with_vector(node) for node in jordan()]) == everything
    changed = jordan()[0]
    changed.metadata["year"] = 1
    ours.add([with_vector(changed)])  # the same id
    assert ours.get_nodes(everything) == [changed, *jordan()[1:]]
    with pytest.raises(InvalidInputError, match="node_ids: none given"):
        ours.get_nodes(filters=filters(one_filter("year", "==", 1)))


def test_documents_are_split_and_leave_with_all_their_nodes(embedding: Embedding) -> None:
    with SiftStore.open("memory://") as store:
        context = StorageContext.from_defaults(vector_store=SiftVectorStore(store))
        documents = [
            Document(text="# Height\n\nHigh.\n\n# Place\n\nNepal.", id_="mountains", metadata={"year": 1}),
            Document(text="The Nile is long.", id_="rivers"),
        ]
        index = VectorStoreIndex.from_documents(
            documents, storage_context=context, embed_model=embedding, transformations=[MarkdownNodeParser()]
        )
        assert store.count({"doc_id": "mountains", "year": 1}) == 2
        (found,) = index.as_retriever(similarity_top_k=1).retrieve("The Nile")
        assert (found.text, found.node.ref_doc_id) == ("The Nile is long.", "rivers")
        index.delete_ref_doc("mountains")
        assert store.count() == 1


def test_a_scope_holds_through_the_vector_store(embedding: Embedding) -> None:
    with SiftStore.open("memory://") as store:
        ours = {}
        for tenant in "ab":
            ours[tenant] = SiftVectorStore(store.scoped({"tenant": tenant}))
            context = StorageContext.from_defaults(vector_store=ours[tenant])
            node = text_node(f"Only {tenant} knows.", ord(tenant))
            index = VectorStoreIndex([node], storage_context=context, embed_model=embedding)
            assert texts(index.as_retriever(similarity_top_k=9).retrieve("Who knows?")) == [node.text]
        assert ours["b"].get_nodes([node_id(ord("a")), node_id(ord("b"))]) == [text_node("Only b knows.", ord("b"))]
        ours["b"].clear()
        assert [record and record.text for record in store.get([node_id(ord("a"))])] == ["Only a knows."]
        assert store.count() == 1


def test_a_pipeline_writes_into_it(embedding: Embedding) -> None:
    with SiftStore.open("memory://") as store:
        ours = SiftVectorStore(store)
        IngestionPipeline(transformations=[embedding], vector_store=ours).run(nodes=jordan())
        asyncio.run(IngestionPipeline(transformations=[embedding], vector_store=ours).arun(nodes=jordan()))
        assert store.count() == 5
        index = VectorStoreIndex.from_vector_store(ours, embed_model=embedding)
        assert set(texts(index.as_retriever().retrieve(QUESTION))) == ANSWER


def test_nodes_outlive_the_process_on_disk(tmp_path: Path, embedding: Embedding, index_over: IndexOver) -> None:
    with SiftStore.open(tmp_path / "nodes.sift") as store:
        index_over(SiftVectorStore(store), [*jordan()[:2], *of_every_type()[1:]])
    with SiftStore.open(tmp_path / "nodes.sift") as store:
        ours = SiftVectorStore(store)
        kept = [*jordan()[:2], *of_every_type()[1:]]
        assert ours.get_nodes([node.node_id for node in kept]) == kept
        index = VectorStoreIndex.from_vector_store(ours, embed_model=embedding)
        assert texts(index.as_retriever(similarity_top_k=1).retrieve("The picture of a cat")) == [
            "The picture of a cat."
        ]


def some_nodes(number: int) -> list[TextNode]:
    rng = np.random.default_rng(5)
    return [
        TextNode(text=f"text {row}", id_=node_id(row), embedding=rng.normal(size=32).tolist(), metadata={"row": row})
        for row in range(number)
    ]


@pytest.mark.parametrize("kind", [*OURS, *WRAPPED])
def test_by_knn_it_gives_what_a_simple_vector_store_gives(make: Make, kind: str) -> None:
    simple, ours = SimpleVectorStore(), make(kind)
    for store in (simple, ours):
        store.add(some_nodes(60))
    plain = SiftVectorStore(ours.client, method="knn")
    for query in np.random.default_rng(6).normal(size=(3, 32)).tolist():
        asked = VectorStoreQuery(query_embedding=query, similarity_top_k=10)
        wanted = simple.query(asked)
        for given in (plain.query(asked), ours.query(asked, method="knn"), asyncio.run(plain.aquery(asked))):
            assert given.ids == wanted.ids
            assert given.similarities == pytest.approx(wanted.similarities, abs=1e-6)
            assert [node.node_id for node in given.nodes or []] == wanted.ids


@pytest.mark.parametrize("kind", ["a store in memory", "wrapped Qdrant"])
def test_one_retriever_may_have_other_options_than_the_rest(index_over: IndexOver, kind: str) -> None:
    index = index_over(kind, [*jordan(), text_node(JORDAN[0], 9)])

    def found(k: int = 2, **options: Any) -> list[str]:
        return texts(index.as_retriever(similarity_top_k=k, **options).retrieve(QUESTION))

    assert set(found()) == ANSWER
    assert found(vector_store_kwargs={"method": "knn"}) == [JORDAN[0]] * 2
    assert found(vector_store_kwargs={"max_tokens": 10}) == [JORDAN[0]]
    assert found(5, filters=filters(one_filter("year", ">", 2003))) == [JORDAN[4]]
    assert set(found(5, doc_ids=["geography"])) == set(JORDAN[3:])


@pytest.mark.parametrize("kind", ["a store in memory", "wrapped PostgreSQL"])
def test_nodes_can_be_named_among_which_to_choose(index_over: IndexOver, kind: str) -> None:
    index = index_over(kind, jordan())
    some = [node_id(row) for row in (1, 3, 4)]
    for options in ({}, {"vector_store_kwargs": {"method": "knn"}}):
        retriever = VectorIndexRetriever(index, node_ids=[*some, "nobody"], similarity_top_k=5, **options)
        assert set(ids(retriever.retrieve(QUESTION))) == set(some)
        assert set(ids(asyncio.run(retriever.aretrieve(QUESTION)))) == set(some)
    narrowed = filters(one_filter("year", ">", 2002))
    retriever = VectorIndexRetriever(index, node_ids=some, filters=narrowed, similarity_top_k=5)
    assert set(ids(retriever.retrieve(QUESTION))) == set(some[1:])


def test_modes_are_sift_and_mmr_and_no_other(index_over: IndexOver) -> None:
    index = index_over("a store in memory", jordan())
    assert len(index.as_retriever(vector_store_query_mode="mmr", similarity_top_k=3).retrieve(QUESTION)) == 3
    for mode in VectorStoreQueryMode:
        if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            with pytest.raises(InvalidInputError, match=f"mode {mode.value!r} given; 'default' or 'mmr' wanted"):
                index.vector_store.query(VectorStoreQuery(vector(QUESTION), mode=mode))
    with pytest.raises(InvalidInputError, match="query_embedding: none given; the question's vector wanted"):
        index.vector_store.query(VectorStoreQuery())
    with pytest.raises(InvalidInputError, match="nonsense: no argument of a search"):
        index.vector_store.query(VectorStoreQuery(vector(QUESTION)), nonsense=1)
    with pytest.raises(InvalidInputError, match="dict given, a SiftStore or an AsyncSiftStore wanted"):
        SiftVectorStore({})  # type: ignore[arg-type]


# --- layout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Qdrant by gRPC", "Qdrant by REST", "Qdrant in memory", "PostgreSQL"])
def test_what_llama_index_wrote_is_read_here_and_what_is_written_here_it_reads(
    index_over: IndexOver, make: Make, sift: Sift, embedding: Embedding, kind: str
) -> None:
    theirs = make(kind)
    index_over(theirs, jordan()[:3])
    ours = SiftVectorStore(theirs)
    assert [bare(node) for node in ours.get_nodes([node_id(0)])] == jordan()[:1]
    over_ours = VectorStoreIndex.from_vector_store(ours, embed_model=embedding)
    over_theirs = VectorStoreIndex.from_vector_store(theirs, embed_model=embedding)
    over_ours.insert_nodes(jordan()[3:])
    retrievers = [
        over_theirs.as_retriever(similarity_top_k=9),
        over_ours.as_retriever(similarity_top_k=9),
        sift(over_theirs, similarity_top_k=9),
        sift(theirs, embed_model=embedding, similarity_top_k=9),
    ]
    for retriever in retrievers:
        found = retriever.retrieve(QUESTION)
        assert sorted((one.node for one in found), key=lambda node: node.node_id) == jordan()
    over_ours.delete_ref_doc("basketball")
    ours.delete_nodes([node_id(3)])
    for retriever in retrievers:
        assert [one.node for one in retriever.retrieve(QUESTION)] == [jordan()[4]]
    assert [bare(node) for node in theirs.get_nodes([node_id(row) for row in range(5)])] == [jordan()[4]]
    assert [bare(node) for node in ours.get_nodes([node_id(4)], filters(one_filter("year", "==", 2004)))] == [
        jordan()[4]
    ]


def bare(node: BaseNode) -> BaseNode:
    """Without the vector, which these stores give along."""
    return node.model_copy(update={"embedding": None})


@pytest.mark.parametrize("kind", ["Qdrant by gRPC", "PostgreSQL"])
async def test_coroutines_of_a_wrapped_store_are_its_own(
    make: Make, qdrant: Qdrant, collection: str, embedding: Embedding, kind: str
) -> None:
    aclient = AsyncQdrantClient(**address(qdrant), prefer_grpc=True)
    theirs = QdrantVectorStore(collection, aclient=aclient) if kind.startswith("Qdrant") else make(kind)
    ours = SiftVectorStore(theirs)
    await ours.async_add([with_vector(node) for node in jordan()])
    asked = VectorStoreQuery(vector(QUESTION), similarity_top_k=2)
    assert {node.get_content() for node in (await ours.aquery(asked)).nodes or []} == ANSWER
    await ours.adelete_nodes([node_id(0)])
    await ours.adelete("geography")
    left = await ours.aget_nodes([node_id(row) for row in range(5)])
    assert sorted((bare(node) for node in left), key=lambda node: node.node_id) == jordan()[1:3]
    assert len((await theirs.aquery(VectorStoreQuery(vector(QUESTION), similarity_top_k=9))).ids or []) == 2
    await ours.aclear()
    await aclient.close()
    if isinstance(theirs, PGVectorStore):
        assert (await ours.aquery(asked)).ids == []
        await theirs.close()


@pytest.mark.parametrize("kind", OURS)
def test_a_store_of_ours_keeps_a_node_as_llama_indexs_stores_do(index_over: IndexOver, kind: str) -> None:
    nodes: list[BaseNode] = [*jordan()[:1], *of_every_type()]
    store = index_over(kind, nodes).vector_store.client
    for node in nodes:
        (record,) = store.get([node.node_id])
        assert record.payload == node_to_metadata_dict(node, remove_text=True)
        assert record.text == node.get_content(MetadataMode.NONE)
        assert metadata_dict_to_node(record.payload, text=record.text) == node
    assert store.count({"year": 2000}) == 1
    assert store.count({"doc_id": "basketball"}) == 1


def test_passages_that_llama_index_did_not_write_are_nodes_too(embedding: Embedding) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(JORDAN, ids=list("abcde"), payloads=[{"year": 2000 + row, "deep": {"er": row}} for row in range(5)])
        ours = SiftVectorStore(store)
        index = VectorStoreIndex.from_vector_store(ours, embed_model=embedding)
        for found in (index.as_retriever().retrieve(QUESTION), SIFTRetriever(store).retrieve(QUESTION)):
            assert set(texts(found)) == ANSWER
            assert set(ids(found)) == {"a", "c"}
        assert ours.get_nodes(["b"]) == [TextNode(text=JORDAN[1], id_="b", metadata={"year": 2001, "deep": {"er": 1}})]
        ours.delete_nodes(["b"])
        assert store.count() == 4


# --- query engines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["in the index", "Qdrant by gRPC", "PostgreSQL", "a store on disk"])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_query_engine_gets_what_answers_the_question(
    index_over: IndexOver, sift: Sift, embedding: Embedding, kind: str, awaited: bool
) -> None:
    copies = [text_node(JORDAN[0], 90 + row) for row in range(3)]
    index = index_over(kind, [*jordan(), *copies])
    fewer = [SIFTPostprocessor(source=index, top_n=2)]
    many = {"similarity_top_k": 8, "vector_store_kwargs": nearest(kind)}
    engines = [
        RetrieverQueryEngine.from_args(sift(index), llm=MockLLM()),
        RetrieverQueryEngine.from_args(
            sift(index, similarity_top_k=8, method="knn"), node_postprocessors=fewer, llm=MockLLM()
        ),
    ]
    if not (awaited and kind in SERVED):  # LlamaIndex's own stores have asynchronous clients for one loop only
        engines.append(index.as_query_engine(**many, node_postprocessors=fewer, llm=MockLLM()))
    if kind == "a store on disk":
        engines.append(index.as_query_engine(llm=MockLLM()))
    embedded = list(embedding.texts)
    for engine in engines:
        response = asyncio.run(engine.aquery(QUESTION)) if awaited else engine.query(QUESTION)
        assert set(texts(response.source_nodes)) == ANSWER
        assert all(text in str(response) for text in ANSWER)  # the mock says its prompt again
        assert JORDAN[3] not in str(response)
    assert embedding.texts == embedded


def test_a_question_is_embedded_once_for_retriever_and_postprocessor(
    index_over: IndexOver, sift: Sift, embedding: Embedding
) -> None:
    index = index_over("in the index", jordan())
    engine = RetrieverQueryEngine.from_args(
        sift(index, similarity_top_k=4),
        node_postprocessors=[SIFTPostprocessor(source=index, top_n=2)],
        llm=MockLLM(),
    )
    assert set(texts(engine.query(QUESTION).source_nodes)) == ANSWER
    assert embedding.questions == [QUESTION]


# --- what a reader of it found ----------------------------------------------------------------------------------------


def test_empty_metadata_filters_filter_nothing(index_over: IndexOver, sift: Sift) -> None:
    index = index_over("in the index", jordan())
    for none in (
        filters(),
        filters(condition="or"),
        filters(condition="not"),
        filters(filters(), one_filter("year", ">", 0)),
    ):
        assert set(texts(index.as_retriever(filters=filters()).retrieve(QUESTION))) == ANSWER
        assert set(texts(sift(index, filters=none).retrieve(QUESTION))) == ANSWER


@pytest.mark.parametrize("password", ["p#ss", "p?ss", "p/ss", "p[ss"])
def test_a_password_may_hold_what_means_something_in_a_url(
    postgres: Server, database: str, embedding: Embedding, index_over: IndexOver, make: Make, password: str
) -> None:
    store = make(
        "PostgreSQL", password=password
    )  # LlamaIndex's from_params puts it into the URL as it is; SQLAlchemy reads it
    store.add([with_vector(n) for n in jordan()])
    again = make("PostgreSQL", password=password)  # not yet used, so without an engine
    assert set(texts(SIFTRetriever(again, embed_model=embedding).retrieve(QUESTION))) == ANSWER


@pytest.mark.parametrize(
    "options", [{"use_halfvec": True}, {"hnsw_dist_method": "vector_ip_ops"}, {"hnsw_dist_method": "vector_l2_ops"}]
)
def test_scores_in_postgresql_are_llama_indexs_whatever_the_index_compares_by(
    index_over: IndexOver, make: Make, sift: Sift, options: dict[str, Any]
) -> None:
    hnsw = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40}
    if "hnsw_dist_method" in options:
        hnsw |= options
        options = {}
    index = index_over(make("PostgreSQL", hnsw_kwargs=hnsw, **options), jordan())
    theirs = by_id(index.as_retriever(similarity_top_k=5).retrieve(QUESTION))
    for one in sift(index).retrieve(QUESTION):
        assert one.score == pytest.approx(theirs[one.node_id].score, abs=1e-3)


def test_the_postprocessor_finds_ids_that_are_uuids_without_dashes(index_over: IndexOver) -> None:
    ns = [text_node(t, 0) for t in JORDAN]
    for n in ns:
        n.id_ = uuid.uuid5(uuid.NAMESPACE_DNS, n.text).hex
    index = index_over("Qdrant by gRPC", ns)
    given = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
    assert set(texts(SIFTPostprocessor(source=index, top_n=2).postprocess_nodes(given, query_str=QUESTION))) == ANSWER


def test_a_store_that_embeds_by_itself_embeds_all_strings_of_a_question(
    sift: Sift, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        bundle = QueryBundle("France", custom_embedding_strs=["Berlin is a capital", "of Germany, the capital"])
        assert texts(sift(store, similarity_top_k=1).retrieve(bundle)) == [JORDAN[4]]


def test_the_postprocessor_over_a_store_that_embeds_by_itself_does_so_too(sift: Sift) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        given = [NodeWithScore(node=one.node) for one in sift(store, similarity_top_k=5).retrieve("x")]
        bundle = QueryBundle("France", custom_embedding_strs=["Berlin is a capital", "of Germany, the capital"])
        assert texts(SIFTPostprocessor(source=store, top_n=1).postprocess_nodes(given, bundle)) == [JORDAN[4]]


def test_coroutines_have_spans_too(index_over: IndexOver, sift: Sift, seen: Any) -> None:
    index = index_over("in the index", jordan())
    _, spans = seen
    found = asyncio.run(sift(index, 5).aretrieve(QUESTION))
    asyncio.run(SIFTPostprocessor(source=index, top_n=2).apostprocess_nodes(found, query_str=QUESTION))
    assert "SIFTRetriever._aretrieve" in span_names(spans)
    assert "SIFTPostprocessor._apostprocess_nodes" in span_names(spans)


async def test_a_client_with_options_for_grpc_serves_coroutines_too(
    qdrant: Qdrant, collection: str, embedding: Embedding
) -> None:
    client = QdrantClient(**address(qdrant), prefer_grpc=True, grpc_options={"grpc.max_receive_message_length": 2**26})
    theirs = QdrantVectorStore(collection, client=client)
    theirs.add([with_vector(node) for node in jordan()])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert set(texts(await SIFTRetriever(theirs, embed_model=embedding).aretrieve(QUESTION))) == ANSWER
    finally:
        client.close()


def test_options_do_not_stand_in_for_filters_or_the_number(index_over: IndexOver, sift: Sift) -> None:
    index = index_over("in the index", jordan())
    with pytest.raises(InvalidInputError, match="here filters= and similarity_top_k= say it"):
        sift(index, filters={"year": 2000}, where={"year": {"$gt": 0}})
    with pytest.raises(InvalidInputError, match="here filters= and similarity_top_k= say it"):
        sift(index, similarity_top_k=1, k=3)


def test_the_method_is_checked() -> None:
    with SiftStore.open("memory://") as store, pytest.raises(ValueError):
        SiftVectorStore(store, method="nearest")


def test_a_mode_that_is_not_there_is_named(index_over: IndexOver) -> None:
    index = index_over("a store in memory", jordan())
    with pytest.raises(InvalidInputError, match="mode 'sparse' given"):
        index.as_retriever(vector_store_query_mode="sparse").retrieve(QUESTION)


def test_ranges_take_dates_as_text(index_over: IndexOver, sift: Sift) -> None:
    ns = [text_node(t, row, day=f"2024-0{row + 1}-01") for row, t in enumerate(JORDAN)]
    for n in ns:
        n.excluded_embed_metadata_keys = ["day"]
    index = index_over("in the index", ns)
    late = filters(one_filter("day", ">", "2024-03-01"))
    assert set(texts(index.as_retriever(similarity_top_k=9, filters=late).retrieve(QUESTION))) == set(JORDAN[3:])
    assert set(texts(sift(index, 9, filters=late).retrieve(QUESTION))) == set(JORDAN[3:])
