"""Between our records and the engine's points."""

from __future__ import annotations

from qdrant_edge import Point
from qdrant_edge import Record as EngineRecord

from sift_store.points import point_id, point_payload, point_record
from sift_store.records import Record

__all__ = ["to_point", "to_record"]


def to_point(record: Record) -> Point:
    """A record with its vector as the engine takes it."""
    vector: list[float] = [] if record.vector is None else record.vector.tolist()
    return Point(point_id(record.id), vector, point_payload(record))


def to_record(point: EngineRecord) -> Record:
    """A stored point as a record, with its vector if that was asked for."""
    return point_record(point.id, point.payload, point.vector)
