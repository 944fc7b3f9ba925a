"""Our filter language in the engine's own conditions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import qdrant_edge as q

from sift_store.errors import FilterError
from sift_store.filters import EXACT, And, Equals, Exists, Filter, In, Native, Not, Or, Range, Scalar
from sift_store.points import METADATA

__all__ = ["field_path", "translate"]


def translate(where: Filter | None, fields: Mapping[str, str]) -> q.Filter | None:
    """The engine's filter.

    Args:
        where: the tree. fields: payload indexes, key -> type; the engine answers wrongly where a datetime index meets
            numbers or the other way round, so that is refused.

    Raises:
        FilterError: a native filter that is not the engine's, or a value that the field's index cannot compare.
    """
    return None if where is None else _filter(where, fields)


def field_path(key: str) -> str:
    """The engine's JSON path of a metadata key; every name is quoted, so no character has a meaning."""
    return ".".join([METADATA, *(f'"{name}"' for name in key.split("."))])


def _filter(where: Filter, fields: Mapping[str, str]) -> q.Filter:
    match where:
        case And(parts):
            return q.Filter(must=[_filter(part, fields) for part in parts])
        case Or(parts):
            return q.Filter(should=[_filter(part, fields) for part in parts]) if parts else _nothing()
        case Not(part):
            return q.Filter(must_not=[_filter(part, fields)])
        case Exists(key):
            return q.Filter(must_not=[q.IsEmptyCondition(field_path(key))])
        case Equals(key, value):
            return q.Filter(must=[_equals(key, value, fields)])
        case In(key, values):
            return q.Filter(should=[_equals(key, value, fields) for value in values]) if values else _nothing()
        case Range(key):
            return q.Filter(must=[_range(key, where, fields)])
        case Native(value):
            if not isinstance(value, q.Filter):
                raise FilterError(f"{type(value).__name__} given as a filter; a mapping or a qdrant_edge.Filter wanted")
            return value


def _nothing() -> q.Filter:
    return q.Filter(must=[q.HasIdCondition(set())])


def _equals(key: str, value: Scalar, fields: Mapping[str, str]) -> q.FieldCondition:
    path = field_path(key)
    if isinstance(value, bool):  # a Python bool is taken for an integer, numpy's is not
        return q.FieldCondition(path, match=q.MatchValue(np.bool_(value)))  # type: ignore[arg-type]  # see above
    if isinstance(value, str) or (isinstance(value, int) and abs(value) >= EXACT):
        return q.FieldCondition(path, match=q.MatchValue(value))
    return _range(key, Range(key, gte=value, lte=value), fields)  # 3 equals 3.0, 2020-01-01T00Z equals 2020-01-01T01+01


def _range(key: str, bounds: Range, fields: Mapping[str, str]) -> q.FieldCondition:
    given: dict[str, Any] = {
        name: bound
        for name, bound in (("gt", bounds.gt), ("gte", bounds.gte), ("lt", bounds.lt), ("lte", bounds.lte))
        if bound is not None
    }
    moments = any(isinstance(bound, datetime) for bound in given.values())
    kind = fields.get(key)
    if kind is not None and moments != (kind == "datetime") and not (moments and kind == "keyword"):
        raise FilterError(
            f"{key} is indexed as {kind}, a {'datetime' if moments else 'number'} cannot be compared with it; "
            "open the store with the fitting type in indexed="
        )
    if moments:
        texts = {name: bound.isoformat() for name, bound in given.items()}
        return q.FieldCondition(field_path(key), range=q.RangeDateTime(**texts))
    return q.FieldCondition(field_path(key), range=q.RangeFloat(**{name: float(b) for name, b in given.items()}))
