"""What the server's own state shows: slow scans, indexes that are missing or cannot serve, old versions; the mends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from sqlalchemy import Table

from sift_store.adapter import CandidateQuery, Finding
from sift_store_pgvector.attached import AttachedCollection
from sift_store_pgvector.indexing import field_indexes
from sift_store_pgvector.inspecting import Found, IndexInfo, inspect_relation, tells_rows_apart
from sift_store_pgvector.own import OwnCollection
from sift_store_pgvector.server import Server
from sift_store_pgvector.types import OPCLASSES
from sift_store_pgvector.work import Statement, Work, quoted, quoted_name

__all__ = ["examine"]

# From here on comparing every vector takes tens of milliseconds.
_MANY = 10_000
_CANDIDATES = 200
_OLD_SERVER, _OLD_VECTOR, _FIXED_VECTOR = 140000, (0, 8, 0), (0, 8, 4)
_DEAD_SHARE = 0.2

_STATE = """
SELECT current_setting('hnsw.ef_search', true), current_setting('hnsw.max_scan_tuples', true),
    pg_size_bytes(current_setting('shared_buffers')),
    coalesce((SELECT pg_relation_size(to_regclass(%(index)s))), 0),
    coalesce((SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = to_regclass(%(table)s)), 0),
    coalesce((SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass(%(table)s)), 0)
