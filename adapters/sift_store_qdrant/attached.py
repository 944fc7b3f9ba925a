"""A collection that others made and keep, as one that is only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qdrant_client import models

from sift_store.adapter import CandidateQuery, Candidates, Capabilities, EmbedderIdentity, Key, Statistics
from sift_store.errors import LocationError, NotFoundError, StorageError
from sift_store.filters import Filter
from sift_store.records import Id, Record
from sift_store.served import Remembered
from sift_store_qdrant.calls import key_of
from sift_store_qdrant.connecting import Server
from sift_store_qdrant.filters import Fields, own_fields
from sift_store_qdrant.payloads import OWN, PayloadLayout, as_key, find_layout
from sift_store_qdrant.place import FUSIONS, Place, VectorChoice, choose_vector, field_kinds, own_kinds, points_count
from sift_store_qdrant.state import Marks, is_behind
from sift_store_qdrant.work import DEPTH, TIMEOUT, Call, Info, Stored, Work

__all__ = ["AttachedCollection", "attach"]

# Points that are looked at to tell the layout of payloads.
_LOOKED_AT = 16


class AttachedCollection(Remembered):
    """One collection, or an alias of one.

    Args:
        server: it is on. name: that leads to it. place: where things are. marks: of a collection of ours, whose content
            is read by its own name, so that what replaces it is not taken for it.
    """

    def __init__(self, server: Server, name: str, place: Place, marks: Marks | None) -> None:
        super().__init__()
        self.server, self.place = server, place
        self._name, self._marks = name, marks
        self.capabilities = Capabilities(
            engine=server.engine,
            persistent=True,
            native_filter="a qdrant_client.models.Filter",
            writable=False,
            timeout=TIMEOUT,
            depth=DEPTH,
            hybrid=bool(place.vectors.sparse),
        )

    def statistics(self) -> Work[Statistics]:
        """The state as the server has it."""
        changes = self.changes
        info: models.CollectionInfo = yield Info(self._name)
        marks = Marks.of(info)
        if self._marks is not None and marks != self._marks:
            raise StorageError(f"{self._name!r} was re-embedded or made anew meanwhile; attach it again")
        count = yield from points_count(info, self.place.collection)
        statistics = Statistics(
            count=count,
            indexed=min(info.indexed_vectors_count or 0, count),
            dimension=self.place.vectors.dimension,
            metric=self.place.vectors.metric,
            fields=self.place.fields.kinds,
            embedder=EmbedderIdentity() if marks is None else marks.embedder,
            building=info.status == models.CollectionStatus.YELLOW,
        )
        self.remember(statistics, changes)
        return statistics

    def candidates(self, queries: Sequence[CandidateQuery]) -> Work[list[Candidates]]:
        """See `Place.candidates`."""
        return self.place.candidates(queries, 0)

    def fetch(self, keys: Sequence[Key]) -> Work[list[Record | None]]:
        """See `Place.fetch`."""
        return self.place.fetch(keys)

    def count(self, where: Filter | None) -> Work[int]:
        """See `Place.count`."""
        return self.place.count(where)

    def scan(self, after: Key | None, limit: int, *, vectors: bool) -> Work[tuple[list[Record], Key | None]]:
        """See `Place.scan`."""
        return self.place.scan(after, limit, vectors=vectors)

    def get(self, ids: Sequence[Id], *, vectors: bool) -> Work[list[Record | None]]:
        """Records by id, in order: by the id that the layout keeps in the payload, else by the point's own."""
        if self.place.layout is OWN:
            return (yield from self.place.fetch([key_of(id_) for id_ in ids], vectors=vectors))
        by_id = yield from self._named(ids, vectors)
        keys = {id_: key for id_ in ids if id_ not in by_id and (key := as_key(id_)) is not None}
        points = yield from self.place.retrieve(list(keys.values()), vectors=vectors)
        there = {point.key: point for point in points if self.place.layout.named(point) is None}
        by_id |= {id_: self.place.layout.record(there[key]) for id_, key in keys.items() if key in there}
        return [by_id.get(id_) for id_ in ids]

    def _named(self, ids: Sequence[Id], vectors: bool) -> Work[dict[Id, Record]]:
        """Records whose payload holds one of the ids."""
        by_id: dict[Id, Record] = {}
        key = f'"{self.place.layout.id}"'
        numbers = [id_ for id_ in ids if isinstance(id_, int)]
        texts = [str(id_) for id_ in ids if not isinstance(id_, int)]
        same: list[models.Condition] = [
            models.FieldCondition(key=key, match=models.MatchAny(any=some)) for some in (numbers, texts) if some
        ]
        after: Key | None = None
        while self.place.layout.id and same:
            where = models.Filter(should=same)
            page, after = yield from self.place.scroll(after, len(ids) + 1, vectors=vectors, where=where)
            by_id.update((record.id, record) for record in map(self.place.layout.record, page))
            if after is None:
                break
        return by_id


def attach(server: Server, options: Mapping[str, str]) -> Work[AttachedCollection]:
    """Find out where things are in the collection that the options name; see `Location.options`.

    Raises:
        LocationError: no collection named, or its vectors or payloads leave doubts. NotFoundError: no such collection.
    """
    yield from server.look(own=False)
    name = options.get("collection")
    if name is None:
        raise LocationError(f"which collection? Say ?collection=NAME; there are: {(yield from _names())}")
    if (fusion := options.get("fusion", "rrf")) not in FUSIONS:
        raise LocationError(f"fusion={fusion}: one of {', '.join(FUSIONS)} wanted")
    if "fusion" in options and "sparse" not in options:
        raise LocationError("fusion= has no meaning without sparse=NAME, the second ranking")
    try:
        info: models.CollectionInfo = yield Info(name)
    except NotFoundError as exc:
        raise NotFoundError(f"no collection {name!r}; there are: {(yield from _names())}") from exc
    vectors = choose_vector(info.config, options)
    marks = Marks.of(info)
    layout = OWN if marks is not None else (yield from _layout(name, vectors, options))
    if marks is not None:
        fields = own_fields(own_kinds(info.payload_schema))
    else:
        fields = Fields(layout.metadata, field_kinds(info.payload_schema, layout.metadata), layout.text)
    if marks is not None and not (is_behind(marks.collection, name) or marks.collection == name):
        marks = None  # a copy of a store under another name
    place = Place(name if marks is None else marks.collection, vectors, layout, fields, fusion, server.note)
    return AttachedCollection(server, name, place, marks)


def _layout(name: str, vectors: VectorChoice, options: Mapping[str, str]) -> Work[PayloadLayout]:
    probe = Place(name, vectors, OWN, Fields("", {}))
    points: list[Stored]
    points, _ = yield from probe.scroll(None, _LOOKED_AT)
    return find_layout([point.payload for point in points], options)


def _names() -> Work[str]:
    """The collections that the key may see, for a message."""
    try:
        found = yield Call("get_collections")
    except Exception:  # a key for one collection may not list them
        return "…"
    return ", ".join(sorted(item.name for item in found.collections)) or "none"
