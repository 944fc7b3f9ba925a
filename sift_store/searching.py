"""A query's way, written once for the sync and the async store.

The functions here are generators that do no I/O: they yield each call they need as a function of no arguments, and are
sent its result. Text -> embedder -> plan -> candidates with vectors -> select -> texts of the chosen -> hits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from sift_store.adapter import Adapter, CandidateQuery, Candidates, Key, Statistics, check_generation
from sift_store.copies import ROUNDS, like_picks, near_equal_rows, overlaps, same_text_groups
from sift_store.embedding import Embedding, check_embedder, estimated_tokens
from sift_store.errors import EmbedderError, InvalidInputError
from sift_store.filters import Filter, conjunction, matches
from sift_store.kernels import unit_rows
from sift_store.mmr import mmr
from sift_store.plan import Method, Plan, Request, make_plan
from sift_store.records import Record, listed
from sift_store.results import MARGIN_RANK, Hit, Hits, Suppressed
from sift_store.selection import query_shares, remaining_variance, select

__all__ = ["Context", "InUse", "Question", "Steps", "compare_steps", "search_steps"]

T = TypeVar("T")
Steps: TypeAlias = Generator[Callable[[], Any], Any, T]
Vectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(slots=True)
class InUse:
    """The embedder in use, shared by a store and its scopes, and the generation of content that it belongs to."""

    embedding: Embedding | None
    generation: int


@dataclass(frozen=True, slots=True)
class Context:
    """What every operation of one store works with; `scope` is ANDed to every filter, `stamps` are put on every add."""

    adapter: Adapter
    in_use: InUse
    scope: Filter | None
    stamps: dict[str, Any]

    @property
    def embedding(self) -> Embedding | None:
        """The embedder in use."""
        return self.in_use.embedding


@dataclass(frozen=True, slots=True)
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
        if self.weights is not None and self.texts is not None:
            query_shares(self.weights, len(self.texts))


@dataclass(slots=True)
class _Clock:
    stages: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self.started) * 1e3
        self.started = now


@dataclass(slots=True)
class _Pool:
    """The candidates of one question, best first. `records` holds those whose text has been fetched."""

    keys: list[Key]
    scores: npt.NDArray[np.float32]
    vectors: Vectors | None
    targets: Vectors
    weights: npt.ArrayLike | None
    moved: int
    records: dict[int, Record | None] = field(default_factory=dict)
    copies: dict[int, list[int]] = field(default_factory=dict)  # row -> later rows with the same text
    overlaps: dict[int, int] = field(default_factory=dict)  # row -> the pick that it has text in common with

    def text(self, row: int) -> str:
        """The text of a fetched row; of one that was deleted meanwhile, something that is no copy of anything."""
        record = self.records[row]
        return f"\0{row}" if record is None else record.text


@dataclass(frozen=True, slots=True)
class _Choice:
    rows: Sequence[int]
    gains: Sequence[float] | None
    variance: Sequence[float]
    stopped: str
    stand_ins: Mapping[int, int] = field(default_factory=dict)  # row -> the row it is a near copy of
    spread: float = 0.0  # of the pool's similarities, objective "pool"


def search_steps(context: Context, questions: Sequence[Question], request: Request) -> Steps[list[Hits]]:
    """Answer questions, each with its own `Hits`, in order; the engine is asked once for all."""
    if not questions:
        return []
    clock = _Clock()
    pools, plan, statistics = yield from _pools(context, questions, request, clock)
    choices = []
    for pool in pools:
        choices.append((yield from _choose(context, pool, request, plan)))
    clock.lap("select")
    yield from _fetch(context, [(pool, _shown(pool, choice)) for pool, choice in zip(pools, choices, strict=True)])
    clock.lap("fetch")
    return [
        _hits(pool, choice, request, plan, statistics, clock.stages)
        for pool, choice in zip(pools, choices, strict=True)
    ]


def compare_steps(
    context: Context, question: Question, request: Request, methods: Sequence[Method]
) -> Steps[dict[Method, Hits]]:
    """Answer one question by several methods from the same candidates, each with its variance trace."""
    clock = _Clock()
    (pool,), plan, statistics = yield from _pools(context, [question], request, clock)
    answers: dict[Method, Hits] = {}
    for method in methods:
        asked, planned = replace(request, method=method), replace(plan, method=method)
        choice = yield from _choose(context, pool, asked, planned)
        if choice.rows and pool.vectors is not None:  # SIFT too: on a pool of its own its trace would not compare
            trace = remaining_variance(pool.vectors, pool.targets, choice.rows, weights=pool.weights)
            choice = replace(choice, variance=trace.tolist())
        clock.lap("select")
        yield from _fetch(context, [(pool, _shown(pool, choice))])
        clock.lap("fetch")
        answers[method] = _hits(pool, choice, asked, planned, statistics, clock.stages)
    return answers


# --- phase one --------------------------------------------------------------------------------------------------------


def _pools(
    context: Context, questions: Sequence[Question], request: Request, clock: _Clock
) -> Steps[tuple[list[_Pool], Plan, Statistics]]:
    if request.method == "knn" and any(question.weights is not None for question in questions):
        raise InvalidInputError("weights: method 'knn' ranks by the best score and weighs nothing; leave them out")
    request = replace(request, where=conjunction(context.scope, request.where))
    statistics: Statistics = yield context.adapter.statistics
    generation = context.in_use.generation
    check_generation(statistics.generation, generation)
    check_embedder(statistics, context.embedding)  # again: another opener may have made the collection since
    targets = []
    for question in questions:
        targets.append((yield from _embed(context, question, statistics.dimension)))
    clock.lap("embed")
    plan = make_plan(request, statistics)
    queries = [
        CandidateQuery(vector, plan.candidates, request.where, plan.with_vectors, plan.exact, plan.ef)
        for rows in targets
        for vector in rows
    ]
    if statistics.dimension is None:
        found = [Candidates([], np.empty(0, np.float32), np.empty((0, queries[0].vector.size), np.float32))] * len(
            queries
        )
    else:
        found = yield partial(context.adapter.candidates, queries)
        for candidates in found:
            check_generation(candidates.generation, generation)
    answers = iter(found)
    pools = [
        _merge([next(answers) for _ in rows], rows, question.weights)
        for rows, question in zip(targets, questions, strict=True)
    ]
    clock.lap("candidates")
    return pools, plan, statistics


def _embed(context: Context, question: Question, dimension: int | None) -> Steps[Vectors]:
    if question.vector is not None:
        return unit_rows(question.vector, "vector", dimension).astype(np.float32, copy=False)
    if context.embedding is None:
        raise EmbedderError("a text was asked but the store has no embedder; open it with embedder=…, or give vector=…")
    texts = [cast(str, question.text)] if question.texts is None else question.texts
    rows = []
    for text in texts:
        rows.append((yield partial(context.embedding.query, text)))
    return unit_rows(np.stack(rows), "query vectors", dimension).astype(np.float32, copy=False)


def _merge(found: Sequence[Candidates], targets: Vectors, weights: npt.ArrayLike | None) -> _Pool:
    """The candidates of all sub-queries as one pool, each once, by its best score."""
    moved = sum(candidates.moved for candidates in found)
    if len(found) == 1:
        one = found[0]
        return _Pool(list(one.keys), one.scores, one.vectors, targets, weights, moved)
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
    return _Pool(order, scores, vectors, targets, weights, moved)


# --- the choice -------------------------------------------------------------------------------------------------------


def _choose(context: Context, pool: _Pool, request: Request, plan: Plan) -> Steps[_Choice]:
    open_ = np.arange(len(pool.keys))
    if request.min_score is not None:
        open_ = open_[pool.scores >= request.min_score]
    if plan.method == "knn" or pool.vectors is None:
        return _Choice(open_[: request.limit].tolist(), None, (), "k")
    if plan.method == "mmr":
        chosen: _Choice = yield partial(_by_mmr, pool, open_, request)
        return chosen
    open_ = yield from _without_copies(context, pool, open_)
    if request.objective == "query":
        open_ = open_[(pool.vectors[open_] @ pool.targets.T > 0).any(axis=1)]
    costs = None
    if plan.texts_first:
        yield from _fetch(context, [(pool, open_.tolist())])
        open_ = open_[[pool.records[row] is not None for row in open_.tolist()]]
        texts = [pool.text(row) for row in open_.tolist()]
        count = estimated_tokens if context.embedding is None else context.embedding.tokens
        costs = yield partial(count, texts)
    sifted: _Choice = yield partial(_by_sift, pool, open_, request, costs)
    for _ in range(ROUNDS if request.objective == "pool" and not request.replace else 0):
        repeated = yield from _overlapping(context, pool, sifted)
        if not repeated or len(open_) - len(repeated) < (request.limit or 1):
            break
        pool.overlaps |= repeated
        kept = ~np.isin(open_, list(repeated))
        costs = None if costs is None else [cost for cost, keep in zip(costs, kept, strict=True) if keep]
        open_ = open_[kept]
        sifted = yield partial(_by_sift, pool, open_, request, costs)
    return sifted


def _by_mmr(pool: _Pool, open_: npt.NDArray[np.int64], request: Request) -> _Choice:
    vectors = cast(Vectors, pool.vectors)[open_]
    relevance = (vectors @ pool.targets.T).astype(np.float64) @ query_shares(pool.weights, len(pool.targets))
    picks = mmr(vectors, relevance, request.limit or len(open_)) if len(open_) else open_
    return _Choice(open_[picks].tolist(), None, (), "k")


def _by_sift(pool: _Pool, open_: npt.NDArray[np.int64], request: Request, costs: Sequence[int] | None) -> _Choice:
    if not len(open_):
        return _Choice((), (), (), "exhausted")
    vectors = cast(Vectors, pool.vectors)
    selection = select(
        vectors if len(open_) == len(vectors) else vectors[open_],
        pool.targets,
        request.limit,
        objective=request.objective,
        weights=pool.weights,
        replace=request.replace,
        target_variance=request.target_variance,
        costs=costs,
        budget=request.max_tokens,
    )
    rows = open_[selection.indices].tolist()
    spread = selection.bandwidth or 0.0  # the default bandwidth is one spread
    copies = np.flatnonzero(selection.stand_ins != np.arange(len(open_)))
    stand_ins = dict(zip(open_[copies].tolist(), open_[selection.stand_ins[copies]].tolist(), strict=True))
    return _Choice(rows, selection.gains.tolist(), selection.variance.tolist(), selection.stopped, stand_ins, spread)


def _overlapping(context: Context, pool: _Pool, choice: _Choice) -> Steps[dict[int, int]]:
    """Picks that have text in common with an earlier one. Texts are fetched only of picks that are alike."""
    pairs = like_picks(cast(Vectors, pool.vectors), choice.rows, choice.spread)
    if not pairs:
        return {}
    yield from _fetch(context, [(pool, list(dict.fromkeys(row for pair in pairs for row in pair)))])
    return overlaps(pairs, pool.text)


def _without_copies(context: Context, pool: _Pool, open_: npt.NDArray[np.int64]) -> Steps[npt.NDArray[np.int64]]:
    """Leave one of each text. Only rows with all but equal vectors are looked at, and only then are texts fetched."""
    suspects = near_equal_rows(cast(Vectors, pool.vectors), pool.scores, open_)
    if not suspects:
        return open_
    yield from _fetch(context, [(pool, [row for group in suspects for row in group])])
    pool.copies = same_text_groups(suspects, pool.text)
    dropped = {row for rows in pool.copies.values() for row in rows}
    return open_[[row not in dropped for row in open_.tolist()]]


# --- phase two --------------------------------------------------------------------------------------------------------


def _shown(pool: _Pool, choice: _Choice) -> list[int]:
    """Rows whose text the answer shows: the chosen, their copies, and the nearest neighbours left out."""
    chosen = list(dict.fromkeys(choice.rows))
    copies = [row for pick in chosen for row in pool.copies.get(pick, ())]
    copies += [row for row, pick in pool.overlaps.items() if pick in chosen]
    left_out = _left_out(pool, choice)
    return list(dict.fromkeys([*chosen, *copies, *left_out]))


def _left_out(pool: _Pool, choice: _Choice) -> list[int]:
    """Nearest neighbours, as many as were chosen, that are neither chosen nor copies of a chosen one."""
    if pool.vectors is None or choice.gains is None or not choice.rows:
        return []
    chosen = set(choice.rows)
    covered = chosen | {row for pick in chosen for row in pool.copies.get(pick, ())}
    covered |= {row for row, pick in pool.overlaps.items() if pick in chosen}
    return [row for row in range(min(len(choice.rows), len(pool.keys))) if row not in covered]


def _fetch(context: Context, wanted: Sequence[tuple[_Pool, Sequence[int]]]) -> Steps[None]:
    missing = [(pool, row) for pool, rows in wanted for row in rows if row not in pool.records]
    if missing:
        keys = list(dict.fromkeys(pool.keys[row] for pool, row in missing))
        records: list[Record | None] = yield partial(context.adapter.fetch, keys)
        by_key = {
            key: record if record is not None and matches(context.scope, record.payload) else None
            for key, record in zip(keys, records, strict=True)
        }
        for pool, row in missing:
            pool.records[row] = by_key[pool.keys[row]]


def _hits(
    pool: _Pool, choice: _Choice, request: Request, plan: Plan, statistics: Statistics, timings: dict[str, float]
) -> Hits:
    gains: Sequence[float | None] = choice.gains or [None] * len(choice.rows)
    items = [
        Hit(record.id, record.text, record.payload, float(pool.scores[row]), gain, place + 1, row + 1)
        for place, (row, gain) in enumerate(zip(choice.rows, gains, strict=True))
        if (record := pool.records[row]) is not None
    ]
    if request.order == "score":
        items.sort(key=lambda hit: -hit.score)
    return Hits(
        items=tuple(items),
        variance=tuple(choice.variance),
        plan=plan,
        timings=dict(timings),
        suppressed=tuple(_suppressed(pool, choice)),
        shortfall=_shortfall(pool, choice, request, plan, statistics),
        metric=statistics.metric,
        found=len(pool.keys),
        moved=pool.moved,
        margin=_margin(pool),
    )


def _margin(pool: _Pool) -> float | None:
    if not pool.keys:
        return None
    return float(pool.scores[0] - pool.scores[min(len(pool.keys), MARGIN_RANK) - 1])


def _suppressed(pool: _Pool, choice: _Choice) -> list[Suppressed]:
    if pool.vectors is None or choice.gains is None:
        return []
    chosen = set(choice.rows)
    left_out: list[tuple[int, int, str]] = [
        (row, pick, "copy") for pick in dict.fromkeys(choice.rows) for row in pool.copies.get(pick, ())
    ]
    left_out += [(row, pick, "overlap") for row, pick in pool.overlaps.items() if pick in chosen]
    if redundant := _left_out(pool, choice):
        nearest = (pool.vectors[redundant] @ pool.vectors[choice.rows].T).argmax(axis=1)
        for row, place in zip(redundant, nearest, strict=True):
            leader = choice.stand_ins.get(row)
            left_out.append((row, leader, "near-copy") if leader in chosen else (row, choice.rows[place], "redundant"))
    return [
        Suppressed(
            id=left.id,
            text=left.text,
            score=float(pool.scores[row]),
            rank=row + 1,
            by=stands.id,
            similarity=float(pool.vectors[row] @ pool.vectors[pick]),
            reason=reason,  # type: ignore[arg-type]  # one of the two literals above
        )
        for row, pick, reason in sorted(left_out)
        if (left := pool.records[row]) is not None and (stands := pool.records[pick]) is not None
    ]


def _shortfall(pool: _Pool, choice: _Choice, request: Request, plan: Plan, statistics: Statistics) -> str:
    if not statistics.count:
        return "the collection is empty"
    gone = sum(pool.records[row] is None for row in set(choice.rows))
    if gone:
        return f"{gone} of the chosen were deleted while the search ran"
    if len(choice.rows) >= (plan.k or 1):
        return ""
    if choice.stopped == "variance":
        return f"{len(choice.rows)} leave no more than the target variance of {request.target_variance}"
    if choice.stopped == "budget":
        return f"the budget of {request.max_tokens} tokens pays for {len(choice.rows)}"
    found = len(pool.keys)
    if plan.filter:
        why = f"{found} passages match the filter"
    else:
        why = f"{found} of {statistics.count:,} passages came back as candidates"
    copies = sum(map(len, pool.copies.values()))
    if copies and request.method == "sift":
        why += f", {copies} of them copies of another's text"
    if request.min_score is not None:
        why += f", {int((pool.scores >= request.min_score).sum())} score at least {request.min_score}"
    if request.objective == "query" and request.method == "sift":
        why += ", those that point away from the query are left out"
    return why
