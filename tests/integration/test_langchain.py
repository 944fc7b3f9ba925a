"""LangChain: the retriever over every store of LangChain's own, and a store of ours as LangChain's vector store.

What LangChain's own suites test is in test_langchain_standard.
"""

import asyncio
import copy
import gc
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_postgres import Column, PGEngine, PGVector, PGVectorStore
from langchain_postgres.v2.async_vectorstore import AsyncPGVectorStore
from langchain_postgres.v2.indexes import DistanceStrategy
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings
from langchain_qdrant import SparseVector as LangChainSparse
from postgres_server import Server
from qdrant_client import QdrantClient, models
from qdrant_server import Qdrant
from sift_store_langchain import SIFTRetriever, SiftVectorStore
from sqlalchemy.ext.asyncio import create_async_engine
from word_embeddings import ANSWER, QUESTION, Words

from sift_store import (
    AsyncSiftStore,
    EmbedderError,
    FilterError,
    InvalidInputError,
    NotFoundError,
    SiftStore,
    StoreClosedError,
    VectorError,
)
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

PARIS = JORDAN[3]


class Counting(Words):
    """Remembers what it embedded."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.questions: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return super().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        self.questions.append(text)
        return super().embed_query(text)


class Awaited(Counting):
    """Embeds questions by a coroutine, and says how many were under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most = 0

    async def aembed_query(self, text: str) -> list[float]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.05)
        self.under_way -= 1
        return Words().embed_query(text)


class SparseWords(SparseEmbeddings):
    """A weight for each word, at an index that is a checksum of it."""

    def embed_documents(self, texts: list[str]) -> list[LangChainSparse]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> LangChainSparse:
        words = sorted({zlib.crc32(word.strip(".,?").encode()) % 100_000 for word in text.lower().split()})
        return LangChainSparse(indices=words, values=[1.0] * len(words))


def documents() -> list[Document]:
    return [
        Document(id=str(UUID(int=row + 1)), page_content=text, metadata={"year": 2000 + row, "tags": ["a", f"t{row}"]})
        for row, text in enumerate(JORDAN)
    ]


def texts(found: Sequence[Document]) -> list[str]:
    return [document.page_content for document in found]


def years(found: Sequence[Document]) -> set[int]:
    return {document.metadata["year"] for document in found}


# --- LangChain's own stores -------------------------------------------------------------------------------------------


class Theirs(NamedTuple):
    """A store of LangChain's.

    Attributes:
        content: all that is kept where it keeps things. native: a filter of its own, for years from 2003 on.
        adapter: what asks it in asynchronous code.
    """

    store: Any
    content: Callable[[], Any]
    native: Any
    adapter: str

    @property
    def embedder(self) -> Counting:
        held = self.store.embeddings
        assert isinstance(held, Counting)
        return held


@contextmanager
def in_memory(request: pytest.FixtureRequest, embedder: Embeddings) -> Iterator[Theirs]:
    store = InMemoryVectorStore(embedder)

    def late(document: Document) -> bool:
        return bool(document.metadata["year"] >= 2003)

    yield Theirs(store, lambda: copy.deepcopy(store.store), late, "MappedAdapter")


@contextmanager
def qdrant_client(request: pytest.FixtureRequest, how: str) -> Iterator[QdrantClient]:
    if how == "memory":
        client = QdrantClient(":memory:")
    else:
        at: Qdrant = request.getfixturevalue("qdrant")
        wire = {"grpc_port": at.grpc_port, "prefer_grpc": how == "gRPC"}
        client = QdrantClient(url=f"http://{at.host}", check_compatibility=False, **wire)
    yield client
    client.close()


def qdrant_content(client: QdrantClient, name: str) -> Callable[[], Any]:
    def content() -> Any:
        points = sorted(client.scroll(name, limit=99, with_vectors=True)[0], key=attrgetter("id"))
        vectors = np.round([point.vector for point in points], 5)  # each search in local mode norms them again
        held = [(point.id, point.payload, row) for point, row in zip(points, vectors.tolist(), strict=True)]
        return held, client.get_collection(name).config, len(client.get_collections().collections)

    return content


def in_qdrant(how: str) -> Callable[[pytest.FixtureRequest, Embeddings], AbstractContextManager[Theirs]]:
    @contextmanager
    def make(request: pytest.FixtureRequest, embedder: Embeddings) -> Iterator[Theirs]:
        late = models.Filter(must=[models.FieldCondition(key="metadata.year", range=models.Range(gte=2003))])
        with request.getfixturevalue("qdrant").name() as name, qdrant_client(request, how) as client:
            client.create_collection(name, models.VectorParams(size=32, distance=models.Distance.COSINE))
            store = QdrantVectorStore(client, name, embedder)
            adapter = "QdrantAdapter" if how == "memory" else "AsyncQdrantAdapter"
            yield Theirs(store, qdrant_content(client, name), late, adapter)

    return make


