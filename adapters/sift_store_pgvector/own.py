"""A collection in tables of our own, as operations on the server; it does no I/O itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import MetaData, Table, bindparam, func, insert, select, text, update
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import CreateTable, DropTable

from sift_store.adapter import Capabilities, EmbedderIdentity, Statistics, check_generation
from sift_store.errors import InvalidInputError, StorageError
from sift_store.filters import Filter
from sift_store.records import Id, Payload, Record
from sift_store.served import Remembered
from sift_store_pgvector import changing
from sift_store_pgvector.codec import VectorType, key_of
from sift_store_pgvector.copying import copied_vectors
from sift_store_pgvector.indexing import field_indexes, statement_of
from sift_store_pgvector.layout import Layout, Searchable
from sift_store_pgvector.schema import catalog_table, lock_key, passage_table, vector_table
from sift_store_pgvector.server import Server
from sift_store_pgvector.state import State, as_text, dump_identity, make_state
from sift_store_pgvector.types import Vector
from sift_store_pgvector.work import TIMEOUT, CopyIn, Statement, Work, compiled, quoted

__all__ = ["OwnCollection"]

# Up to so many passages are counted, more are estimated from PostgreSQL's own statistics.
_COUNTED = 10_000
# pgvector indexes a vector up to this dimension; beyond, half the precision.
_MAX_VECTOR, _MAX_HALFVEC = 2000, 4000
_REPLACING = "the collection is being re-embedded; write when that has ended"


class OwnCollection(Searchable, Remembered):
    """One collection of the catalog, existing or not."""

    def __init__(self, server: Server, schema: str, name: str, declared: Mapping[str, str], kind: str | None) -> None:
        super().__init__()
        self.server, self.schema, self.name = server, schema, name
        self._declared, self._kind = dict(declared), kind
        self._catalog = catalog_table(schema)
        self._state: State | None = None

    @property
    def capabilities(self) -> Capabilities:
        """As of now: the precision is that of an existing collection, else the one asked for."""
        kind = self._kind if self._state is None else self._state.kind
        return Capabilities(
            engine=self.server.engine,
            persistent=True,
            native_filter="a SQLAlchemy condition on payload",
            timeout=TIMEOUT,
            score_error=2e-3 if kind == "halfvec" else 1e-5,
        )

    # --- state --------------------------------------------------------------------------------------------------------

    def statistics(self) -> Work[Statistics]:
        """The state as the server has it."""
        changes = self.changes
        state = yield from self.state()
        if state is None:
            statistics = Statistics(0, 0, None, "cosine", self._declared, None)
        else:
            count, building = yield from self._counts(state)
            statistics = Statistics(
                count=count,
                indexed=count if state.layout.index is not None else 0,
                dimension=state.dimension,
                metric="cosine",
                fields=state.fields,
                embedder=state.embedder,
                building=building,
                generation=state.generation,
            )
        self.remember(statistics, changes)
        return statistics

    def _counts(self, state: State) -> Work[tuple[int, bool]]:
        some = select(text("1")).select_from(state.passage).limit(_COUNTED + 1).subquery()
        # As PostgreSQL's own planner: rows a page when last looked at, times the pages there are now.
        estimate = (
            "CASE WHEN c.reltuples < 0 THEN pg_stat_get_live_tuples(c.oid) ELSE (c.reltuples / greatest(c.relpages, 1) "
            "* pg_relation_size(c.oid) / current_setting('block_size')::int)::bigint END"
        )
        names = {"passage": quoted(state.passage), "vector": quoted(state.vector)}
        ((counted,),), ((estimated, building),) = yield [
            compiled(select(func.count()).select_from(some)),
            Statement(
                f"SELECT {estimate}, EXISTS (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.relid = "
                "%(vector)s::regclass) FROM pg_class c WHERE c.oid = %(passage)s::regclass",
                names,
            ),
        ]
        return (counted if counted <= _COUNTED else max(estimated, counted)), building

    def state(self) -> Work[State | None]:
        """The collection as the catalog has it now; None if it is not there."""
        row = yield from self._row()
        if row is None:
            self._state = None
            return None
        number, dimension, kind, embedder, fields, generation = row
        known = self._state
        vector = vector_table(self.schema, number, generation, kind, dimension)
        ((hnsw,),) = yield [
            Statement(
                "SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON "
                "a.oid = c.relam WHERE i.indrelid = to_regclass(%(table)s) AND i.indisvalid AND a.amname = 'hnsw')",
                {"table": quoted(vector)},
            )
        ]
        indexed = bool(hnsw[0])
        held = json.loads(fields)
        if known is None or (number, generation, held, indexed) != (
            known.number,
            known.generation,
            known.fields,
            known.layout.index is not None,
        ):
            self._state = make_state(
                self.server,
                self.schema,
                number,
                dimension,
                kind,
                EmbedderIdentity(**json.loads(embedder)),
                held,
                generation,
                indexed,
            )
        return self._state

    def _row(self) -> Work[tuple[Any, ...] | None]:
        ready = yield from self.server.schema_ready(self.schema)
        if not ready:
            return None
        c = self._catalog.c
        columns = [c.number, c.dimension, c.vector_type, as_text(c.embedder), as_text(c.fields), c.generation]
        (rows,) = yield [compiled(select(*columns).where(c.name == self.name))]
        return rows[0] if rows else None

    def serving(self) -> State:
        """The state of a collection that exists.

        Raises:
            StorageError: nothing was ever added.
        """
        if self._state is None:
            raise StorageError("the collection is empty; add something first")
        return self._state

    @property
    def generation(self) -> int:
        """Of the content, as last seen."""
        return 0 if self._state is None else self._state.generation

    @property
    def layout(self) -> Layout:
        """Where things are."""
        return self.serving().layout

    def get(self, ids: Sequence[Id], *, vectors: bool) -> Work[list[Record | None]]:
        """Records by id, in order."""
        return (yield from self.layout.fetch([key_of(id_) for id_ in ids], vectors=vectors))

    # --- creating -----------------------------------------------------------------------------------------------------

    def create(self, dimension: int, embedder: EmbedderIdentity) -> Work[None]:
        """Make the collection with its tables and the indexes of its fields, in one transaction, if it is not there."""
        kind = self._kind_for(dimension)
        lock = lock_key(self.schema, "create", self.name)
        yield [Statement("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": lock})]
        if (yield from self._row()) is not None:
            return
        values = {
            "name": self.name,
            "dimension": dimension,
            "vector_type": kind,
            "embedder": dump_identity(embedder),
            "fields": json.dumps(self._declared),
            "generation": 0,
        }
        columns = {name: sql_cast(bindparam(name), JSONB) for name in ("embedder", "fields")}
        made = insert(self._catalog).values({**values, **columns}).returning(self._catalog.c.number)
        statement = compiled(made)
        ((row,),) = yield [Statement(statement.sql, {**statement.parameters, **values})]
        passage = passage_table(self.schema, row[0])
        vector = vector_table(self.schema, row[0], 0, kind, dimension)
        yield [compiled(CreateTable(passage)), compiled(CreateTable(vector))]
        for index in field_indexes(passage, self._declared, self.schema):
            yield [Statement(statement_of(index, concurrently=False))]

    def _kind_for(self, dimension: int) -> VectorType:
        kind = self._kind or ("vector" if dimension <= _MAX_VECTOR else "halfvec")
        if dimension > (_MAX_VECTOR if kind == "vector" else _MAX_HALFVEC):
            raise InvalidInputError(
                f"dimension {dimension}: pgvector indexes vector up to {_MAX_VECTOR} and halfvec up to {_MAX_HALFVEC}; "
                "use a smaller embedding" + (", or ?vector_type=halfvec" if kind == "vector" else "")
            )
        return cast(VectorType, kind)

    def undeclared(self) -> dict[str, str]:
        """Fields that were declared at open and that the collection does not have, or has with another type."""
        held = {} if self._state is None else self._state.fields
        return {key: kind for key, kind in self._declared.items() if held.get(key) != kind} if self._state else {}

    def declare(self) -> Work[None]:
        """Write the declared fields to the catalog."""
        fields = {**self.serving().fields, **self._declared}
        values = update(self._catalog).where(self._catalog.c.name == self.name)
        statement = compiled(values.values(fields=sql_cast(bindparam("held"), JSONB)))
        yield [Statement(statement.sql, {**statement.parameters, "held": json.dumps(fields)})]

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, records: Sequence[Record], generation: int | None, within: Filter | None) -> Work[None]:
        """Write records in one transaction: all of them or none."""
        state = yield from self._writable()
        check_generation(state.generation, generation)
        yield from changing.upsert(state, records, within)

    def update_payload(self, ids: Sequence[Id], payload: Payload, within: Filter | None) -> Work[None]:
        """Merge keys into payloads; rows with vectors stay as they are."""
        state = yield from self._writable()
        yield from changing.update_payload(state, ids, payload, within)

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> Work[int]:
        """Delete by ids, by filter, or by both; how many went."""
        state = yield from self._writable()
        return (yield from changing.delete(state, ids, where))

    def _writable(self) -> Work[State]:
        """First in every transaction that writes: shut out a replacement, and see what there is."""
        state = self.serving()
        lock = lock_key(self.schema, "replace", state.number)
        for patience in (0.02, 0.1, 0):  # a lock whose holder just died is gone in a moment
            ((row,),) = yield [Statement("SELECT pg_try_advisory_xact_lock_shared(%(lock)s)", {"lock": lock})]
            if row[0]:
                break
            yield [Statement("SELECT pg_sleep(%(seconds)s)", {"seconds": patience})]
        else:
            raise StorageError(_REPLACING)
        state_now = yield from self.state()
        if state_now is None or state_now.number != state.number:
            raise StorageError("the collection was dropped meanwhile; open the store again")
        return state_now

    def check_same(self, before: State) -> None:
        """Refuse to go on with another content than it was.

        Raises:
            StorageError: it was dropped or re-embedded meanwhile.
        """
        now = self._state
        if now is None or (now.number, now.generation) != (before.number, before.generation):
            raise StorageError("the collection was dropped or re-embedded meanwhile; open the store again")

    # --- replacing ----------------------------------------------------------------------------------------------------

    def lives_in(self, begun: tuple[Table, int] | None) -> bool:
        """Whether a table that a replacement has begun is the live one, as last seen."""
        return begun is not None and self._state is not None and self._state.vector.name == begun[0].name

    def replacement_lock(self) -> int:
        """The advisory lock that a replacement holds."""
        return lock_key(self.schema, "replace", self.serving().number)

    def next_vectors(self, dimension: int) -> Table:
        """The table that a replacement fills."""
        state = self.serving()
        half = state.kind == "halfvec" and self._kind is None
        kind: VectorType = "halfvec" if half and dimension <= _MAX_HALFVEC else self._kind_for(dimension)
        return vector_table(self.schema, state.number, state.generation + 1, kind, dimension)

    def begin_vectors(self, table: Table) -> Work[None]:
        """An empty table for new vectors; what interrupted replacements left is dropped."""
        state = self.serving()
        yield from self._locked_generation(state)
        yield from self._sweep(state)
        yield [compiled(CreateTable(table))]

    def _locked_generation(self, state: State) -> Work[None]:
        """Make sure, to the end of the transaction, that the collection is what we think it is."""
        c = self._catalog.c
        (rows,) = yield [compiled(select(c.generation).where(c.number == state.number).with_for_update())]
        if [row[0] for row in rows] != [state.generation]:
            raise StorageError("the collection was dropped or re-embedded meanwhile; open the store again")

    def _sweep(self, state: State) -> Work[None]:
        """Drop vectors of other generations than the live one."""
        (rows,) = yield [
            Statement(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE "
                "n.nspname = %(schema)s AND c.relkind = 'r' AND c.relname ~ %(like)s AND c.relname <> %(live)s",
                {"schema": self.schema, "like": rf"^vector_{state.number}_\d+$", "live": state.vector.name},
            )
        ]
        yield [compiled(DropTable(Table(name, MetaData(), schema=self.schema))) for (name,) in rows]

    def write_vectors(self, table: Table, records: Sequence[Record]) -> Work[None]:
        """More vectors for the new table."""
        kind = cast(Vector, table.c.embedding.type).kind
        yield CopyIn(f"COPY {quoted(table)} FROM STDIN (FORMAT BINARY)", lambda _: copied_vectors(records, kind))

    def take_vectors(self, table: Table, dimension: int, embedder: EmbedderIdentity, holder: int) -> Work[int]:
        """Make the new table the collection's; the new generation. `holder`: the process that shut out writers.

        Raises:
            StorageError: it no longer does, so that others may have written; nothing was changed.
        """
        state = self.serving()
        locked = (
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = %(pid)s AND "
            "mode = 'ExclusiveLock' AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = %(lock)s AND "
            "database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
        )
        ((row,),) = yield [Statement(locked, {"pid": holder, "lock": self.replacement_lock()})]
        if not row[0]:
            raise StorageError("the connection that shut out writers was lost, and the old vectors stay; try again")
        yield from self._locked_generation(state)
        switched = (
            update(self._catalog)
            .where(self._catalog.c.number == state.number)
            .values(
                generation=state.generation + 1,
                dimension=dimension,
                vector_type=cast(Vector, table.c.embedding.type).kind,
                embedder=sql_cast(bindparam("identity"), JSONB),
            )
        )
        statement = compiled(switched)
        yield [Statement(statement.sql, {**statement.parameters, "identity": dump_identity(embedder)})]
        return state.generation + 1

    def drop_others(self) -> Work[None]:
        """Drop what is not live: what was begun, or the vectors that were replaced. Waits for no reader for long."""
        yield [Statement("SELECT set_config('lock_timeout', '2s', true)")]
        state = yield from self.state()
        if state is not None:
            yield from self._sweep(state)
