"""A function that gets the question and the picks of a search: what it gets, what becomes of what it gives back."""

import asyncio
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sift_store import AsyncSiftStore, Hits, InvalidInputError, SiftStore, remaining_variance, select
from sift_store.hooks import Picks, steps_worth_taking
from sift_store.testing import WordEmbedder
from sift_store.testing.fixtures import JORDAN

TEXTS = [*JORDAN, "Michael Jordan is 61 years old and has five children."]
QUESTION = "How old is Michael Jordan and how many children has he?"
FINE_TUNING = {"k": 8, "objective": "query", "replace": True}


@pytest.fixture
def store() -> Iterator[SiftStore]:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as opened:
        opened.add(TEXTS)
        yield opened


def same(picks: Picks) -> Picks:
    return picks


# --- what a hook gets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["pick", "score"])
def test_it_gets_the_question_and_the_picks_in_the_order_picked(store: SiftStore, order: Any) -> None:
    hits = store.search(QUESTION, order=order, hook=same, **FINE_TUNING)
    picks: Picks = hits.outcome
    if order == "score":
        assert [hit.pick for hit in hits] != list(range(1, 9))
    assert picks.queries == (QUESTION,)
    assert [hit.pick for hit in picks.hits] == list(range(1, 9))
    assert sorted(picks.hits, key=lambda hit: hit.pick) == sorted(hits, key=lambda hit: hit.pick)
    assert len({hit.id for hit in picks.hits}) < 8  # one picked twice stands there twice
    assert picks.texts == tuple(hit.text for hit in picks.hits)
    assert picks.variance == hits.variance
    assert picks == Picks.of(hits, [QUESTION])


@pytest.mark.parametrize("options", [{"k": 4}, {"max_tokens": 30}, {"target_variance": 0.05}, {"k": 2}])
def test_it_gets_a_variance_a_pick(store: SiftStore, options: dict[str, Any]) -> None:
    hits = store.search(QUESTION, order="score", hook=same, **options)
    picks: Picks = hits.outcome
    assert len(picks.variance) == len(picks.hits) == len(hits) > 0
    assert list(picks.variance) == sorted(picks.variance, reverse=True)
    assert picks.variance == tuple(hits.variance[hit.pick - 1] for hit in picks.hits)


def test_it_gets_what_was_asked(store: SiftStore) -> None:
    parts = ["How old is Michael Jordan?", "How many children has he?"]
    vector = WordEmbedder().embed_query(QUESTION)
    assert store.search(queries=parts, k=2, hook=same).outcome.queries == tuple(parts)
    assert store.search(vector=vector, k=2, hook=same).outcome.queries == ()
    assert store.search(vector=vector, k=2, hook=same).outcome.hits == tuple(store.search(vector=vector, k=2))
    plain = store.search(QUESTION, k=2, method="knn", hook=same).outcome
    assert (len(plain.hits), plain.variance) == (2, ())


def test_it_gets_nothing_where_nothing_was_found(store: SiftStore) -> None:
    hits = store.search(QUESTION, where={"year": 1}, hook=same)
    assert len(hits) == 0
    assert hits.outcome == Picks((QUESTION,), (), ())


# --- what becomes of it -----------------------------------------------------------------------------------------------


def test_what_it_gives_back_is_in_the_answer_and_changes_nothing_else_of_it(store: SiftStore) -> None:
    given_back = object()
    plain, hits = store.search(QUESTION, k=3), store.search(QUESTION, k=3, hook=lambda _: given_back)
    assert hits.outcome is given_back
    assert plain.outcome is None
    assert (tuple(hits), hits.variance, hits.suppressed) == (tuple(plain), plain.variance, plain.suppressed)


def test_an_error_of_it_comes_through_and_the_store_goes_on(store: SiftStore) -> None:
    class OwnError(Exception):
        pass

    def fail(_: Picks) -> None:
        raise OwnError

    with pytest.raises(OwnError):
        store.search(QUESTION, k=2, hook=fail)
    assert len(store.search(QUESTION, k=2)) == 2
    store.add(["Another text."])
    assert store.count() == 7


def test_it_may_use_the_store_itself(store: SiftStore) -> None:
    def note(picks: Picks) -> int:
        store.add([f"asked: {picks.queries[0]}"])
        return len(store.search("Paris", k=1, hook=same).outcome.hits)

    assert store.search(QUESTION, k=2, hook=note).outcome == 1
    assert store.count() == 7


def test_its_time_is_not_that_of_the_search(store: SiftStore) -> None:
    done = threading.Event()
    hits = store.search(QUESTION, k=2, timeout=0.2, hook=lambda _: done.wait(0.4))
    assert hits.outcome is False


def test_many_questions_at_once_take_none(store: SiftStore) -> None:
    with pytest.raises(InvalidInputError, match="hook cannot be given for many questions"):
        store.search_batch([QUESTION, "Paris"], k=2, hook=same)


