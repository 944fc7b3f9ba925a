"""The contract of adding, reading, changing and deleting."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from sift_store import (
    EmbedderError,
    InvalidInputError,
    NotFoundError,
    SiftStore,
    StorageError,
    StoreClosedError,
    VectorError,
)
from sift_store.adapter import Capabilities
from sift_store.records import Id
from sift_store.testing.fixtures import JORDAN, Fixtures
from sift_store.testing.words import WordEmbedder

__all__ = ["WriteContract"]


class WriteContract(Fixtures):
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

    def test_adding_under_a_known_id_replaces_the_whole_record(self, store: SiftStore, rounding: float) -> None:
        store.add(["old text"], ids=["a"], payloads=[{"year": 1, "lang": "en"}])
        store.add(["new words"], ids=["a"], payloads=[{"year": 2}])
        record = store.get(["a"])[0]
        assert record is not None
        assert (record.text, record.payload) == ("new words", {"year": 2})
        assert store.count() == 1
        assert store.search("new words", k=1)[0].score == pytest.approx(1, abs=rounding)

    def test_given_vectors_are_stored_at_unit_length(self, store: SiftStore, rounding: float) -> None:
        store.add(["a", "b"], ids=[1, 2], vectors=np.eye(2, 32) * [[3.0], [0.5]])
        assert [hit.score for hit in store.search(vector=np.eye(1, 32)[0], k=2)] == pytest.approx([1, 0], abs=rounding)

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

    def test_update_merges_top_level_keys_and_leaves_the_rest(self, store: SiftStore, rounding: float) -> None:
        store.add(["a", "b"], ids=["a", "b"], payloads=[{"x": 1, "deep": {"p": 1}}, {"x": 1}])
        store.update_payload(["a"], {"y": [2], "deep": {"q": 2}, "none": None})
        records = store.get(["a", "b"])
        assert [record and record.payload for record in records] == [
            {"x": 1, "y": [2], "deep": {"q": 2}, "none": None},
            {"x": 1},
        ]
        assert store.count({"y": 2}) == 1
        assert store.search("a", k=1)[0].score == pytest.approx(1, abs=rounding)

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
        with pytest.raises(EmbedderError, match="gives dimension 16, the store has 32"):
            SiftStore.open(location, embedder=WordEmbedder(16, name=None))
        with SiftStore.open(location, embedder=WordEmbedder(16).embed_documents) as store:
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

    def test_reembed_changes_over_at_once(self, store: SiftStore, rounding: float) -> None:
        store.add(JORDAN, ids=list("abcde"), payloads=[{"year": i} for i in range(5)])
        assert store.reembed(WordEmbedder(16, name="others")) == 5
        hits = store.search(JORDAN[1], k=1)
        assert (hits[0].id, hits[0].payload) == ("b", {"year": 1})
        assert hits[0].score == pytest.approx(1, abs=rounding)
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

    def test_writes_are_refused_while_everything_is_embedded_anew(self, store: SiftStore) -> None:
        refused: list[str] = []

        def meddling(texts: list[str]) -> Any:
            for write in (
                lambda: store.add(["new"], vectors=np.ones((1, 32))),
                lambda: store.delete(["a"]),
                lambda: store.update_payload(["a"], {"x": 1}),
            ):
                try:
                    write()
                except StorageError as exc:
                    refused.append(str(exc))
            return WordEmbedder(8).embed_documents(texts)

        store.add(JORDAN, ids=list("abcde"))
        assert store.reembed(meddling) == 5
        assert len(refused) == 3
        assert "re-embedded" in refused[0]
        assert store.count() == 5
        assert store.delete(["a"]) == 1

    def test_new_vectors_are_used_even_if_the_new_embedder_looks_the_same(self, location: str, rounding: float) -> None:
        with SiftStore.open(location, embedder=lambda texts: WordEmbedder().embed_documents(texts)) as store:
            store.add(JORDAN, ids=list("abcde"))
            store.search("Michael", k=2)
            scope = store.scoped({"tenant": "a"})
            scope.add(["only tenant a"])
            turned = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0]
            store.reembed(lambda texts: WordEmbedder().embed_documents(texts) @ turned)
            for hit in store.search(JORDAN[1], k=5):
                vectors = store._context.adapter.get([hit.id], vectors=True)
                wanted = WordEmbedder().embed_documents([JORDAN[1]])[0] @ turned
                assert vectors[0] is not None
                assert float(vectors[0].vector @ wanted / np.linalg.norm(wanted)) == pytest.approx(
                    hit.score, abs=rounding
                )
            assert scope.search("only tenant a", k=1)[0].score == pytest.approx(1, abs=rounding)

    def test_an_add_that_meets_a_reembedding_is_refused_or_right(self, location: str, rounding: float) -> None:
        with SiftStore.open(location, embedder=WordEmbedder().embed_documents) as store:
            store.add(JORDAN, ids=list("abcde"))
            adapter = store._context.adapter
            upsert = adapter.upsert

            def overtaken(*arguments: Any, **options: Any) -> None:
                adapter.upsert = upsert  # type: ignore[method-assign]
                store.reembed(lambda texts: -WordEmbedder().embed_documents(texts))
                upsert(*arguments, **options)

            adapter.upsert = overtaken  # type: ignore[method-assign]
            with pytest.raises(StorageError, match="re-embedded meanwhile"):
                store.add(["late"], ids=["late"])
            assert store.count() == 5
            store.add(["late"], ids=["late"])
            assert store.search("late", k=1)[0].score == pytest.approx(1, abs=rounding)

    def test_a_store_closed_while_embedding_anew_stays_closed(self, location: str) -> None:
        store = SiftStore.open(location, embedder=WordEmbedder())
        store.add(JORDAN)

        def closing(texts: list[str]) -> Any:
            store.close()
            return WordEmbedder(8).embed_documents(texts)

        with pytest.raises(StoreClosedError):
            store.reembed(closing)
        with pytest.raises(StoreClosedError):
            store.count()

    def test_an_emptied_collection_can_change_its_embedder(
        self, location: str, capabilities: Capabilities, rounding: float
    ) -> None:
        if not capabilities.persistent:
            pytest.skip("declared: not persistent")
        with SiftStore.open(location, embedder=WordEmbedder()) as store:
            store.add(["a"], ids=["a"])
            store.delete(["a"])
            assert store.reembed(WordEmbedder(8, "others")) == 0
            store.add(["b"])
        with SiftStore.open(location, embedder=WordEmbedder(8, "others")) as store:
            assert store.search("b", k=1)[0].score == pytest.approx(1, abs=rounding)

    def test_payloads_nest_to_a_limit(self, store: SiftStore, capabilities: Capabilities) -> None:
        most = capabilities.depth
        assert most >= 20

        def nested(depth: int) -> dict[str, Any]:
            return {"x": nested(depth - 1)} if depth else {}

        cyclic: dict[str, Any] = {}
        cyclic["self"] = cyclic
        store.add(["deep"], ids=["deep"], payloads=[nested(most)])
        record = store.get(["deep"])[0]
        assert record is not None
        assert record.payload == nested(most)
        for payload in (nested(most + 1), cyclic, {"x": _lists(most + 1)}):
            with pytest.raises(InvalidInputError, match="nested more than"):
                store.add(["deeper"], payloads=[payload])
        assert store.count() == 1

    def test_a_change_that_python_calls_equal_is_a_change(self, store: SiftStore) -> None:
        store.add(["text"], ids=["a"], payloads=[{"flag": 1}])
        store.add(["text"], ids=["a"], payloads=[{"flag": True}])
        assert store.count({"flag": True}) == 1
        assert store.count({"flag": 1}) == 0

    def test_an_empty_filter_deletes_nothing(self, store: SiftStore) -> None:
        store.add(JORDAN)
        with pytest.raises(InvalidInputError, match="matches everything"):
            store.delete(where={})
        assert store.count() == 5

    def test_what_comes_out_is_the_callers_own(self, store: SiftStore) -> None:
        store.add(["text"], ids=["a"], payloads=[{"deep": {"er": [1]}}])
        for payload in (store.get(["a"])[0].payload, store.search("text", k=1)[0].payload):  # type: ignore[union-attr]
            payload["deep"]["er"].append(2)
        record = store.get(["a"])[0]
        assert record is not None
        assert record.payload == {"deep": {"er": [1]}}

    def test_any_ordered_iterable_will_do(self, store: SiftStore) -> None:
        payloads = ({"year": np.int64(i)} for i in range(3))
        ids = store.add((f"t{i}" for i in range(3)), ids=np.arange(3), payloads=payloads)
        assert ids == [0, 1, 2]
        assert store.count({"year": {"$in": np.array([0, 2])}}) == 2
        assert len(store.search("t1", k=np.int64(2))) == 2  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="ids: set given"):
            store.add(["a"], ids={"a"})

    def test_a_value_that_its_index_cannot_hold_is_refused(self, store: SiftStore) -> None:
        wrong: list[Any] = [{"year": 1.5}, {"year": "1999"}, {"year": [1, True]}, {"at": "soon"}, {"lang": 3}]
        for payload in wrong:
            with pytest.raises(InvalidInputError, match="does not fit the field's index"):
                store.add(["a"], payloads=[payload])
        store.add(["a"], ids=["a"], payloads=[{"year": [1, 2], "price": 3, "lang": None}])
        with pytest.raises(InvalidInputError, match="does not fit"):
            store.update_payload(["a"], {"year": "x"})
        assert store.count() == 1


def _lists(depth: int) -> Any:
    return [_lists(depth - 1)] if depth else []
