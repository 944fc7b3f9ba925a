"""New content for a whole collection of ours, made beside the old and taken by one change of the alias."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from qdrant_client import models

from sift_store.adapter import EmbedderIdentity
from sift_store.errors import NotFoundError, StorageError
from sift_store.records import Record
from sift_store_qdrant.calls import in_chunks, lead, make_like, to_point
from sift_store_qdrant.catalog import collections_behind
from sift_store_qdrant.own import OwnCollection, State
from sift_store_qdrant.state import LEASE, REPLACING, Lease, Marks
from sift_store_qdrant.work import Call, Info, Work

__all__ = ["Replacing"]

_OVERTAKEN = "another re-embedding has taken over, or the collection was dropped; nothing was changed"
# A lease is renewed when so much of it has gone; given up when more has gone without a sign of life from us.
_RENEWED, _GIVEN_UP = LEASE / 4, LEASE * 0.9


class Replacing:
    """The operations of one replacement, in their order. Writers are shut out by a lease in the old one's metadata."""

    def __init__(self, own: OwnCollection, embedder: EmbedderIdentity) -> None:
        self._own, self._embedder = own, embedder
        self._lease = Lease.new()
        self._renewed = time.monotonic()
        self._old: State | None = None
        self._new: Marks | None = None
        self._taken = False

    def begin(self) -> Work[None]:
        """Shut out writers.

        Raises:
            StorageError: somebody else has, or the collection is gone.
        """
        own = self._own
        before = own.serving()
        if (yield from own.info()) is None or own.serving().marks != before.marks:
            raise StorageError("the collection was dropped or re-embedded meanwhile; open the store again")
        if own.serving().lease is not None:
            raise StorageError("the collection is being re-embedded already")
        self._old = own.serving()
        yield self._mark(self._lease)
        yield from self._check()
        yield from self._sweep()

    def write(self, records: Sequence[Record], dimension: int) -> Work[None]:
        """Store records with their vectors in the new collection, which the first call makes."""
        old = self._held()
        yield from self._stay()
        if self._new is None:
            self._new = old.marks.next(self._own.name, self._lease.holder, self._embedder)
            try:
                info: models.CollectionInfo = yield Info(old.place.collection)
            except NotFoundError as exc:
                raise StorageError(_OVERTAKEN) from exc
            yield from make_like(self._new, dimension, info)
        for chunk in in_chunks(records):
            points = [to_point(record) for record in chunk]
            yield Call("upsert", {"collection_name": self._new.collection, "points": points, "wait": True})

    def commit(self) -> Work[int]:
        """Lead the name to the new collection and drop the old; the generation."""
        old, new = self._held(), self._new
        if new is None:
            yield from self.abandon()
            return self._own.generation
        yield from self._check()
        yield lead(self._own.name, new.collection)
        self._taken = True
        return (yield from self._end(old))

    def _end(self, old: State) -> Work[int]:
        """After the change: drop the old; the generation."""
        yield from self._drop(old.place.collection)
        yield from self._own.info()
        self._old = self._new = None
        return self._own.generation

    def abandon(self) -> Work[int | None]:
        """Drop what was written and let writers in again, unless it is live already: then the generation."""
        old, new = self._old, self._new
        if old is None:
            return None
        live = old.place.collection
        if new is not None:
            if self._taken or (yield from self._live()) == new.collection:  # the change was made, its answer was lost
                return (yield from self._end(old))
            yield from self._drop(new.collection)
        self._old = self._new = None
        with contextlib.suppress(NotFoundError):  # of content that others have dropped or replaced nothing is left
            if (
                new is not None and (yield from self._live()) is None
            ):  # the change came just now, and its end is dropped
                yield lead(self._own.name, live)
            info: models.CollectionInfo = yield Info(live)
            lease = Lease.of(info)
            if lease is None or lease.holder == self._lease.holder:  # another's stays
                yield Call("update_collection", {"collection_name": live, "metadata": {REPLACING: None}})
        return None

    def _live(self) -> Work[str | None]:
        """What the name leads to."""
        try:
            info: models.CollectionInfo = yield Info(self._own.name)
        except NotFoundError:
            return None
        marks = Marks.of(info)
        return None if marks is None else marks.collection

    def _drop(self, collection: str) -> Work[None]:
        with contextlib.suppress(StorageError):  # else the next replacement sweeps it up
            yield Call("delete_collection", {"collection_name": collection})

    def _held(self) -> State:
        if self._old is None:
            raise StorageError("the replacement has ended")
        return self._old

    def _stay(self) -> Work[None]:
        """Make sure that writers are shut out still, and go on doing so."""
        gone = time.monotonic() - self._renewed
        if gone > _GIVEN_UP:
            raise StorageError("too long without a sign of life: others may have written; begin again")
        if gone > _RENEWED:
            yield from self._check()
            self._lease = Lease.new(self._lease.holder)
            yield self._mark(self._lease)
            self._renewed = time.monotonic()

    def _mark(self, lease: Lease) -> Call:
        return Call(
            "update_collection", {"collection_name": self._held().place.collection, "metadata": lease.metadata()}
        )

    def _check(self) -> Work[None]:
        """Make sure that it is us who shut out writers, of the content that we began with."""
        old = self._held()
        try:
            info: models.CollectionInfo = yield Info(self._own.name)
        except NotFoundError:
            marks = lease = None
        else:
            marks, lease = Marks.of(info), Lease.of(info)
        if marks != old.marks or lease is None or lease.holder != self._lease.holder:
            raise StorageError(_OVERTAKEN)

    def _sweep(self) -> Work[None]:
        """Drop what interrupted replacements have left."""
        live = self._held().place.collection
        for name in (yield from collections_behind(self._own.name)):
            if name != live:
                yield Call("delete_collection", {"collection_name": name})