async def test_an_async_store_calls_a_function_on_its_worker_and_awaits_a_coroutine_function() -> None:
    async with await AsyncSiftStore.open("memory://", embedder=WordEmbedder()) as store:
        await store.add(TEXTS)
        threads: list[str] = []

        def plain(picks: Picks) -> Picks:
            threads.append(threading.current_thread().name)
            return picks

        async def coroutine(picks: Picks) -> Picks:
            threads.append(threading.current_thread().name)
            await asyncio.sleep(0)
            return picks

        async def fail(_: Picks) -> None:
            raise OSError("disk full")

        first = await store.search(QUESTION, order="score", hook=plain, **FINE_TUNING)
        second = await store.search(QUESTION, order="score", hook=coroutine, **FINE_TUNING)
        assert first.outcome == second.outcome == Picks.of(first, [QUESTION])
        assert threads[0].startswith("sift-store")
        assert threads[1] == threading.current_thread().name
        with pytest.raises(OSError, match="disk full"):
            await store.search(QUESTION, k=2, hook=fail)
        with pytest.raises(InvalidInputError, match="hook cannot be given"):
            await store.search_batch([QUESTION], hook=plain)
        assert len(await store.search(QUESTION, k=2)) == 2


# --- how many steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variance", "alpha", "steps"),
    [
        ((0.81, 0.49, 0.25), 1.0, 2),  # 0.9 > 1/1? no. 0.7 > 1/2
        ((0.81, 0.49, 0.25), 1.2, 1),  # 0.9 > 1/1.2
        ((0.81, 0.49, 0.25), 0.7, 3),  # 0.7 > 1/1.4? no. 0.5 > 1/2.1
        ((0.81, 0.49, 0.25), 0.1, 3),  # never: all
        ((0.25, 0.25), 1.0, 2),  # 0.5 > 1/2? no, equal: all
        ((0.0, 0.0), 100.0, 2),
        ((), 1.0, 0),
    ],
)
def test_steps_are_taken_until_the_standard_deviation_exceeds_one_over_alpha_n(
    variance: tuple[float, ...], alpha: float, steps: int
) -> None:
    assert steps_worth_taking(variance, alpha) == steps


@given(
    variance=st.lists(st.floats(0, 1), max_size=20).map(lambda drawn: sorted(drawn, reverse=True)),
    alpha=st.floats(1e-3, 1e3),
)
def test_the_greater_alpha_the_fewer_steps(variance: list[float], alpha: float) -> None:
    taken = steps_worth_taking(variance, alpha)
    assert min(1, len(variance)) <= taken <= len(variance)
    assert steps_worth_taking(variance, alpha * 2) <= taken
    assert all(math.sqrt(left) <= 1 / (alpha * n) for n, left in enumerate(variance[: taken - 1], start=1))


@pytest.mark.parametrize("alpha", [0, -1.0, math.inf, math.nan, True, "1", None])
def test_alpha_is_a_number_greater_than_0(alpha: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"alpha: .* given, a number greater than 0 wanted"):
        steps_worth_taking([0.5], alpha)


# --- the noise --------------------------------------------------------------------------------------------------------


def test_the_greater_lambda_the_oftener_the_best_match_is_picked(store: SiftStore) -> None:
    def picked(noise: float | None) -> Hits:
        return store.search(QUESTION, kernel="linear", lambda_=noise, **FINE_TUNING)

    best = picked(None)[0].id
    counts = [sum(hit.id == best for hit in picked(noise)) for noise in (0.001, 0.1, 1.0, 10.0)]
    assert counts == sorted(counts)
    assert 1 < counts[0] < counts[-1] == 8
    assert picked(0.001).variance[-1] < picked(1.0).variance[-1]
    np.testing.assert_array_equal(picked(1.0).variance, picked(np.float32(1.0)).variance)


def test_what_the_picks_leave_uncertain_is_told_by_the_linear_kernel_whichever_chose(store: SiftStore) -> None:
    vectors, query = store.embedding.documents(TEXTS), store.embedding.query(QUESTION)
    row = {text: place for place, text in enumerate(TEXTS)}
    for kernel in (None, "linear", "two-scale"):
        hits = store.search(QUESTION, kernel=kernel, lambda_=0.3, **FINE_TUNING)
        picks = [row[hit.text] for hit in hits]
        left = remaining_variance(vectors, query, picks, objective="query", lambda_=0.3)
        np.testing.assert_allclose(hits.variance, left, atol=1e-6)
        np.testing.assert_allclose([hit.gain for hit in hits], -np.diff(left, prepend=1), atol=1e-6)
    towards = np.flatnonzero(vectors @ query > 0)  # a search leaves out what points away from the question
    plain = select(vectors[towards], query, 8, objective="query", replace=True, lambda_=0.3)
    linear = store.search(QUESTION, kernel="linear", lambda_=0.3, **FINE_TUNING)
    assert [row[hit.text] for hit in linear] == towards[plain.indices].tolist()


def test_it_stops_where_little_enough_is_left(store: SiftStore) -> None:
    whole = store.search(QUESTION, **FINE_TUNING)
    stopped = store.search(QUESTION, target_variance=whole.variance[3], **FINE_TUNING)
    assert [hit.id for hit in stopped] == [hit.id for hit in whole][:4]
    assert "target variance" in stopped.shortfall


@pytest.mark.parametrize("lambda_", [0, -0.1, math.inf, math.nan, True, "1"])
def test_lambda_is_a_number_greater_than_0(store: SiftStore, lambda_: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"lambda: .* given, a finite number > 0 wanted"):
        store.search(QUESTION, lambda_=lambda_, **FINE_TUNING)


@pytest.mark.parametrize("options", [{}, {"objective": "pool"}, {"method": "knn"}, {"method": "mmr"}])
def test_lambda_belongs_to_objective_query(store: SiftStore, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="lambda"):
        store.search(QUESTION, lambda_=1.0, **options)