def with_driver(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://")


def postgres_content(postgres: Server, database: str) -> Callable[[], Any]:
    def content() -> Any:
        with postgres.connect(database) as connection:
            tables = connection.execute(
                "SELECT schemaname || '.' || quote_ident(tablename) FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
            ).fetchall()
            return {name: sorted(connection.execute(f"SELECT t::text FROM {name} t").fetchall()) for (name,) in tables}

    return content


@contextmanager
def engine_for(postgres: Server, database: str, driver: str = "psycopg") -> Iterator[PGEngine]:
    engine = PGEngine.from_connection_string(with_driver(postgres.url(database), driver))
    yield engine
    engine._run_as_sync(engine.close())


def in_table(driver: str) -> Callable[[pytest.FixtureRequest, Embeddings], AbstractContextManager[Theirs]]:
    @contextmanager
    def make(request: pytest.FixtureRequest, embedder: Embeddings) -> Iterator[Theirs]:
        postgres: Server = request.getfixturevalue("postgres")
        with postgres.database() as database, engine_for(postgres, database, driver) as engine:
            engine.init_vectorstore_table("passages", 32)
            store = PGVectorStore.create_sync(engine, embedder, "passages")
            late = sqlalchemy.text("(langchain_metadata ->> 'year')::int >= 2003")
            yield Theirs(store, postgres_content(postgres, database), late, "AsyncPgAdapter")

    return make


@contextmanager
def in_old_table(request: pytest.FixtureRequest, embedder: Embeddings) -> Iterator[Theirs]:
    postgres: Server = request.getfixturevalue("postgres")
    with postgres.database() as database:
        store = PGVector(embedder, connection=with_driver(postgres.url(database), "psycopg"), collection_name="jordan")
        late = sqlalchemy.text("(cmetadata ->> 'year')::int >= 2003")
        yield Theirs(store, postgres_content(postgres, database), late, "AsyncPgAdapter")
        store._engine.dispose()


KINDS = {
    "InMemoryVectorStore": in_memory,
    "QdrantVectorStore in memory": in_qdrant("memory"),
    "QdrantVectorStore over gRPC": in_qdrant("gRPC"),
    "QdrantVectorStore over REST": in_qdrant("REST"),
    "PGVectorStore over psycopg": in_table("psycopg"),
    "PGVectorStore over asyncpg": in_table("asyncpg"),
    "PGVector": in_old_table,
}


@pytest.fixture(scope="module", params=KINDS)
def theirs(request: pytest.FixtureRequest) -> Iterator[Theirs]:
    """With `documents()` in it; a test that adds more takes it away."""
    with KINDS[request.param](request, Counting()) as made:
        made.store.add_documents(documents())
        yield made


def test_two_documents_answer_the_question(theirs: Theirs) -> None:
    assert set(texts(SIFTRetriever(store=theirs.store, k=2).invoke(QUESTION))) == ANSWER


def test_documents_have_the_ids_and_the_metadata_that_were_stored_and_nothing_else(theirs: Theirs) -> None:
    found = SIFTRetriever(store=theirs.store, k=9).invoke(QUESTION)
    assert sorted(found, key=attrgetter("id")) == documents()


def test_stored_texts_are_not_embedded_again_and_a_question_once(theirs: Theirs) -> None:
    theirs.embedder.questions.clear()
    theirs.embedder.texts.clear()
    first, second = f"{QUESTION} Or not?", f"{PARIS} Or not?"
    for question in (first, second, first):
        SIFTRetriever(store=theirs.store, k=2).invoke(question)
    asyncio.run(SIFTRetriever(store=theirs.store, k=2).ainvoke(first))
    assert theirs.embedder.questions == [first, second]
    retriever = SIFTRetriever(store=theirs.store, k=2)
    asyncio.run(retriever.ainvoke("something new"))
    assert theirs.embedder.questions == [first, second, "something new"]
    assert theirs.embedder.texts == []


def test_what_is_stored_stays_as_it_is(theirs: Theirs) -> None:
    before = theirs.content()
    retriever = SIFTRetriever(store=theirs.store, k=2, with_scores=True)
    for document in [*retriever.invoke(QUESTION), *asyncio.run(retriever.ainvoke(QUESTION))]:
        document.metadata["tags"].append("changed")
        document.metadata["year"] = document.page_content = "changed"
    assert theirs.content() == before


def test_documents_that_are_added_later_are_found(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store, k=1)
    assert retriever.invoke("How high is Mount Everest?") != []
    theirs.store.add_documents([Document(page_content="Mount Everest is high.", id=str(UUID(int=9)))])
    assert texts(retriever.invoke("Mount Everest is high")) == ["Mount Everest is high."]
    theirs.store.delete([str(UUID(int=9))])
    assert texts(retriever.invoke("Mount Everest is high")) != ["Mount Everest is high."]


def test_k_filter_and_scores_hold_for_all_calls_or_for_one(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store, k=3, filter={"year": {"$lt": 2003}})
    assert years(retriever.invoke(QUESTION)) == {2000, 2001, 2002}
    assert len(retriever.invoke(QUESTION, k=1)) == 1
    assert years(retriever.invoke(QUESTION, filter={"year": {"$gte": 2003}})) == {2003, 2004}
    assert years(retriever.invoke(QUESTION, filter=None, k=5)) == {2000, 2001, 2002, 2003, 2004}
    assert all("sift" in document.metadata for document in retriever.invoke(QUESTION, with_scores=True))
    assert not any("sift" in document.metadata for document in retriever.invoke(QUESTION))
    assert years(retriever.invoke(QUESTION)) == {2000, 2001, 2002}
    assert len(SIFTRetriever(store=theirs.store).invoke(QUESTION)) == 4


def test_a_mapping_filters_alike_over_every_store(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store, k=9)
    for where, wanted in (
        ({"year": 2001}, {2001}),
        ({"year": {"$gte": 2001, "$lt": 2003}, "tags": "a"}, {2001, 2002}),
        ({"tags": {"$in": ["t0", "t4"]}}, {2000, 2004}),
        ({"$or": [{"year": 2000}, {"$not": {"year": {"$lt": 2004}}}]}, {2000, 2004}),
        ({"lang": {"$exists": True}}, set()),
    ):
        assert years(retriever.invoke(QUESTION, filter=where)) == wanted, where


def test_a_filter_of_the_stores_own_is_taken_too(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store, k=9, filter=theirs.native)
    assert years(retriever.invoke(QUESTION)) == {2003, 2004}
    assert years(asyncio.run(retriever.ainvoke(QUESTION))) == {2003, 2004}


def test_a_wrong_filter_is_an_error(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store)
    with pytest.raises(FilterError, match=r"year: unknown operator '\$above'; one of \$eq"):
        retriever.invoke(QUESTION, filter={"year": {"$above": 2000}})
    with pytest.raises(FilterError, match=r"int given.* a mapping or .* wanted"):
        retriever.invoke(QUESTION, filter=3)
    with pytest.raises(FilterError, match=r"int given.* a mapping or .* wanted"):
        asyncio.run(retriever.ainvoke(QUESTION, filter=3))


def test_scores_are_those_of_the_search(theirs: Theirs) -> None:
    found = SIFTRetriever(store=theirs.store, k=3, with_scores=True).invoke(QUESTION)
    said = [document.metadata["sift"] for document in found]
    assert all(scores.keys() == {"score", "gain", "variance", "pick", "rank"} for scores in said)
    assert [scores["pick"] for scores in said] == [1, 2, 3]
    assert said[0]["rank"] == 1
    for document, scores in zip(found, said, strict=True):
        one, other = Words().embed_query(QUESTION), Words().embed_query(document.page_content)
        assert scores["score"] == pytest.approx(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))
    left = [1.0, *(scores["variance"] for scores in said)]
    assert left == sorted(left, reverse=True)
    assert [scores["gain"] for scores in said] == pytest.approx(-np.diff(left))


def test_coroutines_find_the_same(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store, k=3)
    questions = [QUESTION, "the capital of Germany", PARIS]
    wanted = [retriever.invoke(question) for question in questions]
    assert retriever.batch(questions) == wanted

    async def ask() -> list[list[Document]]:
        return [await retriever.ainvoke(question) for question in questions]

    assert asyncio.run(ask()) == asyncio.run(retriever.abatch(questions)) == wanted


def test_servers_are_awaited_by_their_own_asynchronous_clients(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store)

    async def adapter() -> str:
        return type((await retriever._twins.here())._context.adapter).__name__

    assert asyncio.run(adapter()) == theirs.adapter


def test_one_retriever_serves_one_event_loop_after_another_and_leaves_nothing_behind(theirs: Theirs) -> None:
    retriever = SIFTRetriever(store=theirs.store, k=2)
    for _ in range(3):
        assert set(texts(asyncio.run(retriever.ainvoke(QUESTION)))) == ANSWER
        assert set(texts(retriever.invoke(QUESTION))) == ANSWER
    assert retriever._twins._loops == {}
    del retriever
    gc.collect()  # what was left open would be heard of now


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_embedded_by_coroutines_side_by_side(request: pytest.FixtureRequest, kind: str) -> None:
    embedder = Awaited()
    with KINDS[kind](request, embedder) as made:
        made.store.add_documents(documents())
        retriever = SIFTRetriever(store=made.store, k=1)
        found = asyncio.run(retriever.abatch([f"{PARIS} {row}" for row in range(10)]))
        assert [texts(one) for one in found] == [[PARIS]] * 10
    assert embedder.most == 10
    assert embedder.questions == []


