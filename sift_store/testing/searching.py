"""The contract of searching."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sift_store import (
    AsyncSiftStore,
    DeadlineError,
    EmbedderError,
    FilterError,
    Hits,
    InvalidInputError,
    NotFoundError,
    SiftStore,
    StoreClosedError,
)
from sift_store.context import InUse
from sift_store.embedding import Embedding
from sift_store.testing.fixtures import JORDAN, Fixtures
from sift_store.testing.words import WordEmbedder

__all__ = ["SearchContract"]


class SearchContract(Fixtures):
    """Searching."""

    def test_sift_takes_the_second_fact_and_not_the_first_twice(self, store: SiftStore) -> None:
        store.add([*JORDAN, JORDAN[0]], ids=list("abcdef"))
        question = "What is the age of Michael Jordan and how many children has he?"
        nearest = store.search(question, k=2, method="knn")
        assert {hit.text for hit in nearest} == {JORDAN[0]}
        hits = store.search(question, k=2)
        assert [hit.text for hit in hits] == [JORDAN[0], JORDAN[2]]
        (copy,) = [item for item in hits.suppressed if item.reason == "copy"]
        assert {hits[0].id, copy.id} == {"a", "f"}
        assert copy.by == hits[0].id

    def test_hits_say_where_they_stand(self, store: SiftStore, rounding: float) -> None:
        store.add([f"word{i} common" for i in range(30)], ids=list(range(30)))
        hits = store.search("common word3", k=5)
        nearest = store.search("common word3", k=30, method="knn")
        assert [hit.pick for hit in hits] == [1, 2, 3, 4, 5]
        assert all(nearest[hit.rank - 1].score == pytest.approx(hit.score, abs=rounding) for hit in hits)
        assert [hit.rank for hit in nearest] == list(range(1, 31))
        assert list(hits.variance) == sorted(hits.variance, reverse=True)
        assert hits.variance[0] == pytest.approx(1 - (hits[0].gain or 0), abs=1e-9)
        assert set(hits.timings) == {"embed", "candidates", "select", "fetch"}
        assert hits.metric == "cosine"
        by_score = store.search("common word3", k=5, order="score")
        assert {hit.id for hit in by_score} == {hit.id for hit in hits}
        assert [hit.score for hit in by_score] == sorted((hit.score for hit in hits), reverse=True)

    def test_scores_are_cosines_against_brute_force(self, store: SiftStore, rounding: float) -> None:
        rng = np.random.default_rng(0)
        vectors, query = rng.normal(size=(300, 32)), rng.normal(size=32)
        store.add([f"t{i}" for i in range(300)], ids=list(range(300)), vectors=vectors)
        cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        order = np.argsort(-cosines)[:20]
        hits = store.search(vector=query, k=20, method="knn")
        assert [hit.id for hit in hits] == order.tolist()
        np.testing.assert_allclose([hit.score for hit in hits], cosines[order], atol=rounding)

    def test_fewer_than_asked_with_the_reason(self, store: SiftStore) -> None:
        store.add([*JORDAN, JORDAN[0]], ids=list("abcdef"), payloads=[{"year": i} for i in range(6)])
        hits = store.search("Michael", k=10)
        assert len(hits) == 5
        assert "6 of 6" in hits.shortfall
        assert "1 of them copies" in hits.shortfall
        hits = store.search("Michael", k=3, where={"year": {"$lt": 2}})
        assert len(hits) == 2
        assert "2 passages match the filter" in hits.shortfall
        assert "score at least 0.99" in store.search("Michael", k=3, min_score=0.99).shortfall
        assert store.search("Michael", k=3).shortfall == ""

    def test_a_token_budget(self, store: SiftStore) -> None:
        store.add(JORDAN)
        hits = store.search("Michael Jordan", max_tokens=20)
        assert 1 <= len(hits) < 5
        assert sum(len(hit.text) // 4 for hit in hits) <= 20
        assert "budget of 3 tokens" in store.search("Michael Jordan", max_tokens=3).shortfall

    def test_the_papers_objective_with_repeats(self, store: SiftStore) -> None:
        store.add(JORDAN, ids=list("abcde"))
        hits = store.search("Michael Jordan age", k=8, objective="query", replace=True)
        assert len(hits) == 8
        assert len({hit.id for hit in hits}) < 8

    def test_several_sub_queries(self, store: SiftStore) -> None:
        store.add(JORDAN, ids=list("abcde"))
        hits = store.search(queries=["children of Michael Jordan", "capital of Germany"], k=2)
        assert {hit.id for hit in hits} == {"c", "e"}
        one_sided = store.search(queries=["children of Michael Jordan", "capital of Germany"], weights=[1, 0], k=1)
        assert one_sided[0].id == "c"

    @pytest.mark.parametrize("method", ["sift", "knn", "mmr"])
    def test_a_batch_is_its_searches_in_order(self, store: SiftStore, method: Any) -> None:
        store.add([*JORDAN, *JORDAN], ids=list(range(10)))
        queries = ["Michael age", "capital", "children", "France", "born"]
        batch = store.search_batch(queries, k=3, method=method)
        assert [hits.items for hits in batch] == [store.search(q, k=3, method=method).items for q in queries]
        vectors = WordEmbedder().embed_documents(queries)
        by_vector = store.search_batch(vectors=vectors, k=3, method=method)
        assert [[hit.id for hit in hits] for hits in by_vector] == [[hit.id for hit in hits] for hits in batch]
        assert store.search_batch([]) == []
        for arguments in ({"queries": 5}, {"vectors": 3}, {"queries": ["a"], "weights": [1.0]}):
            with pytest.raises(InvalidInputError):
                store.search_batch(**arguments)

    def test_a_target_variance_stops_early_and_says_so(self, store: SiftStore) -> None:
        store.add(JORDAN)
        full = store.search("Michael Jordan age children", k=4)
        target = (full.variance[0] + full.variance[1]) / 2
        early = store.search("Michael Jordan age children", k=4, target_variance=target)
        assert [hit.id for hit in early] == [hit.id for hit in full][:2]
        assert "target variance" in early.shortfall
        with pytest.raises(InvalidInputError, match="target_variance"):
            store.search("Jordan", target_variance=1.5)

    def test_overlapping_windows_give_way_and_are_named(self, store: SiftStore) -> None:
        words = [f"w{place}" for place in range(300)]
        windows = [" ".join(words[start : start + 60]) for start in range(0, 240, 20)]
        store.add([*windows, "something else altogether", *JORDAN], ids=list(range(18)))
        hits = store.search(windows[0], k=4)
        seen = [set(hit.text.split()) for hit in hits]
        assert all(len(seen[b] & seen[a]) <= 20 for b in range(4) for a in range(b))
        overlapping = [item for item in hits.suppressed if item.reason == "overlap"]
        assert overlapping
        assert all(item.by in {hit.id for hit in hits} for item in overlapping)
        assert len(store.search(windows[0], k=16)) == 16  # asked for more than there are texts: they come back

    def test_many_pages_with_one_body_give_way_to_others(self, store: SiftStore) -> None:
        body = " ".join(f"word{place}" for place in range(80))
        pages = [f"{body} page {page}" for page in range(60)]
        store.add([*pages, *(f"word1 word2 other topic{place}" for place in range(12))], ids=list(range(72)))
        hits = store.search(body, k=5)
        assert sum(int(str(hit.id)) < 60 for hit in hits) == 1
        few = store.search(body, k=3, where={"none": {"$exists": False}}, candidates=3)
        assert len(few) == 3  # nothing else is left among three

    def test_near_copies_give_way_and_are_named(self, store: SiftStore) -> None:
        rng = np.random.default_rng(0)
        base = rng.normal(size=(1, 32)) + 1.2 * rng.normal(size=(20, 32))
        vectors = np.repeat(base, 4, axis=0) + 0.02 * rng.normal(size=(80, 32))
        store.add([f"text {row}" for row in range(80)], ids=list(range(80)), vectors=vectors)
        hits = store.search(vector=base[0], k=6)
        assert len({int(str(hit.id)) // 4 for hit in hits}) == 6
        near = [item for item in hits.suppressed if item.reason == "near-copy"]
        assert len(near) >= 3
        assert all(int(str(item.id)) // 4 == int(str(item.by)) // 4 for item in near)

    def test_compare_gives_each_method_the_same_candidates(self, store: SiftStore) -> None:
        store.add([*JORDAN, *JORDAN], ids=list(range(10)))
        answers = store.compare("Michael Jordan age children", k=3)
        assert list(answers) == ["knn", "mmr", "sift"]
        for method in answers:
            alone = store.search("Michael Jordan age children", k=3, method=method)
            assert [hit.text for hit in answers[method]] == [hit.text for hit in alone]
            assert len(answers[method].variance) == 3
        assert answers["sift"].variance[-1] <= answers["knn"].variance[-1]

    def test_explain_prints_what_was_chosen_and_why(self, store: SiftStore) -> None:
        store.add([*JORDAN, JORDAN[0]], ids=list("abcdef"), payloads=[{"year": 1}] * 6)
        text = str(store.explain("age of Michael Jordan", k=2, where={"year": 1, "colour": {"$ne": "red"}}))
        for part in ("candidates: 200", "no payload index on colour", "pick 1", "same text", "ms", "bytes", "left"):
            assert part in text

    @pytest.mark.parametrize(
        "arguments",
        [
            {"query": "a", "k": 0},
            {"query": "a", "k": -1},
            {"query": "a", "k": 1.5},
            {"query": "a", "k": True},
            {"query": ""},
            {"query": 3},
            {},
            {"query": "a", "vector": [1.0] * 32},
            {"queries": []},
            {"queries": "text"},
            {"vector": [1.0] * 31},
            {"vector": [float("nan")] * 32},
            {"vector": [0.0] * 32},
            {"query": "a", "method": "best"},
            {"query": "a", "objective": "all"},
            {"query": "a", "order": "random"},
            {"query": "a", "candidates": 3, "k": 4},
            {"query": "a", "method": "knn", "max_tokens": 5},
            {"query": "a", "max_tokens": 0},
            {"query": "a", "where": {"x": {"$near": 3}}},
            {"query": "a", "min_score": "high"},
            {"query": "a", "min_score": float("nan")},
            {"query": "a", "timeout": 0},
            {"query": "a", "timeout": "soon"},
            {"query": "a", "k": 2**62},
            {"query": "a", "where": {"x": {"$gt": 10**400}}},
            {"query": "a", "where": {"x": 2**64}},
            {"query": "a", "where": {"x": "\ud800"}},
            {"queries": 5},
            {"queries": ["a", "b"], "weights": [1.0]},
            {"queries": ["a", "b"], "weights": [float("nan"), 1.0]},
            {"queries": ["a", "b"], "weights": [0.5, 0.5], "method": "knn"},
        ],
    )
    def test_bad_arguments_are_refused(self, store: SiftStore, arguments: Any) -> None:
        store.add(["a"])
        with pytest.raises(InvalidInputError):
            store.search(**arguments)

    def test_time_that_is_over_is_over(self, store: SiftStore) -> None:
        store.add(JORDAN)
        assert len(store.search("Jordan", timeout=30)) == 5
        with pytest.raises(DeadlineError, match=r"the 1e-09 s given are over"):
            store.search("Jordan", timeout=1e-9)
        with pytest.raises(TimeoutError):
            store.search_batch(["Jordan"], timeout=1e-9)

    def test_text_without_an_embedder_is_refused(self, location: str) -> None:
        with SiftStore.open(location) as store:
            with pytest.raises(EmbedderError, match="vectors="):
                store.add(["a"])
            store.add(["a", "b"], vectors=np.eye(2))
            with pytest.raises(EmbedderError, match="vector="):
                store.search("a")
            assert store.search(vector=[1.0, 0.1], k=1)[0].text == "a"

    def test_a_scope_cannot_be_left(self, store: SiftStore) -> None:
        ours, theirs = store.scoped({"tenant": "a"}), store.scoped({"tenant": "b"})
        mine = ours.add(["shared words here", "only mine"], payloads=[{"year": 1}, {}])
        yours = theirs.add(["shared words here", "only yours"])
        assert not set(mine) & set(yours)
        assert ours.count() == theirs.count() == 2
        assert ours.get(yours) == [None, None]
        assert ours.delete(yours) == 0
        assert ours.delete(where={"tenant": "b"}) == 0
        assert ours.count({"$or": [{"tenant": "b"}, {"tenant": "a"}]}) == 2
        with pytest.raises(NotFoundError):
            ours.update_payload(yours, {"x": 1})
        with pytest.raises(InvalidInputError, match="scope"):
            ours.update_payload(mine, {"tenant": "b"})
        with pytest.raises(InvalidInputError, match="scope"):
            ours.add(["stolen"], ids=[yours[0]])
        with pytest.raises(FilterError):
            ours.scoped({"tenant": "b"})
        with pytest.raises(InvalidInputError):
            ours.reembed(WordEmbedder())
        everything: list[Hits] = [
            ours.search("shared words", k=10),
            ours.search("shared words", k=10, where={"$not": {"tenant": "a"}}),
            ours.search("yours", k=10, method="knn"),
            *ours.search_batch(["yours", "mine"], k=10),
            ours.explain("yours", k=10).hits,
            *ours.compare("yours", k=10).values(),
        ]
        seen = {hit.id for hits in everything for hit in hits} | {s.id for hits in everything for s in hits.suppressed}
        assert seen == set(mine)
        record = ours.get(mine)[0]
        assert record is not None
        assert record.payload == {"year": 1, "tenant": "a"}
        ours.close()
        assert store.count() == 4

    async def test_async_answers_as_sync_does(self, location: str, rounding: float) -> None:
        async with await AsyncSiftStore.open(location, embedder=WordEmbedder(), indexed={"year": "integer"}) as store:
            ids = await store.add([*JORDAN, JORDAN[0]], ids=list(range(6)), payloads=[{"year": i} for i in range(6)])
            with SiftStore.open("memory://", embedder=WordEmbedder(), indexed={"year": "integer"}) as other:
                assert ids == other.add([*JORDAN, JORDAN[0]], ids=ids, payloads=[{"year": i} for i in range(6)])
                for options in ({"k": 2}, {"k": 3, "where": {"year": {"$gt": 0}}}, {"k": 2, "method": "knn"}):
                    ours, sync = await store.search("Michael age", **options), other.search("Michael age", **options)
                    assert [hit.text for hit in ours] == [hit.text for hit in sync]
                    assert ours.variance == pytest.approx(sync.variance, abs=rounding)
                assert len(await store.search_batch(["Michael", "capital"], k=2)) == 2
                assert list(await store.compare("capital", k=2)) == ["knn", "mmr", "sift"]
                await store.update_payload([1], {"x": 1})
                assert (await store.get([1]))[0] is not None
                assert await store.count({"x": 1}) == 1
                assert await store.delete([1]) == 1
                assert "pick 1" in str(await store.explain("capital", k=1))
                assert await store.scoped({"year": 3}).count() == 1
                assert all(finding.level in ("ok", "note") for finding in await store.doctor())
                await store.optimize()
                assert await store.reembed(WordEmbedder(8, "small")) == 5
                with pytest.raises(InvalidInputError):
                    await store.search("a", k=0)

    def test_a_scope_holds_against_a_race_and_against_look_alikes(self, location: str) -> None:
        with SiftStore.open(location, embedder=WordEmbedder()) as store:
            theirs = store.scoped({"tenant": True})

            def meddling(texts: list[str]) -> Any:
                if texts == ["mine"]:
                    theirs.add(["theirs"], ids=["same"], vectors=np.ones((1, 32)))
                return WordEmbedder().embed_documents(texts)

            store.add(["first"])
            ours = SiftStore(replace(store._context, in_use=InUse(Embedding(meddling), 0)), "ours", owner=False).scoped(
                {"tenant": 1}
            )
            with pytest.raises(InvalidInputError, match="outside this store's scope"):
                ours.add(["mine"], ids=["same"])
            record = theirs.get(["same"])[0]
            assert record is not None
            assert record.text == "theirs"
            mine = ours.add(["mine, too"])
            with pytest.raises(InvalidInputError, match="fixed"):
                ours.update_payload(mine, {"tenant": True})
            assert ours.count() == theirs.count() == 1

    def test_scopes_that_look_alike_share_nothing_that_is_kept(self, store: SiftStore) -> None:
        tenants: list[Any] = [True, 1, "1", "True", "tenant' OR true --"]
        scopes = [store.scoped({"tenant": tenant}) for tenant in tenants]
        ids = [scope.add(["the same words", f"and number {place}"])[0] for place, scope in enumerate(scopes)]
        assert len(set(ids)) == len(ids)
        for _ in range(2):  # again, from what is kept
            for scope, mine in zip(scopes, ids, strict=True):
                assert [hit.id for hit in scope.search("the same words", k=1)] == [mine]
                assert scope.count() == 2
                assert [record is None for record in scope.get(ids)] == [id_ != mine for id_ in ids]
                assert len(scope.search_batch(["the same words", "number"], k=5)[1]) == 2

    def test_a_scope_tells_nothing_of_the_rest(self, store: SiftStore) -> None:
        store.add([f"text {i}" for i in range(1233)])
        ours = store.scoped({"tenant": "a"})
        ours.add(["text of ours"])
        told = str(ours.explain("text", k=5)) + str(ours.doctor()) + str(ours.search("text", k=5))
        assert not re.search(r"(?<![\d.])1,?23[34](?!\d)", told)  # a time may have such digits behind its point

    def test_searching_beside_deleting_and_adding(self, store: SiftStore) -> None:
        texts = [f"word{i} common" for i in range(300)]
        store.add(texts, ids=list(range(300)))
        failures: list[BaseException] = []
        done = threading.Event()

        def churn() -> None:
            try:
                while not done.is_set():
                    store.delete(list(range(100)))
                    store.add(texts[:100], ids=list(range(100)))
            except BaseException as exc:
                failures.append(exc)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for i in range(150):
                hits = store.search(f"common word{i % 100}", k=5)
                assert len(hits) == 5 or hits.shortfall
        finally:
            done.set()
            thread.join()
        assert not failures

    async def test_a_cancelled_task_leaves_a_whole_store(self, location: str, rounding: float) -> None:
        async with await AsyncSiftStore.open(location, embedder=WordEmbedder()) as store:
            await store.add(JORDAN, ids=list("abcde"))
            for place in range(12):
                task = asyncio.create_task(store.reembed(WordEmbedder(8 + place, f"e{place}")))
                for _ in range(place * 3):
                    await asyncio.sleep(0.0005)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                hits = await store.search(JORDAN[1], k=1)
                assert hits[0].id == "b"
                assert hits[0].score == pytest.approx(1, abs=rounding)
                await store.add([f"new {place}"])
            assert await store.count() == 17

    async def test_a_closed_async_store_says_so(self, location: str) -> None:
        store = await AsyncSiftStore.open(location, embedder=WordEmbedder())
        await store.close()
        await store.close()
        with pytest.raises(StoreClosedError):
            await store.count()
