"""A collection of ours, as operations on the server; it does no I/O itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from qdrant_client import models

from sift_store.adapter import (
    CandidateQuery,
    Candidates,
    Capabilities,
    EmbedderIdentity,
    Key,
    Statistics,
    check_generation,
    outside,
)
from sift_store.errors import LocationError, NotFoundError, PartialWriteError, StorageError
from sift_store.filters import Filter
from sift_store.points import METADATA, merged_payload, merges_in_place
from sift_store.records import Id, Payload, Record
from sift_store.served import Remembered
from sift_store_qdrant.calls import (
    CHUNK,
    field_indexes,
    in_chunks,
    key_of,
    lead,
    make_collection,
    no_field_indexes,
    to_point,
)
from sift_store_qdrant.connecting import Server
from sift_store_qdrant.filters import both, one_of, own_fields
from sift_store_qdrant.payloads import OWN
from sift_store_qdrant.place import Place, choose_vector, own_kinds, points_count
from sift_store_qdrant.state import Lease, Marks, is_behind
from sift_store_qdrant.work import DEPTH, TIMEOUT, Call, Info, Pause, Work

__all__ = ["OwnCollection", "State"]

T = TypeVar("T")

_REPLACING = "the collection is being re-embedded; write when that has ended"
_REPLACED = "the collection was re-embedded or dropped meanwhile and nothing was done; open the store again"
# Between two looks at a server that builds its index.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_MAX_GENERATION = 2**32
# It may be seen green before the optimizers have begun.
_GREENS = 2


@dataclass(frozen=True, slots=True)
class State:
    """A collection that exists, as it was last seen."""

    marks: Marks
    place: Place
    lease: Lease | None


class OwnCollection(Remembered):
    """One collection by its name, existing or not."""

    def __init__(self, server: Server, name: str, declared: Mapping[str, str]) -> None:
        super().__init__()
        self.server, self.name, self.declared = server, name, dict(declared)
        self._state: State | None = None
        self._births: list[str] = []
        self.capabilities = Capabilities(
            engine=server.engine,
            persistent=True,
            native_filter="a qdrant_client.models.Filter",
            timeout=TIMEOUT,
            depth=DEPTH,
        )

    # --- state --------------------------------------------------------------------------------------------------------

    def statistics(self) -> Work[Statistics]:
        """The state as the server has it."""
        changes = self.changes
        info = yield from self.info()
        if info is None or self._state is None:
            return Statistics(0, 0, None, "cosine", self.declared, None)
        place, marks = self._state.place, self._state.marks
        count = yield from points_count(info, place.collection)
        statistics = Statistics(
            count=count,
            indexed=min(info.indexed_vectors_count or 0, count),
            dimension=place.vectors.dimension,
            metric="cosine",
            fields=place.fields.kinds,
            embedder=marks.embedder,
            building=info.status == models.CollectionStatus.YELLOW,
            generation=self._generation(marks),
        )
        self.remember(statistics, changes)
        return statistics

    def _generation(self, marks: Marks) -> int:
        """Of the content; one that was dropped and made anew is another, too."""
        return self._births.index(marks.born) * _MAX_GENERATION + marks.generation

    def info(self) -> Work[models.CollectionInfo | None]:
        """What the server says of the collection now; None if it is not there.

        Raises:
            LocationError: a collection of that name is there and not ours, or is a copy of another store's.
        """
        try:
            info: models.CollectionInfo = yield Info(self.name)
        except NotFoundError:
            self._state = None
            return None
        marks = Marks.of(info)
        if marks is None:
            raise LocationError(
                f"{self.name!r} is a collection that another program keeps; read it with SiftStore.attach, or choose "
                "another name"
            )
        if not is_behind(marks.collection, self.name):
            raise LocationError(
                f"{self.name!r} is a copy of {marks.collection!r}, which belongs to a store of another name; attach "
                "it, or copy it with sift-store migrate"
            )
        if marks.born not in self._births:
            self._births.append(marks.born)
        fields = own_fields(own_kinds(info.payload_schema))
        place = Place(marks.collection, choose_vector(info.config, {}), OWN, fields, note=self.server.note)
        self._state = State(marks, place, Lease.of(info))
        return info

    @property
    def generation(self) -> int:
        """Of the content as it was last seen."""
        return self._generation(self.serving().marks)

    def serving(self) -> State:
        """The state of a collection that exists.

        Raises:
            StorageError: nothing was ever added.
        """
        if self._state is None:
            raise StorageError("the collection is empty; add something first")
        return self._state

    # --- reading ------------------------------------------------------------------------------------------------------
    # By the name behind the alias: content that has been replaced is gone, and not taken for the new one.

    def candidates(self, queries: Sequence[CandidateQuery]) -> Work[list[Candidates]]:
        """See `Place.candidates`."""
        state = self.serving()
        return (yield from _there(state.place.candidates(queries, self._generation(state.marks))))

    def fetch(self, keys: Sequence[Key]) -> Work[list[Record | None]]:
        """See `Place.fetch`."""
        return (yield from _there(self.serving().place.fetch(keys)))

    def count(self, where: Filter | None) -> Work[int]:
        """See `Place.count`."""
        return (yield from _there(self.serving().place.count(where)))

    def scan(self, after: Key | None, limit: int, *, vectors: bool) -> Work[tuple[list[Record], Key | None]]:
        """See `Place.scan`."""
        return (yield from _there(self.serving().place.scan(after, limit, vectors=vectors)))

    def get(self, ids: Sequence[Id], *, vectors: bool) -> Work[list[Record | None]]:
        """Records by id, in order."""
        return (yield from _there(self.serving().place.fetch([key_of(id_) for id_ in ids], vectors=vectors)))

    # --- creating -----------------------------------------------------------------------------------------------------

    def create(self, dimension: int, embedder: EmbedderIdentity) -> Work[None]:
        """Make the collection with the indexes of its fields, and the name that leads to it, if it is not there."""
        if (yield from self.info()) is not None:
            return
        if self._births:
            raise StorageError(_REPLACED)
        first = Marks.new(self.name, embedder)
        try:
            yield make_collection(first, dimension)
        except StorageError as exc:
            if "already exists" not in str(exc):
                raise
            if not (yield from self._may_be_taken(first, dimension)):
                return
        for key, kind in self.declared.items():
            yield from field_indexes(first.collection, key, kind)
        if (yield from self.info()) is None:
            yield lead(self.name, first.collection)
            yield from self.info()

    def _may_be_taken(self, wanted: Marks, dimension: int) -> Work[bool]:
        """Whether what stands in the way is what we would make: another opener is at it, or one was interrupted.

        False if another has come first meanwhile. Nothing is ever deleted here: it may be live at the next moment.

        Raises:
            LocationError: it is somebody else's. StorageError: it is not what we would make, and no name leads to it.
        """
        info: models.CollectionInfo = yield Info(wanted.collection)
        marks = Marks.of(info)
        if marks is None:
            raise LocationError(f"{wanted.collection!r} is a collection of another program's; choose another name")
        count = yield from points_count(info, wanted.collection)
        found = choose_vector(info.config, {}).dimension
        if (yield from self.info()) is not None:
            return False
        if count or found != dimension or marks.embedder != wanted.embedder:
            raise StorageError(
                f"{wanted.collection!r} is there with {count:,} passages of dimension {found}, but {self.name!r} does "
                "not lead to it: make it an alias again, or delete what is there with sift_store.drop_collection"
            )
        return True

    def declare(self) -> Work[None]:
        """Make the indexes of fields that were declared at open and that an existing collection does not have."""
        if (yield from self.info()) is None:
            return
        place = self.serving().place
        for key, kind in self.declared.items():
            if place.fields.kinds.get(key) != kind:
                if key in place.fields.kinds:
                    yield from no_field_indexes(place.collection, key, place.fields.kinds[key])
                yield from field_indexes(place.collection, key, kind)

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, records: Sequence[Record], generation: int | None, within: Filter | None) -> Work[None]:
        """Write records, 256 a request."""
        state = yield from self._writable()
        check_generation(self._generation(state.marks), generation)
        if within is not None:
            outside((yield from self.get([record.id for record in records], vectors=False)), within)
        scope = state.place.fields.translate(within)
        done: list[Id] = []
        for chunk in in_chunks(records):
            points = [to_point(record) for record in chunk]
            call = {"collection_name": state.place.collection, "points": points, "wait": True}
            if scope is not None:  # in the same step as the write: whoever was outside before stays as it is
                call["update_filter"] = scope
            try:
                yield from _there(_once(Call("upsert", call)))
            except StorageError as exc:
                if not done:
                    raise
                yield from self._check_same(state)  # else what was written is gone
                raise PartialWriteError(f"{len(done)} of {len(records)} written: {exc}", done) from exc
            done += [record.id for record in chunk]
        yield from self._check_same(state)
        if within is not None:
            outside((yield from self.get([record.id for record in records], vectors=False)), within)

    def update_payload(self, ids: Sequence[Id], payload: Payload, within: Filter | None) -> Work[None]:
        """Merge keys into payloads; vectors stay as they are."""
        state = yield from self._writable()
        if within is not None:
            outside((yield from self.get(ids, vectors=False)), within)
        for start in range(0, len(ids), CHUNK):
            yield from self._merge(state.place, ids[start : start + CHUNK], dict(payload), within)
        yield from self._check_same(state)

    def _merge(self, place: Place, ids: Sequence[Id], changes: Mapping[str, Any], within: Filter | None) -> Work[None]:
        """Merge keys into some payloads in one request.

        Where exact spellings change, whole payloads are read and overwritten: of two who do so at once, one may not
        see the other.
        """
        scope = place.fields.translate(within)
        points = yield from place.retrieve([key_of(id_) for id_ in ids], vectors=False)
        together = [point.key for point in points if merges_in_place(point.payload, changes)]
        operations: list[Any] = []
        if together:
            merged = models.SetPayload(payload=dict(changes), filter=both(one_of(together), scope), key=METADATA)
            operations.append(models.SetPayloadOperation(set_payload=merged))
        for point in points:
            if point.key not in together:  # by filter: one that is gone stays so
                which = both(one_of([point.key]), scope)
                whole = models.SetPayload(payload=merged_payload(point.payload, changes), filter=which)
                operations.append(models.OverwritePayloadOperation(overwrite_payload=whole))
        if operations:
            call = {"collection_name": place.collection, "update_operations": operations, "wait": True}
            yield from _there(_once(Call("batch_update_points", call)))

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> Work[int]:
        """Delete by ids, by filter, or by both; how many went."""
        state = yield from self._writable()
        place = state.place
        named = None if ids is None else one_of([key_of(id_) for id_ in ids])
        which = both(named, place.fields.translate(where))
        counted = yield Call("count", {"collection_name": place.collection, "count_filter": which, "exact": True})
        if counted.count:
            selector = models.FilterSelector(filter=which or models.Filter())
            call = {"collection_name": place.collection, "points_selector": selector, "wait": True}
            yield from _there(_once(Call("delete", call)))
        yield from self._check_same(state)
        return int(counted.count)

    def _writable(self) -> Work[State]:
        """First in every operation that writes: see what there is, and whether somebody replaces it."""
        before = self.serving()
        if (yield from self.info()) is None or self.serving().marks != before.marks:
            raise StorageError(_REPLACED)
        if self.serving().lease is not None:
            raise StorageError(_REPLACING)
        return self.serving()

    def _check_same(self, before: State) -> Work[None]:
        """Last in every operation that writes: a replacement that has begun meanwhile may not have seen it."""
        if (yield from self.info()) is None or self.serving().marks != before.marks:
            raise StorageError("the collection was re-embedded meanwhile, perhaps without this write; write it again")
        if self.serving().lease is not None:
            raise StorageError("a re-embedding has begun meanwhile, perhaps without this write; write again at its end")

    # --- the index ----------------------------------------------------------------------------------------------------

    def optimize(self, wait: bool) -> Work[None]:
        """Have the server look for what there is to index, and wait until it has done so."""
        if (yield from self.info()) is None:
            return
        name, pause = self.serving().place.collection, _FIRST_PAUSE
        nothing_new = models.OptimizersConfigDiff()  # any update wakes the optimizers, this one changes nothing
        info: models.CollectionInfo = yield Info(name)
        if info.status != models.CollectionStatus.YELLOW:  # else they are at it
            yield Call("update_collection", {"collection_name": name, "optimizers_config": nothing_new})
        green = 0
        while wait:
            yield Pause(pause)
            info = yield Info(name)
            green = green + 1 if info.status == models.CollectionStatus.GREEN else 0
            if green == _GREENS:
                return
            if info.status == models.CollectionStatus.RED:
                raise StorageError(f"the server could not build the index: {info.optimizer_status}; see its log")
            pause = _FIRST_PAUSE if green else min(2 * pause, _LONGEST_PAUSE)


def _once(call: Call) -> Work[Any]:
    return (yield call)


def _there(work: Work[T]) -> Work[T]:
    """A collection that is gone has been replaced: its name leads to another one now, or to none."""
    try:
        return (yield from work)
    except NotFoundError as exc:
        raise StorageError(_REPLACED) from exc
