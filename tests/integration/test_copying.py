"""From store to store, of any kind: nothing is embedded again, a copy that was stopped goes on, its end is checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from postgres_server import Server
from qdrant_client import models
from qdrant_server import Qdrant

from sift_store import (
    AsyncSiftStore,
    Copied,
    EmbedderError,
    InvalidInputError,
    ReadOnlyError,
    SiftStore,
    StorageError,
)
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

INDEXED = {"year": "integer"}


@pytest.fixture
def places(tmp_path: Path, qdrant: Qdrant, collection: str, postgres: Server, database: str) -> dict[str, str]:
    return {
        "embedded": str(tmp_path / "store.sift"),
        "qdrant": qdrant.url(collection),
        "rest": qdrant.url(f"{collection}-rest", rest=True),
        "postgres": postgres.url(database, collection="copied"),
    }


def fill(store: SiftStore, count: int = 3000) -> None:
    """Ids of all kinds, and vectors that tell the passages apart."""
    ids: list[Any] = [i if i % 2 else f"passage {i}" for i in range(count)]
    vectors = np.random.default_rng(0).normal(size=(count, 32))
    payloads = [{"year": i, "deep": {"er": [i]}} for i in range(count)]
    store.add([f"text {i}" for i in range(count)], ids, payloads, vectors)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("embedded", "qdrant"),
        ("qdrant", "postgres"),
        ("postgres", "rest"),
        ("rest", "embedded"),
        ("embedded", "memory"),
    ],
)
def test_any_store_to_any_other(places: dict[str, str], source: str, target: str) -> None:
    with SiftStore.open(places[source], embedder=WordEmbedder(), indexed=INDEXED) as read:
        fill(read)
        with SiftStore.open(places.get(target, "memory://"), indexed=INDEXED) as written:
            seen: list[tuple[int, int]] = []
            copied = read.copy_to(written, progress=lambda done, total: seen.append((done, total)))
            assert copied == Copied(passages=3000, written=3000, skipped=0, checked=100)
            assert seen[-1] == (3000, 3000)
            assert written.count({"year": {"$gte": 2990}}) == 10
            query = np.random.default_rng(1).normal(size=32)
            ours, theirs = read.search(vector=query, k=5), written.search(vector=query, k=5)
            assert [hit.id for hit in theirs] == [hit.id for hit in ours]
            assert [hit.payload for hit in theirs] == [hit.payload for hit in ours]
            assert [hit.score for hit in theirs] == pytest.approx([hit.score for hit in ours], abs=1e-5)
            assert written.statistics().embedder == read.statistics().embedder
            assert read.copy_to(written) == Copied(passages=3000, written=0, skipped=0, checked=100)


def test_a_copy_that_was_stopped_goes_on(places: dict[str, str]) -> None:
    with SiftStore.open(places["embedded"]) as read, SiftStore.open(places["qdrant"]) as written:
        fill(read)

        def stop(done: int, total: int) -> None:
            if done > 1000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            read.copy_to(written, progress=stop)
        there = written.count()
        assert 0 < there < 3000
        copied = read.copy_to(written)
        assert (copied.passages, copied.written) == (3000, 3000 - there)
        assert written.count() == 3000


async def test_asynchronous_stores_copy_too(places: dict[str, str]) -> None:
    async with (
        await AsyncSiftStore.open(places["embedded"], embedder=WordEmbedder()) as read,
        await AsyncSiftStore.open(places["qdrant"]) as written,
    ):
        await read.add(JORDAN)
        assert (await read.copy_to(written)).written == 5
        assert (await written.statistics()).count == 5


def test_a_scope_is_copied_as_it_is_seen_and_a_scope_is_no_target(places: dict[str, str]) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as read, SiftStore.open(places["qdrant"]) as written:
        read.add(JORDAN, payloads=[{"tenant": "ab"[i % 2]} for i in range(5)])
        with pytest.raises(InvalidInputError, match="the store itself wanted"):
            read.copy_to(written.scoped({"tenant": "a"}))
        assert read.scoped({"tenant": "a"}).copy_to(written).written == 3
        assert {record.payload["tenant"] for record in written.get(_ids(written)) if record} == {"a"}


def _ids(store: SiftStore) -> list[Any]:
    return [hit.id for hit in store.search(vector=np.ones(32), k=10, method="knn")]


def test_what_was_attached_is_a_source_and_no_target(places: dict[str, str], qdrant: Qdrant, collection: str) -> None:
    client = qdrant.client()
    name = f"{collection}-theirs"
    vectors = {"emb": models.VectorParams(size=32, distance=models.Distance.DOT)}
    client.create_collection(name, vectors)
    points = [
        models.PointStruct(
            id=i,
            vector={"emb": [3.0 * x for x in WordEmbedder().embed_query(text)]} if i else {},
            payload={"page_content": text, "metadata": {"year": i}},
        )
        for i, text in enumerate(JORDAN)
    ]
    client.upsert(name, points)
    client.close()
    with SiftStore.attach(qdrant.url(name), embedder=WordEmbedder()) as read:
        with SiftStore.open(places["postgres"]) as written:
            assert read.copy_to(written) == Copied(passages=4, written=4, skipped=1, checked=4)
        with SiftStore.open(places["postgres"], embedder=WordEmbedder()) as written:
            assert written.search(JORDAN[2], k=1)[0].score == pytest.approx(1, abs=1e-5)
            with pytest.raises(ReadOnlyError):
                written.copy_to(read)


def test_what_does_not_fit_is_refused(places: dict[str, str]) -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as read:
        assert read.copy_to(SiftStore.open("memory://")) == Copied(0, 0, 0, 0)
        read.add(JORDAN, payloads=[{"year": "soon"}] * 5)
        with SiftStore.open("memory://", embedder=WordEmbedder(8, "eight")) as other:
            other.add(["a"])
            with pytest.raises(EmbedderError, match="the source has dimension 32, the target 8"):
                read.copy_to(other)
        with SiftStore.open("memory://", embedder=WordEmbedder(name="others")) as other:
            other.add(["a"])
            with pytest.raises(EmbedderError, match=r"'words'.*'others'"):
                read.copy_to(other)
        with SiftStore.open(places["qdrant"], indexed=INDEXED) as other:
            with pytest.raises(InvalidInputError, match="does not fit the field's index"):
                read.copy_to(other)
            assert other.count() == 0


def test_a_target_that_somebody_else_writes_to_is_noticed() -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as read, SiftStore.open("memory://") as written:
        read.add(JORDAN)

        def meddle(done: int, total: int) -> None:
            written.add(["stowaway"], vectors=np.ones((1, 32)))

        with pytest.raises(StorageError, match="5 passages were new to the target, but it holds 6 and held 0 before"):
            read.copy_to(written, progress=meddle)
        written.add([JORDAN[0]], vectors=-WordEmbedder().embed_documents(JORDAN[:1]))
        assert read.copy_to(written).written == 1  # a vector that is not the source's is written again

        def turn(done: int, total: int) -> None:
            written.add([JORDAN[0]], vectors=-WordEmbedder().embed_documents(JORDAN[:1]))

        with pytest.raises(StorageError, match=r"its copy are -1\.0000 alike"):
            read.copy_to(written, progress=turn)


@pytest.mark.parametrize("kind", ["embedded", "qdrant", "postgres"])
def test_a_source_that_is_embedded_anew_meanwhile_is_noticed(places: dict[str, str], kind: str) -> None:
    with SiftStore.open(places[kind], embedder=WordEmbedder()) as read, SiftStore.open("memory://") as written:
        fill(read, 2000)

        def meddle(done: int, total: int) -> None:
            if done < 2000:
                read.reembed(lambda texts: -WordEmbedder().embed_documents(texts))

        with pytest.raises(StorageError, match="re-embedded"):
            read.copy_to(written, progress=meddle)
        again = read.copy_to(written)
        assert (again.passages, again.skipped) == (2000, 0)
        ids = [1, "passage 2", 1999]
        for one, other in zip(*(s._context.adapter.get(ids, vectors=True) for s in (read, written)), strict=True):
            assert one is not None
            assert other is not None
            np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


def test_two_passages_of_one_id_are_refused(qdrant: Qdrant, collection: str) -> None:
    client = qdrant.client()
    client.create_collection(collection, models.VectorParams(size=4, distance=models.Distance.COSINE))
    payloads = [{"text": f"t{i}", "doc": i // 2} for i in range(4)]
    points = [models.PointStruct(id=i, vector=[1.0, 0, 0, i], payload=payload) for i, payload in enumerate(payloads)]
    client.upsert(collection, points)
    client.close()
    with SiftStore.attach(qdrant.url(collection, id="doc")) as read, SiftStore.open("memory://") as written:
        with pytest.raises(InvalidInputError, match="the source has two passages with the id 0"):
            read.copy_to(written)
        assert written.count() == 0


async def test_a_target_is_an_open_store_of_the_same_kind() -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as read:
        read.add(JORDAN)
        async with await AsyncSiftStore.open("memory://") as twin:
            for target in ("memory://", twin):
                with pytest.raises(InvalidInputError, match="an open SiftStore wanted"):
                    read.copy_to(target)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="an open AsyncSiftStore wanted"):
                await twin.copy_to(read)  # type: ignore[arg-type]


def test_the_command_copies(run: Any, places: dict[str, str]) -> None:
    source, target = places["embedded"], places["qdrant"]
    with SiftStore.open(source, embedder=WordEmbedder(name=None), indexed=INDEXED) as store:
        store.add(JORDAN, payloads=[{"year": i} for i in range(5)])
    code, out, _ = run("migrate", source, target)
    assert (code, out) == (0, "5 passages, 5 written; 5 compared and equal\n")
    code, out, _ = run("migrate", target, places["postgres"], "--json")
    assert (code, json.loads(out)) == (0, {"passages": 5, "written": 5, "skipped": 0, "checked": 5})
    code, out, _ = run("list", places["postgres"], "--json")
    assert (code, json.loads(out)) == (0, ["copied"])
    with SiftStore.open(target) as store:
        assert store.statistics().fields == INDEXED
    code, _, err = run("migrate", source)
    assert code == 2
    assert "a second store to copy to" in err
    code, _, err = run("migrate", f"{source}?collection=nowhere", target)
    assert code == 2
    assert "no collection" in err
