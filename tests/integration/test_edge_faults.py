"""What may go wrong around the embedded store's versions, locks and builds, and what must not follow from it."""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sift_store_edge import index as index_module
from sift_store_edge import layout as layout_module
from sift_store_edge.index import _Build
from sift_store_edge.layout import Layout

from sift_store import EmbedderError, SiftStore, StorageError, StoreLockedError, list_collections
from sift_store.testing import WordEmbedder

TEXTS = [f"text number {i}" for i in range(50)]


def fill(path: Path, count: int = 50) -> None:
    with SiftStore.open(path, embedder=WordEmbedder()) as store:
        store.add(TEXTS[:count], ids=list(range(count)))


def test_a_store_opened_before_it_existed_sees_what_another_opener_made(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    early = SiftStore.open(path, embedder=WordEmbedder())
    fill(path)
    assert early.count() == 50
    early.add(["one more"])
    early.close()
    with SiftStore.open(path) as store:
        assert store.count() == 51
    path = tmp_path / "y.sift"
    with SiftStore.open(path, embedder=WordEmbedder(name="others")) as early:
        fill(path)
        with pytest.raises(EmbedderError, match="built with 'words', 'others' given"):
            early.search("text")


def test_an_early_opener_is_told_when_another_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    with SiftStore.open(path, embedder=WordEmbedder()) as early, SiftStore.open(path, embedder=WordEmbedder()) as other:
        other.add(["first"])
        with pytest.raises(StoreLockedError):
            early.add(["second"])
        assert other.count() == 1


def test_a_lost_pointer_loses_no_data(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    (path / "default" / "CURRENT").unlink()
    assert list_collections(path) == ["default"]
    with SiftStore.open(path) as store:
        assert store.count() == 50
    assert (path / "default" / "CURRENT").is_file()


def test_an_error_after_the_change_over_does_not_take_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    store = SiftStore.open(path)
    sync, failed = layout_module.sync, []

    def failing(target: Path) -> None:
        if target == path / "default" and not failed:
            failed.append(target)
            raise OSError(5, "Input/output error")
        sync(target)

    monkeypatch.setattr(layout_module, "sync", failing)
    with pytest.raises(StorageError, match="Input/output error"):
        store.reembed(WordEmbedder(8, "others"))
    monkeypatch.undo()
    assert failed
    assert store.search(TEXTS[7], k=1)[0].id == 7  # the store goes on with what is live now
    store.close()
    with SiftStore.open(path) as again:
        assert again.count() == 50
        assert again._context.adapter.statistics().dimension == 8


def test_an_interrupt_while_the_old_version_is_deleted_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    store = SiftStore.open(path, embedder=WordEmbedder())
    discard = Layout.discard

    def interrupted(self: Layout, version: object) -> None:
        monkeypatch.setattr(Layout, "discard", discard)
        raise KeyboardInterrupt

    monkeypatch.setattr(Layout, "discard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.reembed(WordEmbedder(8, "others"))
    store.close()
    with SiftStore.open(path) as again:
        assert again.count() == 50


def test_writes_go_on_after_a_new_version_could_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "x.sift")
    with SiftStore.open(tmp_path / "x.sift", embedder=WordEmbedder()) as store:

        def full(self: Layout) -> object:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Layout, "new_version", full)
        with pytest.raises(StorageError, match="No space left"):
            store.reembed(WordEmbedder(8, "others"))
        monkeypatch.undo()
        store.add(["one more"])
        assert store.count() == 51


def test_what_a_killed_drop_left_is_no_collection_and_goes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    Layout(path, path / "default").set_aside()
    assert list_collections(path) == []
    fill(path)
    from sift_store import drop_collection

    assert drop_collection(path)
    assert [entry.name for entry in path.iterdir()] == ["sift-store.json"]


def test_a_forgotten_store_lets_go_of_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    forgotten = SiftStore.open(path)
    del forgotten
    gc.collect()
    with SiftStore.open(path) as store:
        assert store.count() == 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_keeps_the_store_locked_and_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.sift"
    fill(path)
    store = SiftStore.open(path)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    store.close()
    with pytest.raises(StoreLockedError, match="forked child"):
        SiftStore.open(path)
    os.close(write)
    os.waitpid(child, 0)
    with SiftStore.open(path) as again:
        assert again.count() == 50


SIZE, DIMENSION = 3000, 1024


@pytest.fixture
def large(tmp_path: Path):
    rng = np.random.default_rng(0)
    with SiftStore.open(tmp_path / "large.sift") as store:
        store.add([f"t{i}" for i in range(SIZE)], ids=list(range(SIZE)), vectors=rng.normal(size=(SIZE, DIMENSION)))
        yield store


def test_only_one_build_runs_however_many_ask(large: SiftStore, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[_Build] = []
    start = _Build.start

    def counted(self: _Build) -> None:
        time.sleep(0.05)
        started.append(self)
        start(self)

    monkeypatch.setattr(_Build, "start", counted)
    threads = [threading.Thread(target=large.optimize, kwargs={"wait": False}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    large.optimize()
    assert large._context.adapter.statistics().indexed > 0


def test_a_build_and_a_reembedding_do_not_undo_or_block_each_other(large: SiftStore) -> None:
    refused: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        try:
            large.optimize(wait=False)
        except StorageError as exc:
            refused.append(str(exc))
        return WordEmbedder(16).embed_documents(texts)

    large.optimize(wait=False)
    time.sleep(0.2)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(large.reembed(embed)))
    thread.start()
    thread.join(60)
    assert done == [SIZE]
    assert "re-embedded" in refused[0]
    time.sleep(0.3)
    assert large._context.adapter.statistics().dimension == 16
    assert large.search("t7", k=1)[0].text == "t7"


def test_a_build_that_is_slow_to_switch_does_not_block_a_reembedding(
    large: SiftStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = _Build._switch

    reached = threading.Event()

    def slow(self: _Build, *arguments: object) -> None:
        reached.set()
        time.sleep(0.5)
        switch(self, *arguments)

    monkeypatch.setattr(_Build, "_switch", slow)
    monkeypatch.setattr(index_module, "_CATCH_UP_CHUNK", 1)
    large.optimize(wait=False)
    assert reached.wait(60)
    large.add([f"new {i}" for i in range(20)], vectors=np.random.default_rng(1).normal(size=(20, DIMENSION)))
    thread = threading.Thread(target=lambda: large.reembed(WordEmbedder(16).embed_documents))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    large.add(["after"])
    assert large.count() == SIZE + 21


def test_a_copy_that_fails_leaves_nothing_and_is_not_tried_again_by_itself(
    large: SiftStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, other: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout_module.Version, "copy_from", full)
    for _ in range(2):
        with pytest.raises(StorageError, match="No space left"):
            large.optimize()
    assert len(list((tmp_path / "large.sift" / "default").glob("version-*"))) == 1
    monkeypatch.setattr(index_module, "_BACKGROUND_BYTES", 1)
    large.add(["more"], vectors=np.ones((1, DIMENSION)))
    assert not large._context.adapter.statistics().building
    large.delete(list(range(SIZE - 10)))
    large.optimize()  # nothing is due any more, and the old failure is forgotten
    assert "error" not in [finding.level for finding in large.doctor()]
