"""A Qdrant server that is gone, restarted, slow, overrun, too old; connections cut half-way. Errors are ours and say
what to do; nothing acknowledged is lost.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from edge_server import EdgeServer, serve
from qdrant_client import models
from qdrant_server import Qdrant, of_edge
from sift_store_qdrant import state
from tcp_proxy import Proxy, proxy_to

from sift_store import (
    AsyncSiftStore,
    DeadlineError,
    EmbedderError,
    InvalidInputError,
    LocationError,
    NotFoundError,
    PartialWriteError,
    SiftStore,
    StorageError,
    StoreClosedError,
    drop_collection,
    list_collections,
)
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN


@pytest.fixture
def server() -> Iterator[EdgeServer]:
    """A server of our own, to be maltreated."""
    with serve() as running:
        yield running


@pytest.fixture(params=["gRPC", "REST"])
def url(request: pytest.FixtureRequest, server: EdgeServer) -> str:
    return of_edge(server).url("faults", rest=request.param == "REST")


@pytest.fixture
def store(url: str) -> Iterator[SiftStore]:
    with SiftStore.open(url, embedder=WordEmbedder()) as opened:
        opened.add(JORDAN, ids=list("abcde"))
        assert len(opened.search("Michael Jordan", k=3)) == 3
        yield opened


def later(seconds: float, what: Callable[[], Any]) -> threading.Thread:
    def go() -> None:
        time.sleep(seconds)
        what()

    thread = threading.Thread(target=go)
    thread.start()
    return thread


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_said_so_in_time(server: EdgeServer, url: str, store: SiftStore) -> None:
    server.stop()
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"see whether the server is up|are over"):
        store.search("Michael Jordan", timeout=2)
    assert time.monotonic() - start < 4
    with pytest.raises(StorageError, match=r"see whether the server is up"):
        store.add(["lost"], vectors=np.ones((1, 32)))
    with pytest.raises(StorageError, match=r"connecting: .*see whether the server is up"):
        SiftStore.open(url)
    server.start()
    assert len(store.search("Michael Jordan", k=3)) == 3
    assert store.count() == 5


def test_a_search_survives_a_restart(server: EdgeServer, store: SiftStore) -> None:
    server.stop()
    starting = later(0.5, server.start)
    assert len(store.search("Michael Jordan", k=3)) == 3
    starting.join()
    assert store.count() == 5


async def test_an_async_search_survives_a_restart(server: EdgeServer, url: str, store: SiftStore) -> None:
    async with await AsyncSiftStore.open(url, embedder=WordEmbedder()) as twin:
        assert len(await twin.search("Michael Jordan", k=3)) == 3
        server.stop()
        starting = later(0.5, server.start)
        assert len(await twin.search("Michael Jordan", k=3)) == 3
        starting.join()


def test_a_slow_server_is_left_at_the_deadline(server: EdgeServer, store: SiftStore) -> None:
    server.delay = 1.0
    start = time.monotonic()
    with pytest.raises(DeadlineError, match=r"the 0.2 s given are over"):
        store.search("Michael Jordan", timeout=0.2)
    assert time.monotonic() - start < 0.8
    server.delay = 0.02
    assert len(store.search("Michael Jordan", timeout=5)) == 5


def test_a_slow_state_does_not_hold_a_search_either(server: EdgeServer, store: SiftStore) -> None:
    store._context.adapter._collection.forget()  # type: ignore[attr-defined]
    count = server.collections.count
    server.collections.count = lambda *given: time.sleep(3) or count(*given)  # type: ignore[method-assign]
    start = time.monotonic()
    with pytest.raises(DeadlineError):
        store.search("Michael Jordan", timeout=0.3)
    assert time.monotonic() - start < 2.5


async def test_nor_is_it_waited_for_asynchronously(server: EdgeServer, url: str, store: SiftStore) -> None:
    async with await AsyncSiftStore.open(url, embedder=WordEmbedder()) as twin:
        await twin.search("Michael Jordan")
        server.delay = 1.0
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"the 0.2 s given are over"):
            await twin.search("Michael Jordan", timeout=0.2)
        assert time.monotonic() - start < 0.8


def test_too_many_requests_are_asked_again_when_the_server_says(server: EdgeServer, store: SiftStore) -> None:
    server.limit(2, 1, only="query_batch")
    start = time.monotonic()
    assert len(store.search("Michael Jordan", k=3)) == 3
    assert 2.0 <= time.monotonic() - start < 4
    server.limit(1, 30, only="query_batch")
    start = time.monotonic()
    with pytest.raises(StorageError, match="asks to wait 30 s, longer than there is time for"):
        store.search("Michael Jordan", timeout=5)
    assert time.monotonic() - start < 1
    server.limit(3, None, only="query_batch")  # it does not say for how long
    assert len(store.search("Michael Jordan", k=3)) == 3


async def test_so_are_asynchronous_ones(server: EdgeServer, url: str, store: SiftStore) -> None:
    async with await AsyncSiftStore.open(url, embedder=WordEmbedder()) as twin:
        await twin.search("Michael Jordan")
        server.limit(1, 1, only="query_batch")
        start = time.monotonic()
        assert len(await twin.search("Michael Jordan", k=3)) == 3
        assert 1.0 <= time.monotonic() - start < 3


def test_an_error_of_the_servers_is_ours_and_is_not_asked_again(server: EdgeServer, store: SiftStore) -> None:
    before = len(server.requests)
    server.fail(1, 500, only="query_batch")
    with pytest.raises(StorageError, match=r"searching: .*status 500 was ordered"):
        store.search("Michael Jordan")
    assert server.requests[before:].count("query_batch") == 1
    server.fail(2, 503, only="retrieve")
    assert len(store.search("Michael Jordan", k=3)) == 3


def test_a_server_that_is_too_old_is_refused(server: EdgeServer, url: str) -> None:
    server.version = "1.15.4"
    with pytest.raises(StorageError, match=r"Qdrant 1\.15\.4; a collection of our own wants 1\.16 or later"):
        SiftStore.open(url)
    with pytest.raises(NotFoundError):
        SiftStore.attach(url)
    server.version = "1.9.0"
    with pytest.raises(StorageError, match=r"Qdrant 1\.9\.0; searching wants 1\.10 or later"):
        SiftStore.attach(url)
    server.version = "dev"
    with SiftStore.open(url) as store:
        assert store.count() == 0


def test_something_else_at_the_port(server: EdgeServer) -> None:
    import http.server

    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        try:
            port = web.server_address[1]
            with pytest.raises(StorageError, match="connecting"):
                SiftStore.open(f"qdrant://127.0.0.1:{port}?collection=a&grpc_port={port}")
        finally:
            web.shutdown()


def test_rest_takes_over_where_no_grpc_answers_and_it_is_said(server: EdgeServer) -> None:
    url = of_edge(server).url("faults", rest=True)
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        assert "over REST" in store._context.adapter.capabilities.engine
        assert "REST, because no gRPC answers at port" in str(store.explain("Jordan"))
        assert any("REST, because no gRPC answers" in finding.what for finding in store.doctor())


# --- connections that break -------------------------------------------------------------------------------------------


@pytest.fixture(params=["gRPC", "REST"])
def through(request: pytest.FixtureRequest, server: EdgeServer) -> Iterator[tuple[str, Proxy]]:
    """The URL through a proxy for the wire that searches go over."""
    grpc = request.param == "gRPC"
    with proxy_to(server.grpc_port if grpc else server.port) as proxy:
        plain = of_edge(server)
        if grpc:
            yield Qdrant(plain.host, proxy.port).url("faults"), proxy
        else:
            yield Qdrant(f"127.0.0.1:{proxy.port}", plain.grpc_port).url("faults", rest=True), proxy


def test_a_search_survives_a_cut_in_its_middle(through: tuple[str, Proxy]) -> None:
    url, proxy = through
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        store.search("Michael Jordan", k=3)
        for _ in range(3):
            proxy.cut()
            assert len(store.search("Michael Jordan", k=3)) == 3


def test_a_server_that_stands_still_does_not_hold_a_search(through: tuple[str, Proxy]) -> None:
    url, proxy = through
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        store.search("Michael Jordan", k=3)
        proxy.stalled = True
        start = time.monotonic()
        with pytest.raises(DeadlineError, match=r"the 0.5 s given are over"):
            store.search("Michael Jordan", timeout=0.5)
        assert time.monotonic() - start < 2
        proxy.stalled = False
        assert len(store.search("Michael Jordan")) == 5


def test_a_write_that_is_cut_may_be_written_again(through: tuple[str, Proxy]) -> None:
    url, proxy = through
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        store.add(JORDAN)
        proxy.cut_at = b"text 7"
        with contextlib.suppress(StorageError):  # gRPC itself sends a call again that the server cannot have seen
            store.add([f"text {i}" for i in range(100)])
        assert proxy.cut_at == b""
        store.add([f"text {i}" for i in range(100)])
        assert store.count() == 105


async def test_no_connection_outlives_its_store(through: tuple[str, Proxy]) -> None:
    url, proxy = through
    for _ in range(3):
        with SiftStore.open(url, embedder=WordEmbedder()) as store:
            store.add(JORDAN)
            store.search("Michael Jordan", k=3)
            assert 1 <= proxy.open <= 4
        with pytest.raises(EmbedderError):
            SiftStore.open(url, embedder=WordEmbedder(name="others"))
        assert list_collections(url) == ["faults"]
        async with await AsyncSiftStore.open(url, embedder=WordEmbedder()) as twin:
            await asyncio.gather(*(twin.search("Michael Jordan", k=3) for _ in range(10)))
    until = time.monotonic() + 5
    while proxy.open and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert proxy.open == 0


# --- writing ----------------------------------------------------------------------------------------------------------


def test_what_was_written_before_a_failure_is_told_exactly(server: EdgeServer, store: SiftStore) -> None:
    texts = [f"passage {i}" for i in range(1000)]  # four requests
    upsert = server.collections.upsert
    seen: list[int] = []

    def failing(name: str, given: Any) -> Any:
        seen.append(len(given.points))
        if len(seen) == 3:
            raise RuntimeError("out of disk")
        return upsert(name, given)

    server.collections.upsert = failing  # type: ignore[method-assign]
    with pytest.raises(PartialWriteError, match=r"512 of 1000 .*out of disk") as failed:
        store.add(texts, ids=list(range(1000)))
    assert failed.value.written == tuple(range(512))
    assert store.count() == 5 + 512
    store.add(texts, ids=list(range(1000)))
    assert store.count() == 1005


def test_a_write_is_asked_again_only_if_it_was_refused(server: EdgeServer, store: SiftStore) -> None:
    server.limit(1, 1, only="upsert")
    before = len(server.requests)
    store.add(["new"], ids=["f"])
    assert server.requests[before:].count("upsert") == 2
    before = len(server.requests)
    server.fail(1, 503, only="upsert")
    with pytest.raises(StorageError, match="writing"):
        store.add(["newer"], ids=["g"])
    assert server.requests[before:].count("upsert") == 1


def test_a_scope_holds_against_a_race_at_the_server(server: EdgeServer, store: SiftStore) -> None:
    """Somebody takes the id between our look and our write: his record stays."""
    ours, theirs = store.scoped({"tenant": "a"}), store.scoped({"tenant": "b"})
    upsert = server.collections.upsert

    def overtaken(name: str, given: Any) -> Any:
        server.collections.upsert = upsert  # type: ignore[method-assign]
        theirs.add(["theirs"], ids=["same"])
        return upsert(name, given)

    server.collections.upsert = overtaken  # type: ignore[method-assign]
    with pytest.raises(InvalidInputError, match="outside this store's scope"):
        ours.add(["mine"], ids=["same"])
    record = theirs.get(["same"])[0]
    assert record is not None
    assert record.text == "theirs"


# --- re-embedding -----------------------------------------------------------------------------------------------------


def failing(_: list[str]) -> Any:
    raise RuntimeError("out of paper")


def names(server: EdgeServer) -> set[str]:
    return set(server.collections.names())


def test_a_reembedding_leaves_one_collection(server: EdgeServer, store: SiftStore) -> None:
    assert store.reembed(WordEmbedder(16, "others")) == 5
    (name,) = names(server)
    assert name.startswith("faults.v1-")
    with pytest.raises(EmbedderError, match="out of paper"):
        store.reembed(failing)
    assert names(server) == {name}


def test_a_dead_reembedder_shuts_out_writers_until_its_lease_is_over(
    server: EdgeServer, url: str, store: SiftStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = store._context.adapter
    replacement = adapter.replace(adapter.statistics().embedder)  # type: ignore[arg-type]
    replacement._lost.detach()  # type: ignore[attr-defined]  # it dies without a word
    with pytest.raises(StorageError, match="being re-embedded"):
        store.add(["no"])
    with pytest.raises(StorageError, match="re-embedded already"):
        store.reembed(WordEmbedder(8))
    assert len(store.search("Michael Jordan")) == 5
    clock = time.time
    monkeypatch.setattr(state.time, "time", lambda: clock() + state.LEASE + 1)
    store.add(["yes"])
    assert store.count() == 6
    assert store.reembed(WordEmbedder(8)) == 6


def test_a_lost_replacement_lets_writers_in(store: SiftStore) -> None:
    adapter = store._context.adapter
    replacement = adapter.replace(adapter.statistics().embedder)  # type: ignore[arg-type]
    del replacement
    store.add(["yes"])


def test_a_reembedder_whose_lease_was_taken_does_not_take_over(server: EdgeServer, store: SiftStore, url: str) -> None:
    def interrupted(texts: list[str]) -> np.ndarray:
        (name,) = server.collections._aliases.values()
        server.collections.update(name, models.UpdateCollection(metadata={state.REPLACING: None}))
        with SiftStore.open(url, embedder=WordEmbedder()) as other:
            other.add(["written meanwhile"], ids=["f"])
        return WordEmbedder(16).embed_documents(texts)

    with pytest.raises(StorageError, match="another re-embedding has taken over"):
        store.reembed(interrupted)
    assert store.search("written meanwhile", k=1)[0].id == "f"
    assert store.reembed(WordEmbedder(16)) == 6


def test_a_change_over_without_an_answer_is_looked_up(server: EdgeServer, store: SiftStore) -> None:
    change = server.collections.change_aliases

    def silent(operations: Any) -> Any:
        change(operations)
        server.collections.change_aliases = change  # type: ignore[method-assign]
        raise RuntimeError("and the answer was lost")

    server.collections.change_aliases = silent  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="the answer was lost"):
        store.reembed(WordEmbedder(16, "others"))
    assert len(names(server)) == 1
    assert store.statistics().dimension == 16
    assert store.search(JORDAN[1], k=1)[0].score == pytest.approx(1, abs=1e-5)
    store.add(["written afterwards"])
    assert store.count() == 6


def test_a_change_over_that_failed_changes_nothing(server: EdgeServer, store: SiftStore) -> None:
    server.fail(1, 500, only="change_aliases")
    with pytest.raises(StorageError, match="changing over"):
        store.reembed(WordEmbedder(16, "others"))
    assert names(server) == {"faults.v0"}
    assert store.search(JORDAN[1], k=1)[0].id == "b"
    store.add(["written afterwards"])
    assert store.count() == 6


def test_another_process_learns_of_a_reembedding(url: str, store: SiftStore) -> None:
    with SiftStore.open(url, embedder=WordEmbedder().embed_documents) as other:
        assert len(other.search("Michael Jordan", k=3)) == 3
        store.reembed(WordEmbedder(16, "others"))
        with pytest.raises(StorageError, match=r"open the store again|ask again"):
            other.search("Michael Jordan", k=3)
        with pytest.raises(StorageError):
            other.add(["late"])
    assert store.count() == 5


def test_what_an_interrupted_reembedding_left_is_told_and_swept(server: EdgeServer, store: SiftStore) -> None:
    marks = state.Marks("faults.v1-00ff", "b0", 1, store._context.adapter.statistics().embedder)  # type: ignore[arg-type]
    vectors = models.VectorParams(size=8, distance=models.Distance.COSINE)
    for name, metadata in (("faults.v1-00ff", marks.metadata()), ("faults.v7", {}), ("faults.vault", marks.metadata())):
        server.collections.create(name, models.CreateCollection(vectors=vectors, metadata=metadata))
    assert any("faults.v1-00ff" in finding.what for finding in store.doctor() if finding.level == "note")
    store.reembed(WordEmbedder(8, "eight"))
    assert {"faults.v7", "faults.vault"} < names(server)
    assert "faults.v1-00ff" not in names(server)


def test_a_reembedding_keeps_what_was_set_and_indexed(server: EdgeServer, url: str) -> None:
    """With the client, by the store's name, as for any collection."""
    with SiftStore.open(url, embedder=WordEmbedder(), indexed={"year": "integer"}) as store:
        store.add(JORDAN, payloads=[{"year": i} for i in range(5)])
        words = models.TextIndexParams(type=models.TextIndexType.TEXT, lowercase=True)
        server.collections.index("faults", "text", words)
        server.collections.index("faults", "metadata.lang", models.PayloadSchemaType.KEYWORD)
        server.collections.update(
            "faults", models.UpdateCollection(optimizers_config=models.OptimizersConfigDiff(indexing_threshold=77))
        )
        store.reembed(WordEmbedder(16, "others"))
        info = server.collections.info("faults")
        assert info.config.optimizer_config.indexing_threshold == 77
        assert info.payload_schema["text"].data_type == models.PayloadSchemaType.TEXT
        assert store.statistics().fields == {"year": "integer", "lang": "keyword"}
        assert store.count({"year": 3}) == 1


