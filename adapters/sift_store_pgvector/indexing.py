"""The indexes on a collection of ours: HNSW on its vectors, and what declared fields need."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sqlalchemy import Index, Table, Text, cast
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.schema import CreateIndex, DropIndex

from sift_store_pgvector.filters import RANGE_FUNCTIONS, our_function
from sift_store_pgvector.types import OPCLASSES
from sift_store_pgvector.work import DIALECT

__all__ = ["METRIC_OF", "drop_statement_of", "field_indexes", "hnsw_index", "statement_of"]

# Of unit vectors the inner product is the cosine, and costs less; rounded to 16 bits they are no longer of unit length.
METRIC_OF = {"vector": "dot", "halfvec": "cosine"}


def field_indexes(passage: Table, fields: Mapping[str, str], schema: str) -> list[Index]:
    """One GIN index for the equalities of all fields, and two B-trees for the ranges of each that has any."""
    if not fields:
        return []
    gin = Index(
        f"{passage.name}_payload",
        passage.c.payload,
        postgresql_using="gin",
        postgresql_ops={"payload": "jsonb_path_ops"},
    )
    ranges = []
    for key, kind in fields.items():
        path = cast(key.split("."), ARRAY(Text))
        for function in RANGE_FUNCTIONS.get(kind, ()):
            name = f"{passage.name}_{function}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
            ranges.append(Index(name, our_function(schema, function)(passage.c.payload, path)))
    return [gin, *ranges]


def hnsw_index(vector: Table, kind: str) -> Index:
    """HNSW with pgvector's own m and ef_construction."""
    return Index(
        f"{vector.name}_hnsw",
        vector.c.embedding,
        postgresql_using="hnsw",
        postgresql_ops={"embedding": f"{kind}_{OPCLASSES[METRIC_OF[kind]]}"},
    )


def statement_of(index: Index, *, concurrently: bool) -> str:
    """``CREATE INDEX``; with CONCURRENTLY for a table that is in use, outside of a transaction."""
    index.dialect_options["postgresql"]["concurrently"] = concurrently
    return str(CreateIndex(index, if_not_exists=True).compile(dialect=DIALECT))


def drop_statement_of(index: Index) -> str:
    """``DROP INDEX CONCURRENTLY``."""
    index.dialect_options["postgresql"]["concurrently"] = True
    return str(DropIndex(index, if_exists=True).compile(dialect=DIALECT))
