"""The index, built beside the live data: copy, build in another process, catch up, switch.

At every step the live version is complete and CURRENT names it; a process killed at any moment leaves at most a version
that nobody names, which the next opener removes. Searches go on throughout, writes wait for the copy only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import qdrant_edge as q

from sift_store.adapter import Finding, Statistics
from sift_store.errors import SiftStoreError, StorageError
from sift_store_edge.layout import Layout, Meta, Version
from sift_store_edge.points import PointId
from sift_store_edge.shard import INDEXING_THRESHOLD_KB, engine_errors, load_shard

if TYPE_CHECKING:
    from sift_store_edge.adapter import EdgeAdapter

__all__ = ["IndexBuilder"]

# An index is built by itself once this much is searched by scanning, and this share of all.
_BACKGROUND_BYTES = 2 * INDEXING_THRESHOLD_KB * 1024
_BACKGROUND_SHARE = 0.2
# It begins when writers have been quiet for so long, so that a bulk load is indexed once, at its end…
_QUIET_SECONDS = 1.0
# …or after so long, if they never are.
_MAX_QUIET_ROUNDS = 60
_CATCH_UP_CHUNK = 256


class IndexBuilder:
    """Builds the index of one adapter's collection, one build at a time, on a thread of its own."""

    def __init__(self, adapter: EdgeAdapter) -> None:
        self._adapter = adapter
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._touched = threading.Event()
        self._changed: set[PointId] | None = None  # points written since the copy was taken
        self._child: subprocess.Popen[str] | None = None
        self.error: SiftStoreError | None = None

    @property
    def running(self) -> bool:
        """Whether a build is under way."""
        return self._thread is not None and self._thread.is_alive()

    def note(self, points: Iterable[PointId]) -> None:
        """Points were written: the copy being indexed lacks that."""
        self._touched.set()
        if self._changed is not None:
            self._changed.update(points)

    def consider(self) -> None:
        """Begin a build if enough is unindexed."""
        if self.running:
            return
        state = self._adapter.statistics()
        unindexed = state.count - state.indexed
        if unindexed * (state.dimension or 0) * 4 >= _BACKGROUND_BYTES and unindexed >= _BACKGROUND_SHARE * state.count:
            self._begin(patient=True)

    def start(self) -> None:
        """Begin a build now, unless one is under way or the engine would build nothing."""
        state = self._adapter.statistics()
        unindexed_kb = (state.count - state.indexed) * (state.dimension or 0) * 4 / 1024
        if not self.running and unindexed_kb >= INDEXING_THRESHOLD_KB:
            self._begin(patient=False)

    def wait(self) -> None:
        """Wait for the build under way, if any.

        Raises:
            StorageError: it failed.
        """
        if self._thread is not None:
            self._thread.join()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End the build under way, if any; the live data is as it was."""
        self._stopping.set()
        child, thread = self._child, self._thread
        if child is not None:
            child.terminate()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._stopping.clear()

    def doctor(self, state: Statistics) -> Iterable[Finding]:
        """What the index's state shows."""
        if self.error is not None:
            yield Finding(
                "error", f"the last index build failed: {self.error}", "free disk space, then store.optimize()"
            )
        unindexed = state.count - state.indexed
        if self.running:
            yield Finding("note", "an index is being built in the background")
        elif unindexed * (state.dimension or 0) * 4 / 1024 >= INDEXING_THRESHOLD_KB:
            yield Finding(
                "warning",
                f"{unindexed:,} of {state.count:,} vectors are not in the index and are compared one by one",
                "run store.optimize() or sift-store optimize",
            )

    def _begin(self, *, patient: bool) -> None:
        self.error = None
        self._thread = threading.Thread(target=self._run, args=(patient,), name="sift-store-index", daemon=True)
        self._thread.start()

    def _run(self, patient: bool) -> None:
        if patient and not self._quiet():
            return
        version: Version | None = None
        try:
            version = self._adapter.exclusively(self._copy)
            if self._build(version):
                self._switch(version)
                version = None
        except SiftStoreError as exc:
            self.error = exc
        except OSError as exc:
            self.error = StorageError(f"building the index: {exc}")
        finally:
            self._changed = None
            if version is not None:
                version.remove()

    def _quiet(self) -> bool:
        """Wait until nobody writes; False if the build is to end."""
        for _ in range(_MAX_QUIET_ROUNDS):
            self._touched.clear()
            if self._stopping.wait(_QUIET_SECONDS):
                return False
            if not self._touched.is_set():
                break
        return True

    def _copy(self, shard: q.EdgeShard, live: Version, meta: Meta, layout: Layout) -> Version:
        with engine_errors("flushing"):
            shard.flush()
        version = layout.new_version()
        self._changed = set()
        meta.write(version.meta)
        version.copy_from(live)
        return version

    def _build(self, version: Version) -> bool:
        """Run the build in another process; False if it was stopped."""
        package = str(Path(__file__).resolve().parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "sift_store_edge.build", str(version.shard)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._stopping.is_set():  # asked to stop before there was a child to end
            self._child.terminate()
        _, complaint = self._child.communicate()
        code, self._child = self._child.returncode, None
        if self._stopping.is_set():
            return False
        if code:
            raise StorageError(f"building the index ended with code {code}: {complaint.strip()[-500:]}")
        return True

    def _switch(self, version: Version) -> None:
        """Bring the indexed copy up to date in short turns, and make it live in the turn that finds nothing left."""
        fresh = load_shard(version.shard)
        version.sync()
        while not self._adapter.exclusively(lambda shard, _, meta, __: self._turn(shard, fresh, version, meta)):
            if self._stopping.is_set():
                with engine_errors("closing"):
                    fresh.close()
                version.remove()
                return

    def _turn(self, live: q.EdgeShard, fresh: q.EdgeShard, version: Version, meta: Meta) -> bool:
        changed = self._changed or set()
        if not changed:
            self._changed = None
            self._adapter.take(version, fresh, meta)
            return True
        points = [changed.pop() for _ in range(min(len(changed), _CATCH_UP_CHUNK))]
        with engine_errors("catching up with writes"):
            present = live.retrieve(list(points), True, True)
            if present:
                copies = [q.Point(point.id, point.vector or [], point.payload) for point in present]
                fresh.update(q.UpdateOperation.upsert_points(copies))
            kept = {point.id for point in present}
            gone = [point for point in points if point not in kept]
            if gone:
                fresh.update(q.UpdateOperation.delete_points(list(gone)))
        return False
