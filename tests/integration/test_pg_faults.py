"""A server that is killed, restarted, slow, refusing; connections cut half-way. Nothing acknowledged is lost, nothing
is written twice, errors are ours and say what to do.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from postgres_server import PackagedServer, packaged_server
from psycopg_pool import ConnectionPool
from tcp_proxy import Proxy, proxy_to

from sift_store import (
    AsyncSiftStore,
    DeadlineError,
    NotFoundError,
    PartialWriteError,
    SiftStore,
    SiftStoreError,
    StorageError,
)
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN


@pytest.fixture(scope="module")
def server() -> Iterator[PackagedServer]:
    """A server of our own, to be maltreated; with durable writes, as in production."""
    with packaged_server("fsync=on", "synchronous_commit=on", "full_page_writes=on") as running:
        yield running


@pytest.fixture
def database(server: PackagedServer) -> Iterator[str]:
    with server.database() as name:
        yield name


@pytest.fixture
def proxy(server: PackagedServer) -> Iterator[Proxy]:
    with proxy_to(server.parameters["port"]) as running:
        yield running


@pytest.fixture
def through(proxy: Proxy, database: str) -> str:
    """The URL of the database through the proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}"


def kill_sessions(server: PackagedServer, database: str) -> None:
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (database,),
        )


def later(seconds: float, what: Callable[[], Any]) -> threading.Thread:
    def go() -> None:
        time.sleep(seconds)
        what()

    thread = threading.Thread(target=go)
    thread.start()
    return thread


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_search_survives_killed_connections(server: PackagedServer, database: str) -> None:
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        wanted = [hit.id for hit in store.search("Michael Jordan", k=3)]
        for _ in range(5):
            kill_sessions(server, database)
            assert [hit.id for hit in store.search("Michael Jordan", k=3)] == wanted
            assert store.count() == 5


async def test_an_async_search_survives_killed_connections(server: PackagedServer, database: str) -> None:
    async with await AsyncSiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        await store.add(JORDAN)
        for _ in range(3):
            kill_sessions(server, database)
            assert len(await store.search("Michael Jordan", k=3)) == 3
        kill_sessions(server, database)
        await store.add(["after the storm"])
        assert await store.count() == 6


def test_a_search_survives_a_cut_in_its_middle(through: str, proxy: Proxy) -> None:
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        for marker in (b"<#>", b"payload AS TEXT"):
            proxy.cut_at = marker
            assert len(store.search("Michael Jordan", k=3)) == 3
            assert proxy.cut_at == b""  # it was cut indeed


def test_a_search_survives_a_restart(server: PackagedServer, database: str) -> None:
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        for how in (signal.SIGINT, signal.SIGKILL):
            server.stop(how)
            starting = later(0.5, server.start)
            assert len(store.search("Michael Jordan", k=3)) == 3
            starting.join()
            assert store.count() == 5


def test_a_server_that_is_gone_is_said_so_in_time(server: PackagedServer, database: str) -> None:
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        server.stop()
        try:
            start = time.monotonic()
            with pytest.raises(StorageError, match=r"refused|closed|terminat|over"):
                store.search("Michael Jordan", timeout=2)
            assert time.monotonic() - start < 5
            with pytest.raises(StorageError, match=r"connecting: .*refused"):
                SiftStore.open(server.url(database))
            with pytest.raises(StorageError):
                store.add(["lost"])
        finally:
            server.start()
        assert len(store.search("Michael Jordan", k=3)) == 3
        assert store.count() == 5


def test_a_server_that_stands_still_does_not_hold_a_search(server: PackagedServer, through: str, proxy: Proxy) -> None:
    """Not even the time limit of the server itself works then; ours does."""
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        assert len(store.search("Michael Jordan")) == 5
        proxy.stalled = True
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"the 0.5 s given are over"):
            store.search("Michael Jordan", timeout=0.5)
        assert time.monotonic() - start < 4
        proxy.stalled = False
        assert len(store.search("Michael Jordan")) == 5


