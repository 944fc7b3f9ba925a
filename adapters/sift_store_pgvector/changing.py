"""Changing the passages of a collection, each in a transaction that `OwnCollection` began."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy import cast as sql_cast
from sqlalchemy import delete as sql_delete
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.schema import CreateTable

from sift_store.errors import InvalidInputError
from sift_store.filters import Filter
from sift_store.records import Id, Payload, Record
from sift_store_pgvector.codec import encode_payload, key_of
from sift_store_pgvector.copying import copied_records, stage_table
from sift_store_pgvector.filters import Fields, translate
from sift_store_pgvector.state import State
from sift_store_pgvector.work import CopyIn, Statement, Work, compiled

__all__ = ["delete", "update_payload", "upsert"]


def upsert(state: State, records: Sequence[Record], within: Filter | None) -> Work[None]:
    """Write records in one transaction: all of them or none."""
    stage = stage_table(state.kind)
    yield [compiled(CreateTable(stage))]
    yield CopyIn(f"COPY {stage.name} FROM STDIN (FORMAT BINARY)", partial(copied_records, records, state.kind))
    passage = state.passage
    names = ["key", "id", "id_type", "text", "payload"]
    rows = pg_insert(passage).from_select(names, select(*(stage.c[name] for name in names)).order_by(stage.c.key))
    written = rows.on_conflict_do_update(
        index_elements=[passage.c.key],
        set_={name: rows.excluded[name] for name in names[1:]},
        where=None if within is None else translate(within, Fields(passage.c.payload)),
    )
    vector = state.vector
    fresh = pg_insert(vector).from_select(
        ["key", "embedding"], select(stage.c.key, stage.c.embedding).order_by(stage.c.key)
    )
    changed = fresh.on_conflict_do_update(  # an equal vector is left alone, and its place in the index with it
        index_elements=[vector.c.key],
        set_={"embedding": fresh.excluded.embedding},
        where=vector.c.embedding.is_distinct_from(fresh.excluded.embedding),
    )
    (keys,) = yield [compiled(written.returning(passage.c.key))]
    if len(keys) < len(records):
        held = {row[0] for row in keys}
        taken = next(record.id for record in records if key_of(record.id) not in held)
        raise InvalidInputError(f"id {taken!r} is taken outside this store's scope; choose another")
    yield [compiled(changed)]


def update_payload(state: State, ids: Sequence[Id], payload: Payload, within: Filter | None) -> Work[None]:
    """Merge keys into payloads; rows with vectors stay as they are."""
    passage = state.passage
    wanted = [passage.c.key == func.any(bindparam("keys", type_=ARRAY(UUID)))]
    if within is not None:
        wanted.append(translate(within, Fields(passage.c.payload)))
    merged = passage.c.payload.op("||")(sql_cast(bindparam("patch"), JSONB))
    statement = compiled(update(passage).where(*wanted).values(payload=merged).returning(passage.c.key))
    keys = [key_of(id_) for id_ in ids]
    parameters = {**statement.parameters, "keys": keys, "patch": encode_payload(payload)}
    (rows,) = yield [Statement(statement.sql, parameters)]
    if within is not None and len(rows) < len(set(keys)):
        held = {row[0] for row in rows}
        missing = yield from _existing(state, [key for key in keys if key not in held])
        if missing:
            taken = next(id_ for id_ in ids if key_of(id_) in missing)
            raise InvalidInputError(f"id {taken!r} is taken outside this store's scope; choose another")


def delete(state: State, ids: Sequence[Id] | None, where: Filter | None) -> Work[int]:
    """Delete by ids, by filter, or by both; how many went."""
    passage, vector = state.passage, state.vector
    gone = sql_delete(passage).returning(passage.c.key)
    parameters: dict[str, Any] = {}
    if ids is not None:
        gone = gone.where(passage.c.key == func.any(bindparam("keys", type_=ARRAY(UUID))))
        parameters["keys"] = [key_of(id_) for id_ in ids]
    if where is not None:
        gone = gone.where(translate(where, state.layout.fields))
    went = gone.cte("gone")
    vectors = sql_delete(vector).where(vector.c.key == went.c.key).returning(vector.c.key).cte("vectors")
    statement = compiled(select(func.count()).select_from(went).add_cte(vectors))
    ((row,),) = yield [Statement(statement.sql, {**statement.parameters, **parameters})]
    return int(row[0])


def _existing(state: State, keys: Sequence[Any]) -> Work[set[Any]]:
    found = select(state.passage.c.key).where(state.passage.c.key == func.any(bindparam("keys", type_=ARRAY(UUID))))
    statement = compiled(found)
    (rows,) = yield [Statement(statement.sql, {**statement.parameters, "keys": list(keys)})]
    return {row[0] for row in rows}
