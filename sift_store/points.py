"""Records as points, for engines whose points have an id (a number or UUID), a vector and a JSON payload.

Own layout of a point's payload: ``text``, ``metadata.*``, ``id`` where the engine cannot hold the id itself, and
``exact.*``: at the places of floats and dates in the metadata, their exact spelling as text. Engines lose the last bit
of a float when they read JSON, and read more forms of dates than the filter language has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid5

import numpy as np

from sift_store.filters import parse_datetime
from sift_store.records import Id, Record

__all__ = [
    "EXACT",
    "METADATA",
    "PointId",
    "exact_moment",
    "exact_payload",
    "merged_payload",
    "merges_in_place",
    "point_id",
    "point_payload",
    "point_record",
]

PointId: TypeAlias = int | UUID

METADATA, EXACT = "metadata", "exact"
_NAMESPACE = UUID("6f1a3f0c-52d5-5c5e-9a55-8f6c0d5e7a11")
# Units in the last place by which an engine may be wrong about a float; beyond, another program changed the number.
_SLACK = 4


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
    exact = exact_payload(record.payload)
    if exact:
        payload[EXACT] = exact
    return payload


def point_record(key: int | str | UUID, payload: Mapping[str, Any] | None, vector: Any = None) -> Record:
    """A stored point as a record, with its vector if that was asked for."""
    stored = payload or {}
    own: Id = stored.get("id", key if isinstance(key, int) else UUID(str(key)))
    row = None if vector is None else np.asarray(vector, dtype=np.float32)
    metadata = stored.get(METADATA, {})
    if EXACT in stored:
        metadata = _with_exact(metadata, stored[EXACT])
    return Record(own, stored.get("text", ""), metadata, row)


def merged_payload(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine keeps of a point once keys have been merged into its metadata."""
    exact = {key: value for key, value in stored.get(EXACT, {}).items() if key not in changes}
    exact |= exact_payload(changes)
    rest = {key: value for key, value in stored.items() if key != EXACT}
    return {**rest, METADATA: {**stored.get(METADATA, {}), **changes}, **({EXACT: exact} if exact else {})}


def merges_in_place(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    """Whether the engine's own merging of metadata gives the same; it takes null for "remove this key"."""
    spelt = exact_payload(changes).keys() | (stored.get(EXACT, {}).keys() & changes.keys())
    return not spelt and None not in changes.values()


def exact_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The floats and dates of a payload as text, at their places; keys without any are left out."""
    return {key: exact for key, value in payload.items() if (exact := _exact(value)) is not None}


def exact_moment(moment: datetime) -> str:
    """A moment in UTC as every engine reads it, equal for equal moments only."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}".rjust(27, "0")  # years before 1000 are not padded everywhere


def _exact(value: Any) -> Any:
    """The spelling of one value; of a list, one spelling or null an element; None if there is nothing to spell."""
    match value:
        case float():
            return repr(value)
        case str():
            moment = parse_datetime(value)
            return None if moment is None else exact_moment(moment)
        case Mapping():
            return exact_payload(value) or None
        case list() | tuple():
            parts = [_exact(item) for item in value]
            return parts if any(part is not None for part in parts) else None
        case _:
            return None


def _with_exact(value: Any, exact: Any) -> Any:
    """A stored value with its floats as they are spelt, where the spelling belongs to it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(exact, str):
        return _number(value, exact)
    if isinstance(value, Mapping) and isinstance(exact, Mapping):
        return {key: _with_exact(item, exact[key]) if key in exact else item for key, item in value.items()}
    if isinstance(value, list) and isinstance(exact, Sequence) and len(value) == len(exact):
        return [_with_exact(item, part) for item, part in zip(value, exact, strict=True)]
    return value


def _number(value: float, exact: str) -> float:
    try:
        number = float(exact)
    except ValueError:
        return value
    return number if abs(value - number) <= _SLACK * math.ulp(number) else value