def test_a_replacement_that_cannot_begin_leaves_no_mark(server: EdgeServer, store: SiftStore) -> None:
    update = server.collections.update
    calls: list[Any] = []

    def silent(name: str, given: Any) -> Any:
        done = update(name, given)
        calls.append(given)
        if len(calls) == 1:
            raise RuntimeError("and the answer was lost")
        return done

    server.collections.update = silent  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="the answer was lost"):
        store.reembed(WordEmbedder(8))
    store.add(["writable"])
    assert store.reembed(WordEmbedder(8)) == 6


def test_a_reembedder_that_gives_up_leaves_the_next_mark(store: SiftStore, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = store._context.adapter
    identity = adapter.statistics().embedder
    first = adapter.replace(identity)  # type: ignore[arg-type]
    clock = time.time
    monkeypatch.setattr(state.time, "time", lambda: clock() + state.LEASE + 1)
    second = adapter.replace(identity)  # type: ignore[arg-type]
    first.abandon()
    with pytest.raises(StorageError, match="being re-embedded"):
        store.add(["no"])
    second.abandon()
    store.add(["yes"])


def test_what_a_reembedding_has_overtaken_is_not_called_written(server: EdgeServer, url: str, store: SiftStore) -> None:
    upsert = server.collections.upsert
    calls: list[int] = []

    def overtaken(name: str, given: Any) -> Any:
        calls.append(len(given.points))
        if len(calls) == 2:
            server.collections.upsert = upsert  # type: ignore[method-assign]
            with SiftStore.open(url, embedder=WordEmbedder().embed_documents) as other:
                other.reembed(WordEmbedder(32, "others"))
        return upsert(name, given)

    server.collections.upsert = overtaken  # type: ignore[method-assign]
    with pytest.raises(StorageError, match=r"re-embed") as failed:
        store.add([f"text {i}" for i in range(600)])
    assert not isinstance(failed.value, PartialWriteError)


# --- dropped, made anew, left over ------------------------------------------------------------------------------------


def test_a_collection_that_was_dropped_and_made_anew_is_another(url: str) -> None:
    with SiftStore.open(url, embedder=WordEmbedder().embed_documents) as old:
        old.add(JORDAN)
        old.search("Michael")
        assert drop_collection(url)
        with SiftStore.open(url, embedder=lambda texts: -WordEmbedder().embed_documents(texts)) as new:
            new.add(["anew"])
            old._context.adapter._collection.forget()  # type: ignore[attr-defined]  # as it does after five seconds
            with pytest.raises(StorageError, match="meanwhile"):
                old.search("Michael")
            with pytest.raises(StorageError, match="meanwhile"):
                old.add(["late"])
            with pytest.raises(StorageError, match="meanwhile"):
                old.search("Michael")
            assert new.count() == 1
        assert drop_collection(url)
        with pytest.raises(StorageError, match="meanwhile"):
            old.add(["late"])
    assert list_collections(url) == []


def test_content_without_a_name_is_neither_taken_nor_deleted(server: EdgeServer, url: str, store: SiftStore) -> None:
    server.collections.change_aliases(
        [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="faults"))]
    )
    assert names(server) == {"faults.v0"}
    with SiftStore.open(url, embedder=WordEmbedder(8, "eight")) as other:
        assert other.count() == 0
        with pytest.raises(StorageError, match="with 5 passages of dimension 32, but 'faults' does not lead"):
            other.add(["new"])
        assert names(server) == {"faults.v0"}
        assert drop_collection(url)
        other.add(["new"])
        assert other.count() == 1
        assert other.statistics().dimension == 8