async def test_nor_an_async_one(through: str, proxy: Proxy) -> None:
    async with await AsyncSiftStore.open(through, embedder=WordEmbedder()) as store:
        await store.add(JORDAN)
        assert len(await store.search("Michael Jordan")) == 5
        proxy.stalled = True
        start = time.monotonic()
        with pytest.raises(DeadlineError):
            await store.search("Michael Jordan", timeout=0.5)
        assert time.monotonic() - start < 4
        proxy.stalled = False
        assert len(await store.search("Michael Jordan")) == 5


def test_a_slow_network_is_slow_and_no_more(through: str, proxy: Proxy) -> None:
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        proxy.delay = 0.05
        assert len(store.search("Michael Jordan", timeout=10)) == 5
        with pytest.raises(DeadlineError):
            store.search("Michael Jordan", timeout=0.02)
        proxy.delay = 0
        assert len(store.search("Michael Jordan")) == 5


def test_a_port_that_hangs_up(through: str, proxy: Proxy) -> None:
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        proxy.refusing = True
        proxy.cut()
        with pytest.raises(StorageError):
            store.search("Michael Jordan", timeout=2)
        with pytest.raises(StorageError, match="connecting"):
            SiftStore.open(through)
        proxy.refusing = False
        assert len(store.search("Michael Jordan")) == 5


def test_a_database_or_extension_that_is_not_there(server: PackagedServer, database: str) -> None:
    with pytest.raises(NotFoundError, match=r"connecting: .*nowhere.*create it first"):
        SiftStore.open(server.url("nowhere"))
    with server.connect(database) as connection:
        connection.execute("DROP EXTENSION vector")
    with pytest.raises(NotFoundError, match="CREATE EXTENSION vector"):
        SiftStore.attach(server.url(database, table="docs"))
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        assert store.count() == 0
        store.add(JORDAN)  # our migration makes it
        assert store.count() == 5


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_commit_without_an_answer_is_looked_up(through: str, proxy: Proxy) -> None:
    """The server commits, its answer is lost: asked about the transaction, it says committed."""
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(["first"])
        proxy.cut_at = b"COMMIT\0"
        store.add(["second"], ids=["2"])
        assert proxy.cut_at == b""
        assert store.get(["2"])[0] is not None


async def test_an_async_commit_without_an_answer_is_looked_up(through: str, proxy: Proxy) -> None:
    async with await AsyncSiftStore.open(through, embedder=WordEmbedder()) as store:
        await store.add(["first"])
        proxy.cut_at = b"COMMIT\0"
        await store.add(["second"], ids=["2"])
        assert proxy.cut_at == b""
        assert (await store.get(["2"]))[0] is not None


def test_a_commit_that_did_not_arrive_is_an_error(through: str, proxy: Proxy) -> None:
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(["first"])
        proxy.drop_at = b"COMMIT\0"
        with pytest.raises(StorageError, match="nothing was written; try again"):
            store.add(["second"], ids=["2"])
        assert store.get(["2"]) == [None]
        store.add(["second"], ids=["2"])
        assert store.count() == 2


@pytest.mark.parametrize("marker", [b"COPY", b"ON CONFLICT", b"pg_try_advisory"])
def test_a_write_cut_half_way_writes_nothing(through: str, proxy: Proxy, marker: bytes) -> None:
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(["first"])
        proxy.cut_at = marker
        with pytest.raises(StorageError) as failed:
            store.add([f"text {i}" for i in range(100)])
        assert not isinstance(failed.value, PartialWriteError)
        assert store.count() == 1
        ids = [hit.id for hit in store.search("first")]
        for write in (lambda: store.delete(ids), lambda: store.update_payload(ids, {"y": 1})):
            proxy.cut_at = b"pg_try_advisory"
            with pytest.raises(StorageError):
                write()
        assert store.count({"y": {"$exists": False}}) == 1


