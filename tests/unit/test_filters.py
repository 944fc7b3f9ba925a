import math
from datetime import UTC, date, datetime

import pytest

from sift_store import FilterError
from sift_store.filters import And, Equals, In, Native, Not, Or, Range, conjunction, fields, matches, parse


def test_what_a_mapping_becomes() -> None:
    assert parse(None) is None
    assert parse({}) == And(())
    assert parse({"a": 1}) == Equals("a", 1)
    assert parse({"a": 1, "b": {"$ne": "x"}}) == And((Equals("a", 1), Not(Equals("b", "x"))))
    assert parse({"a": {"$gt": 1, "$lte": 5}}) == Range("a", gt=1, lte=5)
    assert parse({"a": {"$in": {3}}}) == In("a", (3,))
    assert parse({"a": {"$nin": (3,)}}) == Not(In("a", (3,)))
    assert parse({"$or": [{"a": 1}, {"b": 2}]}) == Or((Equals("a", 1), Equals("b", 2)))
    assert parse({"a": date(2020, 1, 2)}) == Equals("a", datetime(2020, 1, 2, tzinfo=UTC))
    marker = object()
    assert parse(marker) == Native(marker)
    assert parse({"$and": [marker, {"a": 1}]}) == And((Native(marker), Equals("a", 1)))


def test_conjunction_and_fields() -> None:
    one, two = parse({"a": 1}), parse({"$not": {"$or": [{"b": 1}, {"c.d": {"$exists": True}}]}})
    assert conjunction(None, None) is None
    assert conjunction(None, one) is one
    assert sorted(fields(conjunction(one, two))) == ["a", "b", "c.d"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"a": {"$near": 1}}, r"a: unknown operator '\$near'; one of \$eq"),
        ({"$nor": []}, r"unknown operator '\$nor'"),
        ({"$and": []}, r"\$and: \[\] given"),
        ({"$or": {"a": 1}}, r"\$or"),
        ({"$or": "ab"}, r"\$or"),
        ({"$not": None}, "None given"),
        ({"a": None}, r'"\$exists": False'),
        ({"a": [1, 2]}, r"\[1, 2\] given; text, a finite number"),
        ({"a": {"$in": "text"}}, r"\$in: 'text' given, a list"),
        ({"a": {"$in": [None]}}, "None given"),
        ({"a": {"$gt": "2020-01-01"}}, "datetime.fromisoformat"),
        ({"a": {"$gt": True}}, "True given"),
        ({"a": {"$gt": math.nan}}, "nan given"),
        ({"a": {"$gt": 1, "$lt": date(2020, 1, 1)}}, "mixed"),
        ({"a": {"$exists": 1}}, "True or False"),
        ({"a": {"$not": 3}}, r"\$not: 3"),
        ({"a": {}}, "empty condition"),
        ({"a": math.inf}, "inf given"),
        ({3: 1}, "filter key 3"),
        ({"": 1}, "filter key ''"),
        ({"a..b": 1}, "dots between"),
        ({'a"b': 1}, "double quote"),
        ({"a\\b": 1}, "backslash"),
    ],
)
def test_what_cannot_be_meant_is_refused(where: object, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        parse(where)


@pytest.mark.parametrize(
    ("where", "payload", "holds"),
    [
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": [0, 1]}, True),
        ({"a": {"$ne": 1}}, {"a": [0, 1]}, False),
        ({"a": {"$ne": 1}}, {}, True),
        ({"a": {"$nin": [1]}}, {}, True),
        ({"a": {"$lt": 1}}, {}, False),
        ({"$not": {"a": {"$lt": 1}}}, {}, True),
        ({"a": {"$lt": 1}}, {"a": True}, False),
        ({"a": {"$exists": True}}, {"a": None}, False),
        ({"a": {"$exists": True}}, {"a": []}, False),
        ({"a": {"$exists": True}}, {"a": 0}, True),
        ({"a.b": 1}, {"a": {"b": 1}}, True),
        ({"a.b": 1}, {"a": [{"b": 1}]}, False),
        ({"a": {"$gte": datetime(2020, 1, 1, tzinfo=UTC)}}, {"a": "2020-01-01T01:00:00+01:00"}, True),
        ({"a": {"$gt": datetime(2020, 1, 1, tzinfo=UTC)}}, {"a": "2020-01-01"}, False),
        ({"a": {"$gt": datetime(2020, 1, 1, tzinfo=UTC)}}, {"a": "no date"}, False),
        ({"a": {"$gt": datetime(2020, 1, 1, tzinfo=UTC)}}, {"a": 5}, False),
        ({}, {}, True),
        (lambda payload: payload["a"] > 2, {"a": 3}, True),
    ],
)
def test_what_matches(where: object, payload: dict[str, object], holds: bool) -> None:
    assert matches(parse(where), payload) is holds
