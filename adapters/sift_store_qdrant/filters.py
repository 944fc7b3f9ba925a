"""Our filter language in the server's own conditions."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

from qdrant_client import models

from sift_store.errors import FilterError
from sift_store.filters import EXACT, And, Equals, Exists, Filter, In, Native, Not, Or, Range, Scalar

__all__ = ["Fields", "both", "one_of"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Fields:
    """Where the keys of filters are in a payload, and which of them are indexed.

    Args:
        below: the payload key that holds the metadata, "" if they stand at the top, beside the `text`.
        kinds: payload indexes, key -> type. The server answers wrongly where a datetime index meets numbers or the
            other way round, so that is refused.
    """

    def __init__(self, below: str, kinds: Mapping[str, str], text: str = "") -> None:
        self._below, self._text, self.kinds = below, text, kinds

    def path(self, key: str) -> str:
        """The server's JSON path of a metadata key; names are quoted, so that no character has a meaning.

        Raises:
            FilterError: it is the key of the text, which is no metadata.
        """
        if key == self._text and not self._below:
            raise FilterError(f"filter key {key!r}: it holds the text; a metadata key wanted")
        below = self._below if _PLAIN.fullmatch(self._below) else f'"{self._below}"'
        return ".".join([*([below] if self._below else []), *(f'"{name}"' for name in key.split("."))])

    def translate(self, where: Filter | None) -> models.Filter | None:
        """The server's filter.

        Raises:
            FilterError: a native filter that is not the server's, or a value that the field's index cannot compare.
        """
        return None if where is None else self._filter(where)

    def _filter(self, where: Filter) -> models.Filter:
        match where:
            case And(parts):
                return models.Filter(must=[self._filter(part) for part in parts])
            case Or(parts):
                return models.Filter(should=[self._filter(part) for part in parts]) if parts else _nothing()
            case Not(part):
                return models.Filter(must_not=[self._filter(part)])
            case Exists(key):
                empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=self.path(key)))
                return models.Filter(must_not=[empty])
            case Equals(key, value):
                return models.Filter(must=[self._equals(key, value)])
            case In(key, values):
                return models.Filter(should=[self._equals(key, value) for value in values]) if values else _nothing()
            case Range(key):
                if math.inf in (where.gt, where.gte) or -math.inf in (where.lt, where.lte):
                    return _nothing()  # no number is beyond; over REST an infinite bound would be none
                return models.Filter(must=[self._range(key, where)])
            case Native(value):
                if not isinstance(value, models.Filter):
                    raise FilterError(
                        f"{type(value).__name__} given as a filter; a mapping or a qdrant_client.models.Filter wanted"
                    )
                return value

    def _equals(self, key: str, value: Scalar) -> models.FieldCondition:
        if isinstance(value, bool | str) or (isinstance(value, int) and abs(value) >= EXACT):
            return models.FieldCondition(key=self.path(key), match=models.MatchValue(value=value))
        return self._range(key, Range(key, gte=value, lte=value))  # 3 equals 3.0, 2020-01-01T00Z 2020-01-01T01+01

    def _range(self, key: str, bounds: Range) -> models.FieldCondition:
        named = {"gt": bounds.gt, "gte": bounds.gte, "lt": bounds.lt, "lte": bounds.lte}
        given = {name: bound for name, bound in named.items() if bound is not None}
        moments = any(isinstance(bound, datetime) for bound in given.values())
        kind = self.kinds.get(key)
        if kind is not None and moments != (kind == "datetime") and not (moments and kind == "keyword"):
            raise FilterError(
                f"{key} is indexed as {kind}, a {'datetime' if moments else 'number'} cannot be compared with it; "
                "index the field with the fitting type"
            )
        if not moments:
            most = sys.float_info.max
            given = {name: min(max(float(bound), -most), most) for name, bound in given.items()}  # type: ignore[arg-type]  # no moments
        within = models.DatetimeRange if moments else models.Range
        return models.FieldCondition(key=self.path(key), range=within.model_validate(given))


def _nothing() -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=[])])


def one_of(keys: Sequence[int | str]) -> models.Filter:
    """Points with one of these ids."""
    return models.Filter(must=[models.HasIdCondition(has_id=list(keys))])


def both(one: models.Filter | None, other: models.Filter | None) -> models.Filter | None:
    """Points that match two filters, either of which may be absent."""
    if one is None or other is None:
        return other if one is None else one
    return models.Filter(must=[one, other])
