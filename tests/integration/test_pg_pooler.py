"""Work on a whole collection through a pooler: embedding anew, indexes, migrations. Nothing stays on the connections
that the pooler lends to others, and what cannot work is refused before the first text is embedded.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from pgbouncer_server import MISSING, Pooler, installed, pooled
from postgres_server import Server
from psycopg_pool import ConnectionPool

from sift_store import AsyncSiftStore, SiftStore, StorageError
from sift_store.store import migrate_schema
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

pytestmark = pytest.mark.skipif(not installed(), reason=MISSING)

# So many that an HNSW index is built.
MANY = 2100
LOCKS = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database())"
)
SETTINGS = ("maintenance_work_mem", "max_parallel_maintenance_workers", "idle_session_timeout", "lock_timeout")


@pytest.fixture(scope="module", params=["transaction", pytest.param("session", marks=pytest.mark.long)])
def pooler(request: pytest.FixtureRequest, postgres: Server) -> Iterator[Pooler]:
    with pooled(postgres, request.param) as running:
        yield running


@pytest.fixture
def busy(pooler: Pooler, database: str) -> Iterator[None]:
    """Others at work through the same pooler, so that no two transactions in turn meet one connection to the server."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            with pooler.connect(database) as connection:
                for _ in range(20):
                    with connection.transaction():
                        connection.execute("SELECT pg_sleep(0.005)")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join()


def opened(url: str, **options: Any) -> SiftStore:
    return SiftStore.open(url, embedder=WordEmbedder(), **options)


def fill(url: str, count: int = 5) -> None:
    texts = JORDAN if count == len(JORDAN) else [f"passage number {place}" for place in range(count)]
    with opened(url) as store:
        store.add(texts, payloads=[{"year": place} for place in range(count)])


def one(server: Server, database: str, sql: str) -> Any:
    """The value of a query, asked of the server itself or through a pooler."""
    with server.connect(database) as connection:
        (value,) = connection.execute(sql).fetchone() or (None,)
    return value


