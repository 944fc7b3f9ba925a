"""Where a collection's vectors, ids, texts and payloads are, and the statements of a search over them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, FromClause, Integer, Select, Text, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from sift_store.adapter import CandidateQuery, Candidates, Key
from sift_store.errors import StorageError
from sift_store.filters import Filter, has_native
from sift_store.kernels import directed_rows
from sift_store.records import Record
from sift_store_pgvector.codec import VectorParameter, VectorType, decode_vectors, encode_vector
from sift_store_pgvector.filters import Fields, translate
from sift_store_pgvector.types import Vector, distance
from sift_store_pgvector.work import Rows, Statement, Work, compiled

__all__ = ["Layout", "Searchable", "VectorIndex"]

Metric = Literal["cosine", "dot", "euclid"]

# What pgvector allows hnsw.ef_search to be.
MAX_EF = 1000
_COMPILED = 128


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An approximate index on the vectors.

    Attributes:
        method: "hnsw" or "ivfflat". lists: of the latter.
    """

    name: str
    method: str
    lists: int = 0


@dataclass(frozen=True, eq=False)
class Layout:
    """Where things are.

    Attributes:
        vectors: the relation with keys and embeddings. key: its key column.
        embedding: the expression that is compared, as an index on it has it. kind, dimension: its type.
        operator: of the distance. metric: what scores mean.
        passages: the relation with texts and payloads, which may be the same. passage_key: its key column.
        columns: id, text and payload, in the form that `record` takes. record: from a row of those to a record.
        fields: where the keys of filters are. base: what holds for every row of the collection, or None.
        index: the index that serves searches, or None. iterative: whether pgvector can go on walking it (0.8).
        unit: whether the stored vectors are of unit length.
        leading: the first of several columns that are the key, by which an index finds rows.
    """

    vectors: FromClause
    key: ColumnElement[Any]
    embedding: ColumnElement[Any]
    kind: VectorType
    dimension: int
    metric: Metric
    operator: str
    passages: FromClause
    passage_key: ColumnElement[Any]
    columns: Sequence[ColumnElement[Any]]
    record: Callable[[tuple[Any, ...]], Record]
    fields: Fields
    base: ColumnElement[bool] | None
    index: VectorIndex | None
    iterative: bool
    unit: bool
    leading: ColumnElement[Any] | None = None
    _compiled: OrderedDict[Any, Statement] = field(default_factory=OrderedDict, repr=False, compare=False)

    # --- phase one ----------------------------------------------------------------------------------------------------

    def candidates(self, queries: Sequence[CandidateQuery], generation: int) -> Work[list[Candidates]]:
        """All queries in one round trip, and once more exactly those for which a walk of the index found too few."""
        found = yield [self.nearest(query, exact=query.exact) for query in queries]
        short = [
            place
            for place, (query, rows) in enumerate(zip(queries, found, strict=True))
            if self.index is not None and not query.exact and len(rows) < query.limit
        ]
        notes = [""] * len(queries)
        if short:
            again = yield [self.nearest(queries[place], exact=True) for place in short]
            for place, rows in zip(short, again, strict=True):
                if len(rows) > len(found[place]):
                    notes[place] = f"the index gave {len(found[place])} rows, so every matching vector was compared"
                found[place] = rows
        return [
            self._decoded(query, rows, generation, note)
            for query, rows, note in zip(queries, found, notes, strict=True)
        ]

    def nearest(self, query: CandidateQuery, *, exact: bool) -> Statement:
        """One query as a statement with what it sets."""
        statement = self._statement(query.where, query.with_vectors, exact)
        vector = VectorParameter(encode_vector(query.vector, self.kind))
        parameters = {**statement.parameters, "query": vector, "limit": query.limit}
        return Statement(statement.sql, parameters, {} if exact else self._walk(query))

    def _walk(self, query: CandidateQuery) -> dict[str, str]:
        """How the index is walked, for this transaction only: far enough for the rows that are wanted.

        Only where the walk's own breadth may not do is pgvector told to go on, which costs a tenth of every search.
        """
        if self.index is None:
            return {}
        if self.index.method == "ivfflat":
            settings = {"ivfflat.probes": str(max(round(self.index.lists**0.5), 1))}
        else:
            settings = {"hnsw.ef_search": str(min(max(query.ef or 0, query.limit), MAX_EF))}
        narrow = query.where is not None or self.base is not None or query.limit > MAX_EF
        if self.iterative and (narrow or self.index.method == "ivfflat"):
            settings[f"{self.index.method}.iterative_scan"] = "relaxed_order"
        return settings

    def _statement(self, where: Filter | None, with_vectors: bool, exact: bool) -> Statement:
        """Compiled once for each filter, scope included; the last 128 are kept.

        The key is the filter's repr: Python calls 1, 1.0 and True equal, the language does not.
        """
        if has_native(where):
            return self._compile(where, with_vectors, exact)
        key = (repr(where), with_vectors, exact)
        kept = self._compiled.get(key)
        if kept is None:
            kept = self._compiled[key] = self._compile(where, with_vectors, exact)
            while len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)
        return kept

    def _compile(self, where: Filter | None, with_vectors: bool, exact: bool) -> Statement:
        away = distance(self.embedding, self.operator, cast(bindparam("query"), Vector(self.kind)))
        # An index serves ORDER BY the distance itself; the same plus 0 makes PostgreSQL compare every row.
        order = away + cast(0, Integer) if exact else away
        columns = [self.key, away, self.embedding] if with_vectors else [self.key, away]
        statement = select(*columns).select_from(self._source(where)).order_by(order).limit(bindparam("limit"))
        for condition in self._conditions(where):
            statement = statement.where(condition)
        return compiled(statement)

    def _source(self, where: Filter | None) -> FromClause:
        if where is None or self.vectors is self.passages:
            return self.vectors
        return self.vectors.join(self.passages, self.key == self.passage_key)

    def _conditions(self, where: Filter | None) -> list[ColumnElement[bool]]:
        given = [] if self.base is None else [self.base]
        return given if where is None else [*given, translate(where, self.fields)]

    def _decoded(self, query: CandidateQuery, rows: Rows, generation: int, note: str) -> Candidates:
        rows = [row for row in rows if row[1] is not None and row[1] == row[1]]  # neither a missing vector nor NaN
        away = np.array([row[1] for row in rows], dtype=np.float32)
        scores = 1 - away if self.operator == "<=>" else -away
        keys: list[Key] = [row[0] for row in rows]
        self._check_apart(keys)
        order = np.argsort(-scores, kind="stable")  # a relaxed walk gives them nearly in order
        keys = [keys[place] for place in order]
        if not query.with_vectors:
            return Candidates(keys, scores[order], None, 0, generation, note)
        moved = sum(len(row[2]) for row in rows)
        vectors = self.unit_vectors([rows[place][2] for place in order])
        directed = np.asarray(vectors.any(axis=1))
        if not self.unit and not directed.all():  # a vector of zeros is like nothing
            keys = [key for key, ok in zip(keys, directed.tolist(), strict=True) if ok]
            return Candidates(keys, scores[order][directed], vectors[directed], moved, generation, note)
        return Candidates(keys, scores[order], vectors, moved, generation, note)

    def unit_vectors(self, blobs: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Stored vectors at unit length."""
        vectors = decode_vectors(blobs, self.dimension, self.kind)
        if self.unit and self.kind == "vector":
            return vectors
        return directed_rows(vectors)[0]

    # --- the rest of reading ------------------------------------------------------------------------------------------

    def fetch(self, keys: Sequence[Key], *, vectors: bool = False) -> Work[list[Record | None]]:
        """Records by key, in order."""
        if not keys:
            return []
        kept = self._compiled.get(("fetch", vectors))
        if kept is None:
            wanted = self.passage_key == func.any(bindparam("keys", type_=ARRAY(self.passage_key.type)))
            if self.leading is not None:
                first = cast(bindparam("leading", type_=ARRAY(Text)), ARRAY(self.leading.type))
                wanted = wanted & (self.leading == func.any(first))
            kept = compiled(self._records(vectors).where(wanted))
            self._compiled["fetch", vectors] = kept
        (rows,) = yield [Statement(kept.sql, {**kept.parameters, **self._wanted(keys)}, brief=True)]
        by_key = dict(self._read(rows, vectors))
        self._check_apart([row[0] for row in rows])
        return [by_key.get(key) for key in keys]

    def _wanted(self, keys: Sequence[Key]) -> dict[str, Any]:
        """Parameters that name rows."""
        wanted: dict[str, Any] = {"keys": list(keys)}
        if self.leading is not None:
            firsts = dict.fromkeys(json.loads(str(key))[0] for key in keys)
            wanted["leading"] = [first if isinstance(first, str) else json.dumps(first) for first in firsts]
        return wanted

    def _check_apart(self, keys: Sequence[Key]) -> None:
        """Refuse rows that their key does not tell apart: one's text would be shown for another's.

        Raises:
            StorageError: two have the same key, or one has none.
        """
        if None not in keys and len(set(keys)) == len(keys):
            return
        twice = next(key for key in keys if key is None or keys.count(key) > 1)
        what = "a row has no key (NULL)" if twice is None else f"several rows have the key {twice!r}"
        raise StorageError(f"{what}; name the columns that tell rows apart, e.g. &id=doc_id,chunk_no")

    def _records(self, vectors: bool) -> Select[Any]:
        """Key, vector if wanted, and what a record is made of."""
        source = self.passages
        if vectors and self.vectors is not self.passages:
            source = self.passages.join(self.vectors, self.key == self.passage_key)
        columns = [self.passage_key, *([self.embedding] if vectors else []), *self.columns]
        statement = select(*columns).select_from(source)
        for condition in self._conditions(None):
            statement = statement.where(condition)
        return statement.where(self.embedding.is_not(None)) if vectors else statement

    def _read(self, rows: Rows, vectors: bool) -> list[tuple[Key, Record]]:
        if not vectors:
            return [(row[0], self.record(row[1:])) for row in rows]
        unit = self.unit_vectors([row[1] for row in rows])
        return [(row[0], replace(self.record(row[2:]), vector=vector)) for row, vector in zip(rows, unit, strict=True)]

    def count(self, where: Filter | None) -> Work[int]:
        """How many match."""
        statement = select(func.count()).select_from(self.passages)
        for condition in self._conditions(where):
            statement = statement.where(condition)
        ((row,),) = yield [compiled(statement)]
        return int(row[0])

    def scan(self, after: Key | None, limit: int, *, vectors: bool) -> Work[tuple[list[Record], Key | None]]:
        """A page of records in the order of their keys, with vectors if wanted."""
        statement = self._records(vectors).order_by(self.passage_key).limit(limit + 1)
        if after is not None:
            statement = statement.where(self.passage_key >= after)
        (rows,) = yield [compiled(statement)]
        rest: Key | None = rows[limit][0] if len(rows) > limit else None
        return [record for _, record in self._read(rows[:limit], vectors)], rest


class Searchable:
    """A collection whose searches are those of its layout."""

    @property
    def layout(self) -> Layout:
        """Where things are."""
        raise NotImplementedError

    @property
    def generation(self) -> int:
        """Of the content, as in `Statistics`."""
        return 0

    def candidates(self, queries: Sequence[CandidateQuery]) -> Work[list[Candidates]]:
        """See `Layout.candidates`."""
        return self.layout.candidates(queries, self.generation)

    def fetch(self, keys: Sequence[Key]) -> Work[list[Record | None]]:
        """See `Layout.fetch`."""
        return self.layout.fetch(keys)

    def count(self, where: Filter | None) -> Work[int]:
        """See `Layout.count`."""
        return self.layout.count(where)

    def scan(self, after: Key | None, limit: int, *, vectors: bool) -> Work[tuple[list[Record], Key | None]]:
        """See `Layout.scan`."""
        return self.layout.scan(after, limit, vectors=vectors)
