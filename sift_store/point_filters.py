"""The filter language in the conditions of Qdrant's engine, for the embedded store and for servers.

The two have the same conditions as different classes: a `Conditions` makes them. What one point costs is the number of
conditions looked at, so that a list of values is one or two conditions, whatever its length.

Payloads of our own hold floats and dates once more as text (see `points`): equality of numbers, ranges to the last bit
and dates are asked of that text. Payloads of others do not, so there the engine's own reading of both holds.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from sift_store.errors import FilterError
from sift_store.filters import EXACT as INTEGERS_IN_FLOATS
from sift_store.filters import And, Equals, Exists, Filter, In, Native, Not, Or, Range, Scalar
from sift_store.points import exact_moment

__all__ = ["Conditions", "PointFields", "translate"]

Condition: TypeAlias = Any
# Units in the last place by which the engine may be wrong about a stored float.
_SLACK = 2
# From here on floats stand closer to integers than the engine's slack.
_WHOLE_FROM = 2**52
# Ranges that stand side by side in one step of a search for a value among many.
_FAN_OUT = 4


class Conditions(Protocol):
    """Makes an engine's conditions and filters; a filter can stand for a condition."""

    def every(self, parts: Sequence[Condition]) -> Any:
        """All of the parts hold."""

    def some(self, parts: Sequence[Condition]) -> Any:
        """At least one of the parts holds."""

    def none(self, parts: Sequence[Condition]) -> Any:
        """None of the parts holds."""

    def nothing(self) -> Any:
        """Never holds."""

    def empty(self, path: str) -> Condition:
        """No value, null or an empty list at a path."""

    def one_of(self, path: str, values: Sequence[str] | Sequence[int]) -> Condition:
        """One of the texts, or one of the integers, at a path."""

    def truth(self, path: str, value: bool) -> Condition:
        """A boolean at a path."""

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Condition:
        """A number within bounds (gt, gte, lt, lte) at a path."""

    def moments(self, path: str, bounds: Mapping[str, str]) -> Condition:
        """A date within bounds at a path."""

    def native(self, value: Any) -> Any:
        """A filter of the engine's own, checked."""


@dataclass(frozen=True, slots=True)
class PointFields:
    """Where the keys of filters are in a point's payload.

    Attributes:
        path: from a metadata key to the engine's path.
        exact: from a metadata key to the path of its exact spelling; None in payloads of others.
        kinds: payload indexes, key -> type.
        spelt: whether a key may hold floats; False saves the look at their spelling.
    """

    path: Callable[[str], str]
    exact: Callable[[str], str] | None
    kinds: Mapping[str, str] = field(hash=False)
    spelt: Callable[[str], bool] = field(default=lambda key: True)  # noqa: ARG005


def translate(where: Filter | None, fields: PointFields, make: Conditions) -> Any:
    """A filter as the engine's own; None stays None.

    Raises:
        FilterError: a native filter that is not the engine's, or a value that the field's index cannot compare.
    """
    return None if where is None else _translated(where, fields, make)


def _translated(where: Filter, fields: PointFields, make: Conditions) -> Any:
    match where:
        case And(parts):
            return make.every([_translated(part, fields, make) for part in parts])
        case Or(parts):
            return _any_of([_translated(part, fields, make) for part in parts], make)
        case Not(part):
            return make.none([_translated(part, fields, make)])
        case Exists(key):
            return make.none([make.empty(fields.path(key))])
        case Equals(key, value):
            return _any_of(_members(key, [value], fields, make), make)
        case In(key, values):
            return _any_of(_members(key, values, fields, make), make)
        case Range():
            return _any_of(_range(where, fields, make), make)
        case Native(value):
            return make.native(value)


def _any_of(parts: Sequence[Condition], make: Conditions) -> Any:
    if not parts:
        return make.nothing()
    return make.every(parts) if len(parts) == 1 else make.some(parts)


