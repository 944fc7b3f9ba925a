"""What the picks leave uncertain: the posterior variance of the targets, downdated one pick at a time.

Both posteriors keep, for every candidate x, its own variance c_X(x, x) and the weighted squared covariance with the
targets, ``Σ_j w_j c_X(t_j, x)²``. Conditioning on a pick p downdates c by l lᵀ, ``l = c_X(·, p) / √(c_X(p, p) + λ)``;
no matrix is inverted and no K×K matrix is rewritten. Recursions run in float64, kernels in the caller's precision.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sift_store.kernels import FloatArray, rbf, similarity_spread

__all__ = ["Posterior", "pool_posterior", "query_posterior"]

Float64: TypeAlias = npt.NDArray[np.float64]

# Kernel bandwidth, in standard deviations of the pool's own similarities.
BANDWIDTH_IN_SPREADS = 2.5
# (Two items count as one at a third of that scale: that kernel is the cube of this one.)
_TEMPERATURES = np.geomspace(0.005, 0.5, 16)


class Posterior(ABC):
    """Variances after the picks so far.

    Attributes:
        variance: (K,) c_X(x, x). target_variance: Σ_j w_j c_X(t_j, t_j).
        covariance: (K,) Σ_j w_j c_X(t_j, x)²; not kept up after the last pick there can be.
        bandwidth: of the rbf kernel, or None. temperature: of the pool's weights, or None.
    """

    def __init__(self, size: int, limit: int, bandwidth: float | None, temperature: float | None = None) -> None:
        self.bandwidth = bandwidth
        self.temperature = temperature
        self.variance: Float64 = np.ones(size)  # k(x, x) = 1 for unit vectors, linear and rbf
        self.target_variance = 1.0
        self.covariance: Float64 = np.zeros(size)
        self._factors: Float64 = np.empty((limit, size))
        self._count = 0

    def condition_on(self, pick: int, noise: float) -> None:
        """Observe candidate `pick` with noise variance `noise`. O(n·K) beside the kernel's own work."""
        earlier = self._factors[: self._count]
        root = math.sqrt(float(self.variance[pick]) + noise)
        factor = self._kernel_column(pick)
        factor -= earlier[:, pick] @ earlier
        factor /= root
        self._condition_targets(factor, earlier, pick, root)
        self._factors[self._count] = factor
        self._count += 1
        self.variance -= factor * factor
        np.maximum(self.variance, 0.0, out=self.variance)

    @abstractmethod
    def _kernel_column(self, pick: int) -> Float64:
        """k(x, x_pick) for all candidates, (K,), a fresh array."""

    @abstractmethod
    def _condition_targets(self, factor: Float64, earlier: Float64, pick: int, root: float) -> None:
        """Downdate `covariance` and `target_variance`; `factor` is l, `earlier` the rows l of the picks before."""


class _QueryPosterior(Posterior):
    """The targets are the m queries. One K-vector product a pick: O(K·(d + n + m)) time, O(K·(d + n)) memory."""

    def __init__(self, pool: FloatArray, cosines: Float64, share: Float64, bandwidth: float | None, limit: int) -> None:
        super().__init__(len(pool), limit, bandwidth)
        self._pool, self._share = pool, share
        self._to_targets = cosines.copy() if bandwidth is None else rbf(cosines, bandwidth)  # (m, K) c_X(t_j, x)
        self._target_variances = np.ones(len(share))
        self.covariance = share @ np.square(self._to_targets)

    def _kernel_column(self, pick: int) -> Float64:
        similarities = self._pool @ self._pool[pick]
        column = similarities if self.bandwidth is None else rbf(similarities, self.bandwidth)
        return column.astype(np.float64)

    def _condition_targets(self, factor: Float64, earlier: Float64, pick: int, root: float) -> None:  # noqa: ARG002
        loadings = self._to_targets[:, pick] / root
        self._to_targets -= np.multiply.outer(loadings, factor)
        self._target_variances = np.maximum(self._target_variances - loadings * loadings, 0.0)
        self.covariance = self._share @ np.square(self._to_targets)
        self.target_variance = float(self._share @ self._target_variances)


