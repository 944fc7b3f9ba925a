"""The contract suite. A backend supplies the `location` fixture; tests are skipped only by declared capabilities."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from sift_store import (
    AsyncSiftStore,
    EmbedderError,
    FilterError,
    Hits,
    InvalidInputError,
    NotFoundError,
    SiftStore,
    StoreClosedError,
    VectorError,
)
from sift_store.adapter import Capabilities
from sift_store.filters import matches, parse
from sift_store.location import parse_location
from sift_store.memory import MemoryAdapter
from sift_store.records import Id
from sift_store.registry import open_adapter
from sift_store.testing.words import WordEmbedder

__all__ = ["FilterContract", "SearchContract", "StoreContract", "WriteContract"]

JORDAN = [
    "The age of Michael Jordan is 61 years.",
    "Michael Jordan was born on February 17, 1963.",
    "Michael Jordan has five children.",
    "Paris is the capital of France.",
    "Berlin is the capital of Germany.",
]


class _Fixtures:
    @pytest.fixture
    def location(self) -> str:
        """A fresh path or URL for each test; its collection does not exist yet."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, location: str) -> Iterator[SiftStore]:
        """An empty store with the test embedder and one payload index of each type."""
        indexed = {"year": "integer", "lang": "keyword", "price": "float", "draft": "bool", "at": "datetime"}
        with SiftStore.open(location, embedder=WordEmbedder(), indexed=indexed) as opened:
            yield opened

    @pytest.fixture
    def capabilities(self, location: str) -> Capabilities:
        """What the adapter declares."""
        adapter = open_adapter(parse_location(location), indexed={})
        adapter.close()
        return adapter.capabilities