def soon(ask: Callable[[], Any], wanted: Any, seconds: float = 3.0) -> Any:
    """What is answered, asked again until it is as wanted: a connection that was closed is gone in a moment."""
    end = time.monotonic() + seconds
    while (answer := ask()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return answer


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What work returns or raises; it fails if that takes longer, and goes on until its database is dropped."""
    ended: list[Any] = []

    def go() -> None:
        try:
            ended.append(work())
        except Exception as exc:
            ended.append(exc)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        pytest.fail(f"not ended after {seconds:g} s")
    if isinstance(ended[0], Exception):
        raise ended[0]
    return ended[0]


@contextmanager
def builds_wait_for(postgres: Server, database: str, table: str) -> Iterator[None]:
    """As if a long transaction wrote to a table: a concurrent build of an index on it does not end before."""
    with postgres.connect(database) as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        yield


def builds(postgres: Server, database: str) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONC%'"
    found: int = one(postgres, database, sql)
    return found


def together(
    first: Callable[[], Any], begun: Callable[[], bool], second: Callable[[], Any], end: threading.Event
) -> None:
    """Run two, the second once the first has begun, which is held up until the second has polled for two seconds."""
    raised: list[BaseException] = []

    def go(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=go, args=(work,), daemon=True) for work in (first, second)]
    threads[0].start()
    assert soon(begun, True, 10.0)
    threads[1].start()
    threads[1].join(2.0)
    end.set()
    for thread in threads:
        thread.join(20.0)
    assert raised == []
    assert not any(thread.is_alive() for thread in threads)


@contextmanager
def held_up(postgres: Server, database: str, table: str) -> Iterator[threading.Event]:
    """Concurrent builds on a table wait until the event is set."""
    ended, locked = threading.Event(), threading.Event()

    def hold() -> None:
        with builds_wait_for(postgres, database, table):
            locked.set()
            ended.wait(30.0)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(10.0)
    try:
        yield ended
    finally:
        ended.set()
        thread.join()


# --- embedding anew ---------------------------------------------------------------------------------------------------


class Meddling:
    """An embedder that does something else at its first call; it counts the calls."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        self.calls, self._meddle = 0, meddle

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls += 1
        if self.calls == 1:
            self._meddle()
        return WordEmbedder(16).embed_documents(texts)


def worked(said: str | None, embedder: Meddling) -> bool:
    """Whether embedding anew worked. If not, it was refused before the first text was embedded, with the mend."""
    assert said is None or embedder.calls == 0, f"{embedder.calls} batches were embedded, then: {said}"
    assert said is None or "direct" in said
    return said is None


def reembedded(store: SiftStore) -> bool:
    """The same of a store."""
    embedder = Meddling(lambda: None)
    try:
        store.reembed(embedder)
        said = None
    except StorageError as exc:
        said = str(exc)
    return worked(said, embedder)


@pytest.mark.usefixtures("busy")
def test_reembed_works_or_is_refused_before_any_text_is_embedded(
    pooler: Pooler, postgres: Server, database: str
) -> None:
    with opened(pooler.url(database)) as store:
        store.add(JORDAN, ids=list("abcde"))
        for _ in range(3):
            dimension = 16 if reembedded(store) else 32
            assert store.search(JORDAN[1], k=1)[0].id == "b"
            assert store._context.adapter.statistics().dimension == dimension
        store.add(["still writable"])
        assert store.count() == 6
    tables = "SELECT count(*) FROM pg_class WHERE relname ~ '^vector_' AND relkind = 'r'"
    assert one(postgres, database, tables) == 1
    assert soon(lambda: one(postgres, database, LOCKS), 0) == 0


@pytest.mark.usefixtures("busy")
async def test_async_reembed_works_or_is_refused(pooler: Pooler, postgres: Server, database: str) -> None:
    embedder, said = Meddling(lambda: None), None
    async with await AsyncSiftStore.open(pooler.url(database), embedder=WordEmbedder()) as store:
        await store.add(JORDAN, ids=list("abcde"))
        try:
            await store.reembed(embedder)
        except StorageError as exc:
            said = str(exc)
        worked(said, embedder)
        assert (await store.search(JORDAN[1], k=1))[0].id == "b"
    assert soon(lambda: one(postgres, database, LOCKS), 0) == 0


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("writer", ["direct", "pooled"])
def test_writers_are_shut_out_meanwhile(pooler: Pooler, postgres: Server, database: str, writer: str) -> None:
    accepted: list[str] = []
    where = postgres if writer == "direct" else pooler
    with opened(pooler.url(database)) as store, opened(where.url(database)) as other:
        store.add(JORDAN, ids=list("abcde"))

        def meddle() -> None:
            for place in range(6):
                with contextlib.suppress(StorageError):
                    accepted.extend(map(str, other.add([f"written meanwhile {place}"], ids=[f"new {place}"])))

        with contextlib.suppress(StorageError):  # that it works, or is refused in time, is another test's
            store.reembed(Meddling(meddle))
        assert accepted == []


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("other", ["direct", "pooled"])
def test_two_reembedders_do_not_meet(
    pooler: Pooler, postgres: Server, database: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sift_store_pgvector.maintenance._LOCK_TIMEOUT", 0.5)
    said: list[str] = []
    seconds = Meddling(lambda: None)
    with opened(pooler.url(database)) as store:
        store.add(JORDAN, ids=list("abcde"))

        def meddle() -> None:
            with opened((postgres if other == "direct" else pooler).url(database)) as second:
                try:
                    second.reembed(seconds)
                except StorageError as exc:
                    said.append(str(exc))

        first = Meddling(meddle)
        with contextlib.suppress(StorageError):  # as above
            store.reembed(first)
        assert seconds.calls == 0, f"{seconds.calls} batches were embedded by a second one, then: {said}"
        assert len(said) == min(first.calls, 1)
        assert store.search(JORDAN[1], k=1)[0].id == "b"


def test_a_lock_that_was_lost_is_noticed(pooler: Pooler, postgres: Server, database: str) -> None:
    """The server ends all connections in the middle; somebody writes. Whoever shut out writers does not take over."""
    with opened(pooler.url(database)) as store:
        store.add(JORDAN, ids=list("abcde"))

        def meddle() -> None:
            one(
                postgres,
                database,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()",
            )
            with opened(postgres.url(database)) as other:
                other.add(["written meanwhile"], ids=["f"])

        embedder = Meddling(meddle)
        with pytest.raises(StorageError, match=r"was lost|direct"):
            store.reembed(embedder)
        assert store.count() == (6 if embedder.calls else 5)
        assert store.search(JORDAN[1], k=1)[0].id == "b"
        store.add(["still writable"])


def test_one_connection_for_all_is_refused_in_time(postgres: Server, database: str) -> None:
    """A pooler that has a single connection to the server: who shuts out writers would wait for himself."""
    fill(postgres.url(database))
    with (
        pooled(postgres, "transaction", default_pool_size=1, query_wait_timeout=5) as small,
        opened(small.url(database)) as store,
    ):
        within(60.0, lambda: reembedded(store))
        assert soon(lambda: one(postgres, database, LOCKS), 0) == 0
        store.add(["still writable"])
        assert store.count() == 6


# --- nothing stays behind ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("busy")
def test_creating_leaves_no_lock_behind(pooler: Pooler, postgres: Server, database: str) -> None:
    """The first add makes the schema, by a migration."""
    fill(pooler.url(database))
    assert soon(lambda: one(postgres, database, LOCKS), 0) == 0


@pytest.mark.usefixtures("busy")
def test_migrating_leaves_no_lock_behind(pooler: Pooler, postgres: Server, database: str) -> None:
    fill(postgres.url(database))
    migrate_schema(pooler.url(database), "0001")
    migrate_schema(pooler.url(database), "head")
    assert soon(lambda: one(postgres, database, LOCKS), 0) == 0
    assert within(10.0, lambda: migrate_schema(postgres.url(database), "head"))


@pytest.mark.usefixtures("busy")
def test_optimize_leaves_no_lock_behind(pooler: Pooler, postgres: Server, database: str) -> None:
    fill(postgres.url(database))
    with opened(pooler.url(database)) as store:
        store.optimize()
        assert soon(lambda: one(postgres, database, LOCKS), 0) == 0
        with opened(postgres.url(database)) as direct:
            within(10.0, direct.optimize)
        within(10.0, store.optimize)


@pytest.mark.usefixtures("busy")
async def test_async_optimize_leaves_no_lock_behind(pooler: Pooler, postgres: Server, database: str) -> None:
    fill(postgres.url(database))
    async with await AsyncSiftStore.open(pooler.url(database), embedder=WordEmbedder()) as store:
        await store.optimize()
    assert soon(lambda: one(postgres, database, LOCKS), 0) == 0


@pytest.mark.usefixtures("busy")
def test_declaring_leaves_no_lock_behind(pooler: Pooler, postgres: Server, database: str) -> None:
    fill(postgres.url(database))
    opened(pooler.url(database), indexed={"year": "integer"}).close()
    assert soon(lambda: one(postgres, database, LOCKS), 0) == 0
    within(10.0, lambda: opened(postgres.url(database), indexed={"lang": "keyword"}).close())


def test_no_setting_stays_on_a_connection_that_others_get(pooler: Pooler, postgres: Server, database: str) -> None:
    """Asked of the pooler's connections to the server, all at once."""
    fill(postgres.url(database), MANY)
    with postgres.connect(database) as connection:  # so little that an index of this size asks for more
        connection.execute(f"ALTER DATABASE {database} SET maintenance_work_mem = '64kB'")
    wanted = [one(postgres, database, f"SHOW {name}") for name in SETTINGS]
    with opened(pooler.url(database)) as store:
        with contextlib.suppress(StorageError):
            store.reembed(Meddling(lambda: None))
        store.optimize()
    connections: list[psycopg.Connection[Any]] = [pooler.connect(database) for _ in range(3)]
    try:
        for connection in connections:
            connection.execute("BEGIN")
            found = [(connection.execute(f"SHOW {name}").fetchone() or (None,))[0] for name in SETTINGS]
            assert dict(zip(SETTINGS, found, strict=True)) == dict(zip(SETTINGS, wanted, strict=True))
    finally:
        for connection in connections:
            connection.close()


# --- nothing is prepared ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("poll", [0.1, 0.0005])
def test_optimize_waits_for_another_builder(
    pooler: Pooler, postgres: Server, database: str, poll: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks many times whether the other has ended, on one connection after another.

    The build waits for every transaction that has a snapshot when it looks: who asks must not be one that goes on.
    """
    monkeypatch.setattr("sift_store_pgvector.maintenance._POLL", poll)
    fill(postgres.url(database), MANY)
    with opened(postgres.url(database)) as direct, opened(pooler.url(database)) as store:
        with held_up(postgres, database, "sift_store.vector_1_0") as end:
            together(direct.optimize, lambda: builds(postgres, database) > 0, store.optimize, end)
        valid = "SELECT count(*) FROM pg_index WHERE indrelid = 'sift_store.vector_1_0'::regclass AND indisvalid"
        assert one(postgres, database, valid) == 2
        assert {finding.level for finding in store.doctor()} <= {"ok", "note"}


@pytest.mark.usefixtures("busy")
def test_declaring_waits_for_another_builder(pooler: Pooler, postgres: Server, database: str) -> None:
    fill(postgres.url(database))

    def declare(server: Server, fields: dict[str, str]) -> Callable[[], None]:
        return lambda: opened(server.url(database), indexed=fields).close()

    with held_up(postgres, database, "sift_store.passage_1") as end:
        first = declare(postgres, {"year": "integer"})
        second = declare(pooler, {"price": "float"})
        together(first, lambda: builds(postgres, database) > 0, second, end)


@pytest.mark.usefixtures("busy")
def test_migrating_waits_for_another_migrator(pooler: Pooler, postgres: Server, database: str) -> None:
    with opened(postgres.url(database), indexed={"year": "integer"}) as store:
        store.add(JORDAN)
    migrate_schema(postgres.url(database), "0001")
    with held_up(postgres, database, "sift_store.passage_1") as end:
        together(
            lambda: migrate_schema(postgres.url(database), "head"),
            lambda: builds(postgres, database) > 0,
            lambda: migrate_schema(pooler.url(database), "head"),
            end,
        )


@pytest.mark.usefixtures("busy")
def test_many_indexes_are_built(pooler: Pooler, postgres: Server, database: str) -> None:
    """One question is asked before each, again and again on one connection."""
    fields = dict.fromkeys(("year", "month", "day", "hour", "minute"), "integer")
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'sift_store.passage_1'::regclass AND indisvalid"
    fill(postgres.url(database))
    for _ in range(3):
        opened(pooler.url(database), indexed=fields).close()
        found = one(postgres, database, indexes)
        assert found >= 2 * len(fields)
        migrate_schema(pooler.url(database), "0001")
        assert one(postgres, database, indexes) == found - 2 * len(fields)
        migrate_schema(pooler.url(database), "head")
        assert one(postgres, database, indexes) == found


@pytest.mark.usefixtures("busy")
def test_nothing_is_prepared_on_a_connection_that_others_get(pooler: Pooler, postgres: Server, database: str) -> None:
    for _ in range(4):
        fill(pooler.url(database))
        migrate_schema(pooler.url(database), "0001")
        migrate_schema(pooler.url(database), "head")
        with opened(pooler.url(database), indexed={"year": "integer"}) as store:
            store.optimize()
    connections: list[psycopg.Connection[Any]] = [pooler.connect(database) for _ in range(3)]
    try:
        for connection in connections:
            connection.execute("BEGIN")
            assert connection.execute("SELECT name, statement FROM pg_prepared_statements").fetchall() == []
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.usefixtures("busy")
def test_a_callers_pool_through_a_pooler(pooler: Pooler, postgres: Server, database: str) -> None:
    """Connections of our own beside it are made as carefully."""
    fill(postgres.url(database), MANY)
    kwargs = {**pooler.parameters, "dbname": database, "prepare_threshold": None}
    with (
        ConnectionPool(kwargs=kwargs, min_size=1, max_size=3, open=True) as pool,
        opened("postgresql://", client=pool) as store,
        opened(postgres.url(database)) as direct,
    ):
        with held_up(postgres, database, "sift_store.vector_1_0") as end:
            together(direct.optimize, lambda: builds(postgres, database) > 0, store.optimize, end)
        dimension = 16 if reembedded(store) else 32
        assert store._context.adapter.statistics().dimension == dimension
    assert soon(lambda: one(postgres, database, LOCKS), 0) == 0


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "UTF8"])
def test_text_is_right_whatever_encoding_the_neighbours_speak(
    pooler: Pooler, database: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection to the server serves clients of different encodings in turn; ours among them."""
    neighbour = psycopg.connect(
        **{**pooler.parameters, "dbname": database}, client_encoding="LATIN1", autocommit=True, prepare_threshold=None
    )
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    with neighbour, opened(pooler.url(database)) as store:
        for place in range(6):
            assert neighbour.execute("SELECT 'é', length('é')").fetchone() == ("é", 1)
            store.add([f"Café in Rome {place}"], ids=[f"é{place}"], payloads=[{"k": "ü"}])
        assert [record and record.text for record in store.get(["é0", "é5"])] == ["Café in Rome 0", "Café in Rome 5"]
        assert store.count({"k": "ü"}) == 6