def test_who_gives_up_does_no_harm_to_the_next(theirs: Theirs) -> None:
    async def ask(retriever: SIFTRetriever, steps: int) -> list[Document]:
        impatient = asyncio.create_task(retriever.ainvoke(QUESTION))
        for _ in range(steps):
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        assert impatient.cancelled()
        return await retriever.ainvoke(QUESTION)

    for steps in (1, 3, 9):
        retriever = SIFTRetriever(store=theirs.store, k=2)
        for _ in range(2):
            assert set(texts(asyncio.run(ask(retriever, steps)))) == ANSWER
        assert set(texts(retriever.invoke(QUESTION))) == ANSWER


def test_what_is_no_store_is_refused_with_what_would_be_one() -> None:
    class Another(InMemoryVectorStore):
        pass

    class Strange(VectorStore):
        def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
            return []

        @classmethod
        def from_texts(cls, *args: Any, **kwargs: Any) -> "Strange":
            return cls()

    with pytest.raises(ValueError, match="PGVector, PGVectorStore, QdrantVectorStore or a SiftStore wanted"):
        SIFTRetriever(store=Strange())
    with pytest.raises(ValueError, match="store: int given, a SiftStore or an AsyncSiftStore wanted"):
        SIFTRetriever(store=3)
    assert SIFTRetriever(store=Another(Words())).invoke(QUESTION) == []


# --- Qdrant -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["gRPC", "REST", "memory"])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    with qdrant_client(request, request.param) as made:
        yield made


UNDER_OTHER_NAMES: dict[str, Any] = {
    "vector_name": "words",
    "content_payload_key": "body",
    "metadata_payload_key": "about",
}


def test_qdrant_under_other_names(client: QdrantClient, collection: str) -> None:
    small = models.VectorParams(size=3, distance=models.Distance.EUCLID)
    sizes = {"words": models.VectorParams(size=32, distance=models.Distance.DOT), "small": small}
    client.create_collection(collection, sizes)
    theirs = QdrantVectorStore(client, collection, Words(), distance=models.Distance.DOT, **UNDER_OTHER_NAMES)
    theirs.add_documents(documents())
    retriever = SIFTRetriever(store=theirs, k=9)
    assert sorted(retriever.invoke(QUESTION), key=attrgetter("id")) == documents()
    assert set(texts(retriever.invoke(QUESTION, k=2))) == ANSWER
    assert years(asyncio.run(retriever.ainvoke(QUESTION, filter={"year": 2001}))) == {2001}
    (found,) = retriever.invoke(PARIS, k=1, with_scores=True)
    ((_, score),) = theirs.similarity_search_with_score(PARIS, k=1)
    assert found.metadata["sift"]["score"] == pytest.approx(score, rel=1e-5)


def test_qdrant_in_hybrid_mode_is_asked_by_words_and_by_vectors(client: QdrantClient, collection: str) -> None:
    client.create_collection(
        collection,
        {"words": models.VectorParams(size=32, distance=models.Distance.COSINE)},
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
    )
    made: dict[str, Any] = {"sparse_embedding": SparseWords(), "sparse_vector_name": "sparse", **UNDER_OTHER_NAMES}
    theirs = QdrantVectorStore(client, collection, Words(), RetrievalMode.HYBRID, **made)
    theirs.add_documents(documents())
    retriever = SIFTRetriever(store=theirs, k=2, with_scores=True)
    found = retriever.invoke(QUESTION)
    assert set(texts(found)) == ANSWER
    ((_, best), *_) = theirs.similarity_search_with_score(QUESTION, k=5)
    assert found[0].metadata["sift"]["score"] == pytest.approx(best)
    dense = QdrantVectorStore(client, collection, Words(), **UNDER_OTHER_NAMES)
    (nearest,) = SIFTRetriever(store=dense, k=1, with_scores=True).invoke(QUESTION)
    assert nearest.metadata["sift"]["score"] != pytest.approx(best)
    assert texts(asyncio.run(retriever.ainvoke(QUESTION))) == texts(found)


def test_qdrant_in_sparse_mode_is_refused(client: QdrantClient, collection: str) -> None:
    client.create_collection(collection, {}, sparse_vectors_config={"sparse": models.SparseVectorParams()})
    sparse: dict[str, Any] = {"sparse_embedding": SparseWords(), "sparse_vector_name": "sparse"}
    theirs = QdrantVectorStore(client, collection, None, RetrievalMode.SPARSE, **sparse)
    with pytest.raises(ValueError, match="sparse mode has no dense vectors, which SIFT compares"):
        SIFTRetriever(store=theirs)


def test_a_qdrant_collection_that_is_not_there_yet_is_found_once_it_is(client: QdrantClient, collection: str) -> None:
    theirs = QdrantVectorStore(client, collection, Words(), validate_collection_config=False)
    retriever = SIFTRetriever(store=theirs, k=2)
    with pytest.raises(NotFoundError, match=f"no collection '{collection}'"):
        retriever.invoke(QUESTION)

    async def ask() -> None:
        with pytest.raises(NotFoundError, match=f"no collection '{collection}'"):
            await retriever.ainvoke(QUESTION)
        client.create_collection(collection, models.VectorParams(size=32, distance=models.Distance.COSINE))
        assert await retriever.ainvoke(QUESTION) == []
        theirs.add_documents(documents())
        assert set(texts(await retriever.ainvoke(QUESTION))) == ANSWER

    asyncio.run(ask())
    assert set(texts(retriever.invoke(QUESTION))) == ANSWER


def test_the_client_of_a_qdrant_store_stays_open(client: QdrantClient, collection: str) -> None:
    client.create_collection(collection, models.VectorParams(size=32, distance=models.Distance.COSINE))
    theirs = QdrantVectorStore(client, collection, Words())
    theirs.add_documents(documents())
    retriever = SIFTRetriever(store=theirs, k=2)
    retriever.invoke(QUESTION)
    asyncio.run(retriever.ainvoke(QUESTION))
    retriever.close()
    del retriever
    assert client.count(collection).count == 5
    assert len(theirs.similarity_search(QUESTION, k=2)) == 2


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture
def connections(postgres: Server, database: str) -> Callable[[], int]:
    """How many of ours are there, once that does not change: a server learns a little later of what was closed."""

    def steady() -> int:
        seen = [-1, -2]
        with postgres.connect() as connection:
            while len(set(seen[-4:])) > 1:
                time.sleep(0.03)
                count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'sift-store'"
                seen += connection.execute(count, (database,)).fetchone() or ()
        return seen[-1]

    return steady


@pytest.fixture
def old_table(postgres: Server, database: str) -> Iterator[PGVector]:
    store = PGVector(Words(), connection=with_driver(postgres.url(database), "psycopg"), collection_name="jordan")
    store.add_documents(documents())
    yield store
    store._engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("kept_as", ["columns and JSON", "columns alone", "JSON alone"])
