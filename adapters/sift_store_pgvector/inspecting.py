"""What is in a relation that others made: its columns, its key, its indexes; and which layout they form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sift_store.errors import LocationError, NotFoundError
from sift_store_pgvector.codec import VectorType
from sift_store_pgvector.types import METRICS
from sift_store_pgvector.work import Statement, Work, quoted_name

__all__ = [
    "ColumnInfo",
    "Found",
    "IndexInfo",
    "Roles",
    "find_roles",
    "inspect_relation",
    "relations_with_vectors",
    "tells_rows_apart",
]

_VECTORS = ("vector", "halfvec")
_TEXTS = ("text", "varchar", "bpchar")
_JSONS = ("jsonb", "json")


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column: its name, PostgreSQL's name of its type, and the dimension of a vector (-1: any)."""

    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index on vectors.

    Attributes:
        expression: what it indexes, as SQL: a column or a cast of one. metric, kind: of its operator class.
        partial: its condition, or "". lists: of ivfflat.
    """

    name: str
    method: str
    opclass: str
    expression: str
    valid: bool
    partial: str
    lists: int

    @property
    def metric(self) -> str:
        """What its operator class orders by, "" for one that searches here do not use."""
        return METRICS.get(self.opclass.partition("_")[2], "")

    @property
    def kind(self) -> VectorType | None:
        """The type it compares."""
        kind = self.opclass.partition("_")[0]
        return kind if kind in _VECTORS else None  # type: ignore[return-value]  # one of the two


@dataclass(frozen=True, slots=True)
class Found:
    """A relation: a table, view, materialised view, partitioned or foreign table.

    Attributes:
        unique: sets of columns of which no two rows have the same, and none is NULL.
        indexed_expressions: what indexes that are no columns' are on, as SQL.
    """

    schema: str
    name: str
    kind: str
    columns: Sequence[ColumnInfo]
    primary_key: Sequence[str]
    indexes: Sequence[IndexInfo]
    indexed_columns: frozenset[str]
    unique: Sequence[frozenset[str]] = ()
    indexed_expressions: frozenset[str] = frozenset()

    def named(self, *types: str) -> list[str]:
        """Names of the columns of these types."""
        return [column.name for column in self.columns if column.type in types]


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column is what. `key` finds a row again; `id` is what a hit shows. `hidden`: no part of the payload.

    Where several columns together tell rows apart, `key` and `id` are these, and an id is their values as a JSON list.
    """

    key: tuple[str, ...]
    id: tuple[str, ...]
    vector: str
    text: str
    metadata: str | None
    hidden: frozenset[str] = frozenset()


# What other programs make: the columns that tell it, and what they are.
_KNOWN: tuple[tuple[frozenset[str], Roles], ...] = (
    (  # langchain-postgres, PGVector: one table for all collections
        frozenset({"id", "collection_id", "embedding", "document", "cmetadata"}),
        Roles(("id",), ("id",), "embedding", "document", "cmetadata", frozenset({"collection_id"})),
    ),
    (  # langchain-postgres, PGVectorStore: a table for each
        frozenset({"langchain_id", "content", "embedding", "langchain_metadata"}),
        Roles(("langchain_id",), ("langchain_id",), "embedding", "content", "langchain_metadata"),
    ),
    (  # LlamaIndex, PGVectorStore
        frozenset({"id", "text", "metadata_", "node_id", "embedding"}),
        Roles(("id",), ("node_id",), "embedding", "text", "metadata_", frozenset({"id", "text_search_tsv"})),
    ),
)