def test_a_creation_that_was_interrupted_is_made_whole(server: EdgeServer, url: str) -> None:
    with SiftStore.open(url, embedder=WordEmbedder(), indexed={"year": "integer"}) as store:
        server.fail(1, 500, only="create_index")
        with pytest.raises(StorageError):
            store.add(["a"], payloads=[{"year": 1}])
        store.add(["a"], payloads=[{"year": 1}])
        assert store.statistics().fields == {"year": "integer"}
        with pytest.raises(InvalidInputError, match="does not fit"):
            store.add(["b"], payloads=[{"year": "soon"}])


def test_a_creator_that_comes_second_deletes_nothing(server: EdgeServer, url: str) -> None:
    """Between its look and its making another has made the collection, given it its name and filled it."""
    with (
        SiftStore.open(url, embedder=WordEmbedder()) as first,
        SiftStore.open(url, embedder=WordEmbedder(8, "eight")) as second,
    ):
        create = server.collections.create

        def overtaken(name: str, given: Any) -> Any:
            server.collections.create = create  # type: ignore[method-assign]
            first.add(JORDAN)
            return create(name, given)

        server.collections.create = overtaken  # type: ignore[method-assign]
        with pytest.raises(EmbedderError, match="gives dimension 8, the store has 32"):
            second.add(["other"])
        assert first.count() == 5
        assert first.search(JORDAN[1], k=1)[0].score == pytest.approx(1, abs=1e-5)
    with SiftStore.open(url, embedder=WordEmbedder()) as third:
        assert third.count() == 5


