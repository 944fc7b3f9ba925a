"""The index, built beside the live data: copy, build in another process, catch up, switch.

At every step the live version is complete and CURRENT names it; a process killed at any moment leaves at most a version
that nobody names, which the next opener removes. Searches go on throughout, writes wait for the copy only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as q

from sift_store.adapter import Finding, Statistics
from sift_store.errors import SiftStoreError, StorageError
from sift_store.points import PointId
from sift_store_edge.host import Host, Live
from sift_store_edge.layout import Version, check_space
from sift_store_edge.shard import INDEXING_THRESHOLD_KB, engine_errors, load_shard

__all__ = ["IndexBuilder"]

# An index is built by itself once this much is searched by scanning, and this share of all.
_BACKGROUND_BYTES = 2 * INDEXING_THRESHOLD_KB * 1024
_BACKGROUND_SHARE = 0.2
# It begins when writers have been quiet for so long, so that a bulk load is indexed once, at its end…
_QUIET_SECONDS = 1.0
# …or after so many rounds of that, if they never are.
_MAX_QUIET_ROUNDS = 60
_CATCH_UP_CHUNK = 256
_MARGIN = 80 << 20


class IndexBuilder:
    """Builds the index of one open collection, one build at a time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()  # held only to look at or change these
        self._build: _Build | None = None
        self._ended = False
        self._holding = 0

    @property
    def running(self) -> bool:
        """Whether a build is under way."""
        return self._build is not None and self._build.is_alive()

    def note(self, points: Iterable[PointId]) -> None:
        """Points were written: a copy being indexed lacks that. Called with the write lock held."""
        if self._build is not None:
            self._build.note(points)

    def consider(self) -> None:
        """Begin a build, once writers are quiet, if enough is unindexed. After one that failed, only `start` does."""
        if self._holding or self.running or (self._build is not None and self._build.error is not None):
            return
        try:
            state = self._host.statistics()
        except SiftStoreError:  # closed meanwhile: what was written is written, an index can wait
            return
        unindexed = state.count - state.indexed
        if unindexed * (state.dimension or 0) * 4 >= _BACKGROUND_BYTES and unindexed >= _BACKGROUND_SHARE * state.count:
            self._begin(patient=True)

    def start(self) -> tuple[_Build | None, bool]:
        """Begin a build now, unless one is under way; None if the engine would build nothing.

        The build, and whether it is a new one.
        """
        before = self._build if self.running else None
        if before is None and _unindexed_kb(self._host.statistics()) < INDEXING_THRESHOLD_KB:
            self._build = None  # nothing is due, so an earlier failure is of no interest
            return None, False
        build = self._begin(patient=False)
        return build, build is not before

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """While it is entered no build begins by itself."""
        with self._lock:
            self._holding += 1
        try:
            yield
        finally:
            with self._lock:
                self._holding -= 1

    def stop(self, *, for_good: bool = False) -> None:
        """End the build under way, if any; the live data is as it was. Not with the write lock held."""
        with self._lock:
            self._ended = self._ended or for_good
            build = self._build
        if build is not None:
            build.stop()

    def doctor(self, state: Statistics) -> Iterable[Finding]:
        """What the index's state shows."""
        if self._build is not None and self._build.error is not None:
            what = f"the last index build failed: {self._build.error}"
            yield Finding("error", what, "free disk space or memory, then store.optimize()")
        if self.running:
            yield Finding("note", "an index is being built in the background")
        elif _unindexed_kb(state) >= INDEXING_THRESHOLD_KB:
            yield Finding(
                "warning",
                f"{state.count - state.indexed:,} of {state.count:,} vectors are not in the index and are compared one "
                "by one",
                "run store.optimize() or sift-store optimize",
            )

    def _begin(self, *, patient: bool) -> _Build | None:
        with self._lock:
            if not self.running and not self._host.replacing and not self._ended:
                self._build = _Build(self._host, patient=patient)
                self._build.start()
            return self._build


