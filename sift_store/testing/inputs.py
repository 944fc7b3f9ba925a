"""What users may give a store, as strategies of hypothesis: ids, texts, payloads of all types, filters over them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

__all__ = ["FILTERS", "INDEXED", "PASSAGES", "Case", "cases"]

# Payload indexes of the stores that are compared. The keys hold what fits, so that nothing is refused.
INDEXED = {"year": "integer", "lang": "keyword", "price": "float", "draft": "bool", "at": "datetime"}

# Passages and filters of one case.
PASSAGES, FILTERS = 8, 12

_LARGEST = 2**63 - 1
_EXACT = 2**53
_LONG_LIST = 40

_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: text.strip())
_keys = st.sampled_from(["a", "b", "c d", "ключ", "x'y", "x[0]", "select * from", "ﬁ", "\U0001d7d8", "A"])
_integers = st.one_of(
    st.integers(-3, 3),
    st.integers(-_LARGEST, _LARGEST),
    st.sampled_from([_EXACT - 1, _EXACT, _EXACT + 1, _LARGEST, -_LARGEST, 2**60, 2**60 + 1, 10**16]),
)
_bits = (
    st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]).filter(math.isfinite)
)
_floats = st.one_of(
    st.floats(0, 1),  # as scores are
    st.sampled_from([0.0, -0.0, 1.0, 3.0, -2.0, 0.1, 1e16, 1e22, 5e-324, 1.7976931348623157e308, float(2**60)]),
    st.sampled_from([math.nextafter(1.0, 2), math.nextafter(1.0, 0), math.nextafter(2.0, 3)]),
    _bits,
)
_zones: Any = st.one_of(
    st.none(),
    st.just(UTC),
    st.integers(-15 * 60, 15 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    st.sampled_from([timezone(timedelta(hours=1, seconds=17)), timezone(timedelta(hours=23)), timezone.min]),
)
_moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=_zones)
_close_moments = st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 5), timezones=st.just(UTC))
_dates = st.one_of(st.dates(date(2, 1, 1), date(9998, 12, 31)), _moments, _close_moments)
_FORMATS = ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S.%f+02", "%Y-%m-%d %H:%M UTC", " %Y-%m-%d ", "%Y-%m-%dT%H:%M:%SZ")
_ODD_DATES = (
    "2024-6-1",
    "2024-06-01T01:02:03.1234567891Z",
    "2024-06-01 1:2",
    "2024-02-30",
    "20240601",
    "0000-01-01",
    "0001-01-01T00:00:00+02:00",
    "9999-12-31T23:59:59-02:00",
    "2024-06-01T24:00:00",
    "2024-06-01T01:02:03+0230",
)
_date_texts = st.one_of(
    st.builds(datetime.strftime, st.datetimes(datetime(1000, 1, 1)), st.sampled_from(_FORMATS)),
    st.sampled_from(_ODD_DATES),
)
_words = st.sampled_from(
    ["en", "de", "", "'; DROP TABLE", "é", "e\u0301", "İ", "ß", "\0", "\ufdd0", "\u2028", "true", "3"]
)
_scalars = st.one_of(st.none(), st.booleans(), _integers, _floats, _words, _texts, _date_texts, _dates)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_keys, inner, max_size=3)),
    max_leaves=6,
)
_FITTING: dict[str, Any] = {
    "integer": _integers,
    "keyword": st.one_of(_words, _texts),
    "float": st.one_of(_floats, _integers),
    "bool": st.booleans(),
    "datetime": st.one_of(_dates, _date_texts.filter(lambda text: text == "2024-6-1")),
}
_declared = st.fixed_dictionaries(
    {},
    optional={key: st.one_of(_FITTING[kind], st.lists(_FITTING[kind], max_size=3)) for key, kind in INDEXED.items()},
)

_ids = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.integers(-_LARGEST, 2**64 - 1),
    st.integers(0, 99),
    st.integers(0, 99).map(str),
    st.uuids(),
    st.uuids().map(str),
)
_payloads = st.builds(
    lambda free, declared: {**free, **declared}, st.dictionaries(_keys, _values, max_size=4), _declared
)


@dataclass(frozen=True)
class Case:
    """What is done to two stores: passages are added, asked for, changed and deleted.

    Attributes:
        filters: over the payloads. changed: ids whose payloads `change` is merged into. gone: what is deleted.
    """

    ids: Sequence[Any]
    texts: Sequence[str]
    payloads: Sequence[dict[str, Any]]
    filters: Sequence[Any]
    changed: Sequence[Any]
    change: dict[str, Any]
    gone: Any

    def __repr__(self) -> str:
        return "Case(…)"  # an assertion says what differs


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Cases of a few passages each."""
    names = draw(st.lists(_ids, min_size=PASSAGES, max_size=PASSAGES, unique_by=lambda id_: (type(id_), id_)))
    stored = draw(st.lists(_payloads, min_size=PASSAGES, max_size=PASSAGES))
    change = draw(_payloads)
    filters = draw(st.lists(_filters_over([*stored, change]), min_size=FILTERS, max_size=FILTERS))
    changed = draw(st.lists(st.integers(0, PASSAGES - 1), max_size=3, unique=True))
    bodies = draw(st.lists(_texts, min_size=PASSAGES, max_size=PASSAGES))
    gone = draw(_filters_over([*stored, change]))
    return Case(names, bodies, stored, filters, [names[place] for place in changed], change, gone)


