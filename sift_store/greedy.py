"""The greedy loop: the best gain, or gain per cost, pick by pick until a rule stops it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import replace as replace_
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sift_store.posterior import Posterior

__all__ = ["Stopped", "Stopping", "greedy", "no_longer_worth_it", "ranks"]

Stopped = Literal["k", "alpha", "variance", "budget", "exhausted"]
Float64: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stopping:
    """When to stop, and what each candidate costs."""

    limit: int  # most picks there can be
    alpha: float | None
    target_variance: float | None
    costs: Float64 | None
    budget: float

    def among(self, rows: npt.NDArray[np.int64]) -> Stopping:
        """The same for some of the candidates."""
        return replace_(self, limit=min(self.limit, len(rows)), costs=None if self.costs is None else self.costs[rows])

    def rule(self, picks: int, variance: float) -> Stopped | None:
        """The rule that holds after so many picks that leave so much variance, or None."""
        if self.target_variance is not None and variance <= self.target_variance:
            return "variance"
        if self.alpha is not None and no_longer_worth_it(self.alpha, picks, variance):
            return "alpha"
        return None


def no_longer_worth_it(alpha: float, picks: int, variance: float) -> bool:
    """The paper's compute rule, σ_n > 1/(α n), after n picks that leave so much variance."""
    return math.sqrt(variance) > 1 / (alpha * picks)


def greedy(
    posterior: Posterior,
    rank: npt.NDArray[np.int64],
    rounding: float,
    noise: float,
    replace: bool,
    stop: Stopping,
) -> tuple[list[int], list[float], list[float], Stopped]:
    """Pick until a rule stops it: (rows, gains, variances left, why it stopped).

    Args:
        rank: (K,) 0 for the most relevant, which wins ties. rounding: of a covariance. noise: λ of an observation.
    """
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
    cheapness = 1.0 if costs is None else costs.min() / costs  # at most 1, however small the costs
    value = gain * cheapness
    np.putmask(value, taken, -1.0)  # below any gain
    best = int(value.argmax())
    error = rounding * math.sqrt(max(float(gain[best]), 0.0))  # a gain is the square of a covariance
    ties = value >= value[best] - error * cheapness
    if np.count_nonzero(ties) > 1:
        rows = np.flatnonzero(ties)
        best = int(rows[rank[rows].argmin()])
    return best


def ranks(scores: Float64, rounding: float) -> npt.NDArray[np.int64]:
    """Place of each candidate when the most relevant comes first; scores equal up to rounding keep their order."""
    rank = np.empty(len(scores), dtype=np.int64)
    rank[np.argsort(-np.round(scores / rounding), kind="stable")] = np.arange(len(scores))
    return rank
