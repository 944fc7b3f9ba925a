"""Records: what a store keeps for one passage, and the checks it passes before anything is written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from sift_store.errors import InvalidInputError
from sift_store.filters import exact_text, lookup, parse_datetime, plain_scalar, storable, utc

__all__ = [
    "MAX_DEPTH",
    "Id",
    "Payload",
    "Record",
    "canonical",
    "check_id",
    "check_ids",
    "check_indexable",
    "check_payload",
    "check_texts",
    "content_id",
    "differs",
    "listed",
]

Id: TypeAlias = str | int | UUID
Payload: TypeAlias = Mapping[str, Any]

# What both a signed 64-bit engine column and JSON can hold; and the largest id of a point in Qdrant.
_MAX_INT = 2**63 - 1
_MAX_ID = 2**64 - 1
# A zone further from UTC, or by a part of a minute, is written by no standard.
_FURTHEST_ZONE = timedelta(hours=16)
# Engines recurse when they read a payload back; one gave up at 126.
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Record:
    """One passage: its id, text, payload and, where asked for, its unit vector (d,) float32."""

    id: Id
    text: str
    payload: Payload = field(hash=False)
    vector: npt.NDArray[np.float32] | None = field(default=None, hash=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        same = (self.id, self.text, self.payload) == (other.id, other.text, other.payload)
        if self.vector is None or other.vector is None:
            return same and self.vector is other.vector
        return same and np.array_equal(self.vector, other.vector)


def content_id(text: str, payload: Payload) -> str:
    """The id of a passage that was given none: a hash of text and payload, so that adding twice changes nothing."""
    return hashlib.sha256(canonical([text, payload]).encode()).hexdigest()[:32]


def differs(one: Record, other: Record) -> bool:
    """Whether two records differ in text or payload."""
    return one.text != other.text or canonical(one.payload) != canonical(other.payload)


def check_id(value: object) -> Id:
    """An id as Python's own `str`, `int` or `UUID`, whatever subclass of it was given.

    Raises:
        InvalidInputError: neither text, nor an integer from -2⁶³+1 to 2⁶⁴-1, nor a UUID.
    """
    id_ = plain_scalar(value)
    if isinstance(id_, UUID):
        return id_ if type(id_) is UUID else UUID(int=id_.int)
    if isinstance(id_, str) and id_ and storable(id_):
        return id_
    if isinstance(id_, int) and not isinstance(id_, bool) and -_MAX_INT <= id_ <= _MAX_ID:
        return id_
    raise InvalidInputError(f"id {value!r}: text that is not empty, an integer from -2⁶³+1 to 2⁶⁴-1 or a UUID wanted")


def check_ids(ids: object) -> list[Id]:
    """A list of ids; one id alone counts as a list of one."""
    if isinstance(ids, str | int | UUID):
        return [check_id(ids)]
    return [check_id(value) for value in listed(ids, "ids")]


def listed(values: object, name: str) -> list[Any]:
    """Any ordered iterable as a list.

    Raises:
        InvalidInputError: text, a mapping, a set, or nothing that can be gone through.
    """
    ordered = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | set | frozenset)
    if not ordered:
        raise InvalidInputError(f"{name}: {type(values).__name__} given, a list wanted")
    return list(values)  # type: ignore[call-overload, no-any-return]  # iterable by the lines above


def canonical(value: object) -> str:
    """JSON text that is equal for equal payloads only: 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def check_texts(texts: object) -> list[str]:
    """A list of texts, none of them empty.

    Raises:
        InvalidInputError: one string instead of a list, or a text that is empty or cannot be stored as UTF-8.
    """
    given = listed(texts, "texts")
    for row, text in enumerate(given):
        if not isinstance(text, str) or not text.strip():
            raise InvalidInputError(f"texts[{row}]: {text!r} given, a string that is not empty wanted")
        if not storable(text):
            raise InvalidInputError(f"texts[{row}]: holds a lone surrogate; decode the source with errors='replace'")
    return list(map(exact_text, given))


