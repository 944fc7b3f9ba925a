"""`QdrantAdapter` and its twin of coroutine functions: one open collection, our own or attached."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Sequence
from functools import partial

from sift_store.adapter import EmbedderIdentity, Finding, Replacement
from sift_store.errors import SiftStoreError
from sift_store.records import Record
from sift_store.served import AsyncServedAdapter, ServedAdapter
from sift_store_qdrant.attached import AttachedCollection
from sift_store_qdrant.doctor import examine
from sift_store_qdrant.own import OwnCollection
from sift_store_qdrant.replacing import Replacing

__all__ = ["AsyncQdrantAdapter", "QdrantAdapter"]


class QdrantAdapter(ServedAdapter[OwnCollection | AttachedCollection]):
    """Over a `QdrantClient`. Safe to use from several threads."""

    def declare(self) -> None:
        """Make the payload indexes that an existing collection does not have."""
        self._write("indexing payload fields", self._own.declare)

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        self._write("creating the collection", partial(self._own.create, dimension, embedder))
        self.statistics()

    def replace(self, embedder: EmbedderIdentity) -> Replacement:  # noqa: D102
        replacing = Replacing(self._own, embedder)
        try:
            self._write("beginning to replace the content", replacing.begin)
        except BaseException:
            _abandoned(self, replacing)
            raise
        return _QdrantReplacement(self, replacing)

    def optimize(self, *, wait: bool) -> None:  # noqa: D102
        self._write("building the index", partial(self._own.optimize, wait))

    def doctor(self) -> Iterable[Finding]:  # noqa: D102
        findings: list[Finding] = self._read("examining", partial(examine, self._collection))
        return findings


class _QdrantReplacement:
    """A replacement that lets writers in again when it is lost."""

    def __init__(self, adapter: QdrantAdapter, replacing: Replacing) -> None:
        self._run, self._replacing = adapter._write, replacing
        self._lost = weakref.finalize(self, _abandoned, adapter, replacing)
        self._lost.atexit = False

    def write(self, records: Sequence[Record], dimension: int) -> None:
        self._run("writing", partial(self._replacing.write, records, dimension))

    def commit(self) -> int:
        generation: int = self._run("changing over", self._replacing.commit)
        self._lost.detach()
        return generation

    def abandon(self) -> int | None:
        self._lost.detach()
        live: int | None = self._run("dropping what was written", self._replacing.abandon)
        return live


def _abandoned(adapter: QdrantAdapter, replacing: Replacing) -> None:
    with contextlib.suppress(SiftStoreError):
        adapter._write("dropping what was written", replacing.abandon)


class AsyncQdrantAdapter(AsyncServedAdapter[OwnCollection | AttachedCollection]):
    """Over an `AsyncQdrantClient`, on one event loop."""

    async def declare(self) -> None:
        """As `QdrantAdapter.declare`."""
        await self._write("indexing payload fields", self._own.declare)

    async def create(self, dimension: int, embedder: EmbedderIdentity) -> None:  # noqa: D102
        await self._write("creating the collection", partial(self._own.create, dimension, embedder))
        await self.statistics()

    async def replace(self, embedder: EmbedderIdentity) -> _AsyncQdrantReplacement:  # noqa: D102
        replacing = Replacing(self._own, embedder)
        try:
            await self._write("beginning to replace the content", replacing.begin)
        except BaseException:
            with contextlib.suppress(SiftStoreError):
                await self._write("letting writers in", replacing.abandon)
            raise
        return _AsyncQdrantReplacement(self, replacing)

    async def optimize(self, *, wait: bool) -> None:  # noqa: D102
        await self._write("building the index", partial(self._own.optimize, wait))

    async def doctor(self) -> Iterable[Finding]:  # noqa: D102
        findings: list[Finding] = await self._read("examining", partial(examine, self._collection))
        return findings


class _AsyncQdrantReplacement:
    """One that is lost shuts out writers until its lease has run out."""

    def __init__(self, adapter: AsyncQdrantAdapter, replacing: Replacing) -> None:
        self._run, self._replacing = adapter._write, replacing

    async def write(self, records: Sequence[Record], dimension: int) -> None:
        await self._run("writing", partial(self._replacing.write, records, dimension))

    async def commit(self) -> int:
        generation: int = await self._run("changing over", self._replacing.commit)
        return generation

    async def abandon(self) -> int | None:
        live: int | None = await self._run("dropping what was written", self._replacing.abandon)
        return live
