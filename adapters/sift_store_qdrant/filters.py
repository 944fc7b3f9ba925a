"""The server's own conditions, for `sift_store.point_filters`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qdrant_client import models

from sift_store.errors import FilterError
from sift_store.filters import Filter
from sift_store.point_filters import PointFields, translate
from sift_store.points import EXACT, METADATA

__all__ = ["Fields", "both", "exact_path", "one_of", "own_fields"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Fields:
    """Where the keys of filters are in a payload, and which of them are indexed.

    Args:
        below: the payload key that holds the metadata, "" if they stand at the top, beside the `text`.
        kinds: payload indexes, key -> type. text: key of the text.
        exact: from a key to the path of its exact spelling; None where others wrote the payloads.
    """

    def __init__(
        self, below: str, kinds: Mapping[str, str], text: str = "", exact: Callable[[str], str] | None = None
    ) -> None:
        self._below, self._text, self.kinds = below, text, kinds
        self._fields = PointFields(self.path, exact, kinds)

    def path(self, key: str) -> str:
        """The server's JSON path of a metadata key.

        Raises:
            FilterError: it is the key of the text, which is no metadata.
        """
        if key == self._text and not self._below:
            raise FilterError(f"filter key {key!r}: it holds the text; a metadata key wanted")
        return _path(self._below, key)

    def translate(self, where: Filter | None) -> models.Filter | None:
        """The server's filter.

        Raises:
            FilterError: a native filter that is not the server's, or a value that the field's index cannot compare.
        """
        made: models.Filter | None = translate(where, self._fields, _ServerConditions())
        return made


def own_fields(kinds: Mapping[str, str]) -> Fields:
    """The fields of a collection of ours."""
    return Fields(METADATA, kinds, exact=exact_path)


def exact_path(key: str) -> str:
    """The path of the exact spelling of what stands at a metadata key, in a collection of ours."""
    return _path(EXACT, key)


def _path(root: str, key: str) -> str:
    """Names are quoted, so that no character has a meaning."""
    below = root if _PLAIN.fullmatch(root) else f'"{root}"'
    return ".".join([*([below] if root else []), *(f'"{name}"' for name in key.split("."))])


class _ServerConditions:
    """See `sift_store.point_filters.Conditions`."""

    def every(self, parts: Sequence[Any]) -> models.Filter:
        return models.Filter(must=list(parts))

    def some(self, parts: Sequence[Any]) -> models.Filter:
        return models.Filter(should=list(parts))

    def none(self, parts: Sequence[Any]) -> models.Filter:
        return models.Filter(must_not=list(parts))

    def nothing(self) -> models.Filter:
        return one_of([])

    def empty(self, path: str) -> Any:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))

    def one_of(self, path: str, values: Sequence[str] | Sequence[int]) -> Any:
        return models.FieldCondition(key=path, match=models.MatchAny(any=list(values)))  # type: ignore[arg-type]  # all of one type

    def truth(self, path: str, value: bool) -> Any:
        return models.FieldCondition(key=path, match=models.MatchValue(value=value))

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Any:
        return models.FieldCondition(key=path, range=models.Range(**bounds))

    def moments(self, path: str, bounds: Mapping[str, str]) -> Any:
        return models.FieldCondition(key=path, range=models.DatetimeRange.model_validate(bounds))

    def native(self, value: Any) -> models.Filter:
        if not isinstance(value, models.Filter):
            raise FilterError(
                f"{type(value).__name__} given as a filter; a mapping or a qdrant_client.models.Filter wanted"
            )
        return value


def one_of(keys: Sequence[int | str]) -> models.Filter:
    """Points with one of these ids."""
    return models.Filter(must=[models.HasIdCondition(has_id=list(keys))])


def both(one: models.Filter | None, other: models.Filter | None) -> models.Filter | None:
    """Points that match two filters, either of which may be absent."""
    if one is None or other is None:
        return other if one is None else one
    return models.Filter(must=[one, other])
