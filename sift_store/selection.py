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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sift_store.copies import near_copy_distance, stand_ins
from sift_store.errors import InvalidInputError
from sift_store.greedy import Stopped, greedy, ranks
from sift_store.kernels import FloatArray, Kernel, similarity_spread, unit_rows
from sift_store.posterior import Posterior, pool_posterior, query_posterior
from sift_store.selection_input import (
    MAX_PICKS,
    check_positive,
    kernel_for,
    like_cosines,
    query_shares,
    relevance_of,
    stopping,
)

__all__ = ["MAX_PICKS", "Objective", "Selection", "query_shares", "remaining_variance", "select", "select_batch"]

Objective = Literal["pool", "query"]
Float64: TypeAlias = npt.NDArray[np.float64]

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
        spread: standard deviation of the pool's similarities; None for objective "query".
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
    spread: float | None
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
        lambda_: noise λ > 0: how much one pick leaves to learn about itself; the greater, the oftener with `replace`
            the best match is picked again.
        bandwidth: of the rbf and two-scale kernels, > 0; default 1 standard deviation of the pool's own similarities.
        weights: of the queries, (m,), >= 0; they are scaled to sum to 1. Default: equal.
        relevance: (K,) or (m, K), fused or cross-encoder scores for the pool's weights; default the cosine to the
            query. Only their relative distances count: they are scaled to spread as the cosines do. Breaks ties, too.
        collapse: whether near copies count as one candidate, where the pool shows that it holds copies; objective
            "pool" without replacement. When nothing else is left, copies fill up to k, each with a gain of 0; with a
            budget they never do.
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

    Cost: "query" O(k·K·(d + k)) time and O(K·(d + k)) memory, no K×K matrix for the linear kernel; "pool" the
    K×K similarities, O(K²·d), and O(k·K·M) time, O(K·(K + M + k)) memory, M <= K the candidates with noticeable weight.
    """
    pool = unit_rows(candidates, "candidates")
    targets = unit_rows(query, "query", pool.shape[1]).astype(pool.dtype, copy=False)
    kernel = kernel_for(objective, kernel)
    share = query_shares(weights, len(targets))
    stop = stopping(k, len(pool), replace, alpha, target_variance, costs, budget)
    check_positive(lambda_=lambda_, bandwidth=bandwidth)

    rounding = _ROUNDING[pool.itemsize]
    cosines = (targets @ pool.T).astype(np.float64)
    scores = cosines if relevance is None else like_cosines(relevance_of(relevance, cosines.shape), cosines)
    rank = ranks(share @ scores, rounding)
    scores_of_all, spread = scores, None
    leaders = rows = np.arange(len(pool))
    if objective == "query":
        posterior = query_posterior(pool, cosines, share, kernel, bandwidth, stop.limit)
    else:
        similarities = _similarities(pool)
        spread = similarity_spread(similarities)
        if collapse and not replace:
            affordable = None if stop.costs is None else stop.costs <= stop.budget
            leaders = _leaders(similarities, spread, rank, affordable)
            rows = np.flatnonzero(leaders == rows)
        if len(rows) < len(pool):
            similarities, scores, rank = similarities[np.ix_(rows, rows)], scores[:, rows], rank[rows]
            stop = stop.among(rows)
        posterior = pool_posterior(similarities, spread, scores, share, kernel, bandwidth, stop.limit)
    picks, gains, left, stopped = greedy(posterior, rank, rounding, lambda_, replace, stop)
    chosen: list[int] = rows[picks].tolist()
    if stopped == "k" and k is not None and costs is None:
        more = _copies_by_rank(leaders, ranks(share @ scores_of_all, rounding), min(k, len(pool)) - len(chosen))
        chosen, gains, left = chosen + more, gains + [0.0] * len(more), left + left[-1:] * len(more)
    if stopped == "k" and len(chosen) != k:
        stopped = "exhausted"
    return Selection(
        indices=np.array(chosen, dtype=np.int64),
        gains=np.array(gains),
        variance=np.array(left),
        stopped=stopped,
        objective=objective,
        kernel=kernel,
        lambda_=lambda_,
        bandwidth=posterior.bandwidth,
        temperature=posterior.temperature,
        spread=spread,
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
    objective: Objective = "pool",
    weights: npt.ArrayLike | None = None,
    lambda_: float = 0.01,
) -> Float64:
    """What any choice leaves uncertain: the variance trace that `select` would give for picks made otherwise.

    Args:
        candidates: (K, d). query: (d,) or (m, d). picks: rows, in order, one or more.
        objective: "pool": near copies collapse, and a copy of an earlier pick, or that pick again, leaves the trace as
            it was. "query": the paper's σ², under the linear kernel; a pick made twice is observed twice.
        weights, lambda_: as for `select`.

    Returns:
        (n,) share of the prior variance left after each pick.
    """
    kernel_for(objective, None)
    pool = unit_rows(candidates, "candidates")
    targets = unit_rows(query, "query", pool.shape[1]).astype(pool.dtype, copy=False)
    share = query_shares(weights, len(targets))
    scores = (targets @ pool.T).astype(np.float64)
    rows = np.asarray(picks)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or rows.min() < 0 or rows.max() >= len(pool):
        raise InvalidInputError(f"picks: {picks!r} given, one or more rows from 0 to {len(pool) - 1} wanted")
    check_positive(lambda_=lambda_)
    if objective == "query":
        posterior = query_posterior(pool, scores, share, "linear", None, len(rows))
        return _trace(posterior, rows.tolist(), lambda_)
    similarities = _similarities(pool)
    spread = similarity_spread(similarities)
    leaders = _leaders(similarities, spread, ranks(share @ scores, _ROUNDING[pool.itemsize]))
    kept = np.flatnonzero(leaders == np.arange(len(leaders)))
    of_kept = np.searchsorted(kept, leaders[rows]).tolist()
    posterior = pool_posterior(
        similarities[np.ix_(kept, kept)], spread, scores[:, kept], share, "two-scale", None, len(kept)
    )
    once = list(dict.fromkeys(of_kept))
    after = dict(zip(once, _trace(posterior, once, lambda_), strict=True))
    return np.minimum.accumulate([after[pick] for pick in of_kept])


def _trace(posterior: Posterior, picks: Sequence[int], noise: float) -> Float64:
    left = []
    for pick in picks:
        posterior.condition_on(pick, noise)
        left.append(posterior.target_variance)
    return np.array(left)


# --- near copies ------------------------------------------------------------------------------------------------------


def _similarities(pool: FloatArray) -> FloatArray:
    similarities: FloatArray = pool @ pool.T
    np.fill_diagonal(similarities, 1)
    return similarities


def _leaders(
    similarities: FloatArray,
    spread: float,
    rank: npt.NDArray[np.int64],
    affordable: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """The row that stands for each; one that no budget pays for stands for none that it could pay for."""
    if affordable is not None:
        rank = np.where(affordable, rank, rank + len(rank))
    return stand_ins(similarities, rank, near_copy_distance(similarities, spread))


def _copies_by_rank(leaders: npt.NDArray[np.int64], rank: npt.NDArray[np.int64], wanted: int) -> list[int]:
    """The most relevant rows that do not stand for themselves."""
    copies = np.flatnonzero(leaders != np.arange(len(leaders)))
    most_relevant: list[int] = copies[np.argsort(rank[copies])][: max(wanted, 0)].tolist()
    return most_relevant
