"""Between our records and the engine's points.

Own layout of a point's payload: ``text``, ``metadata.*``, and ``id`` where the engine cannot hold the id itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias
from uuid import UUID, uuid5

import numpy as np
from qdrant_edge import Point
from qdrant_edge import Record as EngineRecord

from sift_store.records import Id, Record

__all__ = ["METADATA", "PointId", "point_id", "to_point", "to_record"]

PointId: TypeAlias = int | UUID

METADATA = "metadata"
_NAMESPACE = UUID("6f1a3f0c-52d5-5c5e-9a55-8f6c0d5e7a11")


def point_id(id_: Id) -> PointId:
    """The engine's id: unsigned integers and UUIDs as they are, anything else by uuid5."""
    if isinstance(id_, UUID):
        return id_
    if isinstance(id_, int):
        return id_ if id_ >= 0 else uuid5(_NAMESPACE, f"int:{id_}")
    return uuid5(_NAMESPACE, f"str:{id_}")


def to_point(record: Record) -> Point:
    """A record with its vector as the engine takes it."""
    payload: dict[str, Any] = {"text": record.text, METADATA: dict(record.payload)}
    if isinstance(record.id, str) or (isinstance(record.id, int) and record.id < 0):
        payload["id"] = record.id
    vector: list[float] = [] if record.vector is None else record.vector.tolist()
    return Point(point_id(record.id), vector, payload)


def to_record(point: EngineRecord) -> Record:
    """A stored point as a record, with its vector if that was asked for."""
    payload: Mapping[str, Any] = point.payload or {}
    key = point.id
    own: Id = payload.get("id", key if isinstance(key, int) else UUID(str(key)))
    vector = None if point.vector is None else np.array(point.vector, dtype=np.float32)
    return Record(own, payload.get("text", ""), payload.get(METADATA, {}), vector)