def test_an_interrupted_creation_of_another_kind_is_told(server: EdgeServer, url: str) -> None:
    with SiftStore.open(url, embedder=WordEmbedder(8, "eight")) as store:
        server.fail(1, 500, only="change_aliases")
        with pytest.raises(StorageError):
            store.add(["a"])
    with SiftStore.open(url, embedder=WordEmbedder()) as store:
        with pytest.raises(StorageError, match="with 0 passages of dimension 8"):
            store.add(["a"])
        assert drop_collection(url)
        store.add(["a"])
        assert store.count() == 1


def test_a_reembedder_whose_collection_was_made_anew_keeps_its_old_embedder(
    server: EdgeServer, url: str, store: SiftStore
) -> None:
    def meddled(texts: list[str]) -> np.ndarray:
        assert drop_collection(url)
        with SiftStore.open(url, embedder=WordEmbedder()) as other:
            other.add(["anew"])
        return -WordEmbedder().embed_documents(texts)

    with pytest.raises(StorageError, match="taken over"):
        store.reembed(meddled)
    with pytest.raises(StorageError, match="meanwhile"):
        store.search("anew")
    with SiftStore.open(url, embedder=WordEmbedder()) as other:
        assert other.search("anew", k=1)[0].score == pytest.approx(1, abs=1e-5)
        assert other.count() == 1