def test_what_was_written_before_a_cut_is_told_exactly(through: str, proxy: Proxy) -> None:
    texts = [f"passage {i}" for i in range(2500)]  # three transactions
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(["first"])

        def progress(done: int, total: int) -> None:
            if done == 2048 + 256:  # of the third, the embedding
                proxy.cut_at = b"ON CONFLICT"

        with pytest.raises(PartialWriteError, match="2048 of 2500 passages are written") as failed:
            store.add(texts, ids=list(range(2500)), progress=progress)
        assert failed.value.written == tuple(range(2048))
        assert store.count() == 2049
        store.add(texts, ids=list(range(2500)))
        assert store.count() == 2501


def test_nothing_acknowledged_is_lost_in_a_crash(server: PackagedServer, database: str) -> None:
    """Writers at work, the server killed with all its children and started again: what was answered is there."""
    acknowledged: list[int] = []
    done = threading.Event()

    def write(start: int) -> None:
        with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
            place = start
            while not done.is_set():
                try:
                    store.add([f"text {place}"], ids=[place])
                except SiftStoreError:
                    time.sleep(0.05)
                else:
                    acknowledged.append(place)
                    place += 2

    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        store.add(["first"])
    threads = [threading.Thread(target=write, args=(start,)) for start in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.7)
        server.stop(signal.SIGKILL)
        server.start()
    time.sleep(0.7)
    done.set()
    for thread in threads:
        thread.join()
    assert len(acknowledged) > 20
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        records = store.get(acknowledged)
        assert [record and record.text for record in records] == [f"text {place}" for place in acknowledged]
        assert store.count() <= len(set(acknowledged)) + 1 + 2 * 3  # those whose answer was lost, at most


def test_a_reembedding_that_is_cut_changes_nothing(
    through: str, proxy: Proxy, server: PackagedServer, database: str
) -> None:
    with SiftStore.open(through, embedder=WordEmbedder()) as store:
        store.add(JORDAN, ids=list("abcde"))

        def cutting(texts: list[str]) -> np.ndarray:
            proxy.cut_at = b"COPY"
            return WordEmbedder(16).embed_documents(texts)

        with pytest.raises(StorageError):
            store.reembed(cutting)
        assert store.search(JORDAN[1], k=1)[0].id == "b"
        store.add(["still writable"])
        assert store.reembed(WordEmbedder(8, "eight")) == 6
    with server.connect(database) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relname ~ '^vector_' AND relkind = 'r'"
        ).fetchall()
    assert len(rows) == 1


def test_a_dead_reembedder_gives_its_lock_back(server: PackagedServer, database: str) -> None:
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        store.add(JORDAN, ids=list("abcde"))
        replacement = store._context.adapter.replace(store._context.adapter.statistics().embedder)  # type: ignore[arg-type]
        with pytest.raises(StorageError, match="re-embedded"):
            store.add(["no"])
        kill_sessions(server, database)
        store.add(["yes"])
        del replacement
        assert store.count() == 6


def test_a_reembedder_whose_lock_was_lost_does_not_take_over(server: PackagedServer, database: str) -> None:
    """Others may have written meanwhile: the new vectors would lack theirs."""
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        store.add(JORDAN, ids=list("abcde"))

        def interrupted(texts: list[str]) -> np.ndarray:
            kill_sessions(server, database)
            with SiftStore.open(server.url(database), embedder=WordEmbedder()) as other:
                other.add(["written meanwhile"], ids=["f"])
            return WordEmbedder(16).embed_documents(texts)

        with pytest.raises(StorageError, match="the connection that shut out writers was lost"):
            store.reembed(interrupted)
        assert store.search("written meanwhile", k=1)[0].id == "f"
        assert store.reembed(WordEmbedder(16)) == 6