"""


def examine(collection: OwnCollection | AttachedCollection) -> Work[list[Finding]]:
    """All findings on an existing collection. Reads only."""
    layout = collection.layout
    table = cast(Table, layout.vectors)
    statistics = yield from collection.statistics()
    found = yield from inspect_relation(table.schema, table.name)
    index = None if layout.index is None else quoted_name(table.schema, layout.index.name)
    ((state,),) = yield [Statement(_STATE, {"index": index, "table": quoted(table)})]
    findings = [*_versions(collection.server), *_indexes(collection, found, statistics.count)]
    if layout.index is not None and statistics.count > _MANY:
        findings.append((yield from _used(collection)))
    findings += _settings(state, statistics.count)
    if isinstance(collection, OwnCollection):
        findings += yield from _payload_indexes(collection)
        return findings
    if statistics.count > _MANY:
        findings += _filters(collection)
    if not tells_rows_apart(found, collection.roles.key):
        what = f"no unique index makes sure that {', '.join(collection.roles.key)} tells rows apart"
        findings.append(Finding("note", what, "name what does: &id=COLUMN,COLUMN; two rows of one key are an error"))
    return findings


def _versions(server: Server) -> Iterator[Finding]:
    held = tuple(int(part) for part in (server.vector_version or "0").split(".") if part.isdigit())
    if server.version_number < _OLD_SERVER:
        yield Finding("warning", f"PostgreSQL {server.version} no longer gets fixes", "upgrade to 14 or newer")
    if held < _OLD_VECTOR:
        mend = "install pgvector 0.8 or newer, then ALTER EXTENSION vector UPDATE"
        yield Finding(
            "warning", f"pgvector {server.vector_version} stops walking its index too early under a filter", mend
        )
    elif held < _FIXED_VECTOR:
        mend = "install it, ALTER EXTENSION vector UPDATE, REINDEX the HNSW indexes"
        yield Finding("warning", f"pgvector {server.vector_version} lacks the index fixes of 0.8.4", mend)


def _indexes(collection: OwnCollection | AttachedCollection, found: Found, count: int) -> Iterator[Finding]:
    layout, own = collection.layout, isinstance(collection, OwnCollection)
    for index in found.indexes:
        if not index.valid:
            mend = "run sift-store optimize" if own else f"DROP INDEX CONCURRENTLY {index.name}, then build it again"
            yield Finding("error", f"the index {index.name} is invalid: its build was interrupted", mend)
    if layout.index is not None:
        yield Finding("ok", f"index {layout.index.name} ({layout.index.method}) serves searches by {layout.metric}")
        return
    why = "; ".join(_unusable(index, layout.metric) for index in found.indexes if index.valid)
    if count > _MANY:
        what = f"no index serves: every search compares {count:,} vectors{'; ' + why if why else ''}"
        yield Finding("warning", what, "run sift-store optimize" if own else _create(collection, found))
    elif why:
        yield Finding("note", f"an index is there that does not serve: {why}", _create(collection, found))


def _unusable(index: IndexInfo, metric: str) -> str:
    if index.partial:
        return f"{index.name} holds only rows where {index.partial}"
    if index.metric != metric:
        return f"{index.name} is for {index.opclass}, searches here are by {metric}"
    return f"{index.name} is on {index.expression}"


def _create(collection: OwnCollection | AttachedCollection, found: Found) -> str:
    """The statement that mends a missing index on an attached table."""
    layout = collection.layout
    if found.kind not in ("r", "p", "m"):
        return "build an index on the table below this view; say metric= in the URL"
    column = collection.roles.vector if isinstance(collection, AttachedCollection) else "embedding"
    declared = next(item for item in found.columns if item.name == column).size > 0
    big = layout.kind == "vector" and layout.dimension > 2000
    kind = "halfvec" if big else layout.kind
    expression = f'"{column}"' if declared and not big else f'("{column}"::{kind}({layout.dimension}))'
    opclass = f"{kind}_{OPCLASSES[layout.metric]}"
    return f"CREATE INDEX CONCURRENTLY ON {quoted(cast(Table, layout.vectors))} USING hnsw ({expression} {opclass})"


def _used(collection: OwnCollection | AttachedCollection) -> Work[Finding]:
    """Ask the server how it would go about a search."""
    layout = collection.layout
    assert layout.index is not None  # noqa: S101  # asked by the caller
    vector = np.zeros(layout.dimension, np.float32)
    vector[0] = 1
    statement = layout.nearest(CandidateQuery(vector, _CANDIDATES), exact=False)
    explained = Statement(f"EXPLAIN (FORMAT JSON) {statement.sql}", statement.parameters, statement.settings)
    ((row,),) = yield [explained]
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    if layout.index.name in set(_index_names(plan)) or layout.index.method in json.dumps(plan):
        return Finding("ok", f"a search for {_CANDIDATES} candidates walks {layout.index.name}")
    what = f"the server's planner prefers to compare all vectors to walking {layout.index.name}"
    return Finding(
        "warning", what, f"ANALYZE {quoted(cast(Table, layout.vectors))}; look at random_page_cost and enable_indexscan"
    )


def _index_names(plan: Any) -> Iterator[str]:
    if isinstance(plan, dict):
        if "Index Name" in plan:
            yield plan["Index Name"]
        for value in plan.values():
            yield from _index_names(value)
    elif isinstance(plan, list):
        for item in plan:
            yield from _index_names(item)


def _settings(state: Sequence[Any], count: int) -> Iterator[Finding]:
    ef, scanned, buffers, size, dead, live = state
    if size > buffers:
        what = f"the index is {size >> 20:,} MiB, shared_buffers {buffers >> 20:,} MiB: walks read from disk"
        yield Finding("warning", what, "raise shared_buffers, or store halfvec (?vector_type=halfvec)")
    if count > _MANY and dead > _DEAD_SHARE * max(live, 1):
        yield Finding(
            "warning", f"{dead:,} dead rows lie in the way of searches", "VACUUM the table; see its autovacuum"
        )
    if scanned is not None and int(scanned) < _MANY:
        mend = "leave it at pgvector's 20000"
        yield Finding("warning", f"hnsw.max_scan_tuples is {scanned}: filtered walks end early and fall back", mend)
    if count > _MANY and ef is not None and int(ef) < _CANDIDATES:
        what = (
            f"hnsw.ef_search is {ef}: other programs get at most {ef} rows from this index; searches here set their own"
        )
        yield Finding("ok", what)


def _payload_indexes(own: OwnCollection) -> Work[list[Finding]]:
    """Declared fields whose index is not there or was not finished."""
    state = own.serving()
    (rows,) = yield [
        Statement(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "WHERE i.indrelid = to_regclass(%(table)s) AND i.indisvalid",
            {"table": quoted(state.passage)},
        )
    ]
    there = {row[0] for row in rows}
    missing = [
        index.name for index in field_indexes(state.passage, state.fields, own.schema) if index.name not in there
    ]
    if not missing:
        return [Finding("ok", f"payload indexes: {', '.join(state.fields)}")] if state.fields else []
    mend = "open the store with the same indexed= again"
    return [Finding("warning", f"payload indexes are missing or unfinished: {', '.join(map(str, missing))}", mend)]


def _filters(collection: AttachedCollection) -> list[Finding]:
    """Where a filter would be slow."""
    metadata, found = collection.roles.metadata, collection.found
    if metadata is None or metadata in found.indexed_columns:
        return []
    cast_ = "" if any(c.name == metadata and c.type == "jsonb" for c in found.columns) else "::jsonb"
    table = quoted(cast(Table, collection.layout.vectors))
    mend = f'CREATE INDEX CONCURRENTLY ON {table} USING gin (("{metadata}"{cast_}) jsonb_path_ops)'
    return [Finding("note", f"no index on {metadata}: a filter on its keys looks at every row", mend)]