# --- equality ---------------------------------------------------------------------------------------------------------


def _members(key: str, values: Sequence[Scalar], fields: PointFields, make: Conditions) -> list[Condition]:
    """Conditions of which one holds where the value at a key equals one of the values."""
    path = fields.path(key)
    texts = [value for value in values if isinstance(value, str)]
    truths = {value for value in values if isinstance(value, bool)}
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    moments = [value for value in values if isinstance(value, datetime)]
    parts: list[Condition] = [make.one_of(path, _distinct(texts))] if texts else []
    parts += [make.truth(path, value) for value in sorted(truths)]
    if numbers:
        parts += _equal_numbers(key, numbers, fields, make)
    if moments and fields.exact is not None:
        parts.append(make.one_of(fields.exact(key), _distinct([exact_moment(moment) for moment in moments])))
    elif moments:
        _check_kind(key, True, fields)
        within = _within_moments(path, make)
        parts += _search(sorted(set(moments)), within, make)
    return parts


def _equal_numbers(key: str, numbers: Sequence[float], fields: PointFields, make: Conditions) -> list[Condition]:
    whole = _distinct([int(number) for number in numbers if float(number).is_integer()])
    small = [float(number) for number in numbers if abs(number) < INTEGERS_IN_FLOATS]
    parts = [_whole(key, whole, fields, make)] if whole else []
    if fields.exact is None and fields.kinds.get(key) != "integer":
        _check_kind(key, False, fields)
        within = _within_numbers(fields.path(key), make)
        return parts + _search(sorted(set(small)), within, make)
    spelling = _spelling(key, fields)
    if small and spelling is not None:
        parts.append(make.one_of(spelling, _spellings(small)))
    return parts


def _whole(key: str, integers: Sequence[int], fields: PointFields, make: Conditions) -> Condition:
    """One of some integers at a key. An index on floats leads to the few points at which it is worth looking."""
    path = fields.path(key)
    equal = make.one_of(path, integers)
    if fields.kinds.get(key) != "float":
        return equal
    return make.every([make.numbers(path, {"gte": float(min(integers)), "lte": float(max(integers))}), equal])


def _spellings(floats: Sequence[float]) -> list[str]:
    signed = [-0.0] if 0.0 in floats else []
    return _distinct([repr(number) for number in [*floats, *signed]])


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _search(values: Sequence[Any], within: Callable[[Any, Any], Condition], make: Conditions) -> list[Condition]:
    """Whether a number or date is one of some sorted values, by ranges of ranges: the work grows with the logarithm."""
    if len(values) <= _FAN_OUT:
        return [within(value, value) for value in values]
    size = math.ceil(len(values) / _FAN_OUT)
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    return [make.every([within(group[0], group[-1]), _any_of(_search(group, within, make), make)]) for group in groups]


def _within_numbers(path: str, make: Conditions) -> Callable[[float, float], Condition]:
    return lambda least, most: make.numbers(path, {"gte": least, "lte": most})


def _within_moments(path: str, make: Conditions) -> Callable[[datetime, datetime], Condition]:
    return lambda least, most: make.moments(path, {"gte": least.isoformat(), "lte": most.isoformat()})


# --- ranges -----------------------------------------------------------------------------------------------------------


def _range(where: Range, fields: PointFields, make: Conditions) -> list[Condition]:
    """Conditions of which one holds where the value at a key is within bounds; none: nothing is."""
    bounds = _bounds(where)
    if any(isinstance(bound, datetime) for bound in bounds.values()):
        return _range_of_moments(where.key, bounds, fields, make)
    if bounds.get("gt", -math.inf) == math.inf or bounds.get("gte", -math.inf) == math.inf:
        return []  # no number is beyond
    if bounds.get("lt", math.inf) == -math.inf or bounds.get("lte", math.inf) == -math.inf:
        return []
    _check_kind(where.key, False, fields)
    path, finite = fields.path(where.key), {name: _finite(bound) for name, bound in bounds.items()}
    spelling = _spelling(where.key, fields)
    if spelling is None and all(abs(bound) < _WHOLE_FROM or math.isinf(bound) for bound in bounds.values()):
        return [make.numbers(path, finite)]  # of integers only, or of floats as the engine reads them
    return _exact_range(where.key, bounds, finite, fields, make)


