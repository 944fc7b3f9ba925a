"""The operations of a server over its collections, on the client's models; names, aliases and errors are of here."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as q
from qdrant_client import models as m

from edge_server import translating as t
from edge_server.collection import Collection

__all__ = ["VERSION", "Collections", "Encode", "Found", "NoSuchCollection", "Refused"]

# The server version whose behaviour this follows.
VERSION = "1.20.0"

# Makes of a point's vectors what the wire wants. A front has one such function, which the kept vectors go by.
Encode = Callable[[Any], bytes]


class Refused(Exception):
    """A request that a server answers with an error. `status`: of HTTP."""

    def __init__(self, message: str, status: int = 400, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class NoSuchCollection(Refused):
    def __init__(self, name: str) -> None:
        super().__init__(f"Not found: Collection `{name}` doesn't exist!", 404)


class Found:
    """A point of an answer; its vectors are encoded already."""

    __slots__ = ("id", "payload", "score", "vector", "version")

    def __init__(self, id_: Any, payload: Any, vector: bytes | None, score: float = 0.0, version: int = 0) -> None:
        self.id, self.payload, self.vector, self.score, self.version = id_, payload, vector, score, version


class Collections:
    """All collections of one server.

    The engine keeps the interpreter's lock while it works, so its calls never overlap. `_lock` guards names only.

    Args:
        folder: where the data lies. fast: whether encoded vectors are kept until the next write.
    """

    def __init__(self, folder: Path, *, fast: bool = False) -> None:
        self._folder, self._fast = folder, fast
        self._collections: dict[str, Collection] = {}
        self._aliases: dict[str, str] = {}
        self._lock = threading.Lock()

    def _at(self, name: str) -> Collection:
        try:
            return self._collections[self._aliases.get(name, name)]
        except KeyError:
            raise NoSuchCollection(name) from None

    def close(self) -> None:
        for collection in self._collections.values():
            collection.close()

    # --- collections --------------------------------------------------------------------------------------------------

    def create(self, name: str, given: m.CreateCollection) -> bool:
        if not re.fullmatch(r'[^<>:"/\\|?*\x00-\x1f]{1,255}', name):
            raise Refused(f"Validation error in path parameters: [name: {name!r} cannot name a collection]", 422)
        with self._lock:
            if name in self._collections or name in self._aliases:
                raise Refused(f"Wrong input: Collection `{name}` already exists!", 409)
            self._collections[name] = Collection(self._folder / uuid.uuid4().hex, given)
        return True

    def update(self, name: str, given: m.UpdateCollection) -> bool:
        collection = self._at(name)
        changes = {key for key, value in given if value is not None}
        if odd := changes - {"metadata", "optimizers_config"}:
            raise Refused(f"this server does not change {', '.join(sorted(odd))}")
        with self._lock:
            for key, value in (given.metadata or {}).items():  # merged key by key; null takes one away
                if value is None:
                    collection.metadata.pop(key, None)
                else:
                    collection.metadata[key] = value
        if given.optimizers_config is not None:
            changed = given.optimizers_config.model_dump(exclude_none=True)
            collection.optimizers = collection.optimizers.model_copy(update=changed)
            collection.build_index()
        return True

    def drop(self, name: str) -> bool:
        with self._lock:
            collection = self._collections.pop(name, None)
            if collection is None:
                return False
            self._aliases = {alias: of for alias, of in self._aliases.items() if of != name}
        collection.close()
        return True

    def names(self) -> list[str]:
        return list(self._collections)

    def exists(self, name: str) -> bool:
        return self._aliases.get(name, name) in self._collections

    def change_aliases(self, operations: Sequence[Any]) -> bool:
        with self._lock:
            aliases = dict(self._aliases)
            for operation in operations:
                self._change_alias(aliases, operation)
            self._aliases = aliases
        return True

    def _change_alias(self, aliases: dict[str, str], operation: Any) -> None:
        match operation:
            case m.CreateAliasOperation():
                made = operation.create_alias
                if made.collection_name not in self._collections:
                    raise NoSuchCollection(made.collection_name)
                if made.alias_name in self._collections:
                    raise Refused(f"Wrong input: Collection `{made.alias_name}` already exists!", 409)
                aliases[made.alias_name] = made.collection_name
            case m.DeleteAliasOperation():
                aliases.pop(operation.delete_alias.alias_name, None)
            case m.RenameAliasOperation():
                names = operation.rename_alias
                if names.old_alias_name not in aliases:
                    raise Refused(f"Not found: Alias {names.old_alias_name} does not exists!", 404)
                aliases[names.new_alias_name] = aliases.pop(names.old_alias_name)

    def aliases(self, of: str | None = None) -> list[m.AliasDescription]:
        return [
            m.AliasDescription(alias_name=alias, collection_name=name)
            for alias, name in self._aliases.items()
            if of in (None, name)
        ]

    def info(self, name: str) -> m.CollectionInfo:
        return self._at(name).info()

    def index(self, name: str, field: str, schema: Any) -> m.UpdateResult:
        if schema is None:
            raise Refused("Wrong input: no field_schema given")
        collection = self._at(name)
        collection.write(q.UpdateOperation.create_field_index(field, t.field_schema(schema)))
        collection.index_params[field] = None if isinstance(schema, m.PayloadSchemaType) else schema
        return _done()

    def unindex(self, name: str, field: str) -> m.UpdateResult:
        return self._write(name, q.UpdateOperation.delete_field_index(field))

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, name: str, given: m.PointsList | m.PointsBatch) -> m.UpdateResult:
        only, mode = t.condition(given.update_filter), t.update_mode(given.update_mode)
        return self._write(name, q.UpdateOperation.upsert_points(t.points_of(given), only, mode))

    def delete(self, name: str, selector: Any) -> m.UpdateResult:
        if isinstance(selector, m.PointIdsList):
            ids = [t.point_id(id_) for id_ in selector.points]
            return self._write(name, q.UpdateOperation.delete_points(ids))
        return self._write(name, q.UpdateOperation.delete_points_by_filter(t.condition(selector.filter)))

    def set_payload(self, name: str, given: m.SetPayload, *, overwrite: bool = False) -> m.UpdateResult:
        ids, where = _points_or_filter(given)
        change = q.UpdateOperation
        if ids is not None:
            make = change.overwrite_payload if overwrite else change.set_payload
            return self._write(name, make(ids, given.payload, given.key))
        by_filter = change.overwrite_payload_by_filter if overwrite else change.set_payload_by_filter
        return self._write(name, by_filter(where, given.payload, given.key))

    def delete_payload(self, name: str, given: m.DeletePayload) -> m.UpdateResult:
        ids, where = _points_or_filter(given)
        if ids is not None:
            return self._write(name, q.UpdateOperation.delete_payload(ids, given.keys))
        return self._write(name, q.UpdateOperation.delete_payload_by_filter(where, given.keys))

    def batch(self, name: str, operations: Iterable[Any]) -> list[m.UpdateResult]:
        return [self._one_of_batch(name, operation) for operation in operations]

    def _one_of_batch(self, name: str, operation: Any) -> m.UpdateResult:
        match operation:
            case m.UpsertOperation():
                return self.upsert(name, operation.upsert)
            case m.DeleteOperation():
                return self.delete(name, operation.delete)
            case m.SetPayloadOperation():
                return self.set_payload(name, operation.set_payload)
            case m.OverwritePayloadOperation():
                return self.set_payload(name, operation.overwrite_payload, overwrite=True)
            case m.DeletePayloadOperation():
                return self.delete_payload(name, operation.delete_payload)
        raise Refused(f"this server does not know {type(operation).__name__}")

    def _write(self, name: str, operation: q.UpdateOperation) -> m.UpdateResult:
        self._at(name).write(operation)
        return _done()

    # --- reading ------------------------------------------------------------------------------------------------------

    def query(self, name: str, requests: Sequence[m.QueryRequest], encode: Encode) -> list[list[Found]]:
        collection = self._at(name)
        answers = collection.shard.query_batch(q.QueryBatchRequest([t.query_request(given) for given in requests]))
        return [self._found(collection, points, given, encode) for given, points in zip(requests, answers, strict=True)]

    def _found(self, collection: Collection, points: list[Any], given: m.QueryRequest, encode: Encode) -> list[Found]:
        ids = [point.id for point in points]
        if given.with_payload or given.with_vector:
            stored = self._stored(collection, ids, given.with_payload, given.with_vector, encode)
        else:
            stored = dict.fromkeys(ids, (None, None))
        return [
            Found(id_, *stored[id_], point.score, point.version)
            for id_, point in zip(ids, points, strict=True)
            if id_ in stored  # not deleted meanwhile
        ]

    def retrieve(self, name: str, given: m.PointRequest, encode: Encode) -> list[Found]:
        ids = list(dict.fromkeys(t.point_id(id_) for id_ in given.ids))
        return self._records(self._at(name), ids, given, encode)

    def scroll(self, name: str, given: m.ScrollRequest, encode: Encode) -> tuple[list[Found], Any]:
        collection = self._at(name)
        points, rest = collection.shard.scroll(t.scroll_request(given))
        return self._records(collection, [point.id for point in points], given, encode), rest

    def count(self, name: str, given: m.CountRequest) -> int:
        return self._at(name).shard.count(q.CountRequest(exact=True, filter=t.condition(given.filter)))

    def _records(
        self, collection: Collection, ids: list[Any], given: m.PointRequest | m.ScrollRequest, encode: Encode
    ) -> list[Found]:
        with_payload = True if given.with_payload is None else given.with_payload
        stored = self._stored(collection, ids, with_payload, given.with_vector, encode)
        return [Found(id_, *stored[id_]) for id_ in ids if id_ in stored]  # the engine returns them in any order

    def _stored(
        self, collection: Collection, ids: list[Any], with_payload: Any, with_vector: Any, encode: Encode
    ) -> dict[Any, tuple[Any, bytes | None]]:
        """Payload and vectors of those points that exist."""
        retrieve, payload = collection.shard.retrieve, t.payload_selector(with_payload or False)
        if not with_vector:
            return {point.id: (point.payload, None) for point in retrieve(ids, payload, False)}
        if not self._fast:
            return {point.id: (point.payload, encode(point.vector)) for point in retrieve(ids, payload, with_vector)}
        kept = collection.kept.setdefault((encode, repr(with_vector)), {})
        missing = [id_ for id_ in ids if id_ not in kept]
        if missing:
            kept.update((point.id, encode(point.vector)) for point in retrieve(missing, False, with_vector))
        if payload is False:
            return {id_: (None, kept[id_]) for id_ in ids if id_ in kept}
        return {point.id: (point.payload, kept.get(point.id)) for point in retrieve(ids, payload, False)}


def _points_or_filter(given: m.SetPayload | m.DeletePayload) -> tuple[list[Any] | None, Any]:
    if given.points is None and given.filter is None:
        raise Refused("Either list of point ids or filter must be provided", 422)
    return given.points and [t.point_id(id_) for id_ in given.points], t.condition(given.filter)


def _done() -> m.UpdateResult:
    return m.UpdateResult(operation_id=0, status=m.UpdateStatus.COMPLETED)