class WriteContract(_Fixtures):
    """Adding, reading, changing, deleting."""

    def test_what_is_added_is_there_whole(self, store: SiftStore) -> None:
        payload = {"year": 2020, "tags": ["a", "b"], "deep": {"er": 1.5}, "none": None, "draft": True, "ü": "ß"}
        (id_,) = store.add(["Äpfel\n\t“quoted” \u0000 text 🍎"], payloads=[payload])
        record = store.get([id_])[0]
        assert record is not None
        assert record.text == "Äpfel\n\t“quoted” \u0000 text 🍎"
        assert record.payload == payload
        assert record.id == id_

    def test_ids_come_back_as_they_were(self, store: SiftStore) -> None:
        uuid = UUID("7b0e4a32-6a4f-4bb1-8f2e-0a3a3a3a3a3a")
        ids: list[Id] = ["name", 7, -7, 0, uuid, str(uuid), "7", "x" * 500, 2**63 - 1]
        texts = [f"text number {place}" for place in range(len(ids))]
        assert store.add(texts, ids=ids) == ids
        records = store.get(ids)
        assert [record and record.id for record in records] == ids
        assert [type(record.id) for record in records if record] == [type(id_) for id_ in ids]
        assert [record and record.text for record in records] == texts
        assert {hit.id for hit in store.search("text", k=len(ids), method="knn")} == set(ids)

    def test_adding_twice_changes_nothing_and_embeds_nothing(self, location: str) -> None:
        embedder = WordEmbedder()
        with SiftStore.open(location, embedder=embedder) as store:
            first = store.add(JORDAN)
            embedded = embedder.calls
            assert store.add(JORDAN) == first
            assert store.count() == len(JORDAN)
            assert embedder.calls == embedded

    def test_adding_under_a_known_id_replaces_the_whole_record(self, store: SiftStore) -> None:
        store.add(["old text"], ids=["a"], payloads=[{"year": 1, "lang": "en"}])
        store.add(["new words"], ids=["a"], payloads=[{"year": 2}])
        record = store.get(["a"])[0]
        assert record is not None
        assert (record.text, record.payload) == ("new words", {"year": 2})
        assert store.count() == 1
        assert store.search("new words", k=1)[0].score == pytest.approx(1, abs=1e-5)

    def test_given_vectors_are_stored_at_unit_length(self, store: SiftStore) -> None:
        store.add(["a", "b"], ids=[1, 2], vectors=np.eye(2, 32) * [[3.0], [0.5]])
        assert [hit.score for hit in store.search(vector=np.eye(1, 32)[0], k=2)] == pytest.approx([1, 0], abs=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"texts": ["fine", ""]}, InvalidInputError),
            ({"texts": ["fine", "  \n"]}, InvalidInputError),
            ({"texts": "one string"}, InvalidInputError),
            ({"texts": ["fine", 3]}, InvalidInputError),
            ({"texts": ["fine", "\ud800"]}, InvalidInputError),
            ({"texts": ["a", "b"], "ids": ["one"]}, InvalidInputError),
            ({"texts": ["a", "b"], "ids": ["same", "same"]}, InvalidInputError),
            ({"texts": ["a", "b"], "ids": ["x", True]}, InvalidInputError),
            ({"texts": ["a", "b"], "ids": ["x", 2**64]}, InvalidInputError),
            ({"texts": ["a", "b"], "payloads": [{}, {"x": float("nan")}]}, InvalidInputError),
            ({"texts": ["a", "b"], "payloads": [{}, {"x": object()}]}, InvalidInputError),
            ({"texts": ["a", "b"], "payloads": [{}, {3: 4}]}, InvalidInputError),
            ({"texts": ["a", "b"], "payloads": [{}, {"x": 2**70}]}, InvalidInputError),
            ({"texts": ["a", "b"], "vectors": np.ones((2, 31))}, VectorError),
            ({"texts": ["a", "b"], "vectors": np.ones((1, 32))}, InvalidInputError),
            ({"texts": ["a", "b"], "vectors": np.array([[1.0] * 32, [np.nan] * 32])}, VectorError),
            ({"texts": ["a", "b"], "vectors": np.array([[1.0] * 32, [np.inf] * 32])}, VectorError),
            ({"texts": ["a", "b"], "vectors": np.array([[1.0] * 32, [0.0] * 32])}, VectorError),
        ],
    )
    def test_a_bad_batch_is_refused_whole(self, store: SiftStore, arguments: Any, error: type[Exception]) -> None:
        store.add(["there before"], ids=["before"])
        with pytest.raises(error):
            store.add(**arguments)
        assert store.count() == 1

    def test_dates_are_stored_as_iso_text(self, store: SiftStore) -> None:
        store.add(["a"], ids=["a"], payloads=[{"at": datetime(2020, 1, 2, 3, tzinfo=UTC), "day": date(2020, 1, 2)}])
        record = store.get(["a"])[0]
        assert record is not None
        assert record.payload == {"at": "2020-01-02T03:00:00+00:00", "day": "2020-01-02"}

    def test_update_merges_top_level_keys_and_leaves_the_rest(self, store: SiftStore) -> None:
        store.add(["a", "b"], ids=["a", "b"], payloads=[{"x": 1, "deep": {"p": 1}}, {"x": 1}])
        store.update_payload(["a"], {"y": [2], "deep": {"q": 2}, "none": None})
        records = store.get(["a", "b"])
        assert [record and record.payload for record in records] == [
            {"x": 1, "y": [2], "deep": {"q": 2}, "none": None},
            {"x": 1},
        ]
        assert store.count({"y": 2}) == 1
        assert store.search("a", k=1)[0].score == pytest.approx(1, abs=1e-5)

    def test_updating_what_is_not_there_changes_nothing(self, store: SiftStore) -> None:
        store.add(["a"], ids=["a"])
        with pytest.raises(NotFoundError, match="missing"):
            store.update_payload(["a", "missing"], {"x": 1})
        assert store.count({"x": 1}) == 0

    def test_delete_by_ids_by_filter_and_by_both(self, store: SiftStore) -> None:
        store.add([f"t{i}" for i in range(10)], ids=list(range(10)), payloads=[{"year": i % 2} for i in range(10)])
        assert store.delete([0, 1, 99]) == 2
        assert store.delete([2, 3], where={"year": 1}) == 1
        assert store.delete(where={"year": 1}) == 3
        assert store.get([2, 3])[1] is None
        assert store.count() == 4
        assert store.delete([]) == 0
        with pytest.raises(InvalidInputError, match="ids or where"):
            store.delete()
        assert store.count() == 4

    def test_a_deleted_passage_is_not_found_and_can_come_back(self, store: SiftStore) -> None:
        store.add(JORDAN, ids=list("abcde"))
        assert store.search(JORDAN[2], k=1)[0].id == "c"
        store.delete(["c"])
        assert "c" not in {hit.id for hit in store.search(JORDAN[2], k=5)}
        store.add([JORDAN[3]], ids=["c"])
        assert {hit.id for hit in store.search(JORDAN[3], k=2, method="knn")} == {"c", "d"}

    def test_many_passages_in_one_add_with_progress(self, store: SiftStore) -> None:
        seen: list[tuple[int, int]] = []
        texts = [f"passage number {i}" for i in range(2500)]
        ids = store.add(texts, progress=lambda done, total: seen.append((done, total)))
        assert store.count() == len(set(ids)) == 2500
        assert seen[-1] == (2500, 2500)
        assert seen == sorted(seen)
        assert [r and r.text for r in store.get([ids[0], ids[1777], ids[-1]])] == [texts[0], texts[1777], texts[-1]]

    def test_an_empty_store_answers(self, store: SiftStore) -> None:
        hits = store.search("anything")
        assert list(hits) == []
        assert hits.shortfall == "the collection is empty"
        assert (store.count(), store.get(["x"]), store.delete(["x"])) == (0, [None], 0)
        assert store.add([]) == []
        assert [finding.level for finding in store.doctor()] == ["note"]
        assert list(store.explain("anything").hits) == []

    def test_a_closed_store_says_so(self, store: SiftStore) -> None:
        store.add(["a"])
        store.close()
        store.close()
        with pytest.raises(StoreClosedError):
            store.search("a")
        with pytest.raises(StoreClosedError):
            store.add(["b"])

    def test_data_outlive_the_store(self, location: str, capabilities: Capabilities) -> None:
        if not capabilities.persistent:
            pytest.skip("declared: not persistent")
        with SiftStore.open(location, embedder=WordEmbedder(), indexed={"year": "integer"}) as store:
            store.add(JORDAN, ids=list("abcde"), payloads=[{"year": i} for i in range(5)])
            before = store.search("Michael Jordan", k=3)
        with SiftStore.open(location, embedder=WordEmbedder()) as store:
            assert store.search("Michael Jordan", k=3).items == before.items
            assert store.count({"year": {"$gte": 3}}) == 2

    def test_another_embedder_is_refused_at_open(self, location: str, capabilities: Capabilities) -> None:
        if not capabilities.persistent:
            pytest.skip("declared: not persistent")
        with SiftStore.open(location, embedder=WordEmbedder()) as store:
            store.add(JORDAN)
        with pytest.raises(EmbedderError, match=r"'words'.*'others'"):
            SiftStore.open(location, embedder=WordEmbedder(name="others"))
        with SiftStore.open(location, embedder=WordEmbedder(16, name=None)) as store:
            with pytest.raises(VectorError, match="dimension 16 given, 32 wanted"):
                store.search("Michael")
            with pytest.raises(EmbedderError, match="dimension 16, the store has 32"):
                store.add(["new"])
            assert [f.level for f in store.doctor() if "embedder gives" in f.what] == ["error"]

    def test_doctor_embeds_again_and_compares(self, location: str, capabilities: Capabilities) -> None:
        if not capabilities.persistent:
            pytest.skip("declared: not persistent")
        with SiftStore.open(location, embedder=WordEmbedder(name=None)) as store:
            store.add(JORDAN)
            assert {finding.level for finding in store.doctor()} == {"ok"}
        with SiftStore.open(location, embedder=lambda texts: -WordEmbedder().embed_documents(texts)) as store:
            assert [finding.level for finding in store.doctor()].count("error") == 1

    def test_reembed_changes_over_at_once(self, store: SiftStore) -> None:
        store.add(JORDAN, ids=list("abcde"), payloads=[{"year": i} for i in range(5)])
        assert store.reembed(WordEmbedder(16, name="others")) == 5
        hits = store.search(JORDAN[1], k=1)
        assert (hits[0].id, hits[0].payload) == ("b", {"year": 1})
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert store.count({"year": {"$lt": 2}}) == 2
        store.add(["Rome is the capital of Italy."], ids=["f"])
        assert store.count() == 6

    def test_a_failed_reembed_changes_nothing(self, store: SiftStore) -> None:
        def failing(_: list[str]) -> Any:
            raise RuntimeError("out of paper")

        store.add(JORDAN, ids=list("abcde"))
        with pytest.raises(EmbedderError, match="out of paper"):
            store.reembed(failing)
        assert store.search(JORDAN[1], k=1)[0].id == "b"
        store.add(["still writable"])
        assert store.count() == 6


