import json

import pytest

from sift_store import InvalidInputError
from sift_store.adapter import Statistics
from sift_store.filters import parse
from sift_store.plan import DEFAULT_CANDIDATES, Request, make_plan


def statistics(count: int = 100_000, indexed: int = 100_000, **more: object) -> Statistics:
    return Statistics(count, indexed, 384, "cosine", more.pop("fields", {}), None, **more)  # type: ignore[arg-type]


def test_sift_fetches_the_default_number_of_candidates_with_vectors() -> None:
    plan = make_plan(Request(k=10), statistics())
    assert (plan.candidates, plan.with_vectors, plan.texts_first) == (DEFAULT_CANDIDATES, True, False)
    assert (plan.exact, plan.ef) == (False, DEFAULT_CANDIDATES)


def test_nearest_neighbours_fetch_k_and_no_vectors() -> None:
    plan = make_plan(Request(k=10, method="knn"), statistics())
    assert (plan.candidates, plan.with_vectors, plan.ef) == (10, False, 128)


def test_many_picks_need_more_candidates() -> None:
    assert make_plan(Request(k=100), statistics()).candidates == 400
    assert make_plan(Request(k=100, candidates=150), statistics()).candidates == 150


def test_a_small_or_unindexed_collection_is_scanned() -> None:
    assert make_plan(Request(k=10), statistics(1000)).exact
    plan = make_plan(Request(k=10), statistics(indexed=0, building=True))
    assert (plan.exact, plan.ef) == (False, None)
    assert "one is being built" in "".join(plan.reasons)
    assert "newer than the index" in "".join(make_plan(Request(k=10), statistics(indexed=90_000)).reasons)


def test_a_filter_is_pushed_down_and_unindexed_fields_are_named() -> None:
    request = Request(k=10, where=parse({"year": 2020, "lang": "en"}))
    reasons = "\n".join(make_plan(request, statistics(fields={"year": "integer"})).reasons)
    assert "no payload index on lang" in reasons
    assert "all fields indexed" in "\n".join(
        make_plan(request, statistics(fields={"year": "integer", "lang": "keyword"})).reasons
    )


def test_a_token_budget_needs_the_texts_first() -> None:
    plan = make_plan(Request(max_tokens=500), statistics())
    assert plan.texts_first
    assert plan.k is None


def test_a_plan_prints_and_is_json() -> None:
    plan = make_plan(Request(k=10), statistics())
    assert plan.lines()[0] == 'plan: sift, objective "pool", k = 10'
    assert json.loads(json.dumps(plan.to_dict()))["candidates"] == DEFAULT_CANDIDATES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k: 0 given"),
        ({"k": 1.0}, "k: 1.0 given"),
        ({"k": 2**62}, "from 1 to 100,000"),
        ({"min_score": "a"}, "min_score: 'a'"),
        ({"min_score": float("nan")}, "min_score: nan"),
        ({"candidates": -1}, "candidates"),
        ({"candidates": 5, "k": 10}, "at least k = 10"),
        ({"method": "best"}, "'sift', 'knn', 'mmr'"),
        ({"objective": "x"}, "'pool', 'query'"),
        ({"order": "x"}, "'pick', 'score'"),
        ({"method": "mmr", "replace": True}, "method='sift'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Request(**options)  # type: ignore[arg-type]
