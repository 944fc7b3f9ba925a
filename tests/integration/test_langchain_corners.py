"""Corners of the LangChain adapter that a reader of it found: what is not known is refused, what is lost is closed."""

import asyncio
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
import sqlalchemy
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_postgres import Column, PGEngine, PGVector, PGVectorStore
from postgres_server import Server
from qdrant_client import QdrantClient
from sift_store_langchain import SIFTRetriever, SiftVectorStore
from word_embeddings import QUESTION, Words

from sift_store import AsyncSiftStore, SiftStore
from sift_store.testing.fixtures import JORDAN
from sift_store.twins import Twins


def documents() -> list[Document]:
    return [Document(id=str(i), page_content=text, metadata={"year": 2000 + i}) for i, text in enumerate(JORDAN)]


def in_memory() -> InMemoryVectorStore:
    store = InMemoryVectorStore(Words())
    store.add_documents(documents())
    return store


def texts(found: list[Document]) -> list[str]:
    return [document.page_content for document in found]


def test_langchains_indexing_api_keeps_a_vector_store_up_to_date() -> None:
    own, seen = SiftVectorStore.from_texts([], Words()), InMemoryRecordManager("jordan")
    seen.create_schema()
    options: dict[str, Any] = {"cleanup": "full", "key_encoder": "sha256"}
    assert index(documents(), seen, own, **options)["num_added"] == 5
    assert asyncio.run(aindex(documents()[:2], seen, own, **options))["num_deleted"] == 3


@pytest.mark.parametrize("option", ["top_k", "candidates", "search_type"])
def test_what_the_constructor_does_not_know_is_an_error(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        SIFTRetriever(store=in_memory(), **{option: 1})


def test_a_url_given_as_the_store_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="str given") as refused:
        SIFTRetriever(store="postgresql://ann:s3cr3t@host/db")
    assert "s3cr3t" not in str(refused.value)


def test_the_filter_of_a_call_holds_whatever_name_the_constructors_had() -> None:
    retriever = SIFTRetriever(store=in_memory(), search_kwargs={"where": {"year": 2001}})
    assert {document.metadata["year"] for document in retriever.invoke(QUESTION, filter={"year": 2000})} == {2000}


@pytest.mark.parametrize(
    "where",
    [{"at": {"$gte": datetime(2019, 1, 1)}}, {"day": date(2021, 1, 1)}, {"n": 3}],
    ids=["datetime", "date", "numpy"],
)
def test_metadata_in_python_types_is_filtered_in_an_in_memory_vector_store(where: Any) -> None:
    theirs = InMemoryVectorStore(Words())
    about = {"at": datetime(2020, 1, 1, tzinfo=UTC), "day": date(2021, 1, 1), "n": np.int64(3)}
    theirs.add_documents([Document(page_content="one", metadata=about)])
    assert texts(SIFTRetriever(store=theirs).invoke("one", filter=where)) == ["one"]


def test_a_document_is_found_again_by_the_id_that_it_came_with() -> None:
    with SiftStore.open("memory://", embedder=Words()) as store:
        store.add(["a", "b"], ids=[1, uuid4()])
        own = SiftVectorStore(store)
        found = own.similarity_search("a", k=2)
        assert own.get_by_ids([str(document.id) for document in found]) == found
        own.delete([str(document.id) for document in found])
        assert store.count() == 0


def test_adding_a_batch_with_some_ids_twice_changes_nothing() -> None:
    own = SiftVectorStore.from_texts([], Words())
    assert own.add_texts(["p", "q"], ids=[None, "q"]) == own.add_texts(["p", "q"], ids=[None, "q"])


def test_an_opening_that_was_cancelled_is_tried_again() -> None:
    async def open_slowly() -> AsyncSiftStore:
        await asyncio.sleep(0.05)
        return await AsyncSiftStore.open("memory://")

    async def ask() -> int:
        twins = Twins(lambda: SiftStore.open("memory://"), open_slowly)
        first = asyncio.create_task(twins.here())
        await asyncio.sleep(0.01)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait([first])
        return await (await twins.here()).count()

    assert asyncio.run(ask()) == 0


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def as_psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def test_options_of_asyncpg_in_a_url_do_no_harm(postgres: Server, database: str) -> None:
    url = postgres.url(database).replace("postgresql://", "postgresql+asyncpg://") + "?prepared_statement_cache_size=0"
    engine = PGEngine.from_connection_string(url)
    engine.init_vectorstore_table("passages", 32)
    theirs = PGVectorStore.create_sync(engine, Words(), "passages")
    try:
        assert theirs.similarity_search(QUESTION) == SIFTRetriever(store=theirs).invoke(QUESTION) == []
    finally:
        engine._run_as_sync(engine.close())


