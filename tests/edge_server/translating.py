"""The client's models as the engine's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as q
from qdrant_client import models as m

__all__ = [
    "condition",
    "config_of",
    "field_schema",
    "payload_selector",
    "point_id",
    "points_of",
    "query_request",
    "scroll_request",
    "update_mode",
]

_CONDITIONS = ("must", "should", "must_not")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _unknown(thing: Any) -> ValueError:
    return ValueError(f"this server does not know {type(thing).__name__}")


# --- filters ----------------------------------------------------------------------------------------------------------


def condition(where: m.Filter | None) -> Any:
    if where is None:
        return None
    given: dict[str, Any] = {
        name: [_part(part) for part in _listed(parts)] for name in _CONDITIONS if (parts := getattr(where, name))
    }
    if where.min_should is not None:
        least = where.min_should
        given["min_should"] = q.MinShould([_part(part) for part in least.conditions], least.min_count)
    return q.Filter(**given)


def _part(part: Any) -> Any:
    match part:
        case m.Filter():
            return condition(part)
        case m.FieldCondition():
            return _field(part)
        case m.IsEmptyCondition():
            return q.IsEmptyCondition(part.is_empty.key)
        case m.IsNullCondition():
            return q.IsNullCondition(part.is_null.key)
        case m.HasIdCondition():
            return q.HasIdCondition({point_id(id_) for id_ in part.has_id})
        case m.HasVectorCondition():
            return q.HasVectorCondition(part.has_vector)
        case m.NestedCondition():
            return q.NestedCondition(part.nested.key, condition(part.nested.filter))
    raise _unknown(part)


def _field(part: m.FieldCondition) -> q.FieldCondition:
    given: dict[str, Any] = {"is_empty": part.is_empty, "is_null": part.is_null}
    if part.match is not None:
        given["match"] = _match(part.match)
    if isinstance(part.range, m.DatetimeRange):
        given["range"] = q.RangeDateTime(**{name: _moment(value) for name, value in _bounds(part.range)})
    elif part.range is not None:
        given["range"] = q.RangeFloat(**dict(_bounds(part.range)))
    if part.values_count is not None:
        given["values_count"] = q.ValuesCount(**dict(_bounds(part.values_count)))
    for geo in (part.geo_bounding_box, part.geo_radius, part.geo_polygon):
        if geo is not None:
            raise _unknown(geo)
    return q.FieldCondition(part.key, **given)


def _bounds(given: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name in ("gt", "gte", "lt", "lte") if (value := getattr(given, name)) is not None]


def _moment(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


def _match(match: Any) -> Any:
    if isinstance(match, m.MatchValue):
        # The engine takes Python's bool for an integer, numpy's it takes for what it is.
        return q.MatchValue(np.bool_(match.value) if isinstance(match.value, bool) else match.value)  # type: ignore[arg-type]
    for known, make, name in _MATCHES:
        if isinstance(match, known):
            return make(getattr(match, name))
    raise _unknown(match)


_MATCHES: tuple[tuple[Any, Any, str], ...] = (
    (m.MatchText, q.MatchText, "text"),
    (m.MatchTextAny, q.MatchTextAny, "text_any"),
    (m.MatchPhrase, q.MatchPhrase, "phrase"),
    (m.MatchPrefix, q.MatchPrefix, "prefix"),
    (m.MatchSubstring, q.MatchSubstring, "substring"),
    (m.MatchAny, q.MatchAny, "any"),
    (m.MatchExcept, q.MatchExcept, "except_"),
)


# --- points -----------------------------------------------------------------------------------------------------------


def point_id(id_: Any) -> int | str | UUID:
    if isinstance(id_, int | UUID):
        return id_
    try:
        return UUID(id_)
    except ValueError:
        raise ValueError(f"{id_} is not a valid point ID: an unsigned integer or a UUID is") from None


def _vector(given: Any) -> Any:
    if isinstance(given, list):
        return given
    if isinstance(given, m.SparseVector):
        return q.SparseVector(given.indices, given.values)
    if isinstance(given, dict):
        return {name: _vector(value) for name, value in given.items()}
    raise _unknown(given)


def points_of(given: m.PointsList | m.PointsBatch) -> list[q.Point]:
    if isinstance(given, m.PointsList):
        return [q.Point(point_id(point.id), _vector(point.vector), point.payload) for point in given.points]
    batch = given.batch
    payloads: list[Any] = batch.payloads or [None] * len(batch.ids)
    return [
        q.Point(point_id(id_), _vector(vector), payload)
        for id_, vector, payload in zip(batch.ids, _rows(batch), payloads, strict=True)
    ]


def _rows(batch: m.Batch) -> Iterator[Any]:
    if isinstance(batch.vectors, dict):
        for place in range(len(batch.ids)):
            yield {name: column[place] for name, column in batch.vectors.items()}
    else:
        yield from batch.vectors


_MODES = {
    m.UpdateMode.UPSERT: q.UpdateMode.Upsert,
    m.UpdateMode.INSERT_ONLY: q.UpdateMode.InsertOnly,
    m.UpdateMode.UPDATE_ONLY: q.UpdateMode.UpdateOnly,
}


def update_mode(given: m.UpdateMode | None) -> q.UpdateMode:
    return _MODES[given or m.UpdateMode.UPSERT]


def payload_selector(given: Any) -> Any:
    if isinstance(given, m.PayloadSelectorInclude):
        return q.PayloadSelector.Include(given.include)
    if isinstance(given, m.PayloadSelectorExclude):
        return q.PayloadSelector.Exclude(given.exclude)
    return given  # a list of paths or a bool


# --- queries ----------------------------------------------------------------------------------------------------------


def _params(params: m.SearchParams | None) -> q.SearchParams | None:
    if params is None:
        return None
    quantization = params.quantization and q.QuantizationSearchParams(
        bool(params.quantization.ignore), params.quantization.rescore, params.quantization.oversampling
    )
    return q.SearchParams(
        params.hnsw_ef, bool(params.exact), quantization or None, indexed_only=bool(params.indexed_only)
    )


def _scoring(query: Any, using: str | None, limit: int) -> Any:
    if query is None:
        return None
    if isinstance(query, m.FusionQuery):
        return q.Fusion.Rrf(2) if query.fusion == m.Fusion.RRF else q.Fusion.Dbsf()
    if isinstance(query, m.RrfQuery):
        return q.Fusion.Rrf(2 if query.rrf.k is None else query.rrf.k, query.rrf.weights)
    if isinstance(query, m.NearestQuery):
        if query.mmr is not None:
            diversity = 0.5 if query.mmr.diversity is None else query.mmr.diversity
            return q.Mmr(_vector(query.nearest), 1 - diversity, query.mmr.candidates_limit or limit, using)
        query = query.nearest
    return q.Query.Nearest(_vector(query), using)


def _limit(given: int | None) -> int:
    if given is not None and given < 1:
        raise ValueError(f"limit: value {given} invalid, must be 1 or larger")
    return given or 10


def _prefetch(given: m.Prefetch) -> q.Prefetch:
    limit = _limit(given.limit)
    return q.Prefetch(
        limit,
        _scoring(given.query, given.using, limit),
        [_prefetch(inner) for inner in _listed(given.prefetch or [])],
        _params(given.params),
        condition(given.filter),
        given.score_threshold,
    )


def query_request(given: m.QueryRequest) -> q.QueryRequest:
    """Without vectors and payload: those are read apart. The engine itself applies the filter to the prefetches too."""
    limit = _limit(given.limit)
    return q.QueryRequest(
        limit=limit,
        offset=given.offset,
        query=_scoring(given.query, given.using, limit),
        prefetches=[_prefetch(inner) for inner in _listed(given.prefetch or [])],
        with_vector=False,
        with_payload=False,
        filter=condition(given.filter),
        score_threshold=given.score_threshold,
        params=_params(given.params),
    )


def scroll_request(given: m.ScrollRequest) -> q.ScrollRequest:
    if given.order_by is not None:
        raise _unknown(given.order_by)
    return q.ScrollRequest(
        offset=None if given.offset is None else point_id(given.offset),
        limit=_limit(given.limit),
        filter=condition(given.filter),
        with_payload=False,
        with_vector=False,
    )


# --- collections ------------------------------------------------------------------------------------------------------

_INDEXES = {
    "keyword": q.KeywordIndexParams,
    "integer": q.IntegerIndexParams,
    "float": q.FloatIndexParams,
    "geo": q.GeoIndexParams,
    "text": q.TextIndexParams,
    "bool": q.BoolIndexParams,
    "datetime": q.DatetimeIndexParams,
    "uuid": q.UuidIndexParams,
}


def field_schema(given: Any) -> Any:
    """The engine's payload index."""
    if isinstance(given, m.PayloadSchemaType):
        return getattr(q.PayloadSchemaType, given.value.capitalize())
    params = given.model_dump(exclude_none=True)
    kind = params.pop("type")
    params.pop("memory", None)  # where it lies changes no answer
    if "tokenizer" in params:
        params["tokenizer"] = getattr(q.TokenizerType, params["tokenizer"].value.capitalize())
    return _INDEXES[kind.value](**params)


