"""What PostgreSQL's columns hold, to and from what records hold: vectors, ids, text and payloads.

Vectors travel in pgvector's binary format: the dimension and a zero, 16 bits each, then the numbers, 32-bit floats for
vector and 16-bit ones for halfvec, all big-endian.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from sift_store.records import Id, Payload

__all__ = [
    "VectorDumper",
    "VectorParameter",
    "VectorType",
    "decode_payload",
    "decode_vectors",
    "encode_payload",
    "encode_vector",
    "from_id_columns",
    "key_of",
    "to_id_columns",
    "with_nul",
    "without_nul",
]

VectorType: TypeAlias = Literal["vector", "halfvec"]

_DTYPES = {"vector": ">f4", "halfvec": ">f2"}
# PostgreSQL's text holds no NUL. U+FDD0 is no character, and meant for a program's own use: it escapes NUL and itself.
_MARK, _NUL = "\ufdd0", "\ufdd00"
# Nor does its numeric hold a negative zero. It keeps trailing zeros, of which no float's text has two.
_NEGATIVE_ZERO = "0.00"


class VectorParameter:
    """A vector on its way to the server, encoded."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class VectorDumper(Dumper):
    """Sends a `VectorParameter` as it is; its type is that of the cast around it in the statement."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Any) -> Buffer:  # noqa: D102  # psycopg's own
        data: bytes = obj.data
        return data


def encode_vector(row: npt.NDArray[np.float32], kind: VectorType) -> bytes:
    """One vector, (d,), in the wire format of its type."""
    return struct.pack(">HH", len(row), 0) + row.astype(_DTYPES[kind]).tobytes()


def decode_vectors(blobs: Sequence[bytes], dimension: int, kind: VectorType) -> npt.NDArray[np.float32]:
    """Vectors of one dimension from the wire format, (n, d) float32."""
    layout = np.dtype([("header", ">u4"), ("row", _DTYPES[kind], (dimension,))])
    return np.frombuffer(b"".join(blobs), dtype=layout)["row"].astype(np.float32)


def without_nul(text: str) -> str:
    """Text as a column can hold it."""
    return text.replace(_MARK, _MARK * 2).replace("\0", _NUL) if "\0" in text or _MARK in text else text


def with_nul(text: str) -> str:
    """The reverse of `without_nul`."""
    if _MARK not in text:
        return text
    return _MARK.join(part.replace(_NUL, "\0") for part in text.split(_MARK * 2))


def encode_payload(payload: Payload) -> str:
    """A payload as JSON that jsonb gives back with the same types: floats keep a decimal point, NUL is escaped."""
    text = json.dumps(payload, ensure_ascii=False)
    special = "e+" in text or "-0.0" in text or "\\u0000" in text or _MARK in text
    return _json(payload) if special else text


def decode_payload(text: str) -> dict[str, Any]:
    """The reverse of `encode_payload`, from jsonb's text."""
    payload: dict[str, Any] = json.loads(text, parse_float=_float)
    return _unescaped(payload) if _MARK in text else payload


def _float(text: str) -> float:
    return -0.0 if text == _NEGATIVE_ZERO else float(text)


def _json(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(without_nul(value), ensure_ascii=False)
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_json, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_json(key)}:{_json(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _float_text(value: float) -> str:
    if value == 0 and math.copysign(1, value) < 0:
        return _NEGATIVE_ZERO
    return f"{value:.1f}" if abs(value) >= 1e16 else json.dumps(value)  # jsonb would make an integer of 1e+16


def _unescaped(value: Any) -> Any:
    if isinstance(value, str):
        return with_nul(value)
    if isinstance(value, list):
        return [_unescaped(item) for item in value]
    if isinstance(value, dict):
        return {with_nul(key): _unescaped(item) for key, item in value.items()}
    return value


def to_id_columns(id_: Id) -> tuple[str, str]:
    """An id as text and the letter of its type: s, i or u."""
    if isinstance(id_, str):
        return without_nul(id_), "s"
    return str(id_), "u" if isinstance(id_, UUID) else "i"


def from_id_columns(text: str, kind: str) -> Id:
    """The reverse of `to_id_columns`."""
    if kind == "s":
        return with_nul(text)
    return UUID(text) if kind == "u" else int(text)


def key_of(id_: Id) -> UUID:
    """The primary key of an id: 128 bits of a hash of its type and text, so that ids may be of any length."""
    text, kind = to_id_columns(id_)
    return UUID(bytes=hashlib.sha256(f"{kind}:{text}".encode()).digest()[:16])
