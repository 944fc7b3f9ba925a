"""The filter language as SQL.

A payload is asked by strict JSON path: ``payload @? 'strict $."year" ? (@ == 2020)'``, and once more with ``[*]`` for
lists. Strict paths do not reach into lists by themselves, as the language does not; a GIN index on the payload serves
equalities, and the planner estimates them from a sample. A column of its own in an attached table is compared as one.

SQL knows a third truth: a path that leads nowhere is unknown. Unknown is never true, `And` and `Or` keep it so, and
`Not` asks IS NOT TRUE.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Numeric,
    String,
    Text,
    and_,
    any_,
    case,
    cast,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH
from sqlalchemy.types import TypeEngine

from sift_store.filters import EXACT, And, Equals, Exists, Filter, In, Native, Not, Or, Range, Scalar
from sift_store_pgvector.codec import without_nul
from sift_store_pgvector.natives import checked_native

__all__ = ["RANGE_FUNCTIONS", "Fields", "our_function", "translate"]

# The functions of our schema that give the least and the largest value at a key, for the indexes on ranges.
RANGE_FUNCTIONS = {
    "integer": ("least_number", "largest_number"),
    "float": ("least_number", "largest_number"),
    "datetime": ("earliest", "latest"),
}

# What the language reads as a date (see `sift_store.filters.parse_datetime`), with the hours and minutes of a clock.
_DAY = r"(?!0000)\d{4}-\d\d?-\d\d?"
_CLOCK = r"([01]?\d|2[0-3]):[0-5]?\d(:[0-5]?\d(\.\d+)?)?"
_ZONE = r"([Zz]|UTC|utc|[+-](0\d|1[0-5])(:?[0-5]\d)?)"
ISO = rf"^\s*{_DAY}([Tt ]\s*{_CLOCK}\s*{_ZONE}?)?\s*$"
ZONED = rf":\d.*{_ZONE}\s*$"
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
# From so many values on they are compared by a hash table instead of one by one; where an index serves a comparison one
# by one, later.
_MANY, _MANY_INDEXED = 3, 16


@dataclass(frozen=True, slots=True)
class Fields:
    """Where the keys of filters are.

    Attributes:
        payload: jsonb that holds them, or None.
        columns: keys that are columns of their own instead.
        indexed: fields with an index on their range, key -> type, and `schema`, where its functions are.
    """

    payload: ColumnElement[Any] | None
    columns: Mapping[str, ColumnElement[Any]] = field(default_factory=dict)
    indexed: Mapping[str, str] = field(default_factory=dict)
    schema: str = ""


def translate(where: Filter | None, fields: Fields) -> ColumnElement[bool]:
    """A filter as a condition; true where it matches, false or unknown where not.

    Raises:
        FilterError: a native filter that is no SQLAlchemy expression.
    """
    match where:
        case None:
            return true()
        case And(parts):
            return and_(true(), *(translate(part, fields) for part in parts))
        case Or(parts):
            return or_(false(), *(translate(part, fields) for part in parts))
        case Not(part):
            return translate(part, fields).is_not(true())
        case Native(value, guarded):
            return checked_native(value, guarded)
        case _:
            return _leaf(where, fields)


def _leaf(where: Equals | In | Range | Exists, fields: Fields) -> ColumnElement[bool]:
    name, _, rest = where.key.partition(".")
    if name not in fields.columns:
        return false() if fields.payload is None else _asked(where, fields.payload, where.key.split("."), fields)
    column = fields.columns[name]
    native = None if rest else _compared(where, column)
    if native is not None:
        return native
    held = func.jsonb_build_object(cast(name, Text), func.to_jsonb(column), type_=JSONB)
    return _asked(where, held, where.key.split("."), Fields(held))


# --- a key of a payload -----------------------------------------------------------------------------------------------


def _asked(
    where: Equals | In | Range | Exists, payload: ColumnElement[Any], names: Sequence[str], fields: Fields
) -> ColumnElement[bool]:
    match where:
        case Exists():
            empty = '@.type() == "array" && @.size() == 0'
            return _at(payload, names, "", f'@.type() != "null" && !({empty})')
        case Equals(_, value):
            return _one_of(payload, names, [value], _MANY)
        case In(key, values):
            return _one_of(payload, names, values, _MANY_INDEXED if key in fields.indexed else _MANY)
        case Range():
            bounds = _bounds(where)
            if isinstance(bounds[0][1], datetime):
                condition = _any_moment(payload, names, lambda moment: and_(*_moment_tests(moment, bounds)))
            else:
                tests = ['@.type() == "number"', *(f"@ {op} {_number(b)}" for op, b in bounds if not math.isinf(b))]
                impossible = any((b == math.inf) == (op[0] == ">") for op, b in bounds if math.isinf(b))
                condition = false() if impossible else _anywhere(payload, names, " && ".join(tests))
            return and_(condition, *_range_hints(where, bounds, payload, names, fields))


def _one_of(
    payload: ColumnElement[Any], names: Sequence[str], values: Sequence[Scalar], many: int
) -> ColumnElement[bool]:
    """Whether a key holds one of some values; `many`: from how many on they are compared by a hash table."""
    plain = [value for value in values if not isinstance(value, datetime)]
    moments = [value for value in values if isinstance(value, datetime)]
    parts: list[ColumnElement[bool]] = []
    if len(plain) >= many or any(map(_is_large, plain)):
        parts.append(_hashed(payload, names, plain))
    elif plain:
        parts.append(_anywhere(payload, names, " || ".join(f"@ == {_literal(value)}" for value in plain)))
    if moments:
        parts.append(_any_moment(payload, names, lambda moment: moment == any_(_array(moments))))
    return or_(false(), *parts)


def _hashed(payload: ColumnElement[Any], names: Sequence[str], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether the value at the key, or an element of the list there, is among many."""
    large = [str(value) for value in values if _is_large(value)]
    usual = [_literal(value) for value in values if not _is_large(value)]
    # As one JSON text: the driver takes as long for an array as the server for the rest. A subquery is hashed, too.
    sought = func.jsonb_array_elements(cast(f"[{','.join(usual)}]", JSONB), type_=JSONB).column_valued("sought")
    members = select(sought)

    def among(value: ColumnElement[Any]) -> ColumnElement[bool]:
        equal = value.in_(members)
        if not large:
            return equal
        number = func.jsonb_typeof(value) == "number"
        return or_(equal, and_(number, cast(value, Text) == any_(cast(large, ARRAY(Text)))))

    stored = _value_at(payload, names)
    element = func.jsonb_array_elements(_listed(stored), type_=JSONB).column_valued("element")
    within = select(literal_column("1")).where(among(element)).exists()
    return or_(among(stored), and_(func.jsonb_typeof(stored) == "array", within))  # few are lists, which cost more


