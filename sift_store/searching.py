"""A query's way, written once for the sync and the async store.

The functions here are generators that do no I/O: they yield each call they need as a function of no arguments, and are
sent its result. Text -> embedder -> plan -> candidates with vectors -> select -> texts of the chosen -> hits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from sift_store.adapter import CandidateQuery, Candidates, Key, SparseVector, Statistics, check_generation
from sift_store.answering import make_hits, shown_rows
from sift_store.choosing import choose_steps
from sift_store.context import CandidatePool, Context, Steps, Vectors, fetch_steps, fetched_keys
from sift_store.deadline import Deadline
from sift_store.embedding import check_embedder
from sift_store.errors import DeadlineError, EmbedderError, InvalidInputError, StorageError
from sift_store.filters import storable, within
from sift_store.hooks import Hook, Picks
from sift_store.kernels import unit_rows
from sift_store.plan import Method, Plan, Request, make_plan
from sift_store.records import Record, listed
from sift_store.results import Hits
from sift_store.selection import query_shares, remaining_variance

__all__ = ["Question", "compare_steps", "search_steps"]

T = TypeVar("T")

# Questions whose candidates are held at the same time: what a batch of any length needs of memory.
_TOGETHER = 64


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One need: a text, several sub-queries, or vectors; exactly one is given."""

    text: str | None = None
    texts: Sequence[str] | None = None
    vector: npt.ArrayLike | None = None
    weights: npt.ArrayLike | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.text, self.texts, self.vector)) != 1:
            raise InvalidInputError("exactly one of query, queries and vector wanted")
        if self.texts is not None:
            object.__setattr__(self, "texts", listed(self.texts, "queries"))
            if not self.texts:
                raise InvalidInputError("queries: an empty list given, one or more texts wanted")
        for text in [self.text] if self.texts is None else self.texts:
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise InvalidInputError(f"query {text!r}: text that is not empty wanted")
            if text is not None and not storable(text):
                raise InvalidInputError(f"query {text!r}: holds a lone surrogate; decode it with errors='replace'")
        if self.weights is not None and self.texts is not None:
            query_shares(self.weights, len(self.texts))

    @property
    def shown(self) -> str:
        """The question for people."""
        return " · ".join(self.asked) or "a vector"

    @property
    def asked(self) -> Sequence[str]:
        """The texts of the question; none where vectors were given."""
        return [text for text in [self.text] if text is not None] if self.texts is None else self.texts


@dataclass(slots=True)
class _Clock:
    stages: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self.started) * 1e3
        self.started = now


def search_steps(
    context: Context, questions: Sequence[Question], request: Request, hook: Hook | None = None
) -> Steps[list[Hits]]:
    """Answer questions, each with its own `Hits`, in order; the engine is asked once for each 64 of them."""
    if hook is not None and not callable(hook):
        raise InvalidInputError(f"hook: {type(hook).__name__} given, a function of the picks wanted")
    if request.timeout is not None:
        context = replace(context, deadline=Deadline.after(request.timeout))
    answers: list[Hits] = []
    for start in range(0, len(questions), _TOGETHER):
        answers += yield from _answers(context, questions[start : start + _TOGETHER], request, hook)
    return answers


def _answers(context: Context, questions: Sequence[Question], request: Request, hook: Hook | None) -> Steps[list[Hits]]:
    clock = _Clock()
    context, pools, plan, statistics = yield from _pools(context, questions, request, clock)
    choices = yield from _together(context, [choose_steps(context, pool, request, plan) for pool in pools])
    clock.lap("select")
    yield from fetch_steps(
        context, [(pool, shown_rows(pool, choice)) for pool, choice in zip(pools, choices, strict=True)]
    )
    clock.lap("fetch")
    answers = [
        make_hits(pool, choice, request, plan, statistics, clock.stages, shared=len(pools) > 1)
        for pool, choice in zip(pools, choices, strict=True)
    ]
    if hook is None:
        return answers
    outcomes = []
    for question, hits in zip(questions, answers, strict=True):
        outcomes.append((yield partial(hook, Picks.of(hits, question.asked))))
    return [replace(hits, outcome=outcome) for hits, outcome in zip(answers, outcomes, strict=True)]


def compare_steps(
    context: Context, question: Question, request: Request, methods: Sequence[Method]
) -> Steps[dict[Method, Hits]]:
    """Answer one question by several methods from the same candidates, each with its variance trace."""
    clock = _Clock()
    if request.timeout is not None:
        context = replace(context, deadline=Deadline.after(request.timeout))
    context, (pool,), plan, statistics = yield from _pools(context, [question], request, clock)
    answers: dict[Method, Hits] = {}
    for method in methods:
        asked, planned = replace(request, method=method), replace(plan, method=method)
        choice = yield from choose_steps(context, pool, asked, planned)
        if choice.rows and pool.vectors is not None:  # SIFT too: on a pool of its own its trace would not compare
            trace = remaining_variance(pool.vectors, pool.targets, choice.rows, weights=pool.weights)
            choice = replace(choice, variance=trace.tolist())
        clock.lap("select")
        yield from fetch_steps(context, [(pool, shown_rows(pool, choice))])
        clock.lap("fetch")
        answers[method] = make_hits(pool, choice, asked, planned, statistics, clock.stages)
    return answers


