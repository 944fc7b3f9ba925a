"""SIFT on arrays: which candidates together leave least variance about the targets.

Pure functions, no I/O, no state. The method is variance-based transductive learning (Hübotter et al., "Transductive
Active Learning", NeurIPS 2024) as used by SIFT (Hübotter et al., "Efficiently Learning at Test-Time", ICLR 2025), which
is sequential transductive experimental design (Yu et al., ICML 2006).

With kernel k, noise λ and the picks X so far, the posterior covariance is
``c_X(a, b) = k(a, b) - k_X(a)ᵀ (K_X + λI)⁻¹ k_X(b)``. The next pick maximises the drop in weighted target variance,
``Σ_j w_j c_X(t_j, x)² / (c_X(x, x) + λ)``. Each pick p is one rank-one downdate of c by l lᵀ with
``l = c_X(·, p) / √(c_X(p, p) + λ)``, so no matrix is ever inverted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from sift_store.copies import near_copy_distance, stand_ins
from sift_store.errors import InvalidInputError
from sift_store.kernels import FloatArray, Kernel, similarity_spread, unit_rows
from sift_store.posterior import Posterior, pool_posterior, query_posterior

__all__ = ["MAX_PICKS", "Objective", "Selection", "query_shares", "remaining_variance", "select", "select_batch"]

Objective = Literal["pool", "query"]
Stopped = Literal["k", "alpha", "variance", "budget", "exhausted"]
Float64: TypeAlias = npt.NDArray[np.float64]

# More picks than this are a mistake.
MAX_PICKS = 100_000
# Covariances (shares of the prior) and scores closer than this are the same number, differently rounded.
_ROUNDING = {4: 1e-7, 8: 1e-13}


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What `select` chose. Arrays have one entry a pick, in the order picked.

    Attributes:
        indices: (n,) int64, rows of the candidates.
        gains: (n,) float64, target variance that each pick removed, as a fraction of the prior variance.
        variance: (n,) float64, target variance left after each pick, as a fraction of the prior variance.
        stopped: why it ended: "k" picks were made, a stopping rule held ("alpha", "variance", "budget"), or the
            candidates were "exhausted".
        objective, kernel, lambda_: as asked.
        bandwidth: of the kernel, in units of cosine; None for "linear".
        temperature: of the pool's weights, in units of cosine; None for objective "query".
        stand_ins: (K,) int64, for each candidate the row that stands for it: itself, or the one it is a near copy of.
    """

    indices: npt.NDArray[np.int64]
    gains: Float64
    variance: Float64
    stopped: Stopped
    objective: Objective
    kernel: Kernel
    lambda_: float
    bandwidth: float | None
    temperature: float | None
    stand_ins: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)


