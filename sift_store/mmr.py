"""Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), for comparison: `search(method="mmr")`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sift_store.kernels import FloatArray

__all__ = ["mmr"]


def mmr(pool: FloatArray, relevance: npt.NDArray[np.float64], k: int, balance: float = 0.5) -> npt.NDArray[np.int64]:
    """Pick by ``balance · relevance - (1 - balance) · greatest similarity to a pick``.

    Args:
        pool: (K, d) unit rows. relevance: (K,) cosine to the query. k: >= 1.
        balance: 1 for nearest neighbours, 0 for diversity alone.

    Returns:
        (min(k, K),) rows in the order picked; ties go to the earlier row. Cost: O(k·K·d).
    """
    picks: list[int] = []
    nearest_pick = np.full(len(pool), -np.inf)
    score = relevance.copy()
    for _ in range(min(k, len(pool))):
        pick = int(np.argmax(score))
        picks.append(pick)
        nearest_pick = np.maximum(nearest_pick, pool @ pool[pick])
        score = balance * relevance - (1 - balance) * nearest_pick
        score[picks] = -np.inf
    return np.array(picks, dtype=np.int64)
