"""What is the embedded store's own: its lock, its folder, its leftovers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sift_store import (
    LocationError,
    SiftStore,
    StorageError,
    StoreLockedError,
    drop_collection,
    list_collections,
)


def fill(path: object, **options: object) -> None:
    with SiftStore.open(path, **options) as store:  # type: ignore[arg-type]
        store.add(["a", "b"], ids=["a", "b"], vectors=np.eye(2), payloads=[{"n": 1}, {"n": 2}])


def test_a_second_opener_is_told_why_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    with SiftStore.open(path) as store:
        store.add(["a"], vectors=np.eye(1, 2))
        with pytest.raises(StoreLockedError, match=r"another process.*workers.*server"):
            SiftStore.open(path)
        code = f"from sift_store import SiftStore; SiftStore.open({str(path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "StoreLockedError" in other.stderr
        with pytest.raises(StoreLockedError):
            drop_collection(path)
    fill(path)


def test_collections_are_separate_and_can_be_listed_and_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    assert list_collections(path) == []
    names = ["default", "b c/d", "..", "ü", ".hidden"]
    for name in names:
        fill(f"{path}?collection={name}" if name != "default" else path)
    assert list_collections(path) == sorted(names)
    assert drop_collection(f"{path}?collection=..")
    assert not drop_collection(f"{path}?collection=..")
    assert list_collections(path) == sorted(set(names) - {".."})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.sift"]
    with SiftStore.open(f"{path}?collection=ü") as store:
        assert store.count() == 2


def test_nothing_is_created_before_the_first_add(tmp_path: Path) -> None:
    with SiftStore.open(tmp_path / "x.sift") as store:
        assert store.count() == 0
        assert list(store.search(vector=[1.0, 0.0])) == []
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("hello")
    with pytest.raises(LocationError, match="holds other files"):
        SiftStore.open(tmp_path)
    with pytest.raises(LocationError, match="is a file"):
        SiftStore.open(tmp_path / "file.txt")
    with pytest.raises(LocationError, match="table"):
        SiftStore.open(f"{tmp_path}/x.sift?table=t")


def test_leftovers_of_a_killed_build_are_removed_at_open(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    (path / "default" / "version-dead" / "shard").mkdir(parents=True)
    (path / "default" / "CURRENT.new").write_text("version-dead")
    with SiftStore.open(path) as store:
        assert store.count() == 2
    assert len(list((path / "default").glob("version-*"))) == 1


def test_damage_is_told_and_not_made_worse(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    current = path / "default" / "CURRENT"
    name = current.read_text()
    current.write_text("version-gone")
    with pytest.raises(StorageError, match="restore"):
        SiftStore.open(path)
    current.write_text(name)
    meta = path / "default" / name / "meta.json"
    kept = meta.read_text()
    meta.write_text("{")
    with pytest.raises(StorageError, match=r"meta\.json"):
        SiftStore.open(path)
    meta.write_text(kept)
    with SiftStore.open(path) as store:
        assert store.count() == 2


def test_payload_indexes_are_kept_added_and_changed_at_open(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    fill(path, indexed={"n": "integer", "a key.deep": "keyword"})
    with SiftStore.open(path) as store:
        assert store._context.adapter.statistics().fields == {"n": "integer", "a key.deep": "keyword"}
        assert store.count({"n": {"$gt": 1}}) == 1
    with SiftStore.open(path, indexed={"n": "datetime", "m": "float"}) as store:
        assert store._context.adapter.statistics().fields == {"n": "datetime", "m": "float", "a key.deep": "keyword"}
        assert store.count({"n": {"$gt": 1}}) == 1  # dates are indexed by their own spelling, and not in its way
    with pytest.raises(ValueError, match=r"indexed\['n'\]: 'int' given"):
        SiftStore.open(path, indexed={"n": "int"})


def test_the_engines_own_filter_is_anded(tmp_path: Path) -> None:
    import qdrant_edge as q

    with SiftStore.open(tmp_path / "x.sift") as store:
        store.add(["a", "b", "c"], vectors=np.eye(3), payloads=[{"n": 1, "m": 1}, {"n": 1, "m": 2}, {"n": 2, "m": 1}])
        native = q.Filter(must=[q.FieldCondition("metadata.n", match=q.MatchValue(1))])
        assert store.count(native) == 2
        assert store.count({"$and": [native, {"m": 2}]}) == 1
        assert store.scoped({"m": 1}).count(native) == 1


def test_a_failed_write_reports_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sift_store_edge.adapter import EdgeAdapter

    from sift_store import PartialWriteError

    with SiftStore.open(tmp_path / "x.sift") as store:
        store.add(["first"], ids=["first"], vectors=np.eye(1, 8))
        write, calls = EdgeAdapter._write, []

        def failing(self, operation, points):
            calls.append(len(points))
            if len(calls) == 3:
                raise StorageError("no space left on device")
            write(self, operation, points)

        monkeypatch.setattr(EdgeAdapter, "_write", failing)
        with pytest.raises(PartialWriteError, match="no space left") as caught:
            store.add([f"t{i}" for i in range(1000)], ids=list(range(1000)), vectors=np.ones((1000, 8)))
        assert list(caught.value.written) == list(range(512))
        monkeypatch.undo()
        assert store.count() == 513
        store.add([f"t{i}" for i in range(1000)], ids=list(range(1000)), vectors=np.ones((1000, 8)))
        assert store.count() == 1001
