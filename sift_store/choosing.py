"""The choice among one question's candidates: copies out, then SIFT, MMR or plain rank; overlapping picks out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from sift_store.context import CandidatePool, Context, Steps, Vectors, fetch_steps
from sift_store.copies import ROUNDS, like_picks, like_rows, near_equal_rows, overlaps, same_text_groups
from sift_store.embedding import estimated_tokens
from sift_store.mmr import mmr
from sift_store.plan import TUNING_KERNEL, TUNING_LAMBDA, Plan, Request
from sift_store.selection import query_shares, remaining_variance, select

__all__ = ["Chosen", "choose_steps"]

Rows: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What was chosen: rows of the pool in the order picked, and what SIFT says of them.

    Attributes:
        rows: picks. gains, variance: shares of the prior; None and empty for other methods. stopped: why it ended.
        stand_ins: row -> the row that it is a near copy of. spread: of the pool's similarities, objective "pool".
    """

    rows: Sequence[int]
    gains: Sequence[float] | None
    variance: Sequence[float]
    stopped: str
    stand_ins: Mapping[int, int] = field(default_factory=dict)
    spread: float = 0.0


def choose_steps(context: Context, pool: CandidatePool, request: Request, plan: Plan) -> Steps[Chosen]:
    """Choose by the plan's method among a pool's candidates."""
    open_ = np.arange(len(pool.keys))
    if request.min_score is not None:
        open_ = open_[pool.scores >= request.min_score]
    if plan.method == "knn" or pool.vectors is None:
        return Chosen(open_[: request.limit].tolist(), None, (), "k")
    if plan.method == "mmr":
        chosen: Chosen = yield partial(_by_mmr, pool, open_, request)
        return chosen
    open_ = yield from _without_copies(context, pool, open_)
    if request.objective == "query":
        open_ = open_[(pool.vectors[open_] @ pool.targets.T > 0).any(axis=1)]
    costs = None
    if plan.texts_first:
        yield from fetch_steps(context, [(pool, open_.tolist())])
        open_ = open_[[pool.records[row] is not None for row in open_.tolist()]]
        texts = [pool.text(row) for row in open_.tolist()]
        count = estimated_tokens if context.embedding is None else context.embedding.tokens
        costs = yield partial(count, texts)
    sifted: Chosen = yield partial(_by_sift, pool, open_, request, costs)
    for _ in range(ROUNDS if request.objective == "pool" and not request.replace else 0):
        repeated = yield from _overlapping(context, pool, open_, sifted)
        if not repeated:
            break
        pool.overlaps |= repeated
        kept = ~np.isin(open_, list(repeated))
        costs = None if costs is None else [cost for cost, keep in zip(costs, kept, strict=True) if keep]
        open_ = open_[kept]
        sifted = yield partial(_by_sift, pool, open_, request, costs)
    return sifted if costs is not None else _topped_up(pool, sifted, request)


def _topped_up(pool: CandidatePool, sifted: Chosen, request: Request) -> Chosen:
    """Asked for k, the caller gets k: where nothing else is left, the best of those that overlap a pick."""
    short = (request.limit or 0) - len(sifted.rows)
    if short <= 0 or not pool.overlaps or sifted.stopped == "variance":
        return sifted
    more = sorted(pool.overlaps)[:short]
    for row in more:
        del pool.overlaps[row]
    gains = [*(sifted.gains or ()), *([0.0] * len(more))]
    variance = [*sifted.variance, *(list(sifted.variance[-1:]) * len(more))]
    return replace(sifted, rows=[*sifted.rows, *more], gains=gains, variance=variance)


def _by_mmr(pool: CandidatePool, open_: npt.NDArray[np.int64], request: Request) -> Chosen:
    vectors = cast(Vectors, pool.vectors)[open_]
    relevance = (vectors @ pool.targets.T).astype(np.float64) @ query_shares(pool.weights, len(pool.targets))
    picks = mmr(vectors, relevance, request.limit or len(open_)) if len(open_) else open_
    return Chosen(open_[picks].tolist(), None, (), "k")


