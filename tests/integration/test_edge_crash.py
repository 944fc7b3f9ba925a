"""The embedded store under kill -9: nothing acknowledged is lost, and the store opens again."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sift_store import SiftStore

ADD_FOREVER = """
import sys, numpy as np
from sift_store import SiftStore
store = SiftStore.open(sys.argv[1], indexed={"batch": "integer"})
start = int(sys.argv[2])
print("ready", flush=True)
for batch in range(start, start + 100_000):
    ids = [batch * 100 + i for i in range(100)]
    vectors = np.random.default_rng(batch).normal(size=(100, 64))
    store.add([f"text {i}" for i in ids], ids=ids, payloads=[{"batch": batch}] * 100, vectors=vectors)
    print(batch, flush=True)
"""


def vectors_of(batch: int) -> np.ndarray:
    rows = np.random.default_rng(batch).normal(size=(100, 64))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def run_and_kill(path: Path, start: int, batches: int, seconds: float) -> list[int]:
    """Add batches in a child process, kill it so long after it said that some were added; those that it said were."""
    child = subprocess.Popen(
        [sys.executable, "-c", ADD_FOREVER, str(path), str(start)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    said = "".join(child.stdout.readline() for _ in range(batches))
    time.sleep(seconds)  # to meet an add anywhere
    child.kill()
    said += child.communicate()[0]
    assert child.returncode == -signal.SIGKILL
    return [int(line) for line in said.split("\n")[:-1]]


def test_kill_at_any_moment_of_an_add_loses_nothing_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "crash.sift"
    acknowledged: list[int] = []
    for round_ in range(12):
        batches = rng.randrange(4)
        added = run_and_kill(path, round_ * 1000, batches, rng.uniform(0.0, 0.05))
        assert len(added) >= batches
        acknowledged += added
        with SiftStore.open(path) as store:
            for batch in acknowledged[-5:]:
                records = store._context.adapter.get([batch * 100 + i for i in range(100)], vectors=True)
                assert all(record is not None for record in records)
                found = np.stack([record.vector for record in records if record])
                np.testing.assert_allclose(found, vectors_of(batch), atol=1e-6)
            counts = {batch: store.count({"batch": batch}) for batch in acknowledged}
            assert set(counts.values()) <= {100}
            assert store.count() >= 100 * len(acknowledged)


BUILD_AND_DIE = """
import os, signal, sys, threading
import numpy as np
from sift_store import SiftStore
from sift_store_edge.adapter import EdgeAdapter
from sift_store_edge.index import _Build
from sift_store_edge.layout import Layout, Version

step, when = sys.argv[2], sys.argv[3]
owner, name = {"copy": (Version, "copy_from"), "build": (_Build, "_index"), "load": (_Build, "_switch"),
               "turn": (_Build, "_turn"), "take": (EdgeAdapter, "take"), "complete": (Version, "complete"),
               "switch": (Layout, "switch_to"), "discard": (Layout, "discard")}[step]
original = getattr(owner, name)

def dying(self, *args, **options):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if when == "during":
        threading.Timer(float(sys.argv[4]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    result = original(self, *args, **options)
    if when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

store = SiftStore.open(sys.argv[1])
store.update_payload([0], {"seen": True})
setattr(owner, name, dying)
threading.Timer(0.05, lambda: store.update_payload([1], {"seen": True})).start()
store.optimize()
"""

SIZE, DIMENSION = 3000, 1024  # 12 MB: over the engine's threshold


@pytest.fixture(scope="module")
def unindexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "unindexed.sift"
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, DIMENSION))
    vectors = centres[rng.integers(60, size=SIZE)] + 0.7 * rng.normal(size=(SIZE, DIMENSION))
    with SiftStore.open(path, indexed={"part": "integer"}) as store:
        store.add(
            [f"t{i}" for i in range(SIZE)],
            ids=list(range(SIZE)),
            payloads=[{"part": i % 7} for i in range(SIZE)],
            vectors=vectors,
        )
    return path


def copy_of(path: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(path, folder / "copy.sift"))


@pytest.mark.parametrize(
    ("step", "when"),
    [
        ("copy", "before"),
        ("copy", "during"),
        ("copy", "after"),
        ("build", "during"),
        ("build", "after"),
        ("load", "before"),
        ("turn", "before"),
        ("take", "before"),
        ("switch", "before"),
        ("switch", "during"),
        ("switch", "after"),
        ("complete", "after"),
        ("discard", "before"),
        ("discard", "after"),
    ],
)
def test_kill_at_any_step_of_an_index_build_loses_nothing(
    unindexed: Path, tmp_path: Path, step: str, when: str
) -> None:
    path = copy_of(unindexed, tmp_path)
    after = {"copy": "0.005", "build": "0.5", "switch": "0.01"}.get(step, "0")
    child = subprocess.run([sys.executable, "-c", BUILD_AND_DIE, str(path), step, when, after], check=False)
    assert child.returncode == -signal.SIGKILL
    with SiftStore.open(path) as store:
        assert store.count() == SIZE
        assert store.count({"part": 3}) == SIZE // 7 + (SIZE % 7 > 3)
        record = store.get([0])[0]
        assert record is not None
        assert record.payload["seen"] is True
        versions = list((path / "default").glob("version-*"))
        assert len(versions) == 1
        assert store._context.adapter.statistics().fields == {"part": "integer"}
