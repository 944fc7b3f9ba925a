"""Records in the format of ``COPY … FROM STDIN (FORMAT BINARY)``, and the table where a batch arrives.

The format (PostgreSQL's documentation of COPY): a signature of 11 bytes, flags and an extension of no length; each row
the number of its columns in 16 bits, each column its length in 32 and its bytes; at the end -1 for a number of columns.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Column, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from sift_store.errors import InvalidInputError
from sift_store.records import Record
from sift_store_pgvector.codec import (
    VectorType,
    encode_payload,
    encode_vector,
    key_of,
    to_id_columns,
    without_nul,
)
from sift_store_pgvector.types import Vector

__all__ = ["copied_records", "copied_vectors", "stage_table"]


def stage_table(kind: VectorType) -> Table:
    """Where a batch arrives before it is merged; gone with the transaction."""
    return Table(
        "sift_store_stage",
        MetaData(),
        Column("key", UUID),
        Column("id", Text),
        Column("id_type", Text),
        Column("text", Text),
        Column("payload", JSONB),
        Column("embedding", Vector(kind)),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )


def copied_records(records: Sequence[Record], kind: VectorType, encoding: str) -> Iterator[bytes]:
    """Records in the format of COPY BINARY, in the order of `stage_table`'s columns, texts in an encoding."""
    return _blocks(_row(_columns(record, kind, encoding)) for record in records)


def copied_vectors(records: Sequence[Record], kind: VectorType) -> Iterator[bytes]:
    """Keys and vectors alone."""
    return _blocks(_row([key_of(record.id).bytes, encode_vector(_vector(record), kind)]) for record in records)


def _columns(record: Record, kind: VectorType, encoding: str) -> list[bytes]:
    id_, id_type = to_id_columns(record.id)
    return [
        key_of(record.id).bytes,
        id_.encode(encoding),
        id_type.encode(encoding),
        without_nul(record.text).encode(encoding),
        b"\x01" + encode_payload(record.payload).encode(encoding),
        encode_vector(_vector(record), kind),
    ]


def _vector(record: Record) -> Any:
    if record.vector is None:
        raise InvalidInputError(f"record {record.id!r} has no vector")
    return record.vector


def _row(columns: Sequence[bytes]) -> bytes:
    parts = [struct.pack(">h", len(columns))]
    for column in columns:
        parts += (struct.pack(">i", len(column)), column)
    return b"".join(parts)


def _blocks(rows: Iterable[bytes]) -> Iterator[bytes]:
    yield b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    yield from rows
    yield struct.pack(">h", -1)
