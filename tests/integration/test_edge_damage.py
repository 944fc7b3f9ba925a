"""A full disk, and files that were lost, cut or flipped while the store was closed: told, and nothing deleted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sift_store_edge import layout

from sift_store import SiftStore, SiftStoreError, StorageError
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

IDS = list("abcde")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "kept.sift"
    with SiftStore.open(path, embedder=WordEmbedder(), indexed={"year": "integer", "at": "datetime"}) as store:
        store.add(JORDAN, ids=IDS, payloads=[{"year": place, "at": "2024-01-01"} for place in range(5)])
        store.delete(["e"])
    return path


def files_of(path: Path) -> list[Path]:
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file() and file.name != "lock")


def lose(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def snapshot(path: Path) -> dict[Path, int]:
    return {file: (path / file).stat().st_size for file in files_of(path)}


@pytest.mark.parametrize("damage", [lose, empty, halve, zero, flip])
def test_no_damage_goes_unseen(closed: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    wanted = [(id_, text) for id_, text in zip(IDS, JORDAN, strict=True) if id_ != "e"]
    copy = fresh(closed, tmp_path)
    for name in files_of(closed):
        if not (closed / name).stat().st_size and damage is not lose:
            continue
        damage(copy / name)
        before = snapshot(copy)
        try:
            with SiftStore.open(copy, embedder=WordEmbedder()) as store:
                records = [(record.id, record.text) for record in store.get(IDS) if record is not None]
                levels = {finding.level for finding in store.doctor()}
                assert records == wanted or "error" in levels, f"{damage.__name__} {name}"
            copy = fresh(closed, tmp_path)
        except SiftStoreError:
            assert snapshot(copy) == before, f"{damage.__name__} {name}: something was changed"
            shutil.copy2(closed / name, copy / name)


def fresh(closed: Path, folder: Path) -> Path:
    copy = folder / f"{len(list(folder.iterdir()))}.sift"
    shutil.copytree(closed, copy)
    return copy


def test_a_flipped_bit_of_a_large_file_is_found_by_doctor(tmp_path: Path) -> None:
    path = tmp_path / "large.sift"
    with SiftStore.open(path) as store:
        vectors = np.random.default_rng(0).normal(size=(2000, 384))
        store.add([f"text {place}" for place in range(2000)], vectors=vectors)
    (chunk,) = path.rglob("chunk_0.mmap")
    content, changed = bytearray(chunk.read_bytes()), chunk.stat().st_mtime_ns
    content[1000] ^= 1
    chunk.write_bytes(content)
    os.utime(chunk, ns=(changed, changed))  # a disk does not say that it did so
    with SiftStore.open(path) as store:
        (error,) = [finding for finding in store.doctor() if finding.level == "error"]
        assert "chunk_0.mmap" in error.what


def test_a_store_that_was_not_closed_opens_without_its_seal(tmp_path: Path) -> None:
    path = tmp_path / "killed.sift"
    code = (
        "import os, sys, numpy as np; from sift_store import SiftStore; s = SiftStore.open(sys.argv[1]);"
        "s.add(['a', 'b'], ids=['a', 'b'], vectors=np.eye(2)); os._exit(9)"
    )
    with SiftStore.open(path) as store:
        store.add(["c"], ids=["c"], vectors=np.ones((1, 2)))
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    with SiftStore.open(path) as store:
        assert store.count() == 3
        assert not [finding for finding in store.doctor() if finding.level == "error"]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets how much of the disk is free, at the one place that asks."""

    def free(count: int) -> None:
        monkeypatch.setattr(layout.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12, count))

    return free


def test_a_full_disk_is_refused_before_the_engine_meets_it(tmp_path: Path, full: Callable[[int], None]) -> None:
    path = tmp_path / "full.sift"
    with SiftStore.open(path, embedder=WordEmbedder()) as store:
        full(10**6)
        with pytest.raises(StorageError, match=r"MiB are free.*free some disk space. Nothing was written"):
            store.add(JORDAN, ids=IDS)
        assert not path.exists()
        full(10**12)
        store.add(JORDAN, ids=IDS)
        full(30 << 20)
        for write in (
            lambda: store.add(["new"]),
            lambda: store.update_payload(["a"], {"x": 1}),
            lambda: store.reembed(WordEmbedder(16)),
        ):
            with pytest.raises(StorageError, match="MiB are free"):
                write()
        assert store.search(JORDAN[1], k=1)[0].id == "b"
        assert store.delete(["e"]) == 1  # what makes room is allowed longest
        full(10**6)
        with pytest.raises(StorageError, match="deleting"):
            store.delete(["d"])
        assert store.count() == 4
    with pytest.raises(StorageError, match="opening"):
        SiftStore.open(path)
    full(10**12)
    with SiftStore.open(path) as store:
        assert store.count() == 4


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a file system can be mounted by root alone")
def test_a_small_file_system_kills_nobody(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=140m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    code = (
        "import sys, numpy as np; from sift_store import SiftStore, StorageError\n"
        "store, n = SiftStore.open(sys.argv[1]), 0\n"
        "try:\n"
        "    while True:\n"
        "        store.add([f'text {n + i}' for i in range(500)], ids=[n + i for i in range(500)],\n"
        "            vectors=np.random.default_rng(n).normal(size=(500, 1024)))\n"
        "        n += 500\n"
        "except StorageError as exc:\n"
        "    assert 'MiB are free' in str(exc), exc\n"
        "    assert store.count() >= n\n"
        "    print(n)\n"
    )
    try:
        ran = subprocess.run(
            [sys.executable, "-c", code, str(place / "s")], check=False, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert int(ran.stdout) >= 500
    finally:
        subprocess.run(["umount", str(place)], check=True)
