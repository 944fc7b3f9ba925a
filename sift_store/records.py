"""Records: what a store keeps for one passage, and the checks it passes before anything is written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from sift_store.errors import InvalidInputError

__all__ = ["Id", "Payload", "Record", "check_id", "check_ids", "check_payload", "check_texts", "content_id"]

Id: TypeAlias = str | int | UUID
Payload: TypeAlias = Mapping[str, Any]

# What both a signed 64-bit engine column and JSON can hold.
_MAX_INT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Record:
    """One passage: its id, text, payload and, where asked for, its unit vector (d,) float32."""

    id: Id
    text: str
    payload: Payload
    vector: npt.NDArray[np.float32] | None = None


def content_id(text: str, payload: Payload) -> str:
    """The id of a passage that was given none: a hash of text and payload, so that adding twice changes nothing."""
    content = json.dumps([text, payload], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def check_id(value: object) -> Id:
    """An id as it was given.

    Raises:
        InvalidInputError: neither text, nor an integer in ±2⁶³, nor a UUID.
    """
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, UUID) or (isinstance(value, str) and value and _is_utf8(value)):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and -_MAX_INT <= value <= _MAX_INT:
        return value
    raise InvalidInputError(f"id {value!r}: text that is not empty, an integer within ±2⁶³ or a UUID wanted")


def check_ids(ids: object) -> list[Id]:
    """A list of ids; one id alone counts as a list of one."""
    if isinstance(ids, str | int | UUID):
        return [check_id(ids)]
    if not isinstance(ids, Sequence | np.ndarray | set | frozenset):
        raise InvalidInputError(f"ids: {type(ids).__name__} given, a list of ids wanted")
    return [check_id(value) for value in ids]


def check_texts(texts: object) -> list[str]:
    """A list of texts, none of them empty.

    Raises:
        InvalidInputError: one string instead of a list, or a text that is empty or cannot be stored as UTF-8.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise InvalidInputError(f"texts: {type(texts).__name__} given, a list of strings wanted")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InvalidInputError(f"texts[{row}]: {text!r} given, a string that is not empty wanted")
        if not _is_utf8(text):
            raise InvalidInputError(f"texts[{row}]: holds a lone surrogate; decode the source with errors='replace'")
    return list(texts)


def check_payload(payload: object, where: str) -> dict[str, Any]:
    """A payload as JSON holds it: tuples become lists, dates and datetimes ISO text.

    Raises:
        InvalidInputError: not a mapping, keys that are not text, or values that JSON cannot hold.
    """
    if payload is None:
        return {}
    if not isinstance(payload, Mapping):
        raise InvalidInputError(f"{where}: {type(payload).__name__} given, a mapping wanted")
    return {_check_key(key, where): _check_value(value, f"{where}[{key!r}]") for key, value in payload.items()}


def _check_key(key: object, where: str) -> str:
    if not isinstance(key, str) or not key or not _is_utf8(key):
        raise InvalidInputError(f"{where}: key {key!r} given, text that is not empty wanted")
    return key


def _check_value(value: Any, where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if _is_utf8(value):
            return value
    elif isinstance(value, int):
        if abs(value) <= _MAX_INT:
            return value
    elif isinstance(value, float):
        if math.isfinite(value):
            return value
    elif isinstance(value, date):  # a datetime is a date
        return value.isoformat()
    elif isinstance(value, UUID):
        return str(value)
    elif isinstance(value, Mapping):
        return check_payload(value, where)
    elif isinstance(value, list | tuple):
        return [_check_value(item, f"{where}[{place}]") for place, item in enumerate(value)]
    raise InvalidInputError(
        f"{where}: {value!r} given; text, a finite number within ±2⁶³, a boolean, None, a date, "
        "or lists and mappings of these wanted"
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