def test_a_table_under_other_names(postgres: Server, database: str, driver: str, kept_as: str) -> None:
    with postgres.connect(database) as connection:
        connection.execute('CREATE SCHEMA "Our Schema"')
    names: dict[str, Any] = {
        "schema_name": "Our Schema",
        "content_column": "the body",
        "embedding_column": "Emb",
        "id_column": "number",
        "metadata_json_column": "about",
    }
    columns = [] if kept_as == "JSON alone" else ["year"]
    with engine_for(postgres, database, driver) as engine:
        engine.init_vectorstore_table(
            "my & passages",
            32,
            store_metadata=kept_as != "columns alone",
            metadata_columns=[Column(name, "INTEGER") for name in columns],
            **names,
        )
        theirs = PGVectorStore.create_sync(engine, Words(), "my & passages", metadata_columns=columns, **names)
        theirs.add_documents(documents())
        retriever = SIFTRetriever(store=theirs, k=9)
        wanted = documents()
        if kept_as == "columns alone":
            for document in wanted:
                del document.metadata["tags"]
        assert sorted(retriever.invoke(QUESTION), key=attrgetter("id")) == wanted
        assert sorted(asyncio.run(retriever.ainvoke(QUESTION)), key=attrgetter("id")) == wanted
        assert set(texts(retriever.invoke(QUESTION, k=2))) == ANSWER
        assert years(retriever.invoke(QUESTION, filter={"year": {"$gte": 2003}})) == {2003, 2004}


def test_a_native_filter_names_columns(postgres: Server, database: str) -> None:
    with engine_for(postgres, database) as engine:
        engine.init_vectorstore_table("passages", 32, metadata_columns=[Column("year", "INTEGER")])
        theirs = PGVectorStore.create_sync(engine, Words(), "passages", metadata_columns=["year"])
        theirs.add_documents(documents())
        retriever = SIFTRetriever(store=theirs, k=9, filter=sqlalchemy.column("year") >= 2003)
        assert years(retriever.invoke(QUESTION)) == {2003, 2004}
        assert years(asyncio.run(retriever.ainvoke(QUESTION))) == {2003, 2004}


@pytest.mark.parametrize("strategy", DistanceStrategy)
def test_scores_follow_the_distance_of_the_store_and_higher_is_better(
    postgres: Server, database: str, strategy: DistanceStrategy
) -> None:
    with engine_for(postgres, database) as engine:
        engine.init_vectorstore_table("passages", 32)
        theirs = PGVectorStore.create_sync(engine, Words(), "passages", distance_strategy=strategy)
        theirs.add_documents(documents())
        found = SIFTRetriever(store=theirs, k=5, with_scores=True, search_kwargs={"order": "score"}).invoke(QUESTION)
        nearest = theirs.similarity_search_with_score(QUESTION, k=5)
        as_score: dict[str, Callable[[float], float]] = {
            "COSINE_DISTANCE": lambda away: 1 - away,
            "EUCLIDEAN": lambda away: -away,
            "INNER_PRODUCT": lambda product: product,
        }
        assert texts(found) == texts([document for document, _ in nearest])
        said = [document.metadata["sift"]["score"] for document in found]
        assert said == pytest.approx([as_score[strategy.name](away) for _, away in nearest], abs=1e-4)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_an_asynchronous_table_serves_sync_code_too(postgres: Server, database: str, driver: str) -> None:
    pool = create_async_engine(with_driver(postgres.url(database), driver))
    engine = PGEngine.from_engine(pool)
    await engine.ainit_vectorstore_table("passages", 32)
    theirs = await AsyncPGVectorStore.create(engine, Words(), "passages")
    await theirs.aadd_documents(documents())
    retriever = SIFTRetriever(store=theirs, k=2)
    assert set(texts(await asyncio.to_thread(asyncio.run, retriever.ainvoke(QUESTION)))) == ANSWER
    assert set(texts(await asyncio.to_thread(retriever.invoke, QUESTION))) == ANSWER
    await pool.dispose()


def test_one_collection_of_many_in_the_older_table(postgres: Server, database: str, old_table: PGVector) -> None:
    other = PGVector(
        Words(), connection=with_driver(postgres.url(database), "psycopg"), collection_name="the other & more"
    )
    other.add_texts(["Michael Jordan has five children, they say."])
    assert len(SIFTRetriever(store=other, k=9).invoke(QUESTION)) == 1
    assert len(SIFTRetriever(store=old_table, k=9).invoke(QUESTION)) == 5
    other._engine.dispose()


def test_connections_of_a_loop_end_with_it_and_those_of_sync_code_with_close(
    old_table: PGVector, connections: Callable[[], int]
) -> None:
    retriever = SIFTRetriever(store=old_table, k=2)
    assert connections() == 0  # none is opened before it is needed
    for _ in range(3):
        asyncio.run(retriever.abatch([QUESTION] * 20))
    assert connections() == 0
    retriever.invoke(QUESTION)
    of_sync_code = connections()
    assert of_sync_code > 0
    for _ in range(3):
        asyncio.run(retriever.abatch([QUESTION] * 20))
    assert connections() == of_sync_code
    retriever.close()
    assert connections() == 0
    assert len(old_table.similarity_search(QUESTION, k=2)) == 2


def test_retrievers_over_one_vector_store_share_their_connections(
    old_table: PGVector, connections: Callable[[], int]
) -> None:
    for _ in range(5):
        retriever = SIFTRetriever(store=old_table, k=2)
        retriever.invoke(QUESTION)
    assert 0 < connections() <= 2
    retriever.close()
    assert connections() == 0
    assert set(texts(SIFTRetriever(store=old_table, k=2).invoke(QUESTION))) == ANSWER  # it is opened again
    retriever.close()


