"""A table or view that others made and keep, as a collection that is only read."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    null,
    select,
    text,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID
from sqlalchemy.types import NullType, TypeEngine

from sift_store.adapter import Capabilities, EmbedderIdentity, Key, Statistics
from sift_store.errors import LocationError, NotFoundError, StorageError
from sift_store.records import Id, Record
from sift_store.served import Remembered
from sift_store_pgvector.codec import VectorType, without_nul
from sift_store_pgvector.filters import Fields
from sift_store_pgvector.inspecting import (
    ColumnInfo,
    Found,
    IndexInfo,
    Roles,
    find_roles,
    inspect_relation,
    relations_with_vectors,
)
from sift_store_pgvector.layout import Layout, Metric, Searchable, VectorIndex
from sift_store_pgvector.server import Server
from sift_store_pgvector.types import OPERATORS, Vector
from sift_store_pgvector.work import TIMEOUT, Statement, Work, compiled, quoted

__all__ = ["AttachedCollection", "attach"]

_COUNTED = 10_000
_LANGCHAIN = "langchain_pg_embedding"
# Longer JSON text may nest deeper than the server can read.
_LONGEST_JSON = 1_000_000
# Arguments of one jsonb_build_object: at most a hundred, two a column.
_PER_OBJECT = 40
# Compared as columns, and so by their indexes; the others as the JSON that they become.
_TYPES: Mapping[str, TypeEngine[Any]] = {
    "text": Text(),
    "varchar": Text(),
    "int2": BigInteger(),
    "int4": BigInteger(),
    "int8": BigInteger(),
    "numeric": Numeric(),
    "bool": Boolean(),
    "timestamptz": DateTime(timezone=True),
    "uuid": UUID(),
    "jsonb": JSONB(),
    "json": JSON(),
}
_KINDS = {"text": "keyword", "varchar": "keyword", "bool": "bool", "timestamptz": "datetime", "numeric": "float"} | {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
}
_NO_PAYLOAD = ("vector", "halfvec", "sparsevec", "tsvector", "bytea")


class AttachedCollection(Searchable, Remembered):
    """One relation, or one collection in it."""

    def __init__(self, server: Server, found: Found, roles: Roles, layout: Layout, fields: Mapping[str, str]) -> None:
        super().__init__()
        self.server, self.found, self.roles, self._layout = server, found, roles, layout
        self._fields = dict(fields)
        self.capabilities = Capabilities(
            engine=server.engine,
            persistent=True,
            native_filter="a SQLAlchemy condition on the table's columns",
            writable=False,
            timeout=TIMEOUT,
            score_error=2e-3 if layout.kind == "halfvec" else 1e-5,
        )

    @property
    def layout(self) -> Layout:
        """Where things are in the relation."""
        return self._layout

    def statistics(self) -> Work[Statistics]:
        """Counted up to ten thousand, estimated beyond; of one collection of many, at least so many."""
        changes = self.changes
        some = select(text("1")).select_from(self.layout.passages).limit(_COUNTED + 1)
        if self.layout.base is not None:
            some = some.where(self.layout.base)
        ((counted,),), ((estimated,),) = yield [
            compiled(select(func.count()).select_from(some.subquery())),
            Statement(
                "SELECT reltuples::bigint FROM pg_class WHERE oid = %(table)s::regclass",
                {"table": quoted(cast(Table, self.layout.passages))},
            ),
        ]
        whole = self.layout.base is None and counted > _COUNTED
        count = max(counted, estimated) if whole else counted
        statistics = Statistics(
            count=count,
            indexed=count if self.layout.index is not None else 0,
            dimension=self.layout.dimension,
            metric=self.layout.metric,
            fields=self._fields,
            embedder=EmbedderIdentity(),
        )
        self.remember(statistics, changes)
        return statistics

    def get(self, ids: Sequence[Id], *, vectors: bool) -> Work[list[Record | None]]:
        """Records by id, in order; an id of another type than the column's is not there."""
        table = cast(Table, self.layout.passages)
        if self.roles.id == self.roles.key:
            keys = [_as(id_, self.layout.passage_key.type) for id_ in ids]
            found = yield from self.layout.fetch([key for key in keys if key is not None], vectors=vectors)
            there = iter(found)
            return [None if key is None else next(there) for key in keys]
        column = _keyed(table, self.roles.id)
        wanted = column == func.any(bindparam("ids", type_=ARRAY(column.type)))
        statement = compiled(select(column, self.layout.passage_key).where(wanted))
        values = [value for id_ in ids if (value := _as(id_, column.type)) is not None]
        (rows,) = yield [Statement(statement.sql, {**statement.parameters, "ids": values})]
        keys_by_id: dict[Any, Key] = dict(rows)
        if len(keys_by_id) < len(rows):
            raise StorageError(
                f"{', '.join(self.roles.id)}: several rows have one of the ids; name what tells them apart: &id=…,…"
            )
        records = yield from self.layout.fetch(list(keys_by_id.values()), vectors=vectors)
        by_id = dict(zip(keys_by_id, records, strict=True))
        return [by_id.get(_as(id_, column.type)) for id_ in ids]


