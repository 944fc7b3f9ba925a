"""The calls by which a collection of ours is made and filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qdrant_client import models

from sift_store.points import point_id, point_payload
from sift_store.records import Id, Record
from sift_store_qdrant.filters import exact_path, own_fields
from sift_store_qdrant.state import Marks
from sift_store_qdrant.work import Call, PointKey

__all__ = [
    "CHUNK",
    "field_indexes",
    "in_chunks",
    "key_of",
    "lead",
    "make_collection",
    "make_like",
    "no_field_indexes",
    "to_point",
]

# Points in one request that writes.
CHUNK = 256


def key_of(id_: Id) -> PointKey:
    """A point's own id, as it travels."""
    key = point_id(id_)
    return key if isinstance(key, int) else str(key)


def to_point(record: Record) -> models.PointStruct:
    """A record with its vector as the server takes it."""
    vector = [] if record.vector is None else record.vector.tolist()
    return models.PointStruct(id=key_of(record.id), vector=vector, payload=point_payload(record))


def in_chunks(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """As many at a time as one request writes."""
    for start in range(0, len(records), CHUNK):
        yield records[start : start + CHUNK]


def make_collection(marks: Marks, dimension: int) -> Call:
    """A collection of ours on the server; no name leads to it yet."""
    vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
    settings = {"collection_name": marks.collection, "vectors_config": vectors, "metadata": marks.metadata()}
    return Call("create_collection", settings)


def make_like(marks: Marks, dimension: int, old: models.CollectionInfo) -> Iterator[Call]:
    """One with the settings and payload indexes of another, whoever has changed them since it was made."""
    config, params = old.config, old.config.params
    vectors = params.vectors
    if not isinstance(vectors, models.VectorParams):  # ours have one without a name
        vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
    settings = {
        "collection_name": marks.collection,
        "vectors_config": vectors.model_copy(update={"size": dimension}),
        "hnsw_config": _diff(models.HnswConfigDiff, config.hnsw_config),
        "optimizers_config": _diff(models.OptimizersConfigDiff, config.optimizer_config),
        "quantization_config": config.quantization_config,
        "shard_number": params.shard_number,
        "replication_factor": params.replication_factor,
        "write_consistency_factor": params.write_consistency_factor,
        "on_disk_payload": params.on_disk_payload,
        "wal_config": _diff(models.WalConfigDiff, config.wal_config),
        "strict_mode_config": _diff(models.StrictModeConfig, config.strict_mode_config),
        "metadata": marks.metadata(),
    }
    yield Call("create_collection", {name: value for name, value in settings.items() if value is not None})
    for path, index in old.payload_schema.items():
        call = {"collection_name": marks.collection, "field_name": path, "wait": True}
        yield Call("create_payload_index", {**call, "field_schema": index.params or index.data_type})


def _diff(kind: Any, given: Any) -> Any:
    """Settings as the server tells them, in the model in which they are given."""
    if given is None:
        return None
    told = given.model_dump(exclude_none=True)
    return kind(**{name: value for name, value in told.items() if name in kind.model_fields})


def field_indexes(collection: str, key: str, kind: str) -> Iterator[Call]:
    """The making of a field's payload indexes."""
    for path, schema in _index_paths(key, kind).items():
        call = {"collection_name": collection, "field_name": path, "field_schema": schema, "wait": True}
        yield Call("create_payload_index", call)


def no_field_indexes(collection: str, key: str, kind: str) -> Iterator[Call]:
    """The dropping of them."""
    for path in _index_paths(key, kind):
        yield Call("delete_payload_index", {"collection_name": collection, "field_name": path, "wait": True})


def _index_paths(key: str, kind: str) -> dict[str, models.PayloadSchemaType]:
    """Dates are compared by their exact spelling, floats by it as well."""
    schema = models.PayloadSchemaType(kind)
    if kind == "datetime":
        return {exact_path(key): schema}
    indexes = {own_fields({}).path(key): schema}
    return {**indexes, exact_path(key): models.PayloadSchemaType.KEYWORD} if kind == "float" else indexes


def lead(name: str, collection: str) -> Call:
    """Have a name lead to a collection, whatever it led to before; one step, and none if the collection is gone."""
    alias = models.CreateAlias(collection_name=collection, alias_name=name)
    operation = models.CreateAliasOperation(create_alias=alias)
    return Call("update_collection_aliases", {"change_aliases_operations": [operation]})