def test_the_reason_of_a_failed_reembedding_is_told_even_if_all_is_gone(url: str, store: SiftStore) -> None:
    def failing_last(texts: list[str]) -> np.ndarray:
        assert drop_collection(url)
        raise RuntimeError("the original reason")

    with pytest.raises(EmbedderError, match="the original reason"):
        store.reembed(failing_last)


def test_a_name_in_the_way_is_left_alone(server: EdgeServer, url: str) -> None:
    vectors = models.VectorParams(size=32, distance=models.Distance.COSINE)
    server.collections.create("faults.v0", models.CreateCollection(vectors=vectors))
    with SiftStore.open(url, embedder=WordEmbedder()) as store, pytest.raises(LocationError, match="another program"):
        store.add(["a"])
    assert server.collections.aliases() == []


def test_a_drop_that_fails_half_way_leaves_the_live_content(server: EdgeServer, url: str, store: SiftStore) -> None:
    marks = state.Marks("faults.v1-00ff", "b0", 1, store._context.adapter.statistics().embedder)  # type: ignore[arg-type]
    vectors = models.VectorParams(size=8, distance=models.Distance.COSINE)
    server.collections.create("faults.v1-00ff", models.CreateCollection(vectors=vectors, metadata=marks.metadata()))
    server.fail(1, 500, only="delete_collection")
    with pytest.raises(StorageError):
        drop_collection(url)
    assert store.count() == 5
    assert drop_collection(url)
    assert names(server) == set()