def _leading(relation: Table, names: Sequence[str]) -> ColumnElement[Any] | None:
    """The first of several columns that are the key, by which an index finds rows; None if there is one alone."""
    column = relation.c[names[0]]
    return None if len(names) == 1 or isinstance(column.type, NullType) else column


def _as(id_: Id, kind: TypeEngine[Any]) -> Any:
    """An id as the value of a column, None if it cannot be one."""
    if isinstance(kind, Integer):
        return id_ if isinstance(id_, int) and abs(id_) < 2**63 else None
    if isinstance(kind, UUID):
        try:
            return id_ if isinstance(id_, uuid.UUID) else uuid.UUID(str(id_))
        except ValueError:
            return None
    return None if isinstance(id_, int) or "\0" in str(id_) else str(id_)


def attach(server: Server, options: Mapping[str, str]) -> Work[AttachedCollection]:
    """Find out where things are in the relation that the options name; see `Location.options`.

    Raises:
        LocationError: no table named, or its columns leave doubts. NotFoundError: no such table or collection.
    """
    if server.vector_version is None:
        raise NotFoundError("this database has no pgvector; CREATE EXTENSION vector, or connect to another database")
    table = options.get("table") or (_LANGCHAIN if "collection" in options else None)
    if table is None:
        there = yield from relations_with_vectors()
        raise LocationError(f"which table? Say ?table=…; with vectors there are: {', '.join(there) or 'none'}")
    found = yield from inspect_relation(options.get("schema"), table)
    roles = find_roles(found, options)
    base = None
    relation = _relation(found)
    if "collection" in options:
        if "collection_id" not in roles.hidden:
            raise LocationError(
                f"collection={options['collection']}: {found.name} is no table of LangChain collections"
            )
        number = yield from _langchain_collection(found.schema, options["collection"])
        base = relation.c.collection_id == sql_cast(str(number), UUID)
    column = next(column for column in found.columns if column.name == roles.vector)
    index = _usable(found, roles, options)
    kind, dimension = yield from _vector_type(relation, column, index)
    plain = _plain(found, roles, options.get("columns"))
    payload, fields = _payload(relation, found, roles, plain)
    columns = [_keyed(relation, roles.id), relation.c[roles.text], *payload]
    layout = Layout(
        vectors=relation,
        key=_keyed(relation, roles.key),
        embedding=_embedding(relation, roles, index, kind),
        kind=kind,
        dimension=dimension,
        metric=cast(Metric, index.metric if index else options.get("metric", "cosine")),
        operator=OPERATORS[index.metric if index else options.get("metric", "cosine")],
        passages=relation,
        passage_key=_keyed(relation, roles.key),
        columns=columns,
        record=_record,
        fields=fields,
        base=base,
        index=None if index is None else VectorIndex(index.name, index.method, index.lists),
        iterative=server.iterative,
        unit=False,
        leading=_leading(relation, roles.key),
    )
    indexed = {c.name: _KINDS[c.type] for c in plain if c.name in found.indexed_columns and c.type in _KINDS}
    return AttachedCollection(server, found, roles, layout, indexed)


def _relation(found: Found) -> Table:
    columns = [Column(column.name, _column_type(column)) for column in found.columns]
    return Table(found.name, MetaData(), *columns, schema=found.schema)


def _column_type(column: ColumnInfo) -> TypeEngine[Any]:
    if column.type in ("vector", "halfvec"):
        return Vector(cast(VectorType, column.type), column.size if column.size > 0 else None)
    return _TYPES.get(column.type, NullType())


def _langchain_collection(schema: str, name: str) -> Work[Any]:
    catalog = Table("langchain_pg_collection", MetaData(), Column("uuid", UUID), Column("name", Text), schema=schema)
    rows, some = yield [
        compiled(select(catalog.c.uuid).where(catalog.c.name == name)),
        compiled(select(catalog.c.name).order_by(catalog.c.name).limit(20)),
    ]
    if not rows:
        known = ", ".join(str(row[0]) for row in some) or "none"
        raise NotFoundError(f"no LangChain collection {name!r}; there are: {known}")
    return rows[0][0]


# --- the vector -------------------------------------------------------------------------------------------------------


def _usable(found: Found, roles: Roles, options: Mapping[str, str]) -> IndexInfo | None:
    """The index that searches will walk: valid, whole, on this column, by a distance that is asked for."""
    metric = options.get("metric")
    if metric is not None and metric not in OPERATORS:
        raise LocationError(f"metric={metric}: one of {', '.join(OPERATORS)} wanted")
    for index in found.indexes:
        on_column = re.search(rf'(?<![\w"]){re.escape(_identifier(roles.vector))}(?![\w"])', index.expression)
        plain = re.fullmatch(r'\(*"?[^():]+"?\)*(::\w+(\(\d+\))?\)?)?', index.expression)
        serves = index.valid and not index.partial and index.kind and index.metric and on_column and plain
        if serves and metric in (None, index.metric):
            return index
    return None