def _is_large(value: Any) -> bool:
    """Beyond what a float can tell apart an integer equals integers only, and jsonb would not mind."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) >= EXACT


def _array(moments: Sequence[datetime]) -> ColumnElement[Any]:
    return cast([moment.isoformat() for moment in moments], ARRAY(DateTime(timezone=True)))


def _anywhere(payload: ColumnElement[Any], names: Sequence[str], condition: str) -> ColumnElement[bool]:
    """The value at the key, or an element of the list there."""
    return or_(_at(payload, names, "", condition), _at(payload, names, "[*]", condition))


def _at(payload: ColumnElement[Any], names: Sequence[str], tail: str, condition: str) -> ColumnElement[bool]:
    steps = "".join(f".{_quoted(name)}" for name in names)
    return payload.bool_op("@?")(cast(f"strict ${steps}{tail} ? ({condition})", JSONPATH))


def _literal(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return repr(value)


def _quoted(text: str) -> str:
    return json.dumps(without_nul(text), ensure_ascii=False)  # escapes beyond ASCII are not for every encoding


def _bounds(where: Range) -> list[tuple[str, Any]]:
    named = ((">", where.gt), (">=", where.gte), ("<", where.lt), ("<=", where.lte))
    return [(operator, bound) for operator, bound in named if bound is not None]


# --- dates ------------------------------------------------------------------------------------------------------------


def _any_moment(
    payload: ColumnElement[Any],
    names: Sequence[str],
    test: Callable[[ColumnElement[Any]], ColumnElement[bool]],
) -> ColumnElement[bool]:
    """Whether text at the key, or in the list there, names a moment that passes a test."""
    listed = _listed(_value_at(payload, names))
    element = func.jsonb_array_elements(listed, type_=JSONB).column_valued("element")
    return select(literal_column("1")).where(test(_moment_of(element))).exists()


def _value_at(payload: ColumnElement[Any], names: Sequence[str]) -> ColumnElement[Any]:
    value = payload
    for name in names:
        value = value.op("->", return_type=JSONB())(cast(without_nul(name), Text))
    return value


def _moment_tests(moment: ColumnElement[Any], bounds: Sequence[tuple[str, datetime]]) -> list[ColumnElement[bool]]:
    return [moment.op(op, is_comparison=True)(_moment(bound)) for op, bound in bounds]


def _moment(value: datetime) -> ColumnElement[Any]:
    return cast(value.isoformat(), DateTime(timezone=True))


def _listed(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """A list as it is, anything else as a list of one."""
    return case((func.jsonb_typeof(value) == "array", value), else_=func.jsonb_build_array(value, type_=JSONB))


def _moment_of(element: ColumnElement[Any]) -> ColumnElement[Any]:
    """The moment that a jsonb string names, UTC if it names no zone; NULL for anything else.

    The functions `earliest` and `latest` of our schema read dates in the same way.
    """
    text = element.op("#>>", return_type=Text())(cast("{}", ARRAY(Text)))
    real_day = func.jsonb_path_exists(
        func.to_jsonb(func.substring(text, _DAY)),
        cast('$.datetime("YYYY-MM-DD")', JSONPATH),
        cast("{}", JSONB),
        true(),
    )
    is_date = and_(func.jsonb_typeof(element) == "string", text.regexp_match(ISO), real_day)
    cut = func.regexp_replace(text, r"(\.\d{6})\d+", r"\1")  # PostgreSQL would round
    zoned = case((text.regexp_match(ZONED), cut), (text.regexp_match(":"), cut + "+00"), else_=cut + " 00:00:00+00")
    moment = case((is_date, cast(zoned, DateTime(timezone=True))), else_=None)
    return case((moment.between(_moment(_FIRST), _moment(_LAST)), moment), else_=None)


# --- columns and indexes ----------------------------------------------------------------------------------------------


def _compared(where: Equals | In | Range | Exists, column: ColumnElement[Any]) -> ColumnElement[bool] | None:
    """A comparison that an index on the column serves, where its type and the values' are the same; else None."""
    kind = column.type
    if isinstance(where, Exists):
        scalar = isinstance(kind, String | Boolean | Integer | Numeric | DateTime)
        return column.is_not(None) if scalar else None
    if isinstance(where, Range):
        bounds = _bounds(where)
        values: Sequence[Any] = [bound for _, bound in bounds]
        if not _fits(kind, values) or isinstance(kind, String):
            return None
        tests: list[ColumnElement[bool]] = [
            column.op(op, is_comparison=True)(_bound_value(kind, bound)) for op, bound in bounds
        ]
        if isinstance(kind, Numeric):  # for PostgreSQL NaN is greater than every number
            tests.append(column != cast("NaN", Numeric))
        return and_(*tests)
    values = where.values if isinstance(where, In) else [where.value]
    if not values or not _fits(kind, values):
        return None
    if len(values) < _MANY_INDEXED:
        return or_(*(column == _bound_value(kind, value) for value in values))
    return _among(kind, values, column)