def test_two_reembedders_do_not_meet(server: PackagedServer, database: str) -> None:
    url = server.url(database)
    with SiftStore.open(url, embedder=WordEmbedder()) as one, SiftStore.open(url, embedder=WordEmbedder()) as two:
        one.add(JORDAN, ids=list("abcde"))
        two.count()
        results: list[Any] = []

        def go(store: SiftStore, dimension: int) -> None:
            try:
                results.append(store.reembed(WordEmbedder(dimension, f"e{dimension}")))
            except StorageError as exc:
                results.append(str(exc))

        threads = [threading.Thread(target=go, args=arguments) for arguments in ((one, 8), (two, 16))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results.count(5) == 1
        assert any("open the store again" in str(result) for result in results)
    with SiftStore.open(url) as store:
        statistics = store._context.adapter.statistics()
        assert statistics.embedder is not None
        embedder = WordEmbedder(statistics.dimension or 0, statistics.embedder.name)
    with SiftStore.open(url, embedder=embedder) as store:
        assert store.search(JORDAN[1], k=1)[0].id == "b"
        assert {finding.level for finding in store.doctor()} == {"ok"}


def test_a_reader_in_the_way_does_not_undo_a_reembedding(server: PackagedServer, database: str) -> None:
    with SiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        store.add(JORDAN, ids=list("abcde"))
        with server.connect(database) as reader, reader.transaction():
            reader.execute("SELECT 1 FROM sift_store.vector_1_0")
            assert store.reembed(WordEmbedder(8, "eight")) == 5
        assert store.search(JORDAN[1], k=1)[0].id == "b"
        assert store.reembed(WordEmbedder()) == 5
    with server.connect(database) as connection:
        tables = "SELECT relname FROM pg_class WHERE relname ~ '^vector_' AND relkind = 'r'"
        assert connection.execute(tables).fetchall() == [("vector_1_2",)]


def test_a_callers_pool_that_breaks(server: PackagedServer, database: str) -> None:
    parameters = {**server.parameters, "dbname": database}
    with (
        ConnectionPool(kwargs=parameters, min_size=1, max_size=2) as pool,
        SiftStore.open("postgresql://", client=pool, embedder=WordEmbedder()) as store,
    ):
        store.add(JORDAN)
        for _ in range(3):
            kill_sessions(server, database)
            assert len(store.search("Michael Jordan", k=3)) == 3
        with server.connect(database) as connection, connection.transaction():
            connection.execute("LOCK TABLE sift_store.vector_1_0 IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(DeadlineError):
                store.search("Michael Jordan", timeout=0.3)
        assert len(store.search("Michael Jordan", k=3)) == 3


async def test_many_tasks_through_a_storm(server: PackagedServer, database: str) -> None:
    async with await AsyncSiftStore.open(server.url(database), embedder=WordEmbedder()) as store:
        await store.add(JORDAN)

        async def ask(place: int) -> int:
            await asyncio.sleep(place * 0.01)
            return len(await store.search("Michael Jordan", k=3))

        tasks = [asyncio.create_task(ask(place)) for place in range(100)]
        for _ in range(4):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(kill_sessions, server, database)
        assert await asyncio.gather(*tasks) == [3] * 100


def test_the_server_does_not_run_as_root(server: PackagedServer) -> None:
    assert server._process is not None
    assert Path(f"/proc/{server._process.pid}").stat().st_uid != 0


def test_a_role_or_password_that_is_wrong_is_said_at_once(server: PackagedServer, database: str) -> None:
    with server.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS locked")
        connection.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    hba = server.data / "pg_hba.conf"
    trusting = hba.read_text()
    hba.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + trusting)
    at = server.parameters
    try:
        with server.connect() as connection:
            connection.execute("SELECT pg_reload_conf()")
        for user, says in (("locked:wr0ng", "authentication failed"), ("nobody_here", "does not exist")):
            start = time.monotonic()
            with pytest.raises(StorageError, match=says) as failed:
                SiftStore.open(f"postgresql://{user}@{at['host']}:{at['port']}/{database}")
            assert time.monotonic() - start < 2
            assert "wr0ng" not in str(failed.value)
        SiftStore.open(f"postgresql://locked:right@{at['host']}:{at['port']}/{database}").close()
    finally:
        hba.write_text(trusting)
        with server.connect() as connection:
            connection.execute("SELECT pg_reload_conf()")
