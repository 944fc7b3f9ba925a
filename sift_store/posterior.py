"""What the picks leave uncertain: the posterior variance of the targets, downdated one pick at a time.

Conditioning on a pick p downdates the posterior covariance c by l lᵀ, ``l = c_X(·, p) / √(c_X(p, p) + λ)``; no matrix
is inverted. Kept for every candidate x are its own variance c_X(x, x) and its covariance with each target. Recursions
run in float64, kernels in the caller's precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sift_store.kernels import FloatArray, Kernel, rbf, similarity_spread, two_scale

__all__ = ["Posterior", "pool_posterior", "query_posterior"]

Float64: TypeAlias = npt.NDArray[np.float64]

# Kernel bandwidth and temperature of the weights, in standard deviations of the pool's own similarities: embedders
# differ in scale. Chosen on labelled queries (docs/quality.md).
BANDWIDTH_IN_SPREADS = 1.0
TEMPERATURE_IN_SPREADS = 0.1
# A target of less weight than this share of the heaviest is none. Small weights decide among candidates far below the
# best: leaving out those under 1e-8 cost 1.5 points of recall@10 on HotpotQA.
_LEAST_WEIGHT = 1e-12


class Posterior:
    """Variances after the picks so far; kernels are 1 on the diagonal.

    Args:
        to_targets: (m, K) prior covariance of each target and each candidate; written to. share: (m,) weights, sum 1.
        column: from a candidate to its prior covariances with all, (K,), a fresh array. limit: most picks.
        bandwidth: of the kernel, None for "linear". temperature: of the pool's weights, or None.

    Attributes:
        variance: (K,) c_X(x, x). target_variance: Σ_j w_j c_X(t_j, t_j). covariance: (K,) Σ_j w_j c_X(t_j, x)².
            The first and the last are not kept up after the last pick there can be.
    """

    def __init__(
        self,
        to_targets: Float64,
        share: Float64,
        column: Callable[[int], Float64],
        limit: int,
        bandwidth: float | None,
        temperature: float | None = None,
    ) -> None:
        self.bandwidth = bandwidth
        self.temperature = temperature
        size = to_targets.shape[1]
        self.variance: Float64 = np.ones(size)
        self.target_variance = 1.0
        self.covariance: Float64 = share @ np.square(to_targets)
        self._to_targets, self._share, self._column = to_targets, share, column
        self._target_variances = np.ones(len(share))
        self._factors: Float64 = np.empty((limit, size))
        self._count = 0

    def condition_on(self, pick: int, noise: float) -> None:
        """Observe candidate `pick` with noise variance `noise`. O((m + n)·K) beside the kernel's own work."""
        earlier = self._factors[: self._count]
        root = math.sqrt(float(self.variance[pick]) + noise)
        factor = self._column(pick)
        factor -= earlier[:, pick] @ earlier
        factor /= root
        self._factors[self._count] = factor
        self._count += 1
        loadings = self._to_targets[:, pick] / root
        self._target_variances = np.maximum(self._target_variances - loadings * loadings, 0.0)
        self.target_variance = float(self._share @ self._target_variances)
        if self._count == len(self._factors):  # the last pick: nobody will ask what would come next
            return
        self.variance -= factor * factor
        np.maximum(self.variance, 0.0, out=self.variance)
        self._to_targets -= np.multiply.outer(loadings, factor)
        self.covariance = self._share @ np.square(self._to_targets)


def query_posterior(
    pool: FloatArray, cosines: Float64, share: Float64, kernel: Kernel, bandwidth: float | None, limit: int
) -> Posterior:
    """The posterior of objective "query": the targets are the queries.

    Args:
        pool: (K, d) unit rows. cosines: (m, K) of the queries to the pool. share: (m,) query weights, sum 1.
        kernel: any. bandwidth: of all but "linear"; None for 1 spread, which costs a K×K matrix once.
        limit: most picks that will be conditioned on.

    Cost: O(K·(d + n + m)) a pick, O(K·(d + n + m)) memory.
    """
    if kernel == "linear":
        bandwidth = None
    elif bandwidth is None:
        bandwidth = BANDWIDTH_IN_SPREADS * similarity_spread(pool @ pool.T)

    def column(pick: int) -> Float64:
        return _evaluate(kernel, pool @ pool[pick], bandwidth).astype(np.float64)

    to_targets = _evaluate(kernel, cosines.copy(), bandwidth).astype(np.float64, copy=False)
    return Posterior(to_targets, share, column, limit, bandwidth)


def pool_posterior(
    similarities: FloatArray,
    spread: float,
    scores: Float64,
    share: Float64,
    kernel: Kernel,
    bandwidth: float | None,
    limit: int,
) -> Posterior:
    """The posterior of objective "pool": the targets are the candidates, weighted by relevance.

    Args:
        similarities: (K, K) cosines of the pool, ones on the diagonal. spread: their standard deviation.
        scores: (m, K) relevance of the pool to each query, on cosine's scale. share: (m,) query weights, sum 1.
        kernel: any. bandwidth: of all but "linear"; None for 1 spread. limit: most picks.

    Cost: O(K²) once, O(K·(M + n)) a pick, M <= K the candidates whose weight is at least 1e-12 of the heaviest.
    """
    temperature = TEMPERATURE_IN_SPREADS * spread
    if kernel == "linear":
        bandwidth = None
    elif bandwidth is None:
        bandwidth = BANDWIDTH_IN_SPREADS * spread
    gram = _evaluate(kernel, similarities, bandwidth)
    weights = _pool_weights(scores, share, temperature)
    targets = np.flatnonzero(weights >= _LEAST_WEIGHT * weights.max())

    def column(pick: int) -> Float64:
        fresh: Float64 = gram[pick].astype(np.float64)
        return fresh

    return Posterior(gram[targets].astype(np.float64), weights[targets], column, limit, bandwidth, temperature)


def _pool_weights(scores: Float64, share: Float64, temperature: float) -> Float64:
    """Relevance weights of the pool, (K,), sum 1: one softmax a query, mixed by the queries' shares.

    Each query's weights sum to its share whatever its scores, so that none starves beside one with better matches.
    """
    softmax = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    weights: Float64 = (share / softmax.sum(axis=1)) @ softmax
    return weights


def _evaluate(kernel: Kernel, similarities: FloatArray, bandwidth: float | None) -> FloatArray:
    if bandwidth is None:
        return similarities
    return rbf(similarities, bandwidth) if kernel == "rbf" else two_scale(similarities, bandwidth)