def select(
    candidates: npt.ArrayLike,
    query: npt.ArrayLike,
    k: int | None = 10,
    *,
    objective: Objective = "pool",
    kernel: Kernel | None = None,
    lambda_: float = 0.01,
    bandwidth: float | None = None,
    weights: npt.ArrayLike | None = None,
    relevance: npt.ArrayLike | None = None,
    collapse: bool = True,
    replace: bool = False,
    alpha: float | None = None,
    target_variance: float | None = None,
    costs: npt.ArrayLike | None = None,
    budget: float | None = None,
) -> Selection:
    """Choose an informative, non-redundant subset of the candidates.

    Args:
        candidates: (K, d) embeddings, float32 or float64; any length but zero, they are normalised.
        query: (d,), or (m, d) for several sub-queries.
        k: how many to pick, >= 1; None only with a budget: as many as it pays for.
        objective: "pool" (retrieval): the targets are the candidates, weighted by relevance.
            "query" (fine-tuning): the targets are the queries themselves, as in the paper.
        kernel: "linear", "rbf": exp((cosine - 1) / bandwidth), or "two-scale": the mean of that and the same 16 times
            narrower. Default: "two-scale" for "pool", "linear" for "query".
        lambda_: noise λ > 0: how much one pick leaves to learn about itself.
        bandwidth: of the rbf and two-scale kernels, > 0; default 1 standard deviation of the pool's own similarities.
        weights: of the queries, (m,), >= 0; they are scaled to sum to 1. Default: equal.
        relevance: (K,) or (m, K), fused or cross-encoder scores for the pool's weights; default the cosine to the
            query. Only their relative distances count: they are scaled to spread as the cosines do. Breaks ties, too.
        collapse: whether near copies count as one candidate, where the pool shows that it holds copies; objective
            "pool" without replacement. A copy is picked only when nothing else is left.
        replace: whether a candidate may be picked again.
        alpha: stop after pick n once σ_n > 1/(α n), σ the root of the variance left (the paper's compute rule).
        target_variance: stop once the variance left, a fraction of the prior, is at most this.
        costs: (K,), > 0, e.g. tokens. With `budget` the pick is the best gain per cost among those that still fit.
        budget: > 0, what the picks may cost together.

    Returns:
        A Selection of at most k picks; fewer when candidates run out or a rule stops it. Ties go to the more relevant
        candidate, then to the earlier row, so the result is deterministic.

    Raises:
        VectorError: wrong shapes, NaN, infinite or zero vectors.
        InvalidInputError: an argument out of its range.

    Cost: "query" O(k·K·(d + k)) time and O(K·(d + k)) memory, no K×K matrix for the linear kernel; "pool" one K×K
    Gram matrix and O(k·K²).
    """
    pool = unit_rows(candidates, "candidates")
    targets = unit_rows(query, "query", pool.shape[1]).astype(pool.dtype, copy=False)
    kernel = _kernel(objective, kernel)
    share = query_shares(weights, len(targets))
    stop = _stopping(k, len(pool), replace, alpha, target_variance, costs, budget)
    _check_positive(lambda_=lambda_, bandwidth=bandwidth)

    rounding = _ROUNDING[pool.itemsize]
    cosines = (targets @ pool.T).astype(np.float64)
    scores = cosines if relevance is None else _like_cosines(_relevance(relevance, cosines.shape), cosines)
    rank = _ranks(share @ scores, rounding)
    leaders = rows = np.arange(len(pool))
    if objective == "query":
        posterior = query_posterior(pool, cosines, share, kernel, bandwidth, stop.limit)
    else:
        similarities = _similarities(pool)
        spread = similarity_spread(similarities)
        if collapse and not replace:
            leaders = _leaders(similarities, spread, rank)
            rows = _one_of_each(leaders, rank, k or 1)
        if len(rows) < len(pool):
            similarities, scores, rank = similarities[np.ix_(rows, rows)], scores[:, rows], rank[rows]
            stop = stop.among(rows)
        posterior = pool_posterior(similarities, spread, scores, share, kernel, bandwidth, stop.limit)
    picks, gains, left, stopped = _greedy(posterior, rank, rounding, lambda_, replace, stop)
    return Selection(
        indices=rows[picks].astype(np.int64),
        gains=np.array(gains),
        variance=np.array(left),
        stopped=stopped,
        objective=objective,
        kernel=kernel,
        lambda_=lambda_,
        bandwidth=posterior.bandwidth,
        temperature=posterior.temperature,
        stand_ins=leaders.astype(np.int64),
    )


def select_batch(
    candidates: Sequence[npt.ArrayLike],
    queries: Sequence[npt.ArrayLike],
    k: int | None = 10,
    *,
    relevance: Sequence[npt.ArrayLike | None] | None = None,
    **options: object,
) -> list[Selection]:
    """`select` over many pools: one Selection a pool, in the order given, each identical to its own `select`.

    Args:
        candidates: one (K_i, d) array a pool. queries: one (d,) or (m, d) array a pool.
        k: as for `select`, the same for all. relevance: one entry a pool, or None.
        options: the other keyword arguments of `select`, the same for all.

    Raises:
        InvalidInputError: the sequences differ in length; else as `select`.
    """
    given = relevance if relevance is not None else [None] * len(queries)
    if not len(candidates) == len(queries) == len(given):
        raise InvalidInputError(
            f"{len(candidates)} pools, {len(queries)} queries, {len(given)} relevances given; one of each a pool wanted"
        )
    return [
        select(pool, query, k, relevance=scores, **options)  # type: ignore[arg-type]  # checked by select at run time
        for pool, query, scores in zip(candidates, queries, given, strict=True)
    ]


