"""Text is what it was, whatever encoding the environment, the role, the URL, the database or the client's pool has."""

import asyncio
from typing import Any

import pytest
from postgres_server import Server
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from sift_store import AsyncSiftStore, InvalidInputError, SiftStore, StorageError
from sift_store.testing import WordEmbedder

TEXT, ID, PAYLOAD = "Café in Rome", "é", {"k": "ü"}


def check(url: str, client: Any = None) -> None:
    with SiftStore.open(url, embedder=WordEmbedder(), client=client) as store:
        scoped = store.scoped({"tenant": "Łódź" if client is None else "é"})
        scoped.add([TEXT], ids=[ID], payloads=[PAYLOAD])
        record = store.get([ID])[0]
        assert record is not None
        assert (record.text, record.payload["k"], store.count(PAYLOAD), scoped.count()) == (TEXT, "ü", 1, 1)
        assert store.search("Rome", k=1, where=PAYLOAD)[0].text == TEXT
        store.update_payload([ID], {"k": "ö"})
        assert store.count({"k": "ö"}) == 1
        assert store.reembed(WordEmbedder(16, "others")) == 1
        assert store.delete(where={"k": "ö"}) == 1


async def check_awaited(url: str, client: Any = None) -> None:
    async with await AsyncSiftStore.open(url, embedder=WordEmbedder(), client=client) as store:
        await store.add([TEXT], ids=[ID], payloads=[PAYLOAD])
        record = (await store.get([ID]))[0]
        assert record is not None
        assert (record.text, record.payload, await store.count(PAYLOAD)) == (TEXT, PAYLOAD, 1)


def test_the_environment_asks_for_another(postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    check(postgres.url(database))
    asyncio.run(check_awaited(postgres.url(database, collection="awaited")))


def test_the_url_asks_for_another(postgres: Server, database: str) -> None:
    check(postgres.url(database, client_encoding="latin1"))


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "SQL_ASCII"])
def test_the_database_has_another(postgres: Server, encoding: str) -> None:
    name = f"coded_{encoding.lower()}"
    with postgres.connect() as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' "
            "LOCALE_PROVIDER libc"
        )
    try:
        with postgres.connect(name) as connection:
            connection.execute("CREATE EXTENSION vector")
        with SiftStore.open(postgres.url(name), embedder=WordEmbedder()) as store:
            store.add([TEXT], ids=[ID], payloads=[PAYLOAD])
            record = store.get([ID])[0]
            assert record is not None
            assert (record.text, record.payload, store.count(PAYLOAD)) == (TEXT, PAYLOAD, 1)
            if encoding != "SQL_ASCII":
                with pytest.raises(StorageError, match="no equivalent in encoding"):
                    store.add(["日本"])
                assert store.count() == 1
    finally:
        with postgres.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def pool_in(encoding: str, url: str) -> ConnectionPool[Any]:
    return ConnectionPool(url, kwargs={"client_encoding": encoding}, min_size=1, max_size=2, open=True)


def test_the_clients_pool_has_another(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    with pool_in("latin1", url) as pool:
        check(url, pool)
        with SiftStore.open(url, embedder=WordEmbedder(16, "others"), client=pool) as store:
            for where in ({"k": "日"}, None):
                with pytest.raises(StorageError, match="client_encoding=utf8"):
                    store.count(where) if where else store.add(["日本"])
            assert store.count() == 0


def test_the_clients_engine_has_another(postgres: Server, database: str) -> None:
    url, options = postgres.url(database), {"client_encoding": "latin1"}
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), connect_args=options)
    check(url, engine)
    engine.dispose()

    async def awaited() -> None:
        other = create_async_engine(url.replace("postgresql:", "postgresql+psycopg:"), connect_args=options)
        await check_awaited(url + "?collection=awaited", other)
        await other.dispose()

    asyncio.run(awaited())


def test_what_no_encoding_says_is_refused_at_open(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    with pool_in("sql_ascii", url) as pool, pytest.raises(InvalidInputError, match=r"SQL_ASCII.*client_encoding=utf8"):
        SiftStore.open(url, client=pool)


def test_no_statement_of_ours_stays_prepared(postgres: Server, database: str) -> None:
    with SiftStore.open(postgres.url(database), embedder=WordEmbedder()) as store:
        store.add(["a"])
        maintenance = store._context.adapter._maintenance  # type: ignore[attr-defined]
        with maintenance.connected("looking") as connection:
            for _ in range(10):
                connection.execute("SELECT 1")
            assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