def _range_of_moments(key: str, bounds: Mapping[str, Any], fields: PointFields, make: Conditions) -> list[Condition]:
    if fields.exact is not None:
        return [make.moments(fields.exact(key), {name: exact_moment(bound) for name, bound in bounds.items()})]
    _check_kind(key, True, fields)
    return [make.moments(fields.path(key), {name: bound.isoformat() for name, bound in bounds.items()})]


def _exact_range(
    key: str, bounds: Mapping[str, float], finite: Mapping[str, float], fields: PointFields, make: Conditions
) -> list[Condition]:
    """Well within the bounds the engine is right; what is a hair's breadth from one is asked for by its spelling."""
    inner = {name: bound if math.isinf(bounds[name]) else _moved(name, bound) for name, bound in finite.items()}
    around = [_around(bound) for name, bound in finite.items() if not math.isinf(bounds[name])]
    near = [number for numbers in around for number in numbers if _holds(number, bounds)]
    parts = [make.numbers(fields.path(key), inner)]
    spelling = _spelling(key, fields)
    if near and spelling is not None:
        parts.append(make.one_of(spelling, _spellings(near)))
    whole = [
        number
        for numbers in around
        for number in range(math.ceil(min(numbers)), math.floor(max(numbers)) + 1)
        if _holds(number, bounds)
    ]
    if whole:
        parts.append(_whole(key, _distinct(whole), fields, make))
    return parts


def _spelling(key: str, fields: PointFields) -> str | None:
    """Where the floats at a key are spelt; None where there are none, or nobody has spelt them."""
    if fields.exact is None or fields.kinds.get(key) == "integer" or not fields.spelt(key):
        return None
    return fields.exact(key)


def _bounds(where: Range) -> dict[str, Any]:
    named = {"gt": where.gt, "gte": where.gte, "lt": where.lt, "lte": where.lte}
    return {name: bound for name, bound in named.items() if bound is not None}


def _finite(bound: float) -> float:
    """As JSON can hold it."""
    return min(max(float(bound), -sys.float_info.max), sys.float_info.max)


def _moved(name: str, bound: float) -> float:
    """A bound so far within that no stored float beyond it can be read as one within."""
    towards = math.inf if name.startswith("g") else -math.inf
    for _ in range(_SLACK):
        bound = math.nextafter(bound, towards)
    return _finite(bound)


def _around(bound: float) -> list[float]:
    """A bound and its neighbours, as far as the engine may be wrong on either side of the moved bound."""
    numbers = [float(bound)]
    for towards in (math.inf, -math.inf):
        number = float(bound)
        for _ in range(2 * _SLACK):
            number = math.nextafter(number, towards)
            numbers.append(number)
    return [number for number in numbers if math.isfinite(number)]


def _holds(number: float, bounds: Mapping[str, float]) -> bool:
    return (
        number > bounds.get("gt", -math.inf)
        and number >= bounds.get("gte", -math.inf)
        and number < bounds.get("lt", math.inf)
        and number <= bounds.get("lte", math.inf)
    )


def _check_kind(key: str, moments: bool, fields: PointFields) -> None:
    """Refuse what the engine would answer wrongly: an index on dates asked for numbers, or the other way round."""
    kind = fields.kinds.get(key)
    if fields.exact is not None or kind is None or moments == (kind == "datetime") or (moments and kind == "keyword"):
        return
    raise FilterError(
        f"{key} is indexed as {kind}, a {'datetime' if moments else 'number'} cannot be compared with it; "
        "index the field with the fitting type"
    )