class _Build(threading.Thread):
    """One build, on a thread of its own."""

    def __init__(self, host: Host, *, patient: bool) -> None:
        super().__init__(name="sift-store-index", daemon=True)
        self.error: SiftStoreError | None = None
        self._host = host
        self._stopping = threading.Event()
        self._hurried = threading.Event()
        self._touched = threading.Event()
        if not patient:
            self._hurried.set()
        self._changed: set[PointId] | None = None  # points written since the copy was taken; under the write lock
        self._child: subprocess.Popen[str] | None = None

    def note(self, points: Iterable[PointId]) -> None:
        """Points were written."""
        self._touched.set()
        changed = self._changed  # the build may end at any moment
        if changed is not None:
            changed.update(points)

    def wait(self) -> None:
        """Wait for its end, without waiting for quiet.

        Raises:
            StorageError: it failed.
        """
        self._hurried.set()
        self.join()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End it and wait for its end."""
        self._stopping.set()
        self._hurried.set()
        child = self._child
        if child is not None:
            child.terminate()
        if self is not threading.current_thread():
            self.join()

    def run(self) -> None:
        """Build, or leave everything as it was and say why in `error`."""
        version: Version | None = None
        try:
            self._wait_for_quiet()
            if self._stopping.is_set():
                return
            source, version = self._host.exclusively(self._copy)
            if self._index(version):
                self._switch(source, version)
        except SiftStoreError as exc:
            self.error = exc
        except Exception as exc:
            self.error = StorageError(f"building the index: {type(exc).__name__}: {exc}")
        finally:
            self._changed = None
            if version is not None:
                self._host.layout.discard(version)

    def _wait_for_quiet(self) -> None:
        for _ in range(_MAX_QUIET_ROUNDS):
            self._touched.clear()
            if self._hurried.wait(_QUIET_SECONDS) or not self._touched.is_set():
                return

    def _copy(self, live: Live) -> tuple[Version, Version]:
        with engine_errors("flushing"):
            live.shard.flush()
        # The copy, and an index beside it of about the same size.
        check_space(self._host.layout.folder, 2 * live.version.size() + _MARGIN, "building the index")
        version = self._host.layout.new_version()
        self._changed = set()
        try:
            version.copy_from(live.version)
        except BaseException:
            self._host.layout.discard(version)
            raise
        return live.version, version

    def _index(self, version: Version) -> bool:
        """Run the build in another process; False if it was stopped."""
        package = str(Path(__file__).resolve().parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        child = subprocess.Popen(
            [sys.executable, "-m", "sift_store_edge.build", str(version.shard)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._child = child
        if self._stopping.is_set():  # asked to stop before there was a child to end
            child.terminate()
        _, complaint = child.communicate()
        if self._stopping.is_set():
            return False
        if child.returncode:
            raise StorageError(f"building the index ended with code {child.returncode}: {complaint.strip()[-500:]}")
        return True

    def _switch(self, source: Version, version: Version) -> None:
        """Bring the indexed copy up to date in short turns, and make it live in the turn that finds nothing left."""
        version.sync()
        fresh = load_shard(version.shard)
        try:
            while not self._stopping.is_set():
                if self._host.exclusively(lambda live: self._turn(live, source, fresh, version)):
                    return
        except BaseException:
            if not self._host.layout.is_current(version):
                fresh.close()
            raise
        fresh.close()

    def _turn(self, live: Live, source: Version, fresh: q.EdgeShard, version: Version) -> bool:
        """Copy some changes; or, if there are none, go live. True when there is nothing more to do."""
        if live.version != source:  # re-embedded meanwhile: the copy is of no use
            fresh.close()
            return True
        if not self._changed:
            self._changed = None
            self._host.take(Live(version, fresh, live.meta), same_vectors=True)
            return True
        points = [self._changed.pop() for _ in range(min(len(self._changed), _CATCH_UP_CHUNK))]
        with engine_errors("catching up with writes"):
            present = live.shard.retrieve(list(points), True, True)
            if present:
                copies = [q.Point(point.id, point.vector or [], point.payload) for point in present]
                fresh.update(q.UpdateOperation.upsert_points(copies))
            kept = {point.id for point in present}
            gone = [point for point in points if point not in kept]
            if gone:
                fresh.update(q.UpdateOperation.delete_points(list(gone)))
        return False


def _unindexed_kb(state: Statistics) -> float:
    return (state.count - state.indexed) * (state.dimension or 0) * 4 / 1024