def _together(context: Context, parts: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Run the steps of several questions side by side; what they want fetched at the same time is fetched at once."""
    results: dict[int, T] = {}
    calls: dict[int, Callable[[], Any]] = {}

    def go_on(place: int, result: Any) -> None:
        try:
            calls[place] = parts[place].send(result)
        except StopIteration as done:
            results[place] = done.value

    for place in range(len(parts)):
        go_on(place, None)
    while calls:
        waiting, calls = calls, {}
        wanted = {place: keys for place, call in waiting.items() if (keys := fetched_keys(context, call)) is not None}
        records: dict[Key, Record | None] = {}
        if wanted:
            keys = list(dict.fromkeys(key for some in wanted.values() for key in some))
            found = yield partial(context.adapter.fetch, keys, deadline=context.deadline)
            records = dict(zip(keys, found, strict=True))
        for place, call in waiting.items():
            go_on(place, [records[key] for key in wanted[place]] if place in wanted else (yield call))
    return [results[place] for place in range(len(parts))]


# --- phase one --------------------------------------------------------------------------------------------------------


def _pools(
    context: Context, questions: Sequence[Question], request: Request, clock: _Clock
) -> Steps[tuple[Context, list[CandidatePool], Plan, Statistics]]:
    if request.method == "knn" and any(question.weights is not None for question in questions):
        raise InvalidInputError("weights: method 'knn' ranks by the best score and weighs nothing; leave them out")
    if context.sparse is not None and any(question.weights is not None for question in questions):
        raise InvalidInputError("weights: the fused scores of hybrid search cannot be weighed; leave them out")
    request = replace(request, where=within(context.scope, request.where))
    statistics: Statistics = yield partial(context.adapter.statistics, deadline=context.deadline)
    generation = context.in_use.generation
    check_generation(statistics.generation, generation)
    check_embedder(statistics, context.embedding)  # again: another opener may have made the collection since
    asked, sparse = [], []
    for question in questions:
        asked.append((yield from _embed(context, question, statistics.dimension)))
        sparse += yield from _embed_sparse(context, question, len(asked[-1]))
    targets = [unit_rows(rows, "query vectors").astype(np.float32, copy=False) for rows in asked]
    clock.lap("embed")
    plan = make_plan(request, statistics)
    vectors = [row for rows in (targets if statistics.metric == "cosine" else asked) for row in rows.astype(np.float32)]
    queries = [
        CandidateQuery(vector, plan.candidates, request.where, plan.with_vectors, plan.exact, plan.ef, terms)
        for vector, terms in zip(vectors, sparse, strict=True)
    ]
    limit = context.adapter.capabilities.timeout
    if context.deadline is None and limit is not None:  # from here on: a model may take its time to load
        context = replace(context, deadline=Deadline.after(limit))
    context.check_deadline()
    if statistics.dimension is None:
        found = [Candidates([], np.empty(0, np.float32), np.empty((0, queries[0].vector.size), np.float32))] * len(
            queries
        )
    else:
        found = yield from _candidates(context, queries, generation)
        for candidates in found:
            check_generation(candidates.generation, generation)
    answers = iter(found)
    pools = [
        _merge([next(answers) for _ in rows], rows, question.weights)
        for rows, question in zip(targets, questions, strict=True)
    ]
    clock.lap("candidates")
    return context, pools, plan, statistics


def _candidates(context: Context, queries: Sequence[CandidateQuery], generation: int) -> Steps[list[Candidates]]:
    """Phase one. What an engine makes of vectors of another length is told as what it is."""
    try:
        candidates: list[Candidates] = yield partial(context.adapter.candidates, queries, deadline=context.deadline)
    except DeadlineError:
        raise
    except StorageError as exc:
        now: Statistics = yield partial(context.adapter.statistics, deadline=context.deadline)
        if now.generation != generation:
            check_generation(now.generation, generation, cause=exc)
        raise
    return candidates


def _embed(context: Context, question: Question, dimension: int | None) -> Steps[npt.NDArray[Any]]:
    """The question's vectors, (m, d), as long as they were given."""
    if question.vector is not None:
        unit_rows(question.vector, "vector", dimension)
        return np.atleast_2d(np.asarray(question.vector))
    if context.embedding is None:
        raise EmbedderError("a text was asked but the store has no embedder; open it with embedder=…, or give vector=…")
    rows = []
    for text in question.asked:
        rows.append((yield context.embedding.query_call(text, context.awaits)))
    vectors = np.stack(rows)
    unit_rows(vectors, "query vectors", dimension)
    return vectors


def _embed_sparse(context: Context, question: Question, count: int) -> Steps[list[SparseVector | None]]:
    """The question's sparse vectors, one beside each of its vectors; None where there is no text to make one of."""
    if context.sparse is None or question.vector is not None:
        return [None] * count
    vectors: list[SparseVector | None] = []
    for text in question.asked:
        vectors.append((yield partial(context.sparse.query, text)))
    return vectors


def _merge(found: Sequence[Candidates], targets: Vectors, weights: npt.ArrayLike | None) -> CandidatePool:
    """The candidates of all sub-queries as one pool, each once, by its best score."""
    moved = sum(candidates.moved for candidates in found)
    note = "; ".join(dict.fromkeys(candidates.note for candidates in found if candidates.note))
    if len(found) == 1:
        one = found[0]
        return CandidatePool(list(one.keys), one.scores, one.vectors, targets, weights, moved, note, one.fused)
    best: dict[Key, tuple[float, int, int]] = {}
    for part, candidates in enumerate(found):
        for row, (key, score) in enumerate(zip(candidates.keys, candidates.scores.tolist(), strict=True)):
            if key not in best or score > best[key][0]:
                best[key] = (score, part, row)
    order = sorted(best, key=lambda key: -best[key][0])
    vectors = None
    if found[0].vectors is not None:
        rows = [cast(Vectors, found[best[key][1]].vectors)[best[key][2]] for key in order]
        vectors = np.stack(rows) if rows else found[0].vectors[:0]
    scores = np.array([best[key][0] for key in order], dtype=np.float32)
    return CandidatePool(order, scores, vectors, targets, weights, moved, note, found[0].fused)
