"""LlamaIndex's indexes and vector stores, read where they are; its retrievers, postprocessors and query engines by SIFT.

Its own stores and retrievers say what a node, a score and a filter are; ours must say the same.
"""

import asyncio
import copy
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from llama_index.core import QueryBundle, Settings, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
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
)
from llama_index.core.vector_stores.utils import (
    build_metadata_filter_fn,
    metadata_dict_to_node,
    node_to_metadata_dict,
)
from llama_index.vector_stores.postgres import PGVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from postgres_server import Server
from qdrant_client import AsyncQdrantClient, QdrantClient
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
    SiftStore,
    StorageError,
)
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN


class Embedding(BaseEmbedding):
    """`texts` and `questions`: what was embedded so far."""

    _words: WordEmbedder = PrivateAttr(default_factory=WordEmbedder)
    texts: list[str] = []
    questions: list[str] = []

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


@pytest.fixture
def embedding() -> Embedding:
    return Embedding(texts=[], questions=[])


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
                    return qdrant_store(server.client(rest=kind.endswith("REST")), **options)
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
    monkeypatch.setattr(Settings, "_embed_model", Embedding(texts=[], questions=[]))
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
        points = store._client.scroll(store.collection_name, with_vectors=True, limit=100)
        return names, store._client.get_collection(store.collection_name).config, points
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
    with pytest.raises(InvalidInputError, match="Summary given|str given"):
        SIFTRetriever("a name")
    with pytest.raises(InvalidInputError, match="keeps no texts; give the index"):
        SIFTRetriever(SimpleVectorStore())


class Elsewhere(SimpleVectorStore):
    stores_text: bool = True


class Renamed(QdrantVectorStore):
    """As users make them, with an option of their own."""


def test_a_subclass_of_a_known_store_is_known_and_another_store_is_refused(
    index_over: IndexOver, sift: Sift, embedding: Embedding, collection: str, qdrant: Qdrant
) -> None:
    client = qdrant.client()
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


async def async_client(qdrant: Qdrant) -> AsyncQdrantClient:
    host, _, port = qdrant.host.partition(":")
    return AsyncQdrantClient(
        host=host, port=int(port), grpc_port=qdrant.grpc_port, prefer_grpc=True, check_compatibility=False
    )


@pytest.mark.parametrize("both", [False, True], ids=["aclient alone", "both clients"])
async def test_a_qdrant_store_with_an_asynchronous_client_is_read_by_both_kinds_of_code(
    qdrant: Qdrant, collection: str, sift: Sift, embedding: Embedding, both: bool
) -> None:
    aclient, client = await async_client(qdrant), qdrant.client() if both else None
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
        store = index.vector_store
        (found,) = sift(store, embed_model=index._embed_model, similarity_top_k=1).retrieve(QUESTION)
        assert (found.node.node_id, found.text) == (page.node_id, page.text)


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


ONE_BY_ONE = [
    one_filter("year", "==", 2000),
    one_filter("lang", "==", "en"),
    one_filter("price", "==", 2.0),
    one_filter("price", "==", 2),
    one_filter("missing", "==", "x"),
    one_filter("year", "!=", 2000),
    one_filter("lang", "!=", "en"),
    one_filter("year", ">", 2000),
    one_filter("year", ">=", 2000),
    one_filter("price", "<", 2.0),
    one_filter("price", "<=", 2),
    one_filter("year", "in", [1999, 2002, 3000]),
    one_filter("lang", "in", ["de", "fr"]),
    one_filter("lang", "in", []),
    one_filter("year", "nin", [1999, 2002]),
    one_filter("lang", "nin", ["en", "de"]),
    one_filter("lang", "nin", []),
    one_filter("tags", "any", ["science", "sport"]),
    one_filter("tags", "all", ["news", "sport"]),
    one_filter("tags", "all", ["news"]),
    one_filter("tags", "contains", "science"),
    one_filter("year", "is_empty"),
    one_filter("tags", "is_empty"),
    one_filter("doc_id", "==", "None"),
]
READ_ONE_BY_ONE = [f"{one.key} {one.operator.value} {one.value}" for one in ONE_BY_ONE]
everywhere = pytest.mark.parametrize("kind", ["in the index", "Qdrant by gRPC", "PostgreSQL", "a store on disk"])


def reference(condition: MetadataFilters) -> set[str]:
    """What LlamaIndex's own definition lets through."""
    metadata = {node.node_id: node_to_metadata_dict(node) for node in fielded()}
    allowed = build_metadata_filter_fn(metadata.__getitem__, condition)
    return {id_ for id_ in metadata if allowed(id_)}


def let_through(sift: Sift, index: VectorStoreIndex, condition: Any, **options: Any) -> set[str]:
    return set(ids(sift(index, similarity_top_k=9, method="knn", filters=condition, **options).retrieve("About")))


@everywhere
def test_operators_mean_what_llama_index_says(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, fielded())
    wrong = {}
    for name, part in zip(READ_ONE_BY_ONE, ONE_BY_ONE, strict=True):
        found = let_through(sift, index, filters(part))
        if found != reference(filters(part)):
            wrong[name] = (found, reference(filters(part)))
    assert wrong == {}


@everywhere
def test_conditions_mean_what_llama_index_says(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, fielded())
    for condition in ("and", "or", "not"):
        for some in (ONE_BY_ONE[:1], ONE_BY_ONE[5:8], [ONE_BY_ONE[1], ONE_BY_ONE[17]]):
            combined = filters(*some, condition=condition)
            assert let_through(sift, index, combined) == reference(combined)
    inner = filters(one_filter("year", "==", 2000), one_filter("lang", "==", "en"), condition="or")  # 0, 1, 2
    nested = {
        filters(inner, one_filter("price", ">", 0)).model_dump_json(): {0, 1},
        filters(inner, one_filter("lang", "==", "fr"), condition="or").model_dump_json(): {0, 1, 2, 3},
        filters(inner, one_filter("lang", "==", "fr"), condition="not").model_dump_json(): {4, 5},
        filters(filters(filters(inner, condition="not"), condition="not")).model_dump_json(): {0, 1, 2},
    }
    for condition, rows in nested.items():
        combined = MetadataFilters.model_validate_json(condition)
        assert let_through(sift, index, combined) == {node_id(row) for row in rows}


@everywhere
def test_a_mapping_in_our_own_language_is_a_filter_too(index_over: IndexOver, sift: Sift, kind: str) -> None:
    index = index_over(kind, fielded())
    where = {"$or": [{"year": {"$gt": 2001}}, {"tags": "sport", "lang": {"$ne": "en"}}]}
    assert let_through(sift, index, where) == {node_id(row) for row in (1, 3, 5)}
    assert let_through(sift, index, {"tags": "news"}) == {node_id(row) for row in (0, 3, 5)}


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
    with pytest.raises(FilterError, match="lang: 3 given|lang .*'en' given"):
        sift(index, filters=filters(one_filter("lang", ">", "en"))).retrieve("About")
