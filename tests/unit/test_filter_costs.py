"""What a filter costs as it grows, counted in conditions and comparisons and not in seconds."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sift_store_pgvector.filters import Fields as SqlFields
from sift_store_pgvector.filters import translate as to_sql
from sift_store_pgvector.work import compiled
from sqlalchemy import column, select
from sqlalchemy.dialects.postgresql import JSONB

from sift_store.filters import parse, predicate
from sift_store.point_filters import PointFields, translate

START = datetime(2024, 1, 1, tzinfo=UTC)
VALUES = {
    "texts": [f"word {place}" for place in range(10_000)],
    "integers": list(range(10_000)),
    "floats": [place + 0.5 for place in range(10_000)],
    "dates": [START + timedelta(seconds=place) for place in range(10_000)],
    "all": [*range(3000), *(f"w{place}" for place in range(3000)), *(place + 0.5 for place in range(3000)), True],
}


class Counting:
    """Conditions that can be evaluated, and that count how many one point has to be asked."""

    def __init__(self) -> None:
        self.made = self.asked = 0

    def _condition(self, test: Any) -> Any:
        self.made += 1

        def asked(value: Any) -> bool:
            self.asked += 1
            return bool(test(value))

        return asked

    def every(self, parts: Sequence[Any]) -> Any:
        return lambda value: all(part(value) for part in parts)

    def some(self, parts: Sequence[Any]) -> Any:
        return lambda value: any(part(value) for part in parts)

    def none(self, parts: Sequence[Any]) -> Any:
        return lambda value: not any(part(value) for part in parts)

    def nothing(self) -> Any:
        return lambda value: False

    def empty(self, path: str) -> Any:
        return self._condition(lambda value: value is None)

    def one_of(self, path: str, values: Sequence[Any]) -> Any:
        members = set(values)
        spelt = path.startswith("exact")
        return self._condition(lambda value: (repr(float(value)) if spelt else value) in members)

    def truth(self, path: str, value: bool) -> Any:
        return self._condition(lambda stored: stored is value)

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Any:
        return self._condition(lambda value: bounds["gte"] <= value <= bounds["lte"])

    def moments(self, path: str, bounds: Mapping[str, str]) -> Any:
        return self._condition(lambda value: bounds["gte"] <= START.isoformat() <= bounds["lte"])

    def native(self, value: Any) -> Any:
        raise NotImplementedError


OWN = PointFields("metadata.{}".format, "exact.{}".format, {})
OTHERS = PointFields("metadata.{}".format, None, {})


@pytest.mark.parametrize("operator", ["$in", "$nin"])
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_a_list_is_a_few_conditions_in_points_of_our_own(kind: str, count: int, operator: str) -> None:
    make = Counting()
    translate(parse({"key": {operator: VALUES[kind][:count]}}), OWN, make)
    assert make.made <= {"floats": 2, "integers": 2, "all": 4}.get(kind, 1)


def test_an_index_on_integers_leaves_one() -> None:
    make = Counting()
    fields = PointFields("metadata.{}".format, "exact.{}".format, {"key": "integer"})
    translate(parse({"key": {"$in": VALUES["integers"]}}), fields, make)
    assert make.made == 1


@pytest.mark.parametrize("stored", [0, 4999, 9999, -1, 5000.5])
def test_numbers_in_points_of_others_are_searched_for(stored: float) -> None:
    """The server compares no float for equality, so ranges lead to it, the fewer of them the better."""
    asked = {}
    for count in (10, 100, 1000, 10_000):
        make = Counting()
        found = translate(parse({"key": {"$in": VALUES["integers"][:count]}}), OTHERS, make)(stored)
        assert found == (stored in VALUES["integers"][:count])
        asked[count] = make.asked
    assert asked[10_000] <= 4 * asked[10] + 8


@pytest.mark.parametrize("kind", ["texts", "integers", "floats", "dates"])
def test_a_list_is_one_parameter_in_sql(kind: str) -> None:
    lengths = set()
    for count in (10, 100, 10_000):
        where = to_sql(parse({"key": {"$in": VALUES[kind][:count]}}), SqlFields(column("payload", JSONB)))
        statement = compiled(select(where))
        lengths.add(len(statement.sql))
        assert len(statement.parameters) <= 20
    assert max(lengths) - min(lengths) <= 8


@pytest.mark.parametrize("kind", VALUES)
def test_a_list_is_one_look_in_memory(kind: str) -> None:
    """The set is made once for a filter: each passage costs one look, whatever is in the list."""

    class Value(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Value.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    test = predicate(parse({"key": {"$in": VALUES[kind]}}))
    for place in range(100):
        test({"key": Value(f"stored {place}")})
    assert Value.compared <= 100
