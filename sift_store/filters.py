"""One small filter language for every store: a mapping in, a tree of seven nodes out.

    {"year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"tags": {"$in": ["nlp", "ir"]}}]}

Keys are metadata keys; a dot goes into a nested mapping. `$eq` (or a bare value) `$ne $gt $gte $lt $lte $in $nin
$exists` on keys; `$and $or $not` around filters. Meaning, the same in every store:

- a missing key matches `$ne`, `$nin` and `$not` only; null and the empty list count as missing;
- a list matches if any of its elements does; `$ne` and `$nin` are the negations of `$eq` and `$in`;
- numbers compare as numbers (3 equals 3.0), booleans are no numbers, text compares exactly;
- ranges take numbers, dates and datetimes; a naive datetime is UTC, a date is its midnight.

Anything that is no mapping is taken for the engine's own filter and handed to the adapter (`Native`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeAlias, cast

from sift_store.errors import FilterError

__all__ = [
    "EVERYTHING",
    "EXACT",
    "And",
    "Equals",
    "Exists",
    "Filter",
    "In",
    "Native",
    "Not",
    "Or",
    "Range",
    "Scalar",
    "conjunction",
    "fields",
    "lookup",
    "matches",
    "parse",
    "parse_datetime",
    "storable",
]

Scalar: TypeAlias = str | int | float | bool | datetime


@dataclass(frozen=True, slots=True)
class Equals:
    """The key holds `value`, or a list with it."""

    key: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The key holds one of `values`, or a list with one of them."""

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The key holds a number (or datetime) within the bounds that are given."""

    key: str
    gt: float | datetime | None = None
    gte: float | datetime | None = None
    lt: float | datetime | None = None
    lte: float | datetime | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The key is there, and neither null nor an empty list."""

    key: str


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold. No parts: everything matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds. No parts: nothing matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Native:
    """A filter of the engine's own."""

    value: Any


Filter: TypeAlias = Equals | In | Range | Exists | And | Or | Not | Native

_RANGES = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
# Ranges and equality of floats are decided in 64-bit floats, which hold every integer up to here.
EXACT = 2**53
_INFINITE = (math.inf, -math.inf)
_MAX_DEPTH = 64
# What every engine reads as a date: 2020-01-31, with a time and a zone or not.
_ISO = re.compile(r"(?!0000)\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-](0\d|1[0-5]):[0-5]\d)?)?")
# A filter that holds for every passage, for who means to delete them all.
EVERYTHING: Mapping[str, Any] = {"$or": [{"id": {"$exists": True}}, {"id": {"$exists": False}}]}
_KNOWN = "$eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not"


def parse(where: Any, depth: int = 0) -> Filter | None:
    """Turn a `where` into a tree; None stays None.

    Raises:
        FilterError: an unknown operator, a value that cannot be compared, a filter of the wrong shape.
    """
    if where is None:
        return None
    if not isinstance(where, Mapping):
        return Native(where)
    if depth > _MAX_DEPTH:
        raise FilterError(f"filter nested more than {_MAX_DEPTH} deep")
    return _all([_clause(key, value, depth) for key, value in where.items()])


def conjunction(*filters: Filter | None) -> Filter | None:
    """All of the filters that are not None, as one."""
    given = [part for part in filters if part is not None]
    return _all(given) if given else None


def fields(where: Filter | None) -> Iterator[str]:
    """The metadata keys that a filter reads."""
    if isinstance(where, Equals | In | Range | Exists):
        yield where.key
    elif isinstance(where, And | Or):
        for part in where.parts:
            yield from fields(part)
    elif isinstance(where, Not):
        yield from fields(where.part)


def _all(parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _clause(key: object, value: Any, depth: int) -> Filter:
    if not isinstance(key, str):
        raise FilterError(f"filter key {key!r}: a string wanted")
    if key in ("$and", "$or"):
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not value:
            raise FilterError(f"{key}: {value!r} given, a list of one or more filters wanted")
        parts = tuple(_required(part, depth) for part in value)
        return And(parts) if key == "$and" else Or(parts)
    if key == "$not":
        return Not(_required(value, depth))
    if key.startswith("$"):
        raise FilterError(f"unknown operator {key!r}; one of {_KNOWN} wanted")
    if not key or '"' in key or "\\" in key or "" in key.split(".") or not storable(key):
        raise FilterError(
            f"filter key {key!r}: a metadata key wanted: not empty, no double quote or backslash, dots between names"
        )
    if isinstance(value, Mapping):
        if not value:
            raise FilterError(f"{key}: an empty condition given; an operator such as $eq wanted")
        return _all(_conditions(key, value))
    return Equals(key, _scalar(key, "$eq", value))


def _required(where: Any, depth: int) -> Filter:
    part = parse(where, depth + 1)
    if part is None:
        raise FilterError("None given inside $and, $or or $not; a filter wanted")
    return part


def _conditions(key: str, condition: Mapping[Any, Any]) -> list[Filter]:
    bounds = {_RANGES[name]: _bound(key, name, value) for name, value in condition.items() if name in _RANGES}
    others = [(name, value) for name, value in condition.items() if name not in _RANGES]
    parts = [_condition(key, name, value) for name, value in others]
    if bounds:
        if len({isinstance(bound, datetime) for bound in bounds.values()}) > 1:
            raise FilterError(f"{key}: numbers and datetimes mixed in one range {dict(condition)!r}")
        parts.append(Range(key, **bounds))
    return parts


def _condition(key: str, name: object, value: Any) -> Filter:
    if name == "$eq":
        return Equals(key, _scalar(key, "$eq", value))
    if name == "$ne":
        return Not(Equals(key, _scalar(key, "$ne", value)))
    if name in ("$in", "$nin"):
        if hasattr(value, "tolist"):  # a numpy array
            value = value.tolist()
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence | set | frozenset):
            raise FilterError(f"{key} {name}: {value!r} given, a list of values wanted")
        member = In(key, tuple(_scalar(key, str(name), item) for item in value))
        return member if name == "$in" else Not(member)
    if name == "$exists":
        if not isinstance(value, bool):
            raise FilterError(f"{key} $exists: {value!r} given, True or False wanted")
        return Exists(key) if value else Not(Exists(key))
    if name == "$not":
        if not isinstance(value, Mapping) or not value:
            raise FilterError(f'{key} $not: {value!r} given, a condition such as {{"$gt": 3}} wanted')
        return Not(_all(_conditions(key, value)))
    raise FilterError(f"{key}: unknown operator {name!r}; one of {_KNOWN} wanted")