def _identifier(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _embedding(relation: Table, roles: Roles, index: IndexInfo | None, kind: VectorType) -> ColumnElement[Any]:
    """What is compared, written as the index has it: only then does it serve."""
    if index is None or "::" not in index.expression:
        return relation.c[roles.vector]
    return literal_column(f"({index.expression})", Vector(kind))


def _vector_type(relation: Table, column: ColumnInfo, index: IndexInfo | None) -> Work[tuple[VectorType, int]]:
    declared = re.search(r"::(?:\w+\.)?(vector|halfvec)\((\d+)\)", index.expression) if index else None
    if declared:
        return cast(VectorType, declared[1]), int(declared[2])
    kind = cast(VectorType, column.type)
    if column.size > 0:
        return kind, column.size
    held = relation.c[column.name]
    some = select(func.vector_dims(held)).where(held.is_not(None)).limit(1)
    (rows,) = yield [compiled(some)]
    if not rows:
        raise LocationError(f"{relation.name}.{column.name} declares no dimension and holds no vector yet")
    return kind, int(rows[0][0])


# --- the payload ------------------------------------------------------------------------------------------------------


def _plain(found: Found, roles: Roles, named: str | None) -> list[ColumnInfo]:
    """The columns that are metadata by themselves: those that the URL names, with commas between, or all others."""
    alone = {names[0] for names in (roles.key, roles.id) if len(names) == 1}  # parts of a key are payload, too
    roled = {*alone, roles.vector, roles.text, roles.metadata} | roles.hidden
    plain = [column for column in found.columns if column.name not in roled and column.type not in _NO_PAYLOAD]
    return plain if named is None else [column for column in plain if column.name in named.split(",")]


def _payload(
    relation: Table, found: Found, roles: Roles, plain: Sequence[ColumnInfo]
) -> tuple[list[ColumnElement[Any]], Fields]:
    """Metadata and other columns as JSON text, and where the keys of filters are: a column comes before the metadata.

    Both are read as text and decoded here: a row of type json may hold what jsonb refuses, and would fail all others.
    """
    metadata: ColumnElement[Any] = null()
    filtered: ColumnElement[Any] | None = None
    if roles.metadata is not None:
        column = relation.c[roles.metadata]
        metadata = sql_cast(column, Text)
        filtered = column if isinstance(column.type, JSONB) else _as_jsonb(column, found, roles.metadata)
    columns: ColumnElement[Any] = sql_cast("{}", JSONB)
    for start in range(0, len(plain), _PER_OBJECT):
        pairs = []
        for info in plain[start : start + _PER_OBJECT]:
            column = relation.c[info.name]
            pairs += [sql_cast(info.name, Text), sql_cast(column, Text) if info.type == "json" else column]
        columns = columns.op("||", return_type=JSONB())(func.jsonb_build_object(*pairs, type_=JSONB))
    fields = {info.name: relation.c[info.name] for info in plain}
    return [metadata, sql_cast(columns, Text)], Fields(filtered, fields)


def _as_jsonb(column: ColumnElement[Any], found: Found, name: str) -> ColumnElement[Any]:
    """A json column as jsonb, so that no row can fail: what jsonb refuses is NULL, and NUL is as in tables of ours.

    Where there is an index on the plain cast, it has shown that every row can be cast.
    """
    plain = sql_cast(column, JSONB)
    if any(re.search(rf"\(?{re.escape(_identifier(name))}\)?::jsonb", text) for text in found.indexed_expressions):
        return plain
    text = func.regexp_replace(sql_cast(column, Text), r"(?<!\\)((?:\\\\)*)\\u0000", "\\1" + without_nul("\0"), "g")
    harmless = and_(~text.regexp_match(r"\\u[dD][89a-fA-F]|[eE][+]?\d{3}"), func.length(text) < _LONGEST_JSON)
    return case((harmless, sql_cast(text, JSONB)), else_=null())


def _keyed(relation: Table, names: Sequence[str]) -> ColumnElement[Any]:
    """What tells rows apart: a column, as text if it is no integer, text or UUID; several as a JSON list in text."""
    if len(names) > 1:
        return sql_cast(func.jsonb_build_array(*(relation.c[name] for name in names), type_=JSONB), Text)
    column = relation.c[names[0]]
    return column if isinstance(column.type, Integer | UUID | Text) else sql_cast(column, Text)


def _record(row: tuple[Any, ...]) -> Record:
    id_, body, metadata, columns = row
    below = _loaded(metadata)
    return Record(id_, body or "", {**(below if isinstance(below, dict) else {}), **json.loads(columns)})


def _loaded(text: str | None) -> Any:
    """JSON as the column holds it, None if nobody can read it."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
