"""The tables of our own. Migrations make the schema and the catalog; a collection's tables are made with it.

    collection            one row a collection: what its vectors are, which fields are indexed, which tables are its own
    passage_<n>           key, id, text and payload of each passage: what changes
    vector_<n>_<g>        key and embedding: what is indexed by HNSW, of generation g

Payloads stand apart from vectors because PostgreSQL writes a row anew when any of it changes, and its place in the HNSW
index with it.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB, UUID

from sift_store_pgvector.codec import VectorType
from sift_store_pgvector.types import Vector

__all__ = ["DEFAULT_SCHEMA", "catalog_table", "lock_key", "passage_table", "vector_table"]

DEFAULT_SCHEMA = "sift_store"


def catalog_table(schema: str) -> Table:
    """The catalog, as the newest migration leaves it."""
    return Table(
        "collection",
        MetaData(),
        Column("number", Integer, Identity(), primary_key=True),
        Column("name", Text, nullable=False, unique=True),
        Column("dimension", Integer, nullable=False),
        Column("vector_type", Text, nullable=False),
        Column("embedder", JSONB, nullable=False),
        Column("fields", JSONB, nullable=False),
        Column("generation", BigInteger, nullable=False),
        Column("created", DateTime(timezone=True), server_default=func.now(), nullable=False),
        schema=schema,
    )


def passage_table(schema: str, number: int) -> Table:
    """Passages of one collection. `key` is a hash of type and text of the id, so that an id may be of any length."""
    return Table(
        f"passage_{number}",
        MetaData(),
        Column("key", UUID, primary_key=True),
        Column("id", Text, nullable=False),
        Column("id_type", Text, nullable=False),
        Column("text", Text, nullable=False),
        Column("payload", JSONB, nullable=False),
        schema=schema,
    )


def vector_table(schema: str, number: int, generation: int, kind: VectorType, dimension: int) -> Table:
    """Vectors of one generation of a collection."""
    return Table(
        f"vector_{number}_{generation}",
        MetaData(),
        Column("key", UUID, primary_key=True),
        Column("embedding", Vector(kind, dimension), nullable=False),
        schema=schema,
    )


def lock_key(*names: object) -> int:
    """The number of an advisory lock, 64 bits with a sign."""
    digest = hashlib.sha256("\0".join(map(str, ("sift-store", *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
