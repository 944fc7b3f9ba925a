"""One small filter language for every store: a mapping in, a tree of seven nodes out.

    {"year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"tags": {"$in": ["nlp", "ir"]}}]}

Keys are metadata keys; a dot goes into a nested mapping. `$eq` (or a bare value) `$ne $gt $gte $lt $lte $in $nin
$exists` on keys; `$and $or $not` around filters. Meaning, the same in every store:

- a missing key matches `$ne`, `$nin` and `$not` only; null and the empty list count as missing;
- a list matches if any of its elements does; `$ne` and `$nin` are the negations of `$eq` and `$in`;
- numbers compare as numbers (3 equals 3.0), booleans are no numbers, text compares exactly;
- ranges take numbers, dates and datetimes; a naive datetime is UTC, a date is its midnight;
- text is read as a date if it is one of the forms of ISO 8601, of `strftime` and of PostgreSQL that `parse_datetime`
  knows; what is beyond a microsecond is cut off.

Anything that is no mapping is taken for the engine's own filter and handed to the adapter (`Native`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
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
    "constant",
    "exact_text",
    "fields",
    "has_native",
    "lookup",
    "matches",
    "parse",
    "parse_datetime",
    "plain_scalar",
    "predicate",
    "storable",
    "utc",
    "within",
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
    """A filter of the engine's own.

    Attributes:
        guarded: it is part of a scope's filter, which it must not be able to widen: an adapter refuses what could.
    """

    value: Any = field(hash=False)
    guarded: bool = False


Filter: TypeAlias = Equals | In | Range | Exists | And | Or | Not | Native

_RANGES = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
# Ranges and equality of floats are decided in 64-bit floats, which hold every integer up to here.
EXACT = 2**53
_INFINITE = (math.inf, -math.inf)
_MAX_DEPTH = 64
# A date with a time and a zone or not: 2020-01-31, 2020-1-31 9:05, 2020-01-31T09:05:00.5+02:00, … +0200, … +02, … UTC.
_DATE = re.compile(
    r"\s*(?!0000)(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:[Tt ]\s*(\d\d?):(\d\d?)(?::(\d\d?)(?:\.(\d+))?)?"
    r"\s*(?:[Zz]|UTC|utc|([+-])(0\d|1[0-5])(?::?([0-5]\d))?)?)?\s*",
    re.ASCII,
)
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
    _check_depth(depth)
    return _all([_clause(key, value, depth) for key, value in where.items()])


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise FilterError(f"filter nested more than {_MAX_DEPTH} deep")


def conjunction(*filters: Filter | None) -> Filter | None:
    """All of the filters that are not None, as one."""
    given = [part for part in filters if part is not None]
    return _all(given) if given else None


def within(scope: Filter | None, where: Filter | None) -> Filter | None:
    """A filter that holds where a scope and another filter do, and that no native part can widen."""
    return where if scope is None else conjunction(scope, None if where is None else _guarded(where))


def _guarded(where: Filter) -> Filter:
    match where:
        case And(parts):
            return And(tuple(map(_guarded, parts)))
        case Or(parts):
            return Or(tuple(map(_guarded, parts)))
        case Not(part):
            return Not(_guarded(part))
        case Native(value):
            return Native(value, guarded=True)
        case _:
            return where


def has_native(where: Filter | None) -> bool:
    """Whether a filter of the engine's own is part of a filter."""
    match where:
        case Native():
            return True
        case And(parts) | Or(parts):
            return any(map(has_native, parts))
        case Not(part):
            return has_native(part)
        case _:
            return False


def fields(where: Filter | None) -> Iterator[str]:
    """The metadata keys that a filter reads."""
    if isinstance(where, Equals | In | Range | Exists):
        yield where.key
    elif isinstance(where, And | Or):
        for part in where.parts:
            yield from fields(part)
    elif isinstance(where, Not):
        yield from fields(where.part)


def constant(where: Filter | None) -> bool | None:
    """What a filter says of every payload, whatever is in it; None if that depends on the payload."""
    match where:
        case None:
            return True
        case And(parts):
            return _decided([constant(part) for part in parts], False)
        case Or(parts):
            return _decided([constant(part) for part in parts], True)
        case Not(part):
            inner = constant(part)
            return None if inner is None else not inner
        case In(_, values):
            return None if values else False
        case _:
            return None