def remaining_variance(
    candidates: npt.ArrayLike,
    query: npt.ArrayLike,
    picks: Sequence[int] | npt.NDArray[np.int64],
    *,
    weights: npt.ArrayLike | None = None,
    lambda_: float = 0.01,
) -> Float64:
    """What any choice leaves uncertain: the variance trace of `select`, objective "pool", for picks made otherwise.

    Args:
        candidates: (K, d). query: (d,) or (m, d). picks: rows, in order, one or more.
        weights, lambda_: as for `select`.

    Returns:
        (n,) share of the prior variance left after each pick; a copy of an earlier pick leaves it as it was.
    """
    pool = unit_rows(candidates, "candidates")
    targets = unit_rows(query, "query", pool.shape[1]).astype(pool.dtype, copy=False)
    share = query_shares(weights, len(targets))
    scores = (targets @ pool.T).astype(np.float64)
    rows = np.asarray(picks)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or rows.min() < 0 or rows.max() >= len(pool):
        raise InvalidInputError(f"picks: {picks!r} given, one or more rows from 0 to {len(pool) - 1} wanted")
    _check_positive(lambda_=lambda_)
    similarities = _similarities(pool)
    spread = similarity_spread(similarities)
    leaders = _leaders(similarities, spread, _ranks(share @ scores, _ROUNDING[pool.itemsize]))
    kept = np.flatnonzero(leaders == np.arange(len(leaders)))
    of_kept = np.searchsorted(kept, leaders[rows]).tolist()
    posterior = pool_posterior(
        similarities[np.ix_(kept, kept)], spread, scores[:, kept], share, "two-scale", None, len(kept)
    )
    left = []
    for place, pick in enumerate(of_kept):
        if pick not in of_kept[:place]:
            posterior.condition_on(pick, lambda_)
        left.append(posterior.target_variance)
    return np.array(left)


# --- near copies ------------------------------------------------------------------------------------------------------


def _similarities(pool: FloatArray) -> FloatArray:
    similarities: FloatArray = pool @ pool.T
    np.fill_diagonal(similarities, 1)
    return similarities


