"""Conditions of SQLAlchemy's in a scoped store: those that only narrow work, those that could widen it are refused."""

import operator
from typing import Any

import pytest
import sqlalchemy as sa
from postgres_server import Server
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB
from sqlalchemy.sql import quoted_name

from sift_store import FilterError, SiftStore
from sift_store.testing import WordEmbedder

PAYLOAD: Any = sa.column("payload", JSONB)
BREAKING = "true) OR (true"


class Free(sa.types.UserDefinedType[Any]):
    def get_col_spec(self, **_: Any) -> str:
        return "text) IS NOT NULL OR (true"


WIDER = {
    "text": sa.text(BREAKING),
    "text in a condition": sa.and_(PAYLOAD["x"].astext == "1", sa.text(BREAKING)),
    "a literal column": sa.literal_column(BREAKING) == sa.true(),
    "an unquoted name": sa.column(quoted_name(BREAKING, quote=False)) == sa.true(),
    "an operator": PAYLOAD.op("IS NOT NULL) OR (true = ")(sa.true()),
    "a type": sa.cast(PAYLOAD, Free()) == "x",
    "a collation": sa.cast(PAYLOAD, sa.String(collation='C") IS NOT NULL) OR ("payload"::text COLLATE "C')) == "x",
    "a length": sa.cast(PAYLOAD, sa.String("5)) IS NOT NULL OR (true")) == "x",  # type: ignore[arg-type]
    "fields of an interval": sa.cast("1", INTERVAL(fields="YEAR) IS NOT NULL OR (true")) == sa.null(),
    "a function": sa.func.coalesce(PAYLOAD["x"].astext, "1") == "1",
    "a subquery": sa.exists(sa.select(sa.text("1"))),
    "an extract": sa.extract("year FROM now()) = 1 OR (true)", sa.func.now()) == 1,
    "a collate": sa.collate(PAYLOAD["x"].astext, "C") == "1",
}


@pytest.mark.parametrize("name", WIDER)
def test_no_condition_widens_a_scope(postgres: Server, database: str, name: str) -> None:
    with SiftStore.open(postgres.url(database), embedder=WordEmbedder()) as store:
        store.scoped({"tenant": "b"}).add(["of b"], ids=["b"])
        scoped = store.scoped({"tenant": "a"})
        scoped.add(["of a"], ids=["a"])
        for where in (WIDER[name], {"$or": [{"tenant": "a"}, WIDER[name]]}, {"$not": WIDER[name]}):
            for ask in (scoped.count, lambda given: scoped.delete(where=given)):
                with pytest.raises(FilterError, match="could widen the scope"):
                    ask(where)
            with pytest.raises(FilterError, match="could widen the scope"):
                scoped.search("of", where=where)
        assert store.count() == 2


@pytest.mark.parametrize("compare", [operator.eq, operator.ne])
def test_conditions_that_narrow_work(postgres: Server, database: str, compare: Any) -> None:
    with SiftStore.open(postgres.url(database), embedder=WordEmbedder()) as store:
        store.scoped({"tenant": "b"}).add(["of b"], ids=["b"], payloads=[{"x": "1", "n": 3}])
        scoped = store.scoped({"tenant": "a"})
        scoped.add(["one of a", "two of a"], ids=["a1", "a2"], payloads=[{"x": "1", "n": 3}, {"x": "2", "n": 4}])
        where = compare(PAYLOAD["x"].astext, "1")
        assert scoped.count(where) == 1
        assert scoped.count(sa.or_(where, PAYLOAD["n"].astext.cast(sa.Integer) > 0)) == 2
        assert (
            scoped.count(
                PAYLOAD.contains(sa.cast(sa.literal('{"n": 3}', sa.Text), JSONB)) & PAYLOAD["x"].astext.in_(["1", "2"])
            )
            == 1
        )
        assert scoped.count(sa.not_(where)) == 1
        assert scoped.delete(where=sa.true()) == 2
        assert store.count(sa.text("payload ->> 'x' = '1'")) == 1  # outside of scopes any condition will do
