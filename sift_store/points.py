"""Records as points, for engines whose points have an id (a number or UUID), a vector and a JSON payload.

Own layout of a point's payload: ``text``, ``metadata.*``, and ``id`` where the engine cannot hold the id itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias
from uuid import UUID, uuid5

import numpy as np

from sift_store.records import Id, Record

__all__ = ["METADATA", "PointId", "point_id", "point_payload", "point_record"]

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


def point_payload(record: Record) -> dict[str, Any]:
    """What the engine keeps of a record beside its vector."""
    payload: dict[str, Any] = {"text": record.text, METADATA: dict(record.payload)}
    if isinstance(record.id, str) or (isinstance(record.id, int) and record.id < 0):
        payload["id"] = record.id
    return payload


def point_record(key: int | str | UUID, payload: Mapping[str, Any] | None, vector: Any = None) -> Record:
    """A stored point as a record, with its vector if that was asked for."""
    held = payload or {}
    own: Id = held.get("id", key if isinstance(key, int) else UUID(str(key)))
    row = None if vector is None else np.asarray(vector, dtype=np.float32)
    return Record(own, held.get("text", ""), held.get(METADATA, {}), row)