def check_payload(payload: object, where: str, deepest: int = MAX_DEPTH, depth: int = 0) -> dict[str, Any]:
    """A payload as JSON holds it: tuples become lists, dates and datetimes ISO text.

    Args:
        payload: a mapping, or None for {}. where: for messages. deepest: how far it may nest; depth: where it stands.

    Raises:
        InvalidInputError: not a mapping, keys that are not text, or values that JSON cannot hold.
    """
    if payload is None:
        return {}
    if not isinstance(payload, Mapping):
        raise InvalidInputError(f"{where}: {type(payload).__name__} given, a mapping wanted")
    _check_depth(depth, deepest, where)
    return {
        _check_key(key, where): _check_value(value, f"{where}[{key!r}]", deepest, depth)
        for key, value in payload.items()
    }


def _check_depth(depth: int, deepest: int, where: str) -> None:
    if depth > deepest:
        raise InvalidInputError(f"{where[:100]}…: nested more than {deepest} deep; engines cannot read that back")


def _check_key(key: object, where: str) -> str:
    if not isinstance(key, str) or not key or not storable(key):
        raise InvalidInputError(f"{where}: key {key!r} given, text that is not empty wanted")
    return exact_text(key)


def _check_value(value: Any, where: str, deepest: int, depth: int) -> Any:
    scalar = plain_scalar(value)
    if _is_json(scalar):
        return scalar
    if isinstance(scalar, date):  # a datetime is a date
        return _date_text(scalar, where)
    if isinstance(scalar, UUID):
        return str(scalar)
    if isinstance(value, Mapping):
        return check_payload(value, where, deepest, depth + 1)
    if isinstance(value, list | tuple):
        _check_depth(depth, deepest, where)
        return [_check_value(item, f"{where}[{place}]", deepest, depth + 1) for place, item in enumerate(value)]
    raise InvalidInputError(
        f"{where}: {value!r} given; text, a finite number within ±2⁶³, a boolean, None, a date, "
        "or lists and mappings of these wanted"
    )


def _is_json(scalar: Any) -> bool:
    """Whether every engine holds a value as it is."""
    match scalar:
        case None | bool():
            return True
        case str():
            return storable(scalar)
        case int():
            return abs(scalar) <= _MAX_INT
        case float():
            return math.isfinite(scalar)
        case _:
            return False


def _date_text(value: date, where: str) -> str:
    """ISO 8601 with the zone that was given, or in UTC where text cannot say that zone."""
    if not isinstance(value, datetime):
        return value.isoformat()
    try:
        offset = value.utcoffset() or timedelta()
        if abs(offset) < _FURTHEST_ZONE and not offset % timedelta(minutes=1):
            return str(value.isoformat())
    except (ValueError, TypeError):  # a zone that is none
        pass
    moment = utc(value)
    if moment is None:
        raise InvalidInputError(f"{where}: {value!r} given; a date in the years 1 to 9999 of UTC wanted")
    return moment.isoformat()


def check_indexable(payload: Payload, fields: Mapping[str, str], where: str) -> None:
    """Refuse values that the payload index of their field cannot hold: they would never be found.

    Args:
        payload: a checked payload. fields: payload indexes, key -> type. where: for the message.

    Raises:
        InvalidInputError: e.g. 1.5 under an "integer" index. Missing keys and null are fine, lists are checked item
            by item.
    """
    for key, kind in fields.items():
        held = lookup(payload, key)
        for item in held if isinstance(held, list) else [held]:
            if item is not None and kind in _FITS and not _FITS[kind](item):
                raise InvalidInputError(
                    f"{where}[{key!r}]: {item!r} does not fit the field's index of type {kind!r}; give such a value, "
                    "or open the store with another type in indexed="
                )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FITS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "datetime": lambda value: parse_datetime(value) is not None,
    "float": _is_number,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "keyword": lambda value: isinstance(value, str),
}