def test_a_table_that_is_not_there_for_a_while(postgres: Server, database: str) -> None:
    with engine_for(postgres, database) as engine, postgres.connect(database) as connection:
        engine.init_vectorstore_table("passages", 32)
        theirs = PGVectorStore.create_sync(engine, Words(), "passages")
        theirs.add_documents(documents())
        retriever = SIFTRetriever(store=theirs, k=2)
        connection.execute("ALTER TABLE passages RENAME TO hidden")
        with pytest.raises(NotFoundError, match=r"no table or view .*passages.*public.hidden"):
            retriever.invoke(QUESTION)

        async def ask() -> None:
            with pytest.raises(NotFoundError, match=r"no table or view .*passages.*public.hidden"):
                await retriever.ainvoke(QUESTION)
            connection.execute("ALTER TABLE hidden RENAME TO passages")
            assert set(texts(await retriever.ainvoke(QUESTION))) == ANSWER

        asyncio.run(ask())
        assert set(texts(retriever.invoke(QUESTION))) == ANSWER


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_password_is_never_shown(postgres: Server, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    at = postgres.parameters
    with postgres.database() as database:
        url = f"postgresql+{driver}://{at['user']}:s3cr3t%21@{at['host']}:{at['port']}/{database}"
        engine = PGEngine.from_connection_string(url)
        engine.init_vectorstore_table("passages", 32)
        theirs = PGVectorStore.create_sync(engine, Words(), "passages")
        theirs.add_documents(documents())
        retriever = SIFTRetriever(store=theirs, k=2)
        assert set(texts(retriever.invoke(QUESTION))) == ANSWER
        shown = [repr(retriever), str(retriever), retriever.model_dump_json(), repr(retriever._twins)]
        shown.append(repr(retriever._twins.sync()))
        retriever.close()
        engine._run_as_sync(engine.close())
    lost = SIFTRetriever(store=theirs)  # the database is gone
    for ask in (lambda: lost.invoke(QUESTION), lambda: asyncio.run(lost.ainvoke(QUESTION))):
        with pytest.raises(NotFoundError, match="does not exist") as failed:
            ask()
        error: BaseException | None = failed.value
        while error is not None:
            shown += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
    assert "s3cr3t" not in "\n".join([*shown, caplog.text])


# --- stores of ours ---------------------------------------------------------------------------------------------------

OURS = ["memory", "disk", "PostgreSQL", "Qdrant"]


@pytest.fixture
def location(request: pytest.FixtureRequest) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "disk":
            path: Path = request.getfixturevalue("tmp_path")
            return str(path / "documents.sift")
        case "PostgreSQL":
            database = request.getfixturevalue("database")
            return str(request.getfixturevalue("postgres").url(database, collection="ours"))
        case _:
            return str(request.getfixturevalue("qdrant").url(request.getfixturevalue("collection")))


def fill(store: SiftStore) -> None:
    made = documents()
    store.add(texts(made), [document.id for document in made], [document.metadata for document in made])


@pytest.mark.parametrize("location", OURS, indirect=True)
def test_a_store_of_ours_is_asked_by_sync_and_asynchronous_code_and_stays_open(location: str) -> None:
    with SiftStore.open(location, embedder=Words()) as store:
        fill(store)
        for given in (store, SiftVectorStore(store)):
            retriever = SIFTRetriever(store=given, k=2)
            for _ in range(2):
                found = retriever.invoke(QUESTION)
                assert set(texts(found)) == ANSWER
                assert asyncio.run(retriever.ainvoke(QUESTION)) == found
            assert sorted(retriever.invoke(QUESTION, k=9), key=attrgetter("id")) == documents()
            retriever.close()
            del retriever
            gc.collect()
        assert store.count() == 5


async def test_an_asynchronous_store_serves_coroutines_alone() -> None:
    async with await AsyncSiftStore.open("memory://", embedder=Words()) as store:
        await store.add(JORDAN)
        for retriever in (SIFTRetriever(store=store, k=2), SIFTRetriever(store=SiftVectorStore(store), k=2)):
            assert set(texts(await retriever.ainvoke(QUESTION))) == ANSWER
            with pytest.raises(InvalidInputError, match=r"an AsyncSiftStore was given.* await, or give a SiftStore"):
                retriever.invoke(QUESTION)
            retriever.close()
        assert await store.count() == 5


@pytest.fixture
def retriever() -> Iterator[SIFTRetriever]:
    with SiftStore.open("memory://", embedder=Words()) as store:
        fill(store)
        yield SIFTRetriever(store=store, k=2)


def test_other_arguments_of_a_search_hold_for_all_calls_or_for_one(retriever: SIFTRetriever) -> None:
    by_score = retriever.model_copy(update={"k": 5, "with_scores": True, "search_kwargs": {"order": "score"}})
    scores = [document.metadata["sift"]["score"] for document in by_score.invoke(QUESTION)]
    assert scores == sorted(scores, reverse=True)
    picks = [document.metadata["sift"]["pick"] for document in by_score.invoke(QUESTION, order="pick")]
    assert picks == [1, 2, 3, 4, 5]
    assert len(retriever.invoke(QUESTION, k=5, min_score=scores[1])) == 2
    assert len(retriever.invoke(QUESTION, k=5, candidates=5, max_tokens=10)) == 1
    (nearest, _) = retriever.invoke(QUESTION, method="knn", with_scores=True)
    assert nearest.metadata["sift"]["gain"] is None
    assert nearest.metadata["sift"]["variance"] is None


def test_unknown_options_and_impossible_ones_are_errors(retriever: SIFTRetriever) -> None:
    for options in ({"fetch_k": 20}, {"lambda_mult": 0.5}):
        with pytest.raises(InvalidInputError, match=f"{next(iter(options))}: no argument of a search"):
            retriever.invoke(QUESTION, **options)
        with pytest.raises(InvalidInputError, match=f"{next(iter(options))}: no argument of a search"):
            asyncio.run(retriever.ainvoke(QUESTION, **options))
    for wrong, why in (({"k": 0}, "k: 0 given"), ({"order": "best"}, "order"), ({"min_score": "high"}, "min_score")):
        with pytest.raises(InvalidInputError, match=why):
            retriever.invoke(QUESTION, **wrong)
    for question in ("", "  "):
        with pytest.raises(InvalidInputError, match="text that is not empty wanted"):
            retriever.invoke(question)
    with SiftStore.open("memory://") as vectors_alone:
        vectors_alone.add(["a"], vectors=[[1.0, 0.0]])
        with pytest.raises(EmbedderError, match="no embedder"):
            SIFTRetriever(store=vectors_alone).invoke(QUESTION)


# --- in LangChain's hands ---------------------------------------------------------------------------------------------


class Recorder(BaseCallbackHandler):
    """What it heard of retrievers, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.said: dict[str, Any] = {}

    def on_retriever_start(self, serialized: Any, query: str, **said: Any) -> None:
        self.heard.append(("start", query))
        self.said = said

    def on_retriever_end(self, documents: Sequence[Document], **said: Any) -> None:
        self.heard.append(("end", list(documents)))

    def on_retriever_error(self, error: BaseException, **said: Any) -> None:
        self.heard.append(("error", type(error)))


class AsyncRecorder(AsyncCallbackHandler):
    """The same, awaited."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    async def on_retriever_start(self, serialized: Any, query: str, **said: Any) -> None:
        self.heard.append(("start", query))

    async def on_retriever_end(self, documents: Sequence[Document], **said: Any) -> None:
        self.heard.append(("end", list(documents)))

    async def on_retriever_error(self, error: BaseException, **said: Any) -> None:
        self.heard.append(("error", type(error)))


async def test_callbacks_hear_of_the_question_and_the_documents_or_the_error(retriever: SIFTRetriever) -> None:
    sync, awaited = Recorder(), AsyncRecorder()
    found = retriever.invoke(QUESTION, {"callbacks": [sync]})
    await retriever.ainvoke(QUESTION, {"callbacks": [sync, awaited]})
    with pytest.raises(FilterError):
        retriever.invoke(QUESTION, {"callbacks": [sync]}, filter={"year": {"$above": 1}})
    with pytest.raises(FilterError):
        await retriever.ainvoke(QUESTION, {"callbacks": [sync, awaited]}, filter={"year": {"$above": 1}})
    well, badly = [("start", QUESTION), ("end", found)], [("start", QUESTION), ("error", FilterError)]
    assert sync.heard == well + well + badly + badly
    assert awaited.heard == well + badly


@pytest.mark.parametrize("awaited", [False, True])
def test_runs_carry_tags_metadata_and_what_tracing_asks_for(awaited: bool) -> None:
    retriever = SIFTRetriever(store=InMemoryVectorStore(Words()), tags=["own"], metadata={"who": "ann"})
    recorder = Recorder()
    config: RunnableConfig = {"tags": ["call"], "metadata": {"where": "here"}, "run_name": "ask"}
    config["callbacks"] = [recorder]
    if awaited:
        asyncio.run(retriever.ainvoke(QUESTION, config))
    else:
        retriever.invoke(QUESTION, config)
    assert set(recorder.said["tags"]) == {"own", "call"}
    assert recorder.said["name"] == "ask"
    assert recorder.said["metadata"] == {
        "who": "ann",
        "where": "here",
        "ls_retriever_name": "sift",
        "ls_vector_store_provider": "InMemoryVectorStore",
        "ls_embedding_provider": "Words",
    }


def test_tracing_hears_of_the_embedder_of_a_store_of_ours() -> None:
    recorder = Recorder()
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        SIFTRetriever(store=store).invoke(QUESTION, {"callbacks": [recorder]})
    assert recorder.said["metadata"] == {
        "ls_retriever_name": "sift",
        "ls_vector_store_provider": "SiftStore",
        "ls_embedding_provider": "WordEmbedder",
        "ls_embedding_model": "words",
    }


def together(found: Sequence[Document]) -> str:
    return "\n".join(texts(found))


async def test_it_stands_in_a_chain(retriever: SIFTRetriever) -> None:
    chain: Runnable[str, str] = (
        {"context": retriever | together, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("{context}\n\n{question}")
        | ParrotFakeChatModel()
        | StrOutputParser()
    )
    wanted = f"{together(retriever.invoke(QUESTION))}\n\n{QUESTION}"
    assert all(text in wanted for text in ANSWER)
    assert chain.invoke(QUESTION) == wanted
    assert await chain.ainvoke(QUESTION) == wanted
    assert chain.batch([QUESTION] * 3) == await chain.abatch([QUESTION] * 3) == [wanted] * 3
    assert "".join(chain.stream(QUESTION)) == wanted
    assert "".join([part async for part in chain.astream(QUESTION)]) == wanted


async def test_it_is_a_tool(retriever: SIFTRetriever) -> None:
    tool = create_retriever_tool(retriever, "jordan", "Knows Michael Jordan.", document_separator="\n")
    assert tool.invoke({"query": QUESTION}) == await tool.ainvoke({"query": QUESTION})
    assert set(tool.invoke({"query": QUESTION}).split("\n")) == ANSWER


def test_k_is_bound_configured_or_copied(retriever: SIFTRetriever) -> None:
    recorder = Recorder()
    configurable = retriever.configurable_fields(k=ConfigurableField(id="k"))
    assert len(configurable.invoke(QUESTION)) == 2
    assert len(configurable.with_config(configurable={"k": 3}).invoke(QUESTION)) == 3
    assert len(asyncio.run(configurable.ainvoke(QUESTION, {"configurable": {"k": 1}}))) == 1
    assert len(retriever.bind(k=1).invoke(QUESTION)) == 1
    assert len(asyncio.run(retriever.bind(k=1).ainvoke(QUESTION))) == 1
    assert len(retriever.with_config(tags=["x"], callbacks=[recorder]).invoke(QUESTION)) == 2
    assert recorder.said["tags"] == ["x"]
    for copied in (retriever.model_copy(update={"k": 1}), copy.copy(retriever)):
        copied.k = 1
        assert len(copied.invoke(QUESTION)) == 1
    assert len(retriever.invoke(QUESTION)) == 2
    assert retriever == retriever.model_copy()


def test_a_question_of_a_chain_chooses_between_nearest_neighbours_and_sift() -> None:
    theirs = InMemoryVectorStore(Words())
    theirs.add_texts([*JORDAN, f"{JORDAN[0]} ", f"{JORDAN[0]}  "])
    nearest = theirs.as_retriever(search_kwargs={"k": 2})
    either = SIFTRetriever(store=theirs, k=2).configurable_alternatives(
        ConfigurableField(id="by"), default_key="sift", nearest=nearest
    )
    assert set(texts(either.invoke(QUESTION))) == ANSWER
    assert set(texts(either.invoke(QUESTION, {"configurable": {"by": "nearest"}}))) != ANSWER


# --- the vector store -------------------------------------------------------------------------------------------------


class Checksums(Embeddings):
    """A random direction for each text."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return np.random.default_rng(zlib.crc32(text.encode())).normal(size=8).tolist()


NUMBERED = [f"passage number {row}" for row in range(60)]
METADATAS = [{"year": 2000 + row, "tags": [f"t{row % 3}"]} for row in range(60)]


@pytest.fixture
def own(location: str) -> Iterator[SiftVectorStore]:
    with SiftStore.open(location, embedder=Checksums()) as store:
        made = SiftVectorStore(store)
        made.add_texts(NUMBERED, METADATAS, ids=NUMBERED)
        yield made


@pytest.fixture(scope="module")
def reference() -> InMemoryVectorStore:
    return InMemoryVectorStore.from_texts(NUMBERED, Checksums(), METADATAS, ids=NUMBERED)


@pytest.mark.parametrize("location", OURS, indirect=True)
def test_nearest_neighbours_and_mmr_are_langchains(own: SiftVectorStore, reference: InMemoryVectorStore) -> None:
    for question in ("one", "two", "three"):
        vector = Checksums().embed_query(question)
        wanted = reference.similarity_search_with_score(question, k=10)
        for scored in (
            own.similarity_search_with_score(question, k=10),
            own.similarity_search_with_score_by_vector(vector, k=10),
        ):
            assert [document for document, _ in scored] == [document for document, _ in wanted]
            assert [score for _, score in scored] == pytest.approx([score for _, score in wanted], abs=1e-6)
        nearest = [document for document, _ in wanted]
        assert own.similarity_search(question, k=10) == own.similarity_search_by_vector(vector, k=10) == nearest
        for lambda_mult in (0, 0.25, 0.5, 0.75, 1):
            for fetch_k in (3, 20, 60):
                told: dict[str, Any] = {"k": 5, "fetch_k": fetch_k, "lambda_mult": lambda_mult}
                picked = reference.max_marginal_relevance_search(question, **told)
                assert own.max_marginal_relevance_search(question, **told) == picked
                assert own.max_marginal_relevance_search_by_vector(vector, **told) == picked


@pytest.mark.parametrize("location", OURS, indirect=True)
def test_every_question_has_a_twin_that_is_awaited(own: SiftVectorStore) -> None:
    vector, where = Checksums().embed_query("one"), {"year": {"$gte": 2010}, "tags": "t1"}
    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("similarity_search", ("one", 3), {"filter": where}),
        ("similarity_search_by_vector", (vector, 3), {"filter": where}),
        ("similarity_search_with_score", ("one", 3), {"filter": where}),
        ("similarity_search_with_score_by_vector", (vector, 3), {"filter": where}),
        ("similarity_search_with_relevance_scores", ("one", 3), {"filter": where, "score_threshold": 0.1}),
        ("max_marginal_relevance_search", ("one", 3, 9, 0.3), {"filter": where}),
        ("max_marginal_relevance_search_by_vector", (vector, 3, 9, 0.3), {"filter": where}),
        ("sift_search", ("one", 3), {"filter": where, "with_scores": True}),
        *(("search", ("one", kind), {"k": 3, "filter": where}) for kind in ("similarity", "mmr", "sift")),
        ("search", ("one", "similarity_score_threshold"), {"k": 3, "score_threshold": 0.1, "filter": where}),
        ("get_by_ids", (NUMBERED[:3],), {}),
    ]

    async def twins() -> list[Any]:
        return [await getattr(own, f"a{name}")(*given, **options) for name, given, options in asked]

    answers = [getattr(own, name)(*given, **options) for name, given, options in asked]
    assert [len(answer) for answer in answers] == [3] * len(asked)
    assert asyncio.run(twins()) == answers


@pytest.mark.parametrize("location", OURS, indirect=True)
def test_retrievers_of_every_type(own: SiftVectorStore) -> None:
    for kind, search, direct in (
        ("similarity", {"k": 3}, own.similarity_search("one", k=3)),
        ("mmr", {"k": 3, "fetch_k": 9}, own.max_marginal_relevance_search("one", k=3, fetch_k=9)),
        ("sift", {"k": 3}, own.sift_search("one", k=3)),
        ("similarity_score_threshold", {"k": 60, "score_threshold": 0.8}, None),
    ):
        retriever = own.as_retriever(search_type=kind, search_kwargs=search, tags=["mine"])
        found = retriever.invoke("one")
        assert found == asyncio.run(retriever.ainvoke("one"))
        assert found == own.search("one", kind, **search)
        assert direct is None or found == direct
        assert retriever.tags == ["mine", "SiftVectorStore", "Checksums"]
    scores = [score for _, score in own.similarity_search_with_score("one", k=60)]
    assert len(found) == sum((1 + score) / 2 >= 0.8 for score in scores) < 60
    assert len(own.as_retriever().invoke("one")) == len(own.as_retriever(search_type="sift").invoke("one")) == 4


def test_other_types_of_search_are_refused() -> None:
    own = SiftVectorStore.from_texts(JORDAN, Words())
    with pytest.raises(ValueError, match=r"search_type of best not allowed.*'sift'"):
        own.as_retriever(search_type="best")
    with pytest.raises(ValueError, match="search_type of best not allowed"):
        own.search(QUESTION, "best")
    with pytest.raises(ValueError, match="search_type of best not allowed"):
        asyncio.run(own.asearch(QUESTION, "best"))
    with pytest.raises(ValueError, match="`score_threshold` is not specified"):
        own.as_retriever(search_type="similarity_score_threshold")


def test_sift_is_a_type_of_search() -> None:
    own = SiftVectorStore.from_texts(JORDAN, Words(), METADATAS[:5])
    search = {"k": 2, "filter": {"year": {"$lt": 2003}}, "with_scores": True}
    retriever = own.as_retriever(search_type="sift", search_kwargs=search)
    for found in (
        own.sift_search(QUESTION, **search),  # type: ignore[arg-type]
        own.search(QUESTION, "sift", **search),
        retriever.invoke(QUESTION),
    ):
        assert set(texts(found)) == ANSWER
        assert [document.metadata["sift"]["pick"] for document in found] == [1, 2]
    assert len(retriever.invoke(QUESTION, k=1, with_scores=False)) == 1
    assert years(retriever.invoke(QUESTION, filter={"year": 2003})) == {2003}
    recorder = Recorder()
    retriever.invoke(QUESTION, {"callbacks": [recorder]})
    said = recorder.said["metadata"]
    assert (said["ls_vector_store_provider"], said["ls_embedding_provider"]) == ("SiftVectorStore", "Words")


def test_relevance_lies_between_0_and_1_and_keeps_the_order() -> None:
    own = SiftVectorStore.from_texts(NUMBERED, Checksums())
    own.add_embeddings(["opposite"], [[-number for number in Checksums().embed_query("one")]])
    own.add_embeddings(["the same"], [Checksums().embed_query("one")])
    found = own.similarity_search_with_relevance_scores("one", k=62)
    relevance = [score for _, score in found]
    assert relevance == sorted(relevance, reverse=True)
    assert (relevance[0], relevance[-1]) == (pytest.approx(1), pytest.approx(0, abs=1e-6))
    assert (found[0][0].page_content, found[-1][0].page_content) == ("the same", "opposite")
    assert all(0 <= score <= 1 for score in relevance)


def test_a_store_may_be_made_of_texts_in_memory_or_on_disk(tmp_path: Path) -> None:
    made = documents()
    ids, metadatas = [str(document.id) for document in made], [document.metadata for document in made]
    path = tmp_path / "documents.sift"
    for own in (
        SiftVectorStore.from_texts(JORDAN, Words(), metadatas, ids=ids),
        SiftVectorStore.from_documents(made, Words()),
        asyncio.run(SiftVectorStore.afrom_texts(JORDAN, Words(), metadatas, ids=ids)),
        asyncio.run(SiftVectorStore.afrom_documents(made, Words())),
        SiftVectorStore.from_documents(made, Words(), location=path, indexed={"year": "integer"}),
    ):
        assert own.get_by_ids(ids) == made
        assert set(texts(own.sift_search(QUESTION, k=2))) == ANSWER
        assert isinstance(own.embeddings, Words)
        own.close()
        with pytest.raises(StoreClosedError):
            own.get_by_ids(ids)
    with SiftStore.open(path, embedder=Words()) as store:
        assert store.count({"year": {"$gte": 2003}}) == 2
        assert store.statistics().fields == {"year": "integer"}
        assert SiftVectorStore(store).get_by_ids(ids) == made
        SiftVectorStore(store).close()
        assert store.count() == 5


def test_adding_the_same_again_changes_and_embeds_nothing() -> None:
    embedder = Counting()
    own = SiftVectorStore.from_texts(JORDAN, embedder, METADATAS[:5])
    ids = own.add_texts(JORDAN, METADATAS[:5])
    assert ids == own.add_texts(JORDAN, METADATAS[:5], ids=[None] * 5)
    assert ids == asyncio.run(own.aadd_texts(JORDAN, METADATAS[:5]))
    pairs = zip(JORDAN, METADATAS[:5], strict=True)
    assert ids == own.add_documents([Document(page_content=text, metadata=about) for text, about in pairs])
    assert embedder.texts == JORDAN
    assert len(own.similarity_search(QUESTION, k=9)) == 5
    assert own.add_texts(JORDAN[:1], [{"year": 1}]) != ids[:1]
    assert len(own.similarity_search(QUESTION, k=9)) == 6


def test_ids_may_be_given_for_all_some_or_none() -> None:
    own = SiftVectorStore.from_texts([], Words())
    first, second, third = own.add_texts(["one", "two", "three"], ids=["a", None, "c"])
    assert (first, third) == ("a", "c")
    assert second not in ("", "None", "a", "c")
    assert texts(own.get_by_ids([third, second, first, "nobody"])) == ["three", "two", "one"]
    (again,) = own.add_documents([Document(id="a", page_content="another one")])
    assert again == "a"
    assert texts(own.get_by_ids(["a"])) == ["another one"]
    assert asyncio.run(own.aadd_documents([Document(page_content="x")], ids=["d"])) == ["d"]
    assert own.add_texts([]) == []


def test_vectors_may_be_brought_along() -> None:
    embedder = Counting()
    own = SiftVectorStore.from_texts([], embedder)
    turned = [list(reversed(Words().embed_query(text))) for text in ("one", "two", "three")]
    assert own.add_embeddings(["one", "two"], turned[:2], [{"n": 1}, {"n": 2}], ["a", "b"]) == ["a", "b"]
    assert own.add_embeddings(embeddings=turned[2:], metadatas=[{"data": "three"}], ids=["c"]) == ["c"]
    assert embedder.texts == []
    assert own.add_embeddings(["four", "five"], [None, turned[0]], ids=["d", "e"]) == ["d", "e"]
    assert embedder.texts == ["four"]
    assert texts(own.get_by_ids(list("abcde"))) == ["one", "two", "three", "four", "five"]
    assert own.get_by_ids(["c"])[0].metadata == {"data": "three"}
    assert texts(own.similarity_search_by_vector(turned[2], k=1)) == ["three"]
    assert texts(own.similarity_search("four", k=1)) == ["four"]


@pytest.mark.parametrize("location", OURS, indirect=True)
def test_documents_are_deleted_by_ids_by_filter_or_by_both(own: SiftVectorStore) -> None:
    assert own.delete(NUMBERED[:2]) is True
    assert asyncio.run(own.adelete(NUMBERED[2:4])) is True
    assert own.get_by_ids(NUMBERED[:5]) == own.get_by_ids([NUMBERED[4]])
    assert own.delete(filter={"year": {"$gte": 2050}}) is True
    assert asyncio.run(own.adelete(NUMBERED[10:20], filter={"tags": "t0"})) is True
    left = [text for row, text in enumerate(NUMBERED) if 4 <= row < 50 and not (10 <= row < 20 and row % 3 == 0)]
    assert sorted(texts(own.similarity_search("one", k=99))) == sorted(left)
    assert own.delete(["nobody"]) is True
    for nothing in (lambda: own.delete(), lambda: asyncio.run(own.adelete()), lambda: own.delete(filter={})):
        with pytest.raises(InvalidInputError, match="delete: "):
            nothing()
    assert len(own.similarity_search("one", k=99)) == len(left)
    own.delete_collection()
    assert own.similarity_search("one") == []
    assert own.add_texts(["a new beginning"], ids=["new"]) == ["new"]
    assert texts(own.similarity_search("one")) == ["a new beginning"]


def test_documents_come_in_the_order_of_their_ids() -> None:
    own = SiftVectorStore.from_texts(NUMBERED, Checksums(), METADATAS, ids=NUMBERED)
    wanted = [NUMBERED[row] for row in (7, 3, 59, 3, 0)]
    assert texts(own.get_by_ids(wanted)) == texts(asyncio.run(own.aget_by_ids(wanted))) == wanted
    assert own.get_by_ids([NUMBERED[3]])[0].metadata == METADATAS[3]
    assert own.get_by_ids([]) == own.get_by_ids(["nobody"]) == []


@pytest.mark.parametrize("location", OURS, indirect=True)
def test_errors_come_before_anything_is_written(location: str) -> None:
    embedder, vector = Counting(), Words().embed_query("one")
    with SiftStore.open(location, embedder=embedder) as store:
        own = SiftVectorStore(store)
        own.add_texts(["there already"], ids=["a"])
        embedder.texts.clear()
        wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
            (lambda: own.add_texts(["one", "two"], [{}]), InvalidInputError, "payloads: 1 given"),
            (lambda: own.add_texts(["one", "two"], ids=["b"]), InvalidInputError, "ids: 1 given"),
            (lambda: own.add_texts(["one", " "]), InvalidInputError, r"texts\[1\]: ' ' given"),
            (lambda: own.add_texts(["one", "two"], ids=["b", "b"]), InvalidInputError, "'b' is given twice"),
            (lambda: own.add_texts(["one"], [{"x": object()}]), InvalidInputError, r"payloads\[0\]\['x'\]"),
            (lambda: asyncio.run(own.aadd_texts(["one", ""])), InvalidInputError, r"texts\[1\]: '' given"),
            (lambda: own.add_embeddings(["one", "two"], [vector]), InvalidInputError, "1 given for 2 texts"),
            (lambda: own.add_embeddings(embeddings=[vector]), InvalidInputError, "1 given for 0 texts"),
            (lambda: own.add_embeddings(["one", ""], [vector, None]), InvalidInputError, "'' given"),
            (lambda: own.add_embeddings(["one"], [[float("nan")] * 32]), VectorError, "NaN"),
            (lambda: own.add_embeddings(["one", "two"], [vector, vector[:3]]), VectorError, "vectors"),
            (lambda: own.add_embeddings(["one"], [vector[:3]]), InvalidInputError, "32"),
            (lambda: own.add_embeddings(embeddings=[vector], metadatas=[{}]), InvalidInputError, "None given"),
        ]
        for add, error, why in wrong:
            with pytest.raises(error, match=why):
                add()
        assert store.count() == 1
        assert embedder.texts == []


@pytest.mark.parametrize("location", OURS, indirect=True)
def test_tenants_are_kept_apart(location: str) -> None:
    with SiftStore.open(location, embedder=Words(), indexed={"tenant": "keyword"}) as store:
        ours, others = (SiftVectorStore(store.scoped({"tenant": name})) for name in ("ours", "others"))
        (mine,) = ours.add_texts(["Michael Jordan has five children."])
        (secret,) = asyncio.run(others.aadd_texts(["Michael Jordan has a secret."]))
        for found in (
            ours.similarity_search("Jordan", k=9),
            asyncio.run(ours.asimilarity_search("Jordan", k=9)),
            ours.max_marginal_relevance_search("Jordan", k=9),
            asyncio.run(ours.amax_marginal_relevance_search("Jordan", k=9)),
            ours.sift_search("Jordan", k=9, filter={"tenant": {"$exists": True}}),
            SIFTRetriever(store=ours).invoke("Jordan"),
            asyncio.run(SIFTRetriever(store=store.scoped({"tenant": "ours"})).ainvoke("Jordan")),
            ours.get_by_ids([mine, secret]),
            asyncio.run(ours.aget_by_ids([mine, secret])),
        ):
            assert [(document.id, document.metadata) for document in found] == [(mine, {"tenant": "ours"})]
        ours.delete([secret])
        ours.delete(filter={"tenant": "others"})
        asyncio.run(ours.adelete([secret], filter={"tenant": "others"}))
        assert store.count() == 2
        ours.delete_collection()
        assert texts(others.similarity_search("Jordan")) == ["Michael Jordan has a secret."]


async def test_an_asynchronous_store_is_a_vector_store_for_coroutines_alone() -> None:
    async with await AsyncSiftStore.open("memory://", embedder=Words()) as store:
        own = SiftVectorStore(store)
        ids = await own.aadd_documents(documents())
        assert await own.aget_by_ids(ids) == documents()
        retriever = own.as_retriever(search_type="sift", search_kwargs={"k": 2})
        assert set(texts(await retriever.ainvoke(QUESTION))) == ANSWER
        assert texts(await own.amax_marginal_relevance_search(PARIS, k=1)) == [PARIS]
        assert await own.adelete(ids[:1])
        for ask in (
            lambda: own.similarity_search(QUESTION),
            lambda: own.add_texts(["x"]),
            lambda: own.delete(["x"]),
            lambda: own.get_by_ids(["x"]),
        ):
            with pytest.raises(InvalidInputError, match="await, or give a SiftStore"):
                ask()
        assert await store.count() == 4


def test_relevance_and_mmr_want_cosines(postgres: Server, database: str) -> None:
    with postgres.connect(database) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, emb vector(32))")
        for row, text in enumerate(JORDAN):
            connection.execute("INSERT INTO docs VALUES (%s, %s, %s)", (row, text, str(Words().embed_query(text))))
    with SiftStore.attach(postgres.url(database, table="docs", metric="euclid"), embedder=Words()) as store:
        own = SiftVectorStore(store)
        assert texts(own.similarity_search(PARIS, k=1)) == [PARIS]
        with pytest.raises(InvalidInputError, match="relevance between 0 and 1 is of cosines"):
            own.similarity_search_with_relevance_scores(PARIS)
        with pytest.raises(InvalidInputError, match="MMR is of cosines"):
            own.max_marginal_relevance_search(PARIS)