def test_a_copy_of_a_collection_of_ours_is_not_taken_for_it(server: EdgeServer, url: str, store: SiftStore) -> None:
    """As a snapshot that was recovered under another name."""
    vectors = models.VectorParams(size=32, distance=models.Distance.COSINE)
    metadata = server.collections.info("faults").config.metadata
    server.collections.create("restored", models.CreateCollection(vectors=vectors, metadata=metadata))
    with pytest.raises(LocationError, match=r"a copy of 'faults\.v0'"):
        SiftStore.open(url.replace("faults", "restored"))
    with SiftStore.attach(url.replace("faults", "restored")) as attached:
        assert attached.count() == 0
    assert store.count() == 5


def test_marks_that_cannot_be_read_are_not_ours(server: EdgeServer, url: str, store: SiftStore) -> None:
    vectors = models.VectorParams(size=32, distance=models.Distance.COSINE)
    for place, odd in enumerate(({"sift_store": 3}, {"sift_store": {"generation": "x"}}, {"sift_store": {}})):
        name = f"odd{place}"
        server.collections.create(f"{name}.v0", models.CreateCollection(vectors=vectors, metadata=odd))
        alias = models.CreateAlias(collection_name=f"{name}.v0", alias_name=name)
        server.collections.change_aliases([models.CreateAliasOperation(create_alias=alias)])
    assert list_collections(url) == ["faults"]


