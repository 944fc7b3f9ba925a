"""A seal: how many passages a version holds and what its files are, from when it was closed to when it is opened.

The engine opens what a damaged disk or a careless hand has left: without a file it deletes a segment, with an emptied
one it has no records. So the files are looked at before it is let near them.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sift_store.errors import StorageError
from sift_store_edge.layout import Version, sync

__all__ = ["Seal"]

_NAME = "seal.json"
# Files up to this size are read at each opening, and those that were written since; `doctor` reads all of them.
_SMALL = 1 << 20
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was at the end: its size, its time of change in ns, and the CRC-32 of its bytes."""

    size: int
    changed: int
    checksum: int


class Seal:
    """What a version was when it was closed."""

    def __init__(self, count: int, files: Mapping[str, _File]) -> None:
        self.count = count
        self._files = dict(files)

    @classmethod
    def read(cls, version: Version) -> Seal | None:
        """The seal of a version; None if it was not closed in order, as after a crash.

        Raises:
            StorageError: it cannot be read.
        """
        path = version.folder / _NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(content["count"]), {name: _File(*file) for name, file in content["files"].items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StorageError(f"{path} cannot be read ({exc}); {_mend(version)}") from exc

    @classmethod
    def put_on(cls, version: Version, count: int, before: Seal | None) -> None:
        """Seal a version that is closed; files that are as they were under the seal before are not read again."""
        known = {} if before is None else before._files
        files = {name: _state(path, known.get(name)) for name, path in _paths(version)}
        content = {"count": count, "files": {name: [f.size, f.changed, f.checksum] for name, f in files.items()}}
        path = version.folder / _NAME
        path.write_text(json.dumps(content), encoding="utf-8")
        sync(path)
        sync(version.folder)

    @staticmethod
    def take_off(version: Version) -> None:
        """Open a version for changes: from now on its files are what the engine makes of them."""
        (version.folder / _NAME).unlink(missing_ok=True)
        sync(version.folder)

    def check(self, version: Version) -> None:
        """Compare the files before the engine opens them: that they are there, of their size, and hold the same.

        Raises:
            StorageError: names the first that differs; nothing was touched.
        """
        for name, file in self._files.items():
            path = version.folder / name
            state = path.stat() if path.is_file() else None
            size = None if state is None else state.st_size
            if state is None or size != file.size:
                there = "missing" if size is None else f"{size:,} bytes long, not {file.size:,}"
                raise StorageError(f"{path} is {there}: it was changed after the store was closed; {_mend(version)}")
            written = state.st_mtime_ns != file.changed  # perhaps only copied
            if (written or state.st_size <= _SMALL) and _checksum(path) != file.checksum:
                raise StorageError(f"{path} holds other bytes than when the store was closed; {_mend(version)}")

    def check_count(self, version: Version, count: int) -> None:
        """Compare what the engine has found.

        Raises:
            StorageError: it holds more or fewer passages.
        """
        if count != self.count:
            raise StorageError(
                f"{version.folder} holds {count:,} passages, and {self.count:,} when it was closed; {_mend(version)}"
            )

    def damaged(self, version: Version) -> list[str]:
        """Names of files whose bytes changed though nobody has written them since; reads all of them."""
        names = []
        for name, file in self._files.items():
            path = version.folder / name
            try:
                state = path.stat()
            except FileNotFoundError:  # the engine's own doing, since it was opened
                continue
            unwritten = state.st_size == file.size and state.st_mtime_ns == file.changed
            if unwritten and _checksum(path) != file.checksum:
                names.append(name)
        return names


def _mend(version: Version) -> str:
    return f"restore {version.folder.parent} from a backup; nothing was changed"


def _paths(version: Version) -> Iterator[tuple[str, Path]]:
    for path in sorted(version.folder.rglob("*")):
        if path.is_file() and path.name != _NAME and not path.name.startswith("tmp-"):
            yield path.relative_to(version.folder).as_posix(), path


def _state(path: Path, before: _File | None) -> _File:
    now = path.stat()
    if before is not None and (now.st_size, now.st_mtime_ns) == (before.size, before.changed):
        return before
    return _File(now.st_size, now.st_mtime_ns, _checksum(path))


def _checksum(path: Path) -> int:
    """CRC-32 of the blocks that are not all zeros, with their places: the engine's files are mostly holes."""
    checksum = 0
    with path.open("rb", buffering=0) as file:
        place = _next_data(file.fileno(), 0)
        while place is not None:
            file.seek(place)
            block = file.read(_BLOCK)
            if not block:
                break
            if block != _ZEROS[: len(block)]:
                checksum = zlib.crc32(block, zlib.crc32(place.to_bytes(8, "little"), checksum))
            place = _next_data(file.fileno(), place + len(block))
    return checksum


def _next_data(descriptor: int, place: int) -> int | None:
    """The start of the next block that is no hole, where the system tells; None at the end."""
    if not hasattr(os, "SEEK_DATA"):
        return place
    try:
        return os.lseek(descriptor, place, os.SEEK_DATA) // _BLOCK * _BLOCK
    except OSError as exc:
        return None if exc.errno == errno.ENXIO else place
