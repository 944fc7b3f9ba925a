"""Attached tables whose rows are told apart by several columns or by nothing, and rows that jsonb does not take."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from langchain_postgres import PGEngine, PGVectorStore
from postgres_server import Server
from sift_store_langchain import SIFTRetriever
from word_embeddings import Words

from sift_store import AsyncSiftStore, LocationError, SiftStore, StorageError
from sift_store.testing import WordEmbedder

TEXTS = ["one of a", "two of a", "three of a", "one of b", "two of b"]
KEYS = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]


@pytest.fixture
def connection(postgres: Server, database: str) -> Iterator[psycopg.Connection[Any]]:
    with postgres.connect(database) as opened:
        yield opened


def chunks(connection: psycopg.Connection[Any], key: str) -> None:
    connection.execute(f"CREATE TABLE chunks (doc_id text, chunk_no bigint, body text, emb vector(32), meta json{key})")
    for (document, number), text, row in zip(KEYS, TEXTS, WordEmbedder().embed_documents(TEXTS), strict=True):
        values = (document, number, text, str(row.tolist()))
        connection.execute("INSERT INTO chunks VALUES (%s, %s, %s, %s, '{}')", values)


def texts_of(store: SiftStore) -> set[str]:
    hits = store.search("one two three of a b", k=5)
    assert {store.get([hit.id])[0].text for hit in hits} == {hit.text for hit in hits}  # type: ignore[union-attr]
    return {hit.text for hit in hits}


@pytest.mark.parametrize("said", ["", "&id=doc_id,chunk_no", "&id=chunk_no,doc_id"])
def test_a_key_of_several_columns(
    postgres: Server, database: str, connection: psycopg.Connection[Any], said: str
) -> None:
    chunks(connection, ", PRIMARY KEY (doc_id, chunk_no)")
    url = postgres.url(database, table="chunks") + "&text=body" + said
    with SiftStore.attach(url, embedder=WordEmbedder()) as store:
        assert texts_of(store) == set(TEXTS)
        assert store.search("one of a", k=1)[0].id == ('[1, "a"]' if said.startswith("&id=chunk") else '["a", 1]')
        assert {hit.payload["chunk_no"] for hit in store.search("of b", k=2, where={"doc_id": "b"})} == {1, 2}
        with SiftStore.open("memory://", embedder=WordEmbedder()) as copy:
            assert store.copy_to(copy).passages == 5
        assert not [finding for finding in store.doctor() if "tells rows apart" in finding.what]


async def test_a_key_of_several_columns_awaited(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    chunks(connection, ", PRIMARY KEY (doc_id, chunk_no)")
    url = postgres.url(database, table="chunks") + "&text=body"
    async with await AsyncSiftStore.attach(url, embedder=WordEmbedder()) as store:
        assert {hit.text for hit in await store.search("one two three of a b", k=5)} == set(TEXTS)


def test_an_index_finds_rows_by_several_columns(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    chunks(connection, ", PRIMARY KEY (doc_id, chunk_no)")
    connection.execute(
        "INSERT INTO chunks SELECT 'd' || n, 1, 'text', (SELECT emb FROM chunks LIMIT 1), '{}' "
        "FROM generate_series(1, 5000) n"
    )
    connection.execute("ANALYZE chunks")
    with SiftStore.attach(postgres.url(database, table="chunks") + "&text=body", embedder=WordEmbedder()) as store:
        (statement,) = next(store._context.adapter._collection.layout.fetch(['["d7", 1]', '["a", 2]']))  # type: ignore[attr-defined]
        plan = connection.execute(f"EXPLAIN {statement.sql}", statement.parameters).fetchall()
    assert "chunks_pkey" in str(plan)


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (doc_id, chunk_no)", ", UNIQUE (doc_id, chunk_no)"])
def test_a_column_that_does_not_tell_rows_apart(
    postgres: Server, database: str, connection: psycopg.Connection[Any], key: str
) -> None:
    chunks(connection, key)
    url = postgres.url(database, table="chunks") + "&text=body&id=doc_id"
    with SiftStore.attach(url, embedder=WordEmbedder()) as store:
        if "PRIMARY" in key:  # the texts are right, but an id names several
            assert {hit.text for hit in store.search("one two three of a b", k=5)} == set(TEXTS)
            with pytest.raises(StorageError, match="several rows have one of the ids"):
                store.get(["a"])
            return
        with pytest.raises(StorageError, match=r"several rows have the key 'a'.*&id=doc_id,chunk_no"):
            store.search("one two three of a b", k=5)
        with pytest.raises(StorageError, match="several rows have the key"):
            store.get(["a"])
        assert [finding.level for finding in store.doctor() if "tells rows apart" in finding.what] == ["note"]


def test_a_row_without_a_key(postgres: Server, database: str, connection: psycopg.Connection[Any]) -> None:
    chunks(connection, "")
    connection.execute("UPDATE chunks SET doc_id = NULL WHERE doc_id = 'b' AND chunk_no = 1")
    connection.execute("DELETE FROM chunks WHERE doc_id = 'a' AND chunk_no > 1")
    url = postgres.url(database, table="chunks") + "&text=body&id=doc_id"
    with (
        SiftStore.attach(url, embedder=WordEmbedder()) as store,
        pytest.raises(StorageError, match="a row has no key"),
    ):
        store.search("one", k=3)


def test_no_key_and_none_named(postgres: Server, database: str, connection: psycopg.Connection[Any]) -> None:
    chunks(connection, "")
    with pytest.raises(LocationError, match="&id=COLUMN,COLUMN"):
        SiftStore.attach(postgres.url(database, table="chunks") + "&text=body")


ODD = {
    "nul": r'{"p": "x\u0000", "year": 1}',
    "escaped": r'{"p": "x\\u0000", "year": 2}',
    "surrogate": r'{"p": "\ud800", "year": 3}',
    "huge": '{"p": 1e999999, "year": 4}',
    "list": "[1, 2]",
    "text": '"text"',
    "deep": '{"p": ' + "[" * 3000 + "]" * 3000 + "}",
}


def test_one_odd_row_of_json_spoils_no_other(
    postgres: Server, database: str, connection: psycopg.Connection[Any]
) -> None:
    chunks(connection, ", PRIMARY KEY (doc_id, chunk_no)")
    connection.execute("UPDATE chunks SET meta = '{\"year\": 2000}'")
    for number, (name, value) in enumerate(ODD.items()):
        vector = str(np.random.default_rng(number).normal(size=32).tolist())
        connection.execute("INSERT INTO chunks VALUES (%s, 1, %s, %s, %s)", (name, f"odd {name}", vector, value))
    with SiftStore.attach(postgres.url(database, table="chunks") + "&text=body", embedder=WordEmbedder()) as store:
        hits = store.search("one two", k=12, method="knn")
        assert len(hits) == 12
        payloads = {hit.text: hit.payload for hit in hits}
        assert payloads["odd nul"]["p"] == "x\0"
        assert payloads["odd escaped"]["p"] == r"x\u0000"
        assert store.count({"year": 2000}) == 5
        assert store.count({"p": "x\0"}) == 1
        assert store.count({"p": r"x\u0000"}) == 1
        assert len(store.search("one", k=9, where={"year": {"$gte": 1}}, method="knn")) >= 7


def test_a_row_of_langchains_own(postgres: Server, database: str) -> None:
    engine = PGEngine.from_connection_string(postgres.url(database).replace("postgresql:", "postgresql+psycopg:"))
    engine.init_vectorstore_table("docs", 32)
    theirs = PGVectorStore.create_sync(engine, Words(), "docs")
    theirs.add_texts(["a plain one", "one with NUL"], [{"p": "plain"}, {"p": "x\0"}])
    ours = SIFTRetriever(store=theirs, k=2)
    assert {document.page_content for document in ours.invoke("one")} == {"a plain one", "one with NUL"}
    assert [document.page_content for document in ours.invoke("one", where={"p": "plain"})] == ["a plain one"]
    asyncio.run(engine.close())