class SearchContract(_Fixtures):
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

    def test_hits_say_where_they_stand(self, store: SiftStore) -> None:
        store.add([f"word{i} common" for i in range(30)], ids=list(range(30)))
        hits = store.search("common word3", k=5)
        nearest = store.search("common word3", k=30, method="knn")
        assert [hit.pick for hit in hits] == [1, 2, 3, 4, 5]
        assert all(nearest[hit.rank - 1].score == pytest.approx(hit.score, abs=1e-5) for hit in hits)
        assert [hit.rank for hit in nearest] == list(range(1, 31))
        assert list(hits.variance) == sorted(hits.variance, reverse=True)
        assert hits.variance[0] == pytest.approx(1 - (hits[0].gain or 0), abs=1e-9)
        assert set(hits.timings) == {"embed", "candidates", "select", "fetch"}
        assert hits.metric == "cosine"
        by_score = store.search("common word3", k=5, order="score")
        assert {hit.id for hit in by_score} == {hit.id for hit in hits}
        assert [hit.score for hit in by_score] == sorted((hit.score for hit in hits), reverse=True)

    def test_scores_are_cosines_against_brute_force(self, store: SiftStore) -> None:
        rng = np.random.default_rng(0)
        vectors, query = rng.normal(size=(300, 32)), rng.normal(size=32)
        store.add([f"t{i}" for i in range(300)], ids=list(range(300)), vectors=vectors)
        cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        order = np.argsort(-cosines)[:20]
        hits = store.search(vector=query, k=20, method="knn")
        assert [hit.id for hit in hits] == order.tolist()
        np.testing.assert_allclose([hit.score for hit in hits], cosines[order], atol=1e-5)

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
        ],
    )
    def test_bad_arguments_are_refused(self, store: SiftStore, arguments: Any) -> None:
        store.add(["a"])
        with pytest.raises(InvalidInputError):
            store.search(**arguments)

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

    async def test_async_answers_as_sync_does(self, location: str) -> None:
        async with await AsyncSiftStore.open(location, embedder=WordEmbedder(), indexed={"year": "integer"}) as store:
            ids = await store.add([*JORDAN, JORDAN[0]], ids=list(range(6)), payloads=[{"year": i} for i in range(6)])
            with SiftStore.open("memory://", embedder=WordEmbedder(), indexed={"year": "integer"}) as other:
                assert ids == other.add([*JORDAN, JORDAN[0]], ids=ids, payloads=[{"year": i} for i in range(6)])
                for options in ({"k": 2}, {"k": 3, "where": {"year": {"$gt": 0}}}, {"k": 2, "method": "knn"}):
                    ours, sync = await store.search("Michael age", **options), other.search("Michael age", **options)
                    assert [hit.text for hit in ours] == [hit.text for hit in sync]
                    assert ours.variance == pytest.approx(sync.variance, abs=1e-5)
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