def _decided(parts: Sequence[bool | None], decisive: bool) -> bool | None:
    """Of an `Or` (decisive: True) or an `And` (decisive: False)."""
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive


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
    key = exact_text(key)
    if not key or '"' in key or "\\" in key or "" in key.split(".") or not storable(key):
        raise FilterError(
            f"filter key {key!r}: a metadata key wanted: not empty, no double quote or backslash, dots between names"
        )
    if isinstance(value, Mapping):
        if not value:
            raise FilterError(f"{key}: an empty condition given; an operator such as $eq wanted")
        return _all(_conditions(key, value, depth))
    return Equals(key, _scalar(key, "$eq", value))


def _required(where: Any, depth: int) -> Filter:
    part = parse(where, depth + 1)
    if part is None:
        raise FilterError("None given inside $and, $or or $not; a filter wanted")
    return part


def _conditions(key: str, condition: Mapping[Any, Any], depth: int) -> list[Filter]:
    _check_depth(depth)
    bounds = {_RANGES[name]: _bound(key, name, value) for name, value in condition.items() if name in _RANGES}
    others = [(name, value) for name, value in condition.items() if name not in _RANGES]
    parts = [_condition(key, name, value, depth) for name, value in others]
    if bounds:
        if len({isinstance(bound, datetime) for bound in bounds.values()}) > 1:
            raise FilterError(f"{key}: numbers and datetimes mixed in one range {dict(condition)!r}")
        parts.append(Range(key, **bounds))
    return parts


def _condition(key: str, name: object, value: Any, depth: int) -> Filter:
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
        return Not(_all(_conditions(key, value, depth + 1)))
    raise FilterError(f"{key}: unknown operator {name!r}; one of {_KNOWN} wanted")


def _scalar(key: str, name: str, value: Any) -> Scalar:
    if (type(value) is str and value.isascii()) or (type(value) is int and abs(value) < EXACT):
        return value  # what long lists are made of
    scalar = plain_scalar(value)
    if isinstance(scalar, bool) or (isinstance(scalar, str) and storable(scalar)):
        return scalar
    if isinstance(scalar, date):
        return _instant(key, name, scalar)
    if isinstance(scalar, int) and abs(scalar) < 2**63:
        return scalar
    if isinstance(scalar, float) and abs(scalar) < EXACT:  # false of NaN
        return scalar
    mend = '; to find missing keys use {"$exists": False}' if value is None else ""
    raise FilterError(f"{key} {name}: {value!r} given; text, a finite number, a boolean or a datetime wanted{mend}")


def _bound(key: str, name: str, value: Any) -> float | datetime:
    scalar = plain_scalar(value)
    if isinstance(scalar, date):
        return _instant(key, name, scalar)
    number = isinstance(scalar, int | float) and not isinstance(scalar, bool)
    if number and (abs(scalar) <= EXACT or scalar in _INFINITE):
        return cast(float, scalar)
    mend = "; wrap text dates in datetime.fromisoformat" if isinstance(value, str) else ""
    raise FilterError(f"{key} {name}: {value!r} given; a number within ±2⁵³, a date or a datetime wanted{mend}")


def _instant(key: str, name: str, value: date) -> datetime:
    moment = utc(value)
    if moment is None:
        raise FilterError(f"{key} {name}: {value!r} given; a date in the years 1 to 9999 of UTC wanted")
    return moment


def plain_scalar(value: Any) -> Any:
    """A numpy scalar, a member of an enumeration and an instance of a subclass, as Python's own; others as they are."""
    if hasattr(value, "dtype") and hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return exact_text(value) if isinstance(value, str) else value


def exact_text(text: str) -> str:
    """Text as Python's own `str`, not as a subclass, whose hash and repr may be anything."""
    return str.__str__(text)