class _PoolPosterior(Posterior):
    """The targets are the weighted candidates. The Gram matrix G is read once a pick: O(K²) time and memory.

    With u = w∘l and L the rows of earlier picks, ``Σ_j w_j c(t_j, x)²`` changes by
    ``- 2 l(x)·(uᵀG - (L u)ᵀL)(x) + l(x)²·(uᵀl)``.
    """

    def __init__(
        self, gram: FloatArray, weights: Float64, bandwidth: float | None, temperature: float, limit: int
    ) -> None:
        super().__init__(len(gram), limit, bandwidth, temperature)
        self._gram, self._weights = gram, weights
        self.covariance = (weights.astype(gram.dtype) @ np.square(gram)).astype(np.float64)

    def _kernel_column(self, pick: int) -> Float64:
        column: Float64 = self._gram[pick].astype(np.float64)
        return column

    def _condition_targets(self, factor: Float64, earlier: Float64, pick: int, root: float) -> None:  # noqa: ARG002
        weighted = self._weights * factor
        removed = float(weighted @ factor)
        self.target_variance = max(self.target_variance - removed, 0.0)
        if len(earlier) + 1 == len(self._factors):  # the last pick: nobody will ask what would come next
            return
        change = (self._gram @ weighted.astype(self._gram.dtype)).astype(np.float64)
        change -= (earlier @ weighted) @ earlier
        change *= 2
        change -= removed * factor
        change *= factor
        self.covariance -= change
        np.maximum(self.covariance, 0.0, out=self.covariance)


def query_posterior(
    pool: FloatArray, cosines: Float64, share: Float64, linear: bool, bandwidth: float | None, limit: int
) -> Posterior:
    """The posterior of objective "query".

    Args:
        pool: (K, d) unit rows. cosines: (m, K) of the queries to the pool. share: (m,) query weights, sum 1.
        linear: kernel "linear", else "rbf". bandwidth: of "rbf"; None for 2.5 spreads, which costs a K×K matrix once.
        limit: most picks that will be conditioned on.
    """
    if linear:
        bandwidth = None
    elif bandwidth is None:
        bandwidth = BANDWIDTH_IN_SPREADS * similarity_spread(pool @ pool.T)
    return _QueryPosterior(pool, cosines, share, bandwidth, limit)


def pool_posterior(
    pool: FloatArray,
    scores: Float64,
    share: Float64,
    linear: bool,
    bandwidth: float | None,
    items: float,
    limit: int,
) -> Posterior:
    """The posterior of objective "pool".

    Args:
        pool: (K, d) unit rows. scores: (m, K) relevance of the pool to each query. share: (m,) query weights, sum 1.
        linear: kernel "linear", else "rbf". bandwidth: of "rbf"; None for 2.5 spreads.
        items: how many distinct items the weights must spread over, > 0. limit: most picks.
    """
    similarities = pool @ pool.T
    np.fill_diagonal(similarities, 1)
    own = BANDWIDTH_IN_SPREADS * similarity_spread(similarities)
    smooth = rbf(similarities, own)
    weights, temperature = _pool_weights(scores, share, smooth, items)
    if linear:
        return _PoolPosterior(similarities, weights, None, temperature, limit)
    gram = smooth if bandwidth is None else rbf(similarities, bandwidth)
    return _PoolPosterior(gram, weights, own if bandwidth is None else bandwidth, temperature, limit)


def _pool_weights(scores: Float64, share: Float64, smooth: FloatArray, items: float) -> tuple[Float64, float]:
    """Relevance weights of the pool, (K,), sum 1, and their temperature T.

    ``w_i ∝ exp(r_i / T)``, one softmax a query, mixed by the queries' shares. T is the smallest of a fixed grid at
    which the weights hold `items` distinct items by the inverse Simpson index with similarity (Leinster & Cobbold,
    Ecology 2012, order 2), ``1 / Σ_ij w_i w_j n(i, j)``; if none does, the T that holds most.
    """
    shifted = scores - scores.max(axis=1, keepdims=True)
    softmax = np.exp(shifted.astype(smooth.dtype) / _TEMPERATURES.astype(smooth.dtype)[:, None, None])  # (T, m, K)
    softmax *= (share / softmax.sum(axis=2)).astype(smooth.dtype)[:, :, None]
    trial = softmax.sum(axis=1)
    nearness = smooth * smooth * smooth
    distinct = 1 / np.einsum("tk,tk->t", trial @ nearness, trial)
    enough = np.flatnonzero(distinct >= items)
    chosen = int(enough[0]) if len(enough) else int(np.argmax(distinct))
    weights = trial[chosen].astype(np.float64)
    return weights / weights.sum(), float(_TEMPERATURES[chosen])