def _among(kind: TypeEngine[Any], values: Sequence[Any], column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a column equals one of many values of its type, by one array."""
    if isinstance(kind, DateTime):
        return column == any_(_array(values))
    if isinstance(kind, Boolean):
        return column.in_([bool(value) for value in values])
    if isinstance(kind, String):
        return column == any_(cast([without_nul(value) for value in values], ARRAY(Text)))
    whole = [int(value) for value in values if float(value).is_integer() and abs(value) < 2**63]
    if isinstance(kind, Integer):
        return column == any_(cast(whole, ARRAY(BigInteger)))
    return column == any_(cast([str(value) for value in values], ARRAY(Numeric)))


def _fits(kind: TypeEngine[Any], values: Sequence[Any]) -> bool:
    if isinstance(kind, String):
        return all(isinstance(value, str) for value in values)
    if isinstance(kind, Boolean):
        return all(isinstance(value, bool) for value in values)
    if isinstance(kind, Integer | Numeric):
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return isinstance(kind, DateTime) and bool(kind.timezone) and all(isinstance(value, datetime) for value in values)


def _bound_value(kind: TypeEngine[Any], value: Any) -> Any:
    if isinstance(kind, DateTime):
        return _moment(value)
    if isinstance(kind, Integer) and isinstance(value, int):
        return cast(value, BigInteger)  # an index on any integer column serves that, but not a comparison with numeric
    if isinstance(kind, Integer | Numeric):
        return cast(str(value), Numeric)
    return without_nul(value) if isinstance(value, str) else value


def _range_hints(
    where: Range,
    bounds: Sequence[tuple[str, Any]],
    payload: ColumnElement[Any],
    names: Sequence[str],
    fields: Fields,
) -> list[ColumnElement[bool]]:
    """What must hold besides, and has an index: the largest value reaches the lower bound, the least the upper."""
    kind = fields.indexed.get(where.key)
    if kind not in RANGE_FUNCTIONS or isinstance(bounds[0][1], datetime) != (kind == "datetime"):
        return []
    least, most = (
        our_function(fields.schema, name)(payload, cast(list(names), ARRAY(Text))) for name in RANGE_FUNCTIONS[kind]
    )
    return [
        (most if op[0] == ">" else least).op(op, is_comparison=True)(
            _moment(bound) if kind == "datetime" else cast(str(bound), Numeric)
        )
        for op, bound in bounds
    ]


def our_function(schema: str, name: str) -> Any:
    """A function of our schema. SQLAlchemy doubles percent signs in names of tables, but not of functions."""
    return getattr(getattr(func, schema.replace("%", "%%")), name)
