"""Folders and files of an embedded collection, and the atomic switch from one version to the next."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from sift_store.adapter import EmbedderIdentity
from sift_store.errors import LocationError, StorageError
from sift_store.location import Location

__all__ = ["Layout", "Meta", "Version", "check_space", "collections_in", "sync"]

_MARKER = "sift-store.json"
_FORMAT = 1
_ASIDE = ".dropped-"
_MOST_DIMENSIONS = 65_536
# Of a folder, with what file systems allow.
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Meta:
    """What is fixed for a version: the vectors' dimension and the embedder that made them.

    Its file is written last: a version that has one is complete.
    """

    dimension: int
    embedder: EmbedderIdentity

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        content = {
            "dimension": self.dimension,
            "embedder": self.embedder.name,
            "query_prefix": self.embedder.query_prefix,
            "passage_prefix": self.embedder.passage_prefix,
        }
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Meta:
        """Read it back."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            embedder = EmbedderIdentity(content["embedder"], content["query_prefix"], content["passage_prefix"])
            dimension = int(content["dimension"])
            if not 1 <= dimension <= _MOST_DIMENSIONS:
                raise ValueError(f"dimension {dimension}, 1 to {_MOST_DIMENSIONS:,} wanted")
            return cls(dimension, embedder)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise StorageError(f"{path} cannot be read ({exc}); restore it from a backup") from exc


@dataclass(frozen=True, slots=True)
class Version:
    """One complete copy of a collection's data."""

    folder: Path

    @property
    def shard(self) -> Path:
        """The engine's own folder."""
        return self.folder / "shard"

    @property
    def meta(self) -> Path:
        """The file of `Meta`."""
        return self.folder / "meta.json"

    def sync(self) -> None:
        """Force every file to disk: a copied file is no business of the engine's own flush."""
        for path in [self.folder, *self.folder.rglob("*")]:
            with suppress(FileNotFoundError):  # an open engine prepares and renames its next log in the background
                sync(path)

    def complete(self, meta: Meta) -> None:
        """Write the file that says so, last of all."""
        meta.write(self.meta)
        sync(self.meta)
        sync(self.folder)

    def size(self) -> int:
        """Bytes that its files take, holes not counted."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*") if path.is_file())

    def copy_from(self, other: Version) -> None:
        """Copy another version's data, which must be flushed and see no writes meanwhile."""
        ignored = shutil.ignore_patterns("tmp-*")  # a log that the engine is preparing; it may be gone by now
        shutil.copytree(other.shard, self.shard, ignore=ignored)


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of one collection, which need not exist."""

    root: Path
    folder: Path

    @classmethod
    def at(cls, location: Location) -> Layout:
        """Where a location's collection is.

        Raises:
            LocationError: the path is a file, or a folder with other things in it.
        """
        root, name = _checked_root(location), _encode(location.collection)
        if len(name) > _LONGEST_NAME:
            raise LocationError(
                f"collection={location.collection[:20]}…: a folder's name of {len(name)} characters, at most "
                f"{_LONGEST_NAME} wanted; choose a shorter name, or one of plain letters"
            )
        return cls(root, root / name)

    @property
    def lock_file(self) -> Path:
        """Held while the collection is open."""
        return self.folder / "lock"

    def make(self) -> None:
        """Create the folders."""
        marker = self.root / _MARKER
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():  # first, so that a folder half made is still known as ours
                marker.write_text(json.dumps({"format": _FORMAT}), encoding="utf-8")
            self.folder.mkdir(exist_ok=True)
        except OSError as exc:
            raise StorageError(f"{self.folder} cannot be created: {exc.strerror}") from exc

    def new_version(self) -> Version:
        """A version with a name of its own; its folder is made, it is neither complete nor live."""
        version = Version(self.folder / f"version-{uuid.uuid4().hex[:12]}")
        version.folder.mkdir()
        return version

    def current(self) -> Version | None:
        """The live version, None before the first add.

        Raises:
            StorageError: it is missing, or CURRENT is and several versions could be meant.
        """
        name = self._named()
        if name is None:
            complete = [version for version in self._versions() if version.meta.is_file()]
            if len(complete) > 1:
                names = ", ".join(sorted(version.folder.name for version in complete))
                raise StorageError(f"{self.folder / 'CURRENT'} is missing; restore it, or write one of {names} into it")
            if complete:  # killed between the first version and its naming, or the file was lost
                self.switch_to(complete[0])
                return complete[0]
            return None
        version = Version(self.folder / name)
        if not version.shard.is_dir():
            raise StorageError(f"{version.folder} is missing; restore {self.folder} from a backup")
        return version

    def switch_to(self, version: Version) -> None:
        """Make a complete, synced version the live one, atomically and durably."""
        temporary = self.folder / "CURRENT.new"
        temporary.write_text(version.folder.name, encoding="utf-8")
        sync(temporary)
        temporary.replace(self.folder / "CURRENT")
        sync(self.folder)

    def is_current(self, version: Version) -> bool:
        """Whether CURRENT names that version."""
        return self._named() == version.folder.name

    def discard(self, version: Version) -> None:
        """Delete a version, unless it is the live one."""
        if not self.is_current(version):
            shutil.rmtree(version.folder, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Delete versions that an interrupted build left behind. Only for the holder of the lock."""
        if self.current() is not None:
            for version in self._versions():
                self.discard(version)

    def _named(self) -> str | None:
        try:
            return (self.folder / "CURRENT").read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as exc:
            raise StorageError(f"{self.folder / 'CURRENT'} cannot be read; restore it from a backup") from exc

    def set_aside(self) -> Path:
        """Take the collection out of sight, atomically; returns where it is now. Clears what a killed drop left."""
        for old in self.root.glob(f"{_ASIDE}*"):
            shutil.rmtree(old, ignore_errors=True)
        aside = self.root / f"{_ASIDE}{uuid.uuid4().hex[:12]}"
        self.folder.rename(aside)
        return aside

    def _versions(self) -> Iterator[Version]:
        yield from (Version(path) for path in self.folder.glob("version-*"))


