"""Where a collection's vectors, texts and payloads are on the server, and the reading of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from qdrant_client import models

from sift_store.adapter import CandidateQuery, Candidates, Key
from sift_store.errors import LocationError
from sift_store.filters import Filter
from sift_store.kernels import directed_rows
from sift_store.points import EXACT, METADATA
from sift_store.records import Record
from sift_store_qdrant.filters import Fields
from sift_store_qdrant.payloads import PayloadLayout
from sift_store_qdrant.work import Call, Found, Nearest, PointKey, Query, Retrieve, Stored, Work

__all__ = ["FUSIONS", "Place", "VectorChoice", "choose_vector", "field_kinds", "own_kinds", "points_count"]

Metric = Literal["cosine", "dot", "euclid"]

FUSIONS = ("rrf", "dbsf")
_METRICS: Mapping[models.Distance, Metric] = {
    models.Distance.COSINE: "cosine",
    models.Distance.DOT: "dot",
    models.Distance.EUCLID: "euclid",
}
_KINDS = {"keyword": "keyword", "uuid": "keyword", "integer": "integer", "float": "float", "bool": "bool"}
_KINDS |= {"datetime": "datetime"}
# Up to so many points are counted, beyond the server's own number will do.
_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class VectorChoice:
    """The vectors that are searched.

    Attributes:
        using: name, "" for the one without. dimension, metric: of them. alone: there are no others.
        quantized: the server compares compressed ones first. sparse: name of those for hybrid search, "" for none.
    """

    using: str
    dimension: int
    metric: Metric
    alone: bool
    quantized: bool
    sparse: str = ""


def choose_vector(config: models.CollectionConfig, options: Mapping[str, str]) -> VectorChoice:
    """The vectors of a collection that the options name, or the only ones.

    Raises:
        LocationError: there are several, or none that can be compared one by one.
    """
    held = config.params.vectors or {}
    dense = dict(held) if isinstance(held, dict) else {"": held}
    sparse = config.params.sparse_vectors or {}
    names = ", ".join(repr(name) for name in sorted(dense) if name) or "none"
    using = options.get("vector")
    if using is None:
        usable = [name for name, params in dense.items() if params.multivector_config is None]
        if len(usable) != 1:
            raise LocationError(f"which vector? Say &vector=NAME in the URL; there are: {names}")
        using = usable[0]
    if using not in dense:
        raise LocationError(f"vector={using}: the collection has no such dense vector; there are: {names}")
    params = dense[using]
    if params.multivector_config is not None:
        raise LocationError(f"vector={using}: several vectors a point; SIFT compares one a point, choose another")
    metric = _METRICS.get(params.distance)
    if metric is None:
        raise LocationError(f"vector {using!r} is compared by {params.distance.value}; Cosine, Dot or Euclid wanted")
    words = options.get("sparse", "")
    if words and words not in sparse:
        raise LocationError(f"sparse={words}: no such sparse vector; there are: {', '.join(sorted(sparse)) or 'none'}")
    quantized = (params.quantization_config or config.quantization_config) is not None
    return VectorChoice(using, params.size, metric, len(dense) + len(sparse) == 1, quantized, words)


def field_kinds(schema: Mapping[str, models.PayloadIndexInfo], below: str) -> dict[str, str]:
    """Payload indexes of metadata keys, key -> type; of types that have another use, none."""
    prefix = f"{below}." if below else ""
    plain = {path.replace('"', ""): info.data_type.value for path, info in schema.items()}
    return {
        path.removeprefix(prefix): _KINDS[kind]
        for path, kind in plain.items()
        if path.startswith(prefix) and kind in _KINDS
    }


def own_kinds(schema: Mapping[str, models.PayloadIndexInfo]) -> dict[str, str]:
    """The same of a collection of ours, where dates are indexed by their exact spelling."""
    moments = {key: kind for key, kind in field_kinds(schema, EXACT).items() if kind == "datetime"}
    return {**field_kinds(schema, METADATA), **moments}


def points_count(info: models.CollectionInfo, collection: str) -> Work[int]:
    """How many points there are: exactly up to ten thousand, beyond as the server's state says."""
    if (info.points_count or 0) > _COUNTED:
        return info.points_count or 0
    counted = yield Call("count", {"collection_name": collection, "exact": True})
    return int(counted.count)


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are, and how they are read.

    Attributes:
        collection: its name on the server. vectors: which of its vectors. layout: of its payloads. fields: of filters.
        fusion: of two rankings, one of `FUSIONS`. note: what is to be told of every search.
    """

    collection: str
    vectors: VectorChoice
    layout: PayloadLayout
    fields: Fields
    fusion: str = "rrf"
    note: str = ""

    def candidates(self, queries: Sequence[CandidateQuery], generation: int) -> Work[list[Candidates]]:
        """All queries in one round trip."""
        made = [self._query(query) for query in queries]
        chosen = self.vectors
        found: list[Found] = yield Nearest(
            self.collection,
            made,
            chosen.using,
            chosen.dimension,
            any(query.with_vectors for query in queries),
            chosen.alone,
            chosen.sparse,
            self.fusion,
        )
        return [
            self._decoded(query.sparse is not None, part, generation)
            for query, part in zip(queries, found, strict=True)
        ]

    def _query(self, query: CandidateQuery) -> Query:
        params = models.SearchParams(exact=query.exact or None, hnsw_ef=query.ef)
        if self.vectors.quantized:  # order among the nearest from the whole vectors, not from the compressed
            params.quantization = models.QuantizationSearchParams(rescore=True)
        sparse = None
        if query.sparse is not None:
            sparse = models.SparseVector(indices=list(query.sparse.indices), values=list(query.sparse.values))
        return Query(query.vector, query.limit, self.fields.translate(query.where), params, sparse)

    def _decoded(self, fused: bool, found: Found, generation: int) -> Candidates:
        scores = -found.scores if self.vectors.metric == "euclid" and not fused else found.scores
        keys, vectors = cast("list[Key]", found.keys), found.vectors
        notes = [self.note] if self.note else []
        if found.missing:
            notes.append(f"{found.missing} candidates have no vector {self.vectors.using!r} and were left out")
        moved = 0 if vectors is None else vectors.nbytes
        usable = np.isfinite(scores)
        if vectors is not None:
            vectors, directed = directed_rows(vectors)
            usable &= directed
        if not usable.all():  # a vector of zeros, NaN or infinity is like nothing
            notes.append(f"{int((~usable).sum())} candidates have a vector without a direction and were left out")
            keys = [key for key, ok in zip(keys, usable.tolist(), strict=True) if ok]
            scores, vectors = scores[usable], None if vectors is None else vectors[usable]
        return Candidates(keys, scores, vectors, moved, generation, "; ".join(notes), fused)

    def fetch(self, keys: Sequence[Key], *, vectors: bool = False) -> Work[list[Record | None]]:
        """Records by the points' own ids, in order."""
        if not keys:
            return []
        points = yield from self.retrieve(cast("list[PointKey]", list(dict.fromkeys(keys))), vectors=vectors)
        by_key: dict[Key, Record] = {point.key: self.layout.record(point) for point in points}
        return [by_key.get(key) for key in keys]

    def retrieve(self, keys: Sequence[PointKey], *, vectors: bool) -> Work[list[Stored]]:
        """Points by id, in no order, those that are there."""
        if not keys:
            return []
        points: list[Stored] = yield Retrieve(self.collection, keys, self.vectors.using, vectors, self.vectors.alone)
        return points

    def count(self, where: Filter | None) -> Work[int]:
        """How many match, exactly."""
        condition = self.fields.translate(where)
        counted = yield Call("count", {"collection_name": self.collection, "count_filter": condition, "exact": True})
        return int(counted.count)

    def scan(self, after: Key | None, limit: int, *, vectors: bool) -> Work[tuple[list[Record], Key | None]]:
        """A page of records in the order of the points' ids; with vectors, of those that have the vector."""
        points, rest = yield from self.scroll(after, limit, vectors=vectors)
        records = [self.layout.record(point) for point in points if not vectors or point.vector is not None]
        return records, rest

    def scroll(
        self, after: Key | None, limit: int, *, vectors: bool = False, where: models.Filter | None = None
    ) -> Work[tuple[list[Stored], Key | None]]:
        """A page of points."""
        chosen = self.vectors
        wanted: Any = [chosen.using] if vectors and chosen.using and not chosen.alone else vectors
        page, rest = yield Call(
            "scroll",
            {
                "collection_name": self.collection,
                "scroll_filter": where,
                "limit": limit,
                "offset": after,
                "with_payload": True,
                "with_vectors": wanted,
            },
        )
        points = []
        for point in page:
            held = point.vector.get(chosen.using) if isinstance(point.vector, dict) else point.vector
            points.append(Stored(_key(point.id), point.payload or {}, held or None))
        return points, None if rest is None else _key(rest)


def _key(id_: Any) -> PointKey:
    return id_ if isinstance(id_, int) else str(id_)