def config_of(given: m.CreateCollection, indexing_threshold: int) -> q.EdgeConfig:
    vectors = given.vectors or {}
    return q.EdgeConfig(
        vectors={name: _dense(part) for name, part in vectors.items()}
        if isinstance(vectors, dict)
        else _dense(vectors),
        sparse_vectors={
            name: q.EdgeSparseVectorParams(modifier=q.Modifier.Idf if part.modifier == m.Modifier.IDF else None)
            for name, part in (given.sparse_vectors or {}).items()
        },
        hnsw_config=_hnsw(given.hnsw_config or m.HnswConfigDiff()),
        quantization_config=_quantization(given.quantization_config),
        optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=indexing_threshold),
        wal_enabled=False,  # the data of a test outlives nothing
    )


def _dense(params: m.VectorParams) -> q.EdgeVectorParams:
    return q.EdgeVectorParams(
        params.size,
        getattr(q.Distance, params.distance.value),
        multivector_config=q.MultiVectorConfig(q.MultiVectorComparator.MaxSim) if params.multivector_config else None,
        datatype=getattr(q.VectorStorageDatatype, params.datatype.value.capitalize()) if params.datatype else None,
        quantization_config=_quantization(params.quantization_config),
        hnsw_config=_hnsw(params.hnsw_config) if params.hnsw_config else None,
    )


def _hnsw(given: m.HnswConfigDiff) -> q.HnswIndexConfig:
    return q.HnswIndexConfig(
        16 if given.m is None else given.m,
        given.ef_construct or 100,
        10_000 if given.full_scan_threshold is None else given.full_scan_threshold,
    )


def _quantization(given: Any) -> Any:
    if given is None:
        return None
    if isinstance(given, m.ScalarQuantization):
        return q.ScalarQuantizationConfig(q.ScalarType.Int8, given.scalar.quantile, given.scalar.always_ram)
    if isinstance(given, m.BinaryQuantization):
        return q.BinaryQuantizationConfig(given.binary.always_ram)
    raise _unknown(given)