def _leaders(similarities: FloatArray, spread: float, rank: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return stand_ins(similarities, rank, near_copy_distance(similarities, spread))


def _one_of_each(leaders: npt.NDArray[np.int64], rank: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
    """Rows that stand for themselves; if they are fewer than wanted, the best-ranked copies too."""
    own = leaders == np.arange(len(leaders))
    if (short := wanted - int(own.sum())) > 0:
        copies = np.flatnonzero(~own)
        own[copies[np.argsort(rank[copies])[:short]]] = True
    return np.flatnonzero(own)


# --- the greedy loop --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stopping:
    limit: int  # most picks there can be
    alpha: float | None
    target_variance: float | None
    costs: Float64 | None
    budget: float

    def among(self, rows: npt.NDArray[np.int64]) -> _Stopping:
        """The same for some of the candidates."""
        return replace_(self, limit=min(self.limit, len(rows)), costs=None if self.costs is None else self.costs[rows])

    def rule(self, picks: int, variance: float) -> Stopped | None:
        if self.target_variance is not None and variance <= self.target_variance:
            return "variance"
        if self.alpha is not None and np.sqrt(variance) > 1 / (self.alpha * picks):
            return "alpha"
        return None


def _greedy(
    posterior: Posterior,
    rank: npt.NDArray[np.int64],
    rounding: float,
    noise: float,
    replace: bool,
    stop: _Stopping,
) -> tuple[list[int], list[float], list[float], Stopped]:
    picks: list[int] = []
    gains: list[float] = []
    left: list[float] = []
    taken = np.zeros(len(rank), dtype=bool)
    remaining = stop.budget
    while len(picks) < stop.limit:
        if stop.costs is not None:
            taken |= stop.costs > remaining
        if taken.all():
            return picks, gains, left, "exhausted" if stop.costs is None else "budget"
        gain = posterior.covariance / (posterior.variance + noise)
        pick = _best(gain, stop.costs, rounding, taken, rank)
        before = posterior.target_variance
        posterior.condition_on(pick, noise)
        picks.append(pick)
        gains.append(before - posterior.target_variance)
        left.append(posterior.target_variance)
        taken[pick] |= not replace
        if stop.costs is not None:
            remaining -= stop.costs[pick]
        if (stopped := stop.rule(len(picks), left[-1])) is not None:
            return picks, gains, left, stopped
    return picks, gains, left, "k"


def _best(
    gain: Float64,
    costs: Float64 | None,
    rounding: float,
    taken: npt.NDArray[np.bool_],
    rank: npt.NDArray[np.int64],
) -> int:
    """The greatest gain, or gain per cost; among those that differ by rounding alone, the best-ranked."""
    value = gain if costs is None else gain / costs
    np.putmask(value, taken, -1.0)  # below any gain
    best = int(value.argmax())
    error = rounding * math.sqrt(max(float(gain[best]), 0.0))  # a gain is the square of a covariance
    ties = value >= value[best] - (error if costs is None else error / costs)
    if np.count_nonzero(ties) > 1:
        rows = np.flatnonzero(ties)
        best = int(rows[rank[rows].argmin()])
    return best


def _ranks(scores: Float64, rounding: float) -> npt.NDArray[np.int64]:
    """Place of each candidate when the most relevant comes first; scores equal up to rounding keep their order."""
    rank = np.empty(len(scores), dtype=np.int64)
    rank[np.argsort(-np.round(scores / rounding), kind="stable")] = np.arange(len(scores))
    return rank


# --- checks: each names the value seen and the value wanted -----------------------------------------------------------


def _kernel(objective: str, kernel: Kernel | None) -> Kernel:
    if objective not in ("pool", "query"):
        raise InvalidInputError(f'objective: {objective!r} given, "pool" or "query" wanted')
    if kernel not in (None, *get_args(Kernel)):
        raise InvalidInputError(f"kernel: {kernel!r} given, one of {', '.join(map(repr, get_args(Kernel)))} wanted")
    return kernel or ("linear" if objective == "query" else "two-scale")


def _check_positive(**values: object) -> None:
    for name, value in values.items():
        if value is not None and not (_is_number(value) and 0 < value < float("inf")):  # type: ignore[operator]
            raise InvalidInputError(f"{name.rstrip('_')}: {value!r} given, a finite number > 0 wanted")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _numbers(values: npt.ArrayLike, name: str) -> Float64:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(f"{name}: cannot be read as numbers ({exc})") from exc
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{name}: NaN or infinity given, finite numbers wanted")
    return array


def query_shares(weights: npt.ArrayLike | None, queries: int) -> Float64:
    """Weights of several queries, scaled to sum to 1; equal if None.

    Raises:
        InvalidInputError: not one number >= 0 a query, or all 0.
    """
    if weights is None:
        return np.full(queries, 1 / queries)
    array = _numbers(weights, "weights")
    if array.shape != (queries,) or (array < 0).any() or array.sum() <= 0:
        raise InvalidInputError(f"weights: {array.tolist()} given, {queries} numbers >= 0, not all 0, wanted")
    return np.asarray(array / array.sum())


def _relevance(relevance: npt.ArrayLike, shape: tuple[int, ...]) -> Float64:
    array = _numbers(relevance, "relevance")
    if array.shape not in (shape, shape[1:]):
        raise InvalidInputError(f"relevance: shape {array.shape} given, {shape[1:]} or {shape} wanted")
    return np.broadcast_to(array, shape)


def _like_cosines(relevance: Float64, cosines: Float64) -> Float64:
    """Relevance scaled, query by query, to the standard deviation that the cosines have in this pool."""
    wanted, given = cosines.std(axis=1, keepdims=True), relevance.std(axis=1, keepdims=True)
    scaled: Float64 = relevance * np.divide(wanted, given, out=np.ones_like(given), where=(wanted > 0) & (given > 0))
    return scaled


def _stopping(
    k: int | None,
    size: int,
    replace: bool,
    alpha: float | None,
    target_variance: float | None,
    costs: npt.ArrayLike | None,
    budget: float | None,
) -> _Stopping:
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_PICKS):
        raise InvalidInputError(f"k: {k!r} given, a whole number from 1 to {MAX_PICKS:,} wanted")
    if (costs is None) != (budget is None):
        raise InvalidInputError("costs and budget go together: give both or neither")
    if k is None and budget is None:
        raise InvalidInputError("k: None given without a budget; a whole number >= 1, or costs and budget, wanted")
    _check_positive(alpha=alpha, budget=budget)
    if target_variance is not None and not (_is_number(target_variance) and 0 <= target_variance <= 1):
        raise InvalidInputError(f"target_variance: {target_variance!r} given, a fraction in [0, 1] wanted")
    most = k if replace and k is not None else min(k or size, size)
    if costs is None or budget is None:
        return _Stopping(most, alpha, target_variance, None, 0.0)
    array = _numbers(costs, "costs")
    if array.shape != (size,) or (array <= 0).any():
        raise InvalidInputError(
            f"costs: shape {array.shape}, least {array.min(initial=np.inf)} given, ({size},) > 0 wanted"
        )
    if replace and k is None:
        most = min(max(int(budget // array.min()), 1), MAX_PICKS)
    return _Stopping(most, alpha, target_variance, array, budget)