def _scalar(key: str, name: str, value: Any) -> Scalar:
    value = _plain(value)
    if isinstance(value, bool) or (isinstance(value, str) and storable(value)):
        return value
    if isinstance(value, date):
        return _moment(value)
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and abs(value) < EXACT:  # false of NaN
        return value
    mend = '; to find missing keys use {"$exists": False}' if value is None else ""
    raise FilterError(f"{key} {name}: {value!r} given; text, a finite number, a boolean or a datetime wanted{mend}")


def _bound(key: str, name: str, value: Any) -> float | datetime:
    value = _plain(value)
    if isinstance(value, date):
        return _moment(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and (abs(value) <= EXACT or value in _INFINITE):
        return value
    mend = "; wrap text dates in datetime.fromisoformat" if isinstance(value, str) else ""
    raise FilterError(f"{key} {name}: {value!r} given; a number within ±2⁵³, a date or a datetime wanted{mend}")


def _plain(value: Any) -> Any:
    """A numpy scalar, and a member of an enumeration of numbers or texts, as Python's own."""
    if hasattr(value, "dtype") and hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str.__str__(value) if isinstance(value, str) else value


def storable(text: str) -> bool:
    """Whether text can be stored as UTF-8: a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _moment(value: date) -> datetime:
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# --- the meaning, in Python: what `memory` runs and every other adapter is tested against -----------------------------


def matches(where: Filter | None, payload: Mapping[str, Any], native: Callable[[Any], bool] | None = None) -> bool:
    """Whether a payload satisfies a filter. `native` decides on `Native` parts; without it they are predicates."""
    match where:
        case None:
            return True
        case And(parts):
            return all(matches(part, payload, native) for part in parts)
        case Or(parts):
            return any(matches(part, payload, native) for part in parts)
        case Not(part):
            return not matches(part, payload, native)
        case Exists(key):
            return lookup(payload, key) not in (None, [], ())
        case Equals(key, value):
            return _any(payload, key, lambda held: _equal(held, value))
        case In(key, values):
            return _any(payload, key, lambda held: any(_equal(held, value) for value in values))
        case Range():
            bounds = where
            return _any(payload, where.key, lambda held: _within(held, bounds))
        case Native(value):
            if native is not None:
                return native(value)
            if not callable(value):
                raise FilterError(f"{type(value).__name__} given as a filter; a mapping or a predicate wanted")
            return bool(value(payload))


def lookup(payload: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, or None."""
    held: Any = payload
    for name in key.split("."):
        if not isinstance(held, Mapping) or name not in held:
            return None
        held = held[name]
    return held


def parse_datetime(text: object) -> datetime | None:
    """The moment that ISO 8601 text names, UTC if it names no zone; None for anything else."""
    if not isinstance(text, str) or not _ISO.fullmatch(text):
        return None
    try:
        return _moment(datetime.fromisoformat(text))
    except ValueError:
        return None


def _any(payload: Mapping[str, Any], key: str, test: Callable[[Any], bool]) -> bool:
    held = lookup(payload, key)
    return any(test(item) for item in held) if isinstance(held, list | tuple) else test(held)


def _equal(held: Any, value: Scalar) -> bool:
    if isinstance(value, datetime):
        return parse_datetime(held) == value
    if isinstance(held, bool) or isinstance(value, bool):
        return held is value
    if isinstance(held, int | float) and isinstance(value, int | float) and max(abs(held), abs(value)) >= EXACT:
        return type(held) is type(value) and held == value  # beyond what a float can tell apart
    return type(held) in (int, float, str) and bool(held == value)


def _within(held: Any, bounds: Range) -> bool:
    given = [bound for bound in (bounds.gt, bounds.gte, bounds.lt, bounds.lte) if bound is not None]
    if isinstance(given[0], datetime):
        held = parse_datetime(held)
        if held is None:
            return False
    elif type(held) not in (int, float):
        return False
    comparable = cast(Any, held)
    return (
        (bounds.gt is None or comparable > bounds.gt)
        and (bounds.gte is None or comparable >= bounds.gte)
        and (bounds.lt is None or comparable < bounds.lt)
        and (bounds.lte is None or comparable <= bounds.lte)
    )
