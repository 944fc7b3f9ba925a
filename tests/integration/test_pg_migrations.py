"""The schema, up and down, from empty and from every earlier revision with data in it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
import sift_store_migrations
from postgres_server import Server
from psycopg import sql
from sift_store_migrations import HEAD, MigrationError, migrate, revisions

from sift_store import SiftStore, StorageError, drop_collection, list_collections
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

Run = Callable[..., tuple[int, str, str]]
FIELDS = {"year": "integer", "a.price": "float", "at": "datetime", "lang": "keyword"}
PAYLOADS = [{"year": i, "a": {"price": [i, i + 0.5]}, "at": f"2020-01-0{i + 1}", "lang": "en"} for i in range(5)]


@pytest.fixture
def parameters(postgres: Server, database: str) -> dict[str, Any]:
    return {**postgres.parameters, "dbname": database}


def objects(parameters: dict[str, Any], schema: str) -> dict[str, str]:
    """Everything in a schema, with its definition."""
    with psycopg.connect(**parameters) as connection:
        rows = connection.execute(
            "SELECT c.relname, c.relkind::text || coalesce(pg_get_indexdef(i.indexrelid), '') || coalesce(("
            "SELECT string_agg(a.attname || format_type(a.atttypid, a.atttypmod) || a.attnotnull, ',' ORDER BY attnum) "
            "FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), '') || coalesce(i.indisvalid::text, '') "
            "FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s "
            "UNION ALL SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p "
            "JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s",
            (schema, schema),
        ).fetchall()
    return dict(rows)


def test_up_and_down_from_empty(parameters: dict[str, Any]) -> None:
    assert revisions()[-1] == HEAD
    before = None
    for revision in revisions():
        assert migrate(parameters, "s", revision) == (before, revision)
        assert migrate(parameters, "s", revision) == (revision, revision)
        before = revision
    at_head = objects(parameters, "s")
    assert migrate(parameters, "s", "base") == (HEAD, None)
    assert objects(parameters, "s").keys() <= {"alembic_version", "alembic_version_pkc"}
    assert migrate(parameters, "s") == (None, HEAD)
    assert objects(parameters, "s") == at_head


@pytest.mark.parametrize("schema", ["sift_store", 'we"ird %s; :x'])
@pytest.mark.parametrize("revision", revisions()[:-1])
def test_from_every_earlier_revision_with_data(
    postgres: Server, database: str, parameters: dict[str, Any], revision: str, schema: str
) -> None:
    url = postgres.url(database, schema=schema.replace("%", "%25").replace(";", "%3B"))
    with SiftStore.open(url, embedder=WordEmbedder(), indexed=FIELDS) as store:
        store.add(JORDAN, ids=list("abcde"), payloads=PAYLOADS)
        kept = store.search("Michael Jordan", k=5).items
    at_head = objects(parameters, schema)
    assert migrate(parameters, schema, revision) == (HEAD, revision)
    assert objects(parameters, schema).keys() <= at_head.keys()
    with pytest.raises(StorageError, match=rf"at revision {revision}.*works with {HEAD}.*sift-store migrate"):
        SiftStore.open(url, embedder=WordEmbedder())
    assert migrate(parameters, schema) == (revision, HEAD)
    assert objects(parameters, schema) == at_head
    with SiftStore.open(url, embedder=WordEmbedder(), indexed=FIELDS) as store:
        assert store.search("Michael Jordan", k=5).items == kept
        assert store.count({"year": {"$gte": 3}, "a.price": {"$lt": 4}}) == 1
        assert {finding.level for finding in store.doctor()} == {"ok"}


def test_an_interrupted_migration_goes_on(
    postgres: Server, database: str, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.url(database)
    with SiftStore.open(url, embedder=WordEmbedder(), indexed=FIELDS) as store:
        store.add(JORDAN, payloads=PAYLOADS)
    at_head = objects(parameters, "sift_store")
    migrate(parameters, "sift_store", "0001")
    with psycopg.connect(**parameters) as connection:  # a transaction that concurrent builds wait for
        connection.execute("DELETE FROM sift_store.passage_1 WHERE false")
        stopped = {**parameters, "options": "-c statement_timeout=300"}
        with pytest.raises(MigrationError, match="canceling statement"):
            migrate(stopped, "sift_store")
    assert any(definition.endswith("false") for definition in objects(parameters, "sift_store").values())
    with pytest.raises(StorageError, match="at revision 0001"):
        SiftStore.open(url)
    assert migrate(parameters, "sift_store") == ("0001", HEAD)
    assert objects(parameters, "sift_store") == at_head


def test_migrators_do_not_meet(parameters: dict[str, Any]) -> None:
    results: list[Any] = []

    def go() -> None:
        try:
            results.append(migrate(parameters, "s"))
        except BaseException as exc:
            results.append(exc)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == sorted(map(str, [(None, HEAD), *[(HEAD, HEAD)] * 3]))
    with psycopg.connect(**parameters) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (sift_store_migrations._LOCK,))
        start = time.monotonic()
        with pytest.raises(MigrationError, match="another migration has been running"):
            migrate(parameters, "s", "0001", wait=0.5)
        assert time.monotonic() - start < 5


def test_searching_and_writing_go_on_meanwhile(postgres: Server, database: str, parameters: dict[str, Any]) -> None:
    """A store that is open goes on; its queries do not need what the migration takes away and brings back."""
    with SiftStore.open(postgres.url(database), embedder=WordEmbedder(), indexed={"year": "integer"}) as store:
        store.add(JORDAN, payloads=[{"year": i} for i in range(5)])
        done = threading.Event()
        failures: list[BaseException] = []

        def use() -> None:
            place = 0
            try:
                while not done.is_set():
                    place += 1
                    store.add([f"new {place}"])
                    assert len(store.search("Michael", k=2)) == 2
            except BaseException as exc:
                failures.append(exc)

        thread = threading.Thread(target=use)
        thread.start()
        try:
            for _ in range(3):
                migrate(parameters, "sift_store", "0001")
                migrate(parameters, "sift_store")
        finally:
            done.set()
            thread.join()
        assert not failures


def test_what_is_not_known_is_refused(postgres: Server, database: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(MigrationError, match=r"revision 'x' is not known; one of head, base, 0001"):
        migrate(parameters, "s", "x")
    migrate(parameters, "sift_store")
    with psycopg.connect(**parameters) as connection:
        connection.execute("UPDATE sift_store.alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationError, match="does not know; install a newer one"):
        migrate(parameters, "sift_store")
    with pytest.raises(StorageError, match=f"at revision 9999.*works with {HEAD}"):
        SiftStore.open(postgres.url(database))


def test_a_role_that_may_not_create_is_told(postgres: Server, database: str, parameters: dict[str, Any]) -> None:
    with psycopg.connect(**parameters, autocommit=True) as connection:
        connection.execute("CREATE ROLE powerless LOGIN")
        try:
            with pytest.raises(MigrationError, match="permission denied"):
                migrate({**parameters, "user": "powerless"}, "s")
        finally:
            connection.execute("DROP ROLE powerless")


def test_collections_are_listed_and_dropped(postgres: Server, database: str) -> None:
    url = postgres.url(database)
    assert list_collections(url) == []
    assert drop_collection(f"{url}?collection=a") is False
    for name in ("b", "a", 'odd "name" %s'):
        with SiftStore.open(f"{url}?collection={name.replace('%', '%25')}") as store:
            store.add([name], vectors=np.ones((1, 3)))
    assert list_collections(url) == ["a", "b", 'odd "name" %s']
    assert drop_collection(f"{url}?collection=b") is True
    assert drop_collection(f"{url}?collection=b") is False
    assert list_collections(url) == ["a", 'odd "name" %s']
    with SiftStore.open(f"{url}?collection=b") as store:
        assert store.count() == 0


def test_the_command_line(run: Run, postgres: Server, database: str) -> None:
    url = postgres.url(database)
    assert run("migrate", url, "--to", "0001") == (0, "schema: nothing before, 0001 now\n", "")
    code, out, _ = run("migrate", url, "--json")
    assert (code, "".join(out.split())) == (0, f'{{"before":"0001","after":"{HEAD}"}}')
    assert run("migrate", url, "--to", "nope")[0] == 2
    assert run("migrate", "memory://")[2].startswith("sift-store: 'memory' has no schema")
    assert run("migrate", url, "--to", "base", "--yes") == (0, f"schema: {HEAD} before, nothing now\n", "")
    with SiftStore.open(url) as store:  # what is taken down comes up again with the first add
        store.add(["x"], vectors=np.ones((1, 3)))
        assert store.count() == 1
    code, _, err = run("search", f"{url}?collection=none", "anything")
    assert code == 2
    assert "no collection at postgresql://…?collection=none" in err


def test_commands_on_an_attached_table(run: Run, postgres: Server, database: str) -> None:
    with postgres.connect(database) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, emb vector(384))")
        insert = sql.SQL("INSERT INTO docs VALUES (%s, %s, %s)")
        embedded = SiftStore.open("memory://", embedder="minilm").embedding
        assert embedded is not None
        for i, vector in enumerate(embedded.documents(JORDAN)):
            connection.execute(insert, (i, JORDAN[i], str(vector.tolist())))
    url = postgres.url(database, table="docs")
    code, out, _ = run(
        "search", url, "How many children has Michael Jordan?", "-k", "1", "--embedder", "minilm", "--json"
    )
    assert code == 0
    assert JORDAN[2] in out
    assert run("doctor", url, "--embedder", "minilm")[0] == 0
    assert run("optimize", url)[0] == 2