def _filters_over(stored: Sequence[Mapping[str, Any]]) -> st.SearchStrategy[Any]:
    """Filters that ask for what is in payloads, or is close to it."""
    places = [*sorted({key for payload in stored for key, _ in _leaves(payload)}), "nowhere", "a.b"]
    values = [value for payload in stored for _, value in _leaves(payload)]
    wanted = _one_of(values or [3])
    value = st.one_of(wanted, wanted, wanted.map(_neighbour), st.sampled_from([True, 1, 1.0, "1", "", -0.0])).filter(
        _asks
    )
    bound = value.filter(_bounds)
    condition = st.one_of(
        value,
        st.builds(lambda name, asked: {name: asked}, st.sampled_from(["$eq", "$ne"]), value),
        st.builds(
            lambda name, asked: {name: asked},
            st.sampled_from(["$in", "$nin"]),
            st.one_of(st.lists(value, max_size=3), st.lists(value, min_size=_LONG_LIST, max_size=_LONG_LIST)),
        ),
        st.builds(lambda name, asked: {name: asked}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), bound),
        st.builds(_between, bound, bound),
        st.booleans().map(lambda there: {"$exists": there}),
    )
    leaf = st.builds(lambda key, asked: {key: asked}, _one_of(places), condition)
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=2)),
            st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=2)),
            st.builds(lambda part: {"$not": part}, inner),
        ),
        max_leaves=3,
    )


def _one_of(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    """As `sampled_from`, which writes all its values into messages."""
    return st.integers(0, len(values) - 1).map(lambda place: values[place])


def _leaves(payload: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in payload.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield from ((f"{above}{key}", item) for item in (value if isinstance(value, list) else [value]))


def _neighbour(value: Any) -> Any:
    """What a store that is a little wrong would take for the value."""
    match value:
        case bool() | None:
            return 1
        case int():
            return float(value) if abs(value) < _EXACT else max(min(value + 1, _LARGEST), -_LARGEST)
        case float():
            return int(value) if value.is_integer() and abs(value) < _EXACT else math.nextafter(value, math.inf)
        case datetime():
            return value + timedelta(microseconds=1)
        case str():
            return value.upper()
        case _:
            return value


def _asks(value: Any) -> bool:
    """Whether the language lets a value be asked for."""
    if isinstance(value, float):
        return abs(value) < _EXACT
    return isinstance(value, str | int | date)


def _bounds(value: Any) -> bool:
    if isinstance(value, bool | str):
        return False
    return isinstance(value, date) or abs(value) <= _EXACT


def _between(one: Any, other: Any) -> dict[str, Any]:
    """A range of both bounds, where they can stand in one."""
    if isinstance(one, date) != isinstance(other, date):
        return {"$gte": one}
    return {"$gte": one, "$lt": other}