def storable(text: str) -> bool:
    """Whether text can be stored as UTF-8: a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def utc(value: date) -> datetime | None:
    """A date or datetime as a moment in UTC: a naive one is UTC, a date its midnight. None beyond years 1 to 9999."""
    try:
        day = (value.year, value.month, value.day)
        if not isinstance(value, datetime):
            return datetime(*day, tzinfo=UTC)
        clock = (value.hour, value.minute, value.second, value.microsecond)
        return datetime(*day, *clock, tzinfo=value.tzinfo or UTC, fold=value.fold).astimezone(UTC)
    except (OverflowError, ValueError, TypeError):  # pandas has a datetime that is none
        return None


# --- the meaning, in Python: what `memory` runs and every other adapter is tested against -----------------------------


Test: TypeAlias = Callable[[Mapping[str, Any]], bool]


def matches(where: Filter | None, payload: Mapping[str, Any], native: Callable[[Any], bool] | None = None) -> bool:
    """Whether a payload satisfies a filter. `native` decides on `Native` parts; without it they are predicates."""
    return predicate(where, native)(payload)


def predicate(where: Filter | None, native: Callable[[Any], bool] | None = None) -> Test:
    """A filter as a function of a payload. A list of values is made a set once, whatever its length."""
    match where:
        case None:
            return lambda payload: True  # noqa: ARG005
        case And(parts):
            tests = [predicate(part, native) for part in parts]
            return lambda payload: all(test(payload) for test in tests)
        case Or(parts):
            tests = [predicate(part, native) for part in parts]
            return lambda payload: any(test(payload) for test in tests)
        case Not(part):
            negated = predicate(part, native)
            return lambda payload: not negated(payload)
        case Exists(key):
            return lambda payload: lookup(payload, key) not in (None, [], ())
        case Equals(key, value):
            return _anywhere(key, _membership([value]))
        case In(key, values):
            return _anywhere(key, _membership(values))
        case Range():
            return _anywhere(where.key, lambda held: _within(held, where))
        case Native(value):
            return _native(value, native)


def _native(value: Any, native: Callable[[Any], bool] | None) -> Test:
    if native is not None:
        return lambda payload: native(value)  # noqa: ARG005
    if not callable(value):
        raise FilterError(f"{type(value).__name__} given as a filter; a mapping or a predicate wanted")
    return lambda payload: bool(value(payload))


def lookup(payload: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, or None."""
    held: Any = payload
    for name in key.split("."):
        if not isinstance(held, Mapping) or name not in held:
            return None
        held = held[name]
    return held


def parse_datetime(text: object) -> datetime | None:
    """The moment that text names, in UTC, which it is taken for if it names no zone; None for anything else."""
    parts = _DATE.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        return None
    *numbers, fraction, sign, hours, minutes = parts.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    microseconds = int((fraction or "0").ljust(6, "0")[:6])
    try:
        year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
        moment = datetime(year, month, day, hour, minute, second, microseconds, UTC)
        return moment + offset if sign == "-" else moment - offset
    except (ValueError, OverflowError):
        return None


def _anywhere(key: str, test: Callable[[Any], bool]) -> Test:
    """Whether the value at a key, or an element of the list there, passes a test."""

    def tested(payload: Mapping[str, Any]) -> bool:
        value = lookup(payload, key)
        return any(map(test, value)) if isinstance(value, list | tuple) else test(value)

    return tested


def _membership(values: Sequence[Scalar]) -> Callable[[Any], bool]:
    """Whether a stored value equals one of the values; the work does not grow with their number."""
    members = {_identity(value) for value in values}
    has_moments = any(isinstance(value, datetime) for value in values)

    def equals_one(stored: Any) -> bool:
        if isinstance(stored, str):
            return (str, stored) in members or (has_moments and (datetime, parse_datetime(stored)) in members)
        return isinstance(stored, int | float) and _identity(stored) in members

    return equals_one


def _identity(value: Scalar) -> tuple[type, Any]:
    """Equal for values that the language calls equal: 3 and 3.0, but not 1 and True."""
    if isinstance(value, bool | str | datetime):
        return (bool if isinstance(value, bool) else str if isinstance(value, str) else datetime, value)
    if abs(value) >= EXACT:  # beyond what a float can tell apart
        return type(value), value
    return float, value


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