class FilterContract(_Fixtures):
    """The filter language means the same in every store: what `sift_store.filters.matches` says."""

    PAYLOADS: tuple[dict[str, Any], ...] = (
        {},
        {"year": 2020, "lang": "en", "price": 1.5, "draft": True, "at": "2020-05-01T10:00:00+02:00"},
        {"year": 2021, "lang": "de", "price": 2, "draft": False, "at": "2020-05-01T08:00:00Z"},
        {"year": 2022, "lang": "", "price": -3.25, "at": "2021-01-01"},
        {"year": [2019, 2023], "lang": ["en", "fr"], "price": [0.5, 10]},
        {"year": None, "lang": None, "draft": None},
        {"year": [], "lang": []},
        {"other": {"deep": {"er": 3}}, "n": 3},
        {"other": {"deep": {"er": "3"}}, "n": 3.0},
        {"n": True, "t": "2020"},
        {"n": "3", "t": "2020-01-01T00:00:00"},
        {"n": 2**60 + 1},
        {"key with spaces": 1, "select * from": 2, "ключ": "значение", "a'b": 1, "x[0]": 1},
        {"lang": "'; DROP TABLE points; --"},
    )
    FILTERS: tuple[Any, ...] = (
        {"year": 2020},
        {"year": {"$eq": 2020}},
        {"year": {"$ne": 2020}},
        {"year": {"$gt": 2020}},
        {"year": {"$gte": 2020, "$lt": 2022}},
        {"year": {"$lte": 2020.5}},
        {"year": {"$in": [2020, 2023]}},
        {"year": {"$in": []}},
        {"year": {"$nin": [2020, 2023]}},
        {"year": {"$nin": []}},
        {"year": {"$exists": True}},
        {"year": {"$exists": False}},
        {"year": {"$not": {"$gte": 2021}}},
        {"lang": "en"},
        {"lang": ""},
        {"lang": {"$ne": "en"}},
        {"lang": {"$in": ["de", "fr"]}},
        {"lang": "'; DROP TABLE points; --"},
        {"price": 2},
        {"price": 2.0},
        {"price": {"$lt": 1}},
        {"price": {"$gt": 1, "$lt": 3}},
        {"draft": True},
        {"draft": False},
        {"draft": {"$ne": True}},
        {"draft": {"$in": [True, False]}},
        {"at": datetime(2020, 5, 1, 8, tzinfo=UTC)},
        {"at": {"$gte": datetime(2020, 5, 1, 8)}},  # naive means UTC
        {"at": {"$gt": date(2020, 5, 1), "$lt": date(2021, 1, 1)}},
        {"n": 3},
        {"n": 3.0},
        {"n": True},
        {"n": "3"},
        {"n": 1},
        {"n": 2**60 + 1},
        {"n": 2**60},
        {"n": {"$in": [3, "3", True]}},
        {"n": {"$gte": 1}},
        {"t": "2020"},
        {"t": {"$gte": datetime(2020, 1, 1, tzinfo=UTC)}},
        {"other.deep.er": 3},
        {"other.deep": {"$exists": True}},
        {"other.deep.er": {"$ne": 3}},
        {"nowhere": 1},
        {"nowhere": {"$ne": 1}},
        {"key with spaces": 1},
        {"select * from": 2},
        {"ключ": "значение"},
        {"a'b": 1},
        {"x[0]": 1},
        {},
        {"year": 2020, "lang": "en"},
        {"$and": [{"year": {"$exists": True}}, {"lang": {"$ne": "de"}}]},
        {"$or": [{"year": 2021}, {"price": {"$lt": 0}}]},
        {"$not": {"$or": [{"year": 2020}, {"draft": False}]}},
        {"$or": [{"$and": [{"year": 2020}, {"lang": "en"}]}, {"$not": {"year": {"$exists": True}}}]},
    )

    @pytest.fixture
    def filled(self, store: SiftStore) -> SiftStore:
        """A store with one passage a payload."""
        texts = [f"text {place}" for place in range(len(self.PAYLOADS))]
        store.add(texts, ids=list(range(len(texts))), payloads=self.PAYLOADS)
        return store

    def test_every_operator_on_every_type(self, filled: SiftStore) -> None:
        for where in self.FILTERS:
            wanted = {place for place, payload in enumerate(self.PAYLOADS) if matches(parse(where), payload)}
            found = {hit.id for hit in filled.search("text", k=50, where=where, method="knn")}
            assert found == wanted, where
            assert filled.count(where) == len(wanted), where

    def test_random_combinations(self, filled: SiftStore) -> None:
        rng = random.Random(0)

        def combined(depth: int) -> Any:
            if depth == 0 or rng.random() < 0.4:
                return rng.choice(self.FILTERS)
            kind = rng.choice(["$and", "$or", "$not"])
            return {kind: combined(depth - 1) if kind == "$not" else [combined(depth - 1) for _ in range(2)]}

        for _ in range(150):
            where = combined(3)
            assert filled.count(where) == sum(matches(parse(where), payload) for payload in self.PAYLOADS), where

    def test_a_filter_leaves_k_when_k_match(self, store: SiftStore) -> None:
        rng = np.random.default_rng(1)
        store.add(
            [f"t{i}" for i in range(2000)],
            ids=list(range(2000)),
            payloads=[{"year": i % 100} for i in range(2000)],
            vectors=rng.normal(size=(2000, 32)),
        )
        hits = store.search(vector=rng.normal(size=32), k=10, where={"year": 17})
        assert len(hits) == 10
        assert {hit.payload["year"] for hit in hits} == {17}

    def test_an_adapter_refuses_a_filter_of_another_engine(self, store: SiftStore, capabilities: Capabilities) -> None:
        store.add(["a"])
        with pytest.raises(FilterError, match="object given as a filter"):
            store.search("a", where=object())
        assert capabilities.native_filter

    def test_the_specification_is_the_memory_store(self) -> None:
        assert MemoryAdapter({}).capabilities.persistent is False


class StoreContract(WriteContract, SearchContract, FilterContract):
    """The whole contract."""
