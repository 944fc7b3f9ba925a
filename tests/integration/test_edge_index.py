"""The index of the embedded store: built beside the live data, swapped in, and then as good as a full scan."""

import threading
from pathlib import Path

import numpy as np
import pytest
from sift_store_edge import index as index_module

from sift_store import SiftStore, StorageError

SIZE, DIMENSION = 4000, 1024


def data(size: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(80, DIMENSION))
    rows = centres[rng.integers(80, size=size)] + 0.7 * rng.normal(size=(size, DIMENSION))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path: Path):
    with SiftStore.open(tmp_path / "index.sift", indexed={"part": "integer"}) as opened:
        opened.add(
            [f"t{i}" for i in range(SIZE)],
            ids=list(range(SIZE)),
            payloads=[{"part": i % 5} for i in range(SIZE)],
            vectors=data(),
        )
        yield opened


def state(store: SiftStore):
    return store._context.adapter.statistics()


def test_writes_and_searches_go_on_during_a_build_and_nothing_is_lost(
    store: SiftStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_on = threading.Event()
    seen: list[bool] = []
    build = index_module._Build._index

    def held(self: index_module._Build, *arguments: object) -> bool:
        built = build(self, *arguments)  # type: ignore[arg-type]
        seen.append(gone_on.wait(60))  # a search that waited for the build would wait for this
        return built

    monkeypatch.setattr(index_module._Build, "_index", held)
    assert state(store).indexed == 0
    assert "run store.optimize()" in "".join(finding.mend for finding in store.doctor())
    vectors = data()
    store.optimize(wait=False)
    step = 0
    while state(store).building:
        store.search(vector=vectors[step], k=5)
        store.add([f"new {step}"], ids=[SIZE + step], payloads=[{"part": 9}], vectors=vectors[step : step + 1])
        store.update_payload([step], {"touched": step})
        if step % 10 == 0:
            store.delete([2000 + step])
        step += 1
        if step == 21:
            gone_on.set()
    store.optimize()
    assert seen == [True]
    assert state(store).indexed >= SIZE // 2
    deleted = len(range(0, step, 10))
    assert store.count() == SIZE + step - deleted
    assert store.count({"part": 9}) == step
    assert store.count({"touched": {"$gte": 0}}) == step
    assert store.get([2000]) == [None]
    assert store.search(vector=vectors[0], k=2, method="knn")[0].score == pytest.approx(1, abs=1e-5)
    assert not any(finding.level == "warning" for finding in store.doctor())
    assert "HNSW" in str(store._context and store.search(vector=vectors[0], k=5).plan.reasons)


def test_the_index_finds_what_a_scan_finds(store: SiftStore) -> None:
    vectors = data()
    queries = vectors[::400] + 0.02 * np.random.default_rng(1).normal(size=(10, DIMENSION))
    before = [{hit.id for hit in store.search(vector=query, k=20, method="knn")} for query in queries]
    store.optimize()
    after = [{hit.id for hit in store.search(vector=query, k=20, method="knn")} for query in queries]
    assert np.mean([len(a & b) / 20 for a, b in zip(before, after, strict=True)]) > 0.95
    hits = store.search(vector=queries[0], k=10, where={"part": 3})
    assert len(hits) == 10
    assert {hit.payload["part"] for hit in hits} == {3}


def test_what_the_cache_holds_is_what_the_engine_holds(store: SiftStore) -> None:
    vectors = data()
    first = store.search(vector=vectors[0], k=10)
    assert first.moved == 200 * DIMENSION * 4
    assert store.search(vector=vectors[0], k=10).moved == 0
    store.add(["elsewhere"], ids=[first[0].id], vectors=-vectors[:1])
    assert first[0].id not in {hit.id for hit in store.search(vector=vectors[0], k=10)}
    store.optimize()
    again = store.search(vector=vectors[1], k=10)
    adapter = store._context.adapter
    records = adapter.get([hit.id for hit in again], vectors=True)
    for hit, record in zip(again, records, strict=True):
        assert float(record.vector @ vectors[1]) == pytest.approx(hit.score, abs=1e-5)


def test_closing_ends_a_build_and_leaves_the_live_data(tmp_path: Path, store: SiftStore) -> None:
    store.optimize(wait=False)
    store.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "sift-store-index"]
    with SiftStore.open(tmp_path / "index.sift") as again:
        assert again.count() == SIZE
        assert len(list((tmp_path / "index.sift" / "default").glob("version-*"))) == 1


def test_a_build_that_fails_is_told_and_changes_nothing(store: SiftStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module.sys, "executable", "/bin/false")
    with pytest.raises(StorageError, match="building the index"):
        store.optimize()
    assert store.count() == SIZE
    assert [finding.level for finding in store.doctor()].count("error") == 1
    monkeypatch.undo()
    store.optimize()
    assert state(store).indexed > 0


def test_a_large_add_is_indexed_by_itself_once_writers_are_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_BACKGROUND_BYTES", 10 * 2**20)
    monkeypatch.setattr(index_module, "_QUIET_SECONDS", 0.1)
    with SiftStore.open(tmp_path / "auto.sift") as store:
        store.add([f"t{i}" for i in range(SIZE)], vectors=data())
        assert state(store).building
        store.optimize()
        assert state(store).indexed > 0
