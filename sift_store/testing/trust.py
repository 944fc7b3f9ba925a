"""The contract of trust: what comes out is what went in; forks, threads and cancelled tasks spoil nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from sift_store import AsyncSiftStore, EmbedderError, InvalidInputError, SiftStore
from sift_store.adapter import Capabilities
from sift_store.testing.fixtures import JORDAN, Fixtures
from sift_store.testing.words import WordEmbedder

__all__ = ["TrustContract"]

_THREADS, _TASKS = 16, 200


class _Text(str, Enum):  # noqa: UP042  # which is not StrEnum: its text is its name
    A = "value of a"


class _Word(StrEnum):
    B = "value of b"


class _Number(IntEnum):
    SEVEN = 7


class TrustContract(Fixtures):
    """What a user must be able to trust before anything else."""

    def test_what_comes_out_is_the_callers_own_vectors_included(self, store: SiftStore) -> None:
        given = WordEmbedder().embed_documents(JORDAN)
        payloads: list[Any] = [{"deep": {"er": [1]}} for _ in JORDAN]
        store.add(JORDAN, ids=list("abcde"), payloads=payloads, vectors=given)
        before = store.get(["a"], vectors=True)[0]
        assert before is not None
        wanted = np.array(before.vector)
        given[:] = 0
        payloads[0]["deep"]["er"].append(2)
        for record in store.get(["a", "a"], vectors=True):
            assert record is not None
            assert record.vector is not None
            record.payload["deep"]["er"].append(3)
            record.vector[:] = 0
        for hits in store.search_batch(["Michael", "Michael age"], k=5):
            for hit in hits:
                hit.payload["deep"]["er"].append(4)
        again = store.get(["a"], vectors=True)[0]
        assert again is not None
        assert again.payload == {"deep": {"er": [1]}}
        np.testing.assert_array_equal(again.vector, wanted)

    def test_hits_of_one_batch_share_nothing(self, store: SiftStore) -> None:
        store.add(JORDAN, payloads=[{"seen": []} for _ in JORDAN])
        one, other = store.search_batch(["Michael Jordan", "Michael Jordan age"], k=5)
        repeated = store.search("Michael Jordan", k=4, objective="query", replace=True)
        for hit in [*one, *repeated]:
            hit.payload["seen"].append(hit.pick)
        assert all(hit.payload == {"seen": []} for hit in other)
        assert [hit.payload["seen"] for hit in repeated] == [[hit.pick] for hit in repeated]

    def test_every_id_that_comes_out_goes_in(self, store: SiftStore) -> None:
        ids: list[Any] = [0, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63) + 1, "0", str(2**63), str(2**64), "9" * 5000]
        ids += [UUID(int=5), str(UUID(int=5)), _Text.A, _Word.B, _Number.SEVEN, np.int64(9), np.uint64(2**64 - 2)]
        ids += [np.str_("numpy's")]
        plain = [*ids[:-6], "value of a", "value of b", 7, 9, 2**64 - 2, "numpy's"]
        texts = [f"text {place}" for place in range(len(ids))]
        assert store.add(texts, ids=ids) == plain
        hits = store.search("text", k=50, method="knn")
        assert {(type(hit.id), hit.id) for hit in hits} == {(type(id_), id_) for id_ in plain}
        for given in (ids, plain, [hit.id for hit in hits]):
            assert None not in store.get(given)
        assert [record and record.text for record in store.get(ids)] == texts
        store.update_payload([hit.id for hit in hits], {"seen": True})
        assert store.delete([hit.id for hit in hits]) == len(ids)

    def test_members_of_enumerations_are_their_values(self, store: SiftStore) -> None:
        store.add(["text"], ids=["a"], payloads=[{"t": _Text.A, "w": _Word.B, "n": _Number.SEVEN, _Text.A: 1}])
        record = store.get(["a"])[0]
        assert record is not None
        assert record.payload == {"t": "value of a", "w": "value of b", "n": 7, "value of a": 1}
        for where in ({"t": _Text.A}, {"t": "value of a"}, {"w": {"$in": [_Word.B]}}, {"n": _Number.SEVEN}):
            assert store.count(where) == 1, where

    @pytest.mark.parametrize(
        "where",
        [
            {},
            {"$and": [{}]},
            {"$or": [{}]},
            {"$or": [{"x": 1}, {}]},
            {"x": {"$nin": []}},
            {"$not": {"x": {"$in": []}}},
            {"$and": [{"$or": [{}, {"x": 1}]}, {"y": {"$nin": []}}]},
        ],
        ids=str,
    )
    def test_a_filter_that_says_nothing_deletes_nothing(self, store: SiftStore, where: Any) -> None:
        store.add(JORDAN)
        with pytest.raises(InvalidInputError, match="matches everything"):
            store.delete(where=where)
        assert store.count() == 5
        assert store.count(where) == 5

    def test_a_first_add_that_is_refused_makes_nothing(self, location: str) -> None:
        for embedder in (WordEmbedder(), WordEmbedder().embed_documents):
            with SiftStore.open(location, embedder=embedder) as store:
                with pytest.raises(EmbedderError, match=r"dimension 64.*32"):
                    store.add(["a"], vectors=np.ones((1, 64)))
                assert store.statistics().dimension is None
        with SiftStore.open(location, embedder=WordEmbedder()) as store:
            store.add(JORDAN)
            assert len(store.search("Michael", k=2)) == 2

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_fork_is_told_and_spoils_nothing(self, store: SiftStore, capabilities: Capabilities) -> None:
        store.add(JORDAN, ids=list("abcde"))
        scoped = store.scoped({"tenant": "a"})
        calls: tuple[Callable[[], Any], ...] = (
            lambda: store.get(["a"]),
            lambda: store.search("Michael"),
            lambda: store.add(["new"]),
            store.count,
            store.optimize,
            scoped.count,
            lambda: SiftStore.__enter__(store).statistics(),
        )
        said = _in_a_fork(lambda: [_outcome(call) for call in calls] + [_outcome(store.close)])
        if capabilities.persistent:
            assert said == ["StoreClosedError"] * len(calls) + ["None"]
        assert store.search(JORDAN[1], k=1)[0].id == "b"
        assert store.count() == 5

    def test_many_threads_get_their_own_data(self, store: SiftStore) -> None:
        def work(name: int) -> int:
            texts = [f"thread {name} passage {place}" for place in range(3)]
            ids = [f"{name}-{place}" for place in range(3)]
            store.add(texts, ids=ids, payloads=[{"owner": name}] * 3)
            assert [record and record.text for record in store.get(ids)] == texts
            hits = store.search(texts[0], k=3, where={"owner": name}, method="knn")
            assert {hit.text for hit in hits} == set(texts)
            store.update_payload(ids[:1], {"owner": -name - 1})
            return store.count({"owner": name}) + store.delete(ids[1:2])

        with ThreadPoolExecutor(_THREADS) as threads:
            assert list(threads.map(work, range(_THREADS))) == [3] * _THREADS
        assert store.count() == 2 * _THREADS

    async def test_cancelled_tasks_leave_their_own_data_or_none(self, location: str) -> None:
        rng = np.random.default_rng(0)
        async with await AsyncSiftStore.open(location, embedder=WordEmbedder()) as store:
            await store.add(["there before"], ids=["before"])
            tasks = [
                asyncio.create_task(store.add([f"task {name}"], ids=[name], payloads=[{"owner": name}]))
                for name in range(_TASKS)
            ]
            for name in rng.permutation(_TASKS)[: _TASKS // 2]:
                await asyncio.sleep(0)
                tasks[name].cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            records = await store.get(list(range(_TASKS)))
            for name, (outcome, record) in enumerate(zip(ended, records, strict=True)):
                assert outcome == [name] or isinstance(outcome, asyncio.CancelledError), outcome
                assert record is not None or outcome != [name]
                if record is not None:
                    assert (record.text, record.payload) == (f"task {name}", {"owner": name})
            assert await store.count() == 1 + sum(record is not None for record in records)

    async def test_a_cancelled_task_ends_so_whatever_fails_meanwhile(self, location: str) -> None:
        async with await AsyncSiftStore.open(location, embedder=WordEmbedder()) as store:
            await store.add(JORDAN)
            begun = threading.Event()

            def slow(_: list[str]) -> Any:
                begun.set()
                time.sleep(0.2)
                raise RuntimeError("fails after it was cancelled")

            task = asyncio.create_task(store.reembed(slow))
            await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await store.reembed(slow)
            assert await store.count() == 5
            await store.add(["still writable"])

    async def test_a_slow_hook_stops_nobody(self, location: str) -> None:
        async with await AsyncSiftStore.open(location, embedder=WordEmbedder()) as store:
            await store.add(JORDAN)
            ended = threading.Event()
            slow = asyncio.create_task(store.search("Michael", k=2, hook=lambda _: ended.wait(30)))
            await asyncio.sleep(0)
            assert len(await store.search("capital of France", k=2)) == 2
            assert not slow.done()
            ended.set()
            assert (await slow).outcome is True

    async def test_slow_embedders_run_side_by_side(self, location: str) -> None:
        together = threading.Barrier(4, timeout=30)

        class Slow(WordEmbedder):
            def embed_query(self, text: str) -> Any:
                together.wait()  # no search ends before four have begun
                return super().embed_query(text)

        async with await AsyncSiftStore.open(location, embedder=Slow()) as store:
            await store.add(JORDAN)
            answers = await asyncio.gather(*(store.search(f"question {place}", k=2) for place in range(4)))
            assert [len(hits) for hits in answers] == [2] * 4

    def test_a_bulk_load_ends_with_its_index(self, store: SiftStore) -> None:
        with store.bulk() as loading:
            loading.add(JORDAN)
            assert store.count() == 5
        with pytest.raises(KeyError), store.bulk():
            raise KeyError
        assert store.count() == 5


def _outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as exc:
        return type(exc).__name__
    return "None"


def _in_a_fork(work: Callable[[], list[str]]) -> list[str]:
    """What work gives in a fork of this process, which ends without cleaning up."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
        child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.write(writing, "\n".join(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said.split("\n")
