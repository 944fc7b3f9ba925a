"""A collection of ours that exists: its row of the catalog, its tables, and how to search them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, Text
from sqlalchemy import cast as sql_cast

from sift_store.adapter import EmbedderIdentity
from sift_store.records import Record
from sift_store_pgvector.codec import VectorType, decode_payload, from_id_columns, with_nul
from sift_store_pgvector.filters import Fields
from sift_store_pgvector.indexing import METRIC_OF
from sift_store_pgvector.layout import Layout, VectorIndex
from sift_store_pgvector.schema import passage_table, vector_table
from sift_store_pgvector.server import Server
from sift_store_pgvector.types import OPERATORS

__all__ = ["State", "as_text", "dump_identity", "make_state"]


@dataclass(frozen=True)
class State:
    """A collection that exists: its row of the catalog, its tables, and how to search them."""

    number: int
    dimension: int
    kind: VectorType
    embedder: EmbedderIdentity
    fields: Mapping[str, str]
    generation: int
    passage: Table
    vector: Table
    layout: Layout


def make_state(
    server: Server,
    schema: str,
    number: int,
    dimension: int,
    kind: VectorType,
    embedder: EmbedderIdentity,
    fields: Mapping[str, str],
    generation: int,
    indexed: bool,
) -> State:
    """A collection as a row of the catalog describes it."""
    passage = passage_table(schema, number)
    vector = vector_table(schema, number, generation, kind, dimension)
    layout = Layout(
        vectors=vector,
        key=vector.c.key,
        embedding=vector.c.embedding,
        kind=kind,
        dimension=dimension,
        metric="cosine",
        operator=OPERATORS[METRIC_OF[kind]],
        passages=passage,
        passage_key=passage.c.key,
        columns=[passage.c.id, passage.c.id_type, passage.c.text, as_text(passage.c.payload)],
        record=_record,
        fields=Fields(passage.c.payload, {}, fields, schema),
        base=None,
        index=VectorIndex(f"{vector.name}_hnsw", "hnsw") if indexed else None,
        iterative=server.iterative,
        unit=True,
    )
    return State(number, dimension, kind, embedder, fields, generation, passage, vector, layout)


def as_text(column: Any) -> Any:
    """A jsonb column as text."""
    return sql_cast(column, Text)


def dump_identity(embedder: EmbedderIdentity) -> str:
    """An embedder's identity as the catalog keeps it."""
    fields = {
        "name": embedder.name,
        "query_prefix": embedder.query_prefix,
        "passage_prefix": embedder.passage_prefix,
    }
    return json.dumps(fields)


def _record(row: tuple[Any, ...]) -> Record:
    id_, id_type, body, payload = row
    return Record(from_id_columns(id_, id_type), with_nul(body), decode_payload(payload))