def test_columns_that_the_store_does_not_read_are_no_metadata(postgres: Server, database: str) -> None:
    engine = PGEngine.from_connection_string(as_psycopg(postgres.url(database)))
    engine.init_vectorstore_table("passages", 32, metadata_columns=[Column("year", "INT"), Column("salary", "INT")])
    theirs = PGVectorStore.create_sync(engine, Words(), "passages", metadata_columns=["year"])
    theirs.add_texts(["one"], [{"year": 1}])
    try:
        (nearest,), (found,) = theirs.similarity_search("one"), SIFTRetriever(store=theirs).invoke("one")
        assert found.metadata == nearest.metadata == {"year": 1}
    finally:
        engine._run_as_sync(engine.close())


def test_arguments_of_an_engine_are_followed_or_refused_and_never_ignored(postgres: Server, database: str) -> None:
    at = {**postgres.parameters, "dbname": database}
    with postgres.database() as other:
        stores = [
            PGVector(Words(), connection=engine, collection_name="jordan")
            for engine in (
                sqlalchemy.create_engine(as_psycopg(postgres.url(other)), creator=lambda: psycopg.connect(**at)),
                sqlalchemy.create_engine(as_psycopg(postgres.url(other)), connect_args={"dbname": database}),
            )
        ]
        elsewhere = PGVector(Words(), connection=as_psycopg(postgres.url(other)), collection_name="jordan")
        elsewhere.add_texts(["of another database"])
        for theirs in stores:
            theirs.delete_collection()
            theirs.create_collection()
            theirs.add_texts(["right"])
            assert texts(theirs.similarity_search("right", k=1)) == ["right"]
            try:
                found = texts(SIFTRetriever(store=theirs, k=1).invoke("right"))
            except ValueError:
                continue
            assert found == ["right"]
        for store in (*stores, elsewhere):
            store._engine.dispose()


def test_verbose_is_langchains_own_option() -> None:
    assert len(SIFTRetriever(store=in_memory(), k=2).invoke(QUESTION, verbose=True)) == 2


def test_no_metadatas_may_be_an_empty_list() -> None:
    assert len(SiftVectorStore.from_texts(["a"], Words(), metadatas=[]).similarity_search("a")) == 1


def test_a_question_is_embedded_once_whatever_asks() -> None:
    class Counting(Words):
        asked = 0

        def embed_query(self, text: str) -> list[float]:
            self.asked += 1
            return super().embed_query(text)

    embedder = Counting()
    theirs = InMemoryVectorStore(embedder)
    theirs.add_documents(documents())
    client = QdrantClient(":memory:")
    retriever = SIFTRetriever(store=theirs)
    retriever.invoke(QUESTION)
    asyncio.run(retriever.ainvoke(QUESTION))
    assert embedder.asked == 1  # holds in the process
    client.close()


def test_a_question_is_embedded_once_whatever_asks_a_server(postgres: Server, database: str) -> None:
    class Counting(Words):
        asked = 0

        def embed_query(self, text: str) -> list[float]:
            self.asked += 1
            return super().embed_query(text)

    embedder = Counting()
    theirs = PGVector(embedder, connection=as_psycopg(postgres.url(database)), collection_name="jordan")
    theirs.add_documents(documents())
    retriever = SIFTRetriever(store=theirs)
    retriever.invoke(QUESTION)
    for _ in range(3):
        asyncio.run(retriever.ainvoke(QUESTION))
    theirs._engine.dispose()
    assert embedder.asked == 1


@pytest.mark.parametrize("name", ["adelete_collection", "aadd_embeddings"])
def test_every_method_has_a_twin(name: str) -> None:
    assert hasattr(SiftVectorStore, name)
