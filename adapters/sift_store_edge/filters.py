"""The engine's own conditions, for `sift_store.point_filters`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import qdrant_edge as q

from sift_store.errors import FilterError
from sift_store.filters import Filter
from sift_store.point_filters import PointFields, translate
from sift_store.points import EXACT, METADATA

__all__ = ["exact_path", "field_path", "to_engine_filter"]


def to_engine_filter(where: Filter | None, kinds: Mapping[str, str], spelt: Callable[[str], bool]) -> q.Filter | None:
    """A filter as the engine's.

    Args:
        where: the filter. kinds: payload indexes, key -> type. spelt: whether any passage has floats at a key.

    Raises:
        FilterError: a native filter that is not the engine's.
    """
    made: q.Filter | None = translate(where, PointFields(field_path, exact_path, kinds, spelt), _EdgeConditions())
    return made


def field_path(key: str) -> str:
    """The engine's JSON path of a metadata key; every name is quoted, so no character has a meaning."""
    return _path(METADATA, key)


def exact_path(key: str) -> str:
    """The path of the exact spelling of what stands at a metadata key."""
    return _path(EXACT, key)


def _path(root: str, key: str) -> str:
    return ".".join([root, *(f'"{name}"' for name in key.split("."))])


class _EdgeConditions:
    """See `sift_store.point_filters.Conditions`."""

    def every(self, parts: Sequence[Any]) -> q.Filter:
        return q.Filter(must=list(parts))

    def some(self, parts: Sequence[Any]) -> q.Filter:
        return q.Filter(should=list(parts))

    def none(self, parts: Sequence[Any]) -> q.Filter:
        return q.Filter(must_not=list(parts))

    def nothing(self) -> q.Filter:
        return q.Filter(must=[q.HasIdCondition(set())])

    def empty(self, path: str) -> Any:
        return q.IsEmptyCondition(path)

    def one_of(self, path: str, values: Sequence[str] | Sequence[int]) -> Any:
        return q.FieldCondition(path, match=q.MatchAny(list(values)))  # type: ignore[arg-type]  # all of one type

    def truth(self, path: str, value: bool) -> Any:
        # A Python bool is taken for an integer, numpy's is not.
        return q.FieldCondition(path, match=q.MatchValue(np.bool_(value)))  # type: ignore[arg-type]

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Any:
        return q.FieldCondition(path, range=q.RangeFloat(**bounds))

    def moments(self, path: str, bounds: Mapping[str, str]) -> Any:
        return q.FieldCondition(path, range=q.RangeDateTime(**bounds))

    def native(self, value: Any) -> q.Filter:
        if not isinstance(value, q.Filter):
            raise FilterError(f"{type(value).__name__} given as a filter; a mapping or a qdrant_edge.Filter wanted")
        return value