def collections_in(location: Location) -> list[str]:
    """Names of the collections in a folder, sorted; none if the folder does not exist."""
    root = _checked_root(location)
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if not path.name.startswith(".")]
    return sorted(unquote(path.name) for path in folders if any(path.glob("version-*/meta.json")))


def _checked_root(location: Location) -> Path:
    if "\0" in location.address:
        raise LocationError(f"path {location.address!r} holds a null character")
    root = Path(location.address)
    too_long = next((part for part in root.parts if len(os.fsencode(part)) > _LONGEST_NAME), None)
    if too_long is not None:
        raise LocationError(f"path {too_long[:20]}…: a name of more than {_LONGEST_NAME} bytes; a shorter one wanted")
    unknown = set(location.options) - {"collection"}
    if unknown:
        raise LocationError(f"{', '.join(sorted(unknown))}: not for an embedded store; only collection= is")
    if root.exists() and not root.is_dir():
        raise LocationError(f"{root} is a file; a folder of ours, or a path that does not exist yet, wanted")
    if root.is_dir() and not (root / _MARKER).is_file() and any(root.iterdir()):
        raise LocationError(f"{root} holds other files and no store; give a path such as {root / 'corpus.sift'}")
    return root


def _encode(name: str) -> str:
    """A collection's name as a folder's, whatever it holds; a leading dot is no hidden file."""
    quoted = quote(name, safe=" ")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def check_space(path: Path, wanted: int, doing: str) -> None:
    """Refuse to write where the disk is all but full: the engine's files are mapped, and a full disk ends the process.

    Args:
        path: what is written to, or will be made. wanted: bytes.

    Raises:
        StorageError: less is free.
    """
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < wanted:
        raise StorageError(
            f"{doing}: {free >> 20:,} MiB are free at {place}, at least {(wanted >> 20) + 1:,} MiB wanted; free some "
            "disk space. Nothing was written"
        )


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    if os.name == "nt":  # no handle for folders there, and files must be open for writing
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
