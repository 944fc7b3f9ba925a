"""Whether one method beats another: paired bootstrap intervals, wins and losses over the same queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "paired_difference"]

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean difference with its 95 % interval, and on how many queries it is above or below zero."""

    mean: float
    low: float
    high: float
    wins: int
    losses: int


def paired_difference(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> Difference:
    """Compare two methods query by query; percentile bootstrap over the queries, 2000 resamples, seeded.

    Args:
        ours, theirs: (queries,) one measure of each, the same queries in the same order.
    """
    difference = ours.astype(np.float64) - theirs
    rng = np.random.default_rng(0)
    size = len(difference)
    counts = rng.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES)
    low, high = np.quantile(counts @ difference / size, [0.025, 0.975])
    above, below = int((difference > 1e-9).sum()), int((difference < -1e-9).sum())
    return Difference(float(difference.mean()), float(low), float(high), above, below)