def _by_sift(
    pool: CandidatePool, open_: npt.NDArray[np.int64], request: Request, costs: Sequence[int] | None
) -> Chosen:
    if not len(open_):
        return Chosen((), (), (), "exhausted")
    if request.objective == "query":
        return _to_tune_on(pool, open_, request, costs)
    vectors = cast(Vectors, pool.vectors)
    selection = select(
        vectors if len(open_) == len(vectors) else vectors[open_],
        pool.targets,
        request.limit,
        relevance=pool.scores[open_] if pool.fused else None,
        weights=pool.weights,
        replace=request.replace,
        target_variance=request.target_variance,
        costs=costs,
        budget=request.max_tokens,
    )
    rows = open_[selection.indices].tolist()
    copies = np.flatnonzero(selection.stand_ins != np.arange(len(open_)))
    stand_ins = dict(zip(open_[copies].tolist(), open_[selection.stand_ins[copies]].tolist(), strict=True))
    return Chosen(
        rows,
        selection.gains.tolist(),
        selection.variance.tolist(),
        selection.stopped,
        stand_ins,
        selection.spread or 0.0,
    )


def _to_tune_on(pool: CandidatePool, open_: Rows, request: Request, costs: Sequence[int] | None) -> Chosen:
    """Objective "query": picks by the kernel asked for; what they leave uncertain always by the paper's, the linear.

    A narrow kernel knows which passages are near, but of a prompt that is far from all it explains next to nothing.
    """
    vectors = cast(Vectors, pool.vectors)[open_]
    lambda_ = float(TUNING_LAMBDA if request.lambda_ is None else request.lambda_)
    selection = select(
        vectors,
        pool.targets,
        request.limit,
        objective="query",
        kernel=request.kernel or TUNING_KERNEL,
        lambda_=lambda_,
        weights=pool.weights,
        replace=request.replace,
        costs=costs,
        budget=request.max_tokens,
    )
    picks = selection.indices
    if not len(picks):
        return Chosen((), (), (), selection.stopped)
    left = remaining_variance(vectors, pool.targets, picks, objective="query", weights=pool.weights, lambda_=lambda_)
    stopped: str = selection.stopped
    if request.target_variance is not None and (left <= request.target_variance).any():
        picks, stopped = picks[: int((left <= request.target_variance).argmax()) + 1], "variance"
    left = left[: len(picks)]
    gains = -np.diff(left, prepend=1.0)
    return Chosen(open_[picks].tolist(), gains.tolist(), left.tolist(), stopped)


def _overlapping(context: Context, pool: CandidatePool, open_: Rows, choice: Chosen) -> Steps[dict[int, int]]:
    """Candidates that have text in common with a pick that has so with another pick: row -> that pick.

    Texts are fetched only of picks that are alike, then of all that are like a pick found to have overlaps.
    """
    vectors = cast(Vectors, pool.vectors)
    alike = like_picks(vectors, choice.rows, choice.spread)
    if alike:  # most likely the answer, and what it leaves out: fetched now, they need no fetch of their own
        expected = [*choice.rows, *range(min(len(choice.rows), len(pool.keys)))]
        yield from fetch_steps(context, [(pool, list(dict.fromkeys(expected)))])
    found = yield from _texts_in_common(context, pool, alike)
    if not found:
        return {}
    leaders = [row for row in choice.rows if row in set(found.values())]
    everywhere = yield from _texts_in_common(context, pool, like_rows(vectors, leaders, open_, choice.spread))
    return everywhere


def _texts_in_common(context: Context, pool: CandidatePool, pairs: Sequence[tuple[int, int]]) -> Steps[dict[int, int]]:
    if not pairs:
        return {}
    yield from fetch_steps(context, [(pool, list(dict.fromkeys(row for pair in pairs for row in pair)))])
    found: dict[int, int] = yield partial(overlaps, pairs, pool.text)
    return found


def _without_copies(
    context: Context, pool: CandidatePool, open_: npt.NDArray[np.int64]
) -> Steps[npt.NDArray[np.int64]]:
    """Leave one of each text. Only rows with all but equal vectors are looked at, and only then are texts fetched."""
    vectors = cast(Vectors, pool.vectors)
    cosines = vectors @ pool.targets[0]  # scores need not be cosines, nor in the order of them
    by_cosine = open_[np.argsort(-cosines[open_], kind="stable")]
    suspects = [sorted(group) for group in near_equal_rows(vectors, cosines, by_cosine)]
    if not suspects:
        return open_
    yield from fetch_steps(context, [(pool, [row for group in suspects for row in group])])
    pool.copies = same_text_groups(suspects, pool.text)
    dropped = {row for rows in pool.copies.values() for row in rows}
    return open_[[row not in dropped for row in open_.tolist()]]