_RELATION = """
SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%(name)s)
"""
_COLUMNS = """
SELECT a.attname, t.typname, a.atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%(name)s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEY = """
SELECT a.attname FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(number, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = to_regclass(%(name)s) AND i.indisprimary ORDER BY k.place
"""
_UNIQUE = """
SELECT array_agg(a.attname::text)
FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(number, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = to_regclass(%(name)s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
AND k.place <= i.indnkeyatts GROUP BY i.indexrelid HAVING bool_and(a.attnotnull)
"""
_EXPRESSIONS = """
SELECT pg_get_expr(i.indexprs, i.indrelid) FROM pg_index i
WHERE i.indrelid = to_regclass(%(name)s) AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NOT NULL
"""
_INDEXES = """
SELECT c.relname, am.amname, o.opcname, pg_get_indexdef(i.indexrelid, 1, true), i.indisvalid,
    coalesce(pg_get_expr(i.indpred, i.indrelid), ''),
    coalesce((SELECT split_part(x, '=', 2)::int FROM unnest(c.reloptions) x WHERE x LIKE 'lists=%%'), 100)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = to_regclass(%(name)s) AND am.amname IN ('hnsw', 'ivfflat') ORDER BY c.relname
"""
_INDEXED = """
SELECT DISTINCT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = to_regclass(%(name)s) AND i.indisvalid
"""
_WITH_VECTORS = """
SELECT n.nspname, c.relname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.typname IN ('vector', 'halfvec') AND c.relkind IN ('r', 'v', 'm', 'p', 'f') AND NOT a.attisdropped
AND n.nspname NOT IN ('pg_catalog', 'information_schema') GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 20
"""


def relations_with_vectors() -> Work[list[str]]:
    """Names of what could be attached, the first twenty."""
    (rows,) = yield [Statement(_WITH_VECTORS)]
    return [f"{schema}.{name}" for schema, name in rows]


def inspect_relation(schema: str | None, table: str) -> Work[Found]:
    """Look at a table or view.

    Raises:
        NotFoundError: there is none of that name.
    """
    name = quoted_name(schema, table)
    questions = (_RELATION, _COLUMNS, _KEY, _INDEXES, _INDEXED, _UNIQUE, _EXPRESSIONS)
    answers = yield [Statement(sql, {"name": name}) for sql in questions]
    relation, columns, key, indexes, indexed, unique, expressions = answers
    if not relation:
        there = yield from relations_with_vectors()
        raise NotFoundError(f"no table or view {name}; with vectors there are: {', '.join(there) or 'none'}")
    there_schema, there_name, there_kind = relation[0]
    return Found(
        schema=there_schema,
        name=there_name,
        kind=there_kind,
        columns=[ColumnInfo(*row) for row in columns],
        primary_key=[row[0] for row in key],
        indexes=[IndexInfo(*row) for row in indexes],
        indexed_columns=frozenset(row[0] for row in indexed),
        unique=[frozenset(row[0]) for row in unique],
        indexed_expressions=frozenset(row[0] for row in expressions),
    )


def find_roles(found: Found, options: Mapping[str, str]) -> Roles:
    """Which column is what: as the URL says, as a known layout has it, or as the types leave no doubt.

    Raises:
        LocationError: a column that is not there, or several that it could be; names them.
    """
    names = {column.name for column in found.columns}
    said = _said_id(options, names)
    for role in ("id", "text", "vector", "metadata"):
        if role in options and options[role] not in names and not (role == "id" and said):
            raise LocationError(
                f"{role}={options[role]}: {found.name} has no such column; it has {', '.join(sorted(names))}"
            )
    known = next((roles for columns, roles in _KNOWN if columns <= names), None)
    if known is not None and not {"id", "text", "vector", "metadata"} & options.keys():
        return known
    vector = options.get("vector") or _only(found, "vector", found.named(*_VECTORS))
    key = tuple(found.primary_key)
    id_ = said or key
    if not id_:
        raise LocationError(f"{found.name} has no primary key; name what tells its rows apart: &id=COLUMN,COLUMN…")
    text = options.get("text") or _only(found, "text", [name for name in found.named(*_TEXTS) if name not in id_])
    jsons = found.named(*_JSONS)
    metadata = options.get("metadata") or (jsons[0] if len(jsons) == 1 else None)
    if _type(found, vector) not in _VECTORS:
        raise LocationError(f"vector={vector}: of type {_type(found, vector)}, vector or halfvec wanted")
    return Roles(key or id_, id_, vector, text, metadata)


def _said_id(options: Mapping[str, str], names: set[str]) -> tuple[str, ...]:
    """The columns that the URL names as the id: one, with whatever is in its name, or several with commas between."""
    said = options.get("id", "")
    if said in names:
        return (said,)
    parts = tuple(part for part in said.split(",") if part)
    return parts if parts and set(parts) <= names else ()


def tells_rows_apart(found: Found, columns: Sequence[str]) -> bool:
    """Whether the server makes sure that no two rows have the same in some columns."""
    return any(unique <= set(columns) for unique in found.unique)


def _only(found: Found, role: str, names: Sequence[str]) -> str:
    if len(names) != 1:
        could = ", ".join(names) or "no column of such a type"
        raise LocationError(f"{found.name}: which column is the {role}? Say &{role}=…; it could be {could}")
    return names[0]


def _type(found: Found, name: str) -> str:
    return next(column.type for column in found.columns if column.name == name)