def test_an_update_with_null_holds_the_scope_against_a_race(server: EdgeServer, store: SiftStore) -> None:
    ours, theirs = store.scoped({"tenant": "a"}), store.scoped({"tenant": "b"})
    ours.add(["mine"], ids=["m"])
    set_payload = server.collections.set_payload

    def overtaken(name: str, given: Any, **options: Any) -> Any:
        server.collections.set_payload = set_payload  # type: ignore[method-assign]
        store.delete(["m"])
        theirs.add(["theirs now"], ids=["m"])
        return set_payload(name, given, **options)

    server.collections.set_payload = overtaken  # type: ignore[method-assign]
    ours.update_payload(["m"], {"x": None})
    record = theirs.get(["m"])[0]
    assert record is not None
    assert (record.text, record.payload) == ("theirs now", {"tenant": "b"})


# --- names ------------------------------------------------------------------------------------------------------------


def test_collections_are_listed_and_dropped(server: EdgeServer, url: str, store: SiftStore) -> None:
    vectors = models.VectorParams(size=8, distance=models.Distance.COSINE)
    server.collections.create("foreign", models.CreateCollection(vectors=vectors))

    assert list_collections(url) == ["faults"]
    with pytest.raises(LocationError, match="another program keeps"):
        drop_collection(url.replace("faults", "foreign"))
    assert drop_collection(url)
    assert not drop_collection(url)
    assert names(server) == {"foreign"}
    with pytest.raises(StorageError):
        store.add(["late"])


def test_what_is_called_closed_is_no_closed_client(server: EdgeServer, url: str, store: SiftStore) -> None:
    with pytest.raises(NotFoundError, match="closed-x"):
        SiftStore.attach(url.replace("faults", "closed-x"))
    server.collections.query = lambda *_: (_ for _ in ()).throw(ValueError("field closed_at has no index"))  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="closed_at has no index"):
        store.search("Michael Jordan")


def test_a_client_that_was_closed(store: SiftStore) -> None:
    store._context.adapter._session._client.close()  # type: ignore[attr-defined]
    with pytest.raises(StoreClosedError):
        store.search("Michael Jordan")


async def test_an_asynchronous_store_closed_under_a_search(server: EdgeServer, url: str, store: SiftStore) -> None:
    twin = await AsyncSiftStore.open(url, embedder=WordEmbedder())
    await twin.search("Michael Jordan")
    server.delay = 0.5
    searching = asyncio.create_task(twin.search("Michael Jordan"))
    await asyncio.sleep(0.1)
    await twin._context.adapter._session._client.close()  # type: ignore[attr-defined]
    with pytest.raises((StoreClosedError, StorageError)):
        await searching
    with pytest.raises(StoreClosedError):
        await twin.search("Michael Jordan")
    await twin.close()
