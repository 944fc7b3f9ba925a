"""SIFT straight from its definition: float64, a solve a pair of points, nothing shared with the library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Kernel = Callable[[np.ndarray], np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def linear(cosines: np.ndarray) -> np.ndarray:
    return cosines


def rbf(bandwidth: float) -> Kernel:
    return lambda cosines: np.exp((cosines - 1) / bandwidth)


def two_scale(bandwidth: float) -> Kernel:
    return lambda cosines: (np.exp((cosines - 1) / bandwidth) + np.exp((cosines - 1) / (bandwidth / 16))) / 2


def off_diagonal_spread(pool: np.ndarray) -> float:
    cosines = pool @ pool.T
    return float(cosines[~np.eye(len(pool), dtype=bool)].std())


class Definition:
    """Posterior variances given any picks, by c_X(a, b) = k(a, b) - k_X(a)ᵀ (K_X + λI)⁻¹ k_X(b)."""

    def __init__(
        self, pool: np.ndarray, targets: np.ndarray, weights: np.ndarray, kernel: Kernel, noise: float
    ) -> None:
        self.pool, self.targets, self.weights, self.kernel, self.noise = (
            unit(pool),
            unit(targets),
            weights,
            kernel,
            noise,
        )

    def covariance(self, a: np.ndarray, b: np.ndarray, picks: list[int]) -> np.ndarray:
        prior = self.kernel(a @ b.T)
        if not picks:
            return prior
        seen = self.pool[picks]
        gram = self.kernel(seen @ seen.T) + self.noise * np.eye(len(picks))
        return prior - self.kernel(a @ seen.T) @ np.linalg.solve(gram, self.kernel(seen @ b.T))

    def left(self, picks: list[int]) -> float:
        return float(self.weights @ np.diagonal(self.covariance(self.targets, self.targets, picks)))

    def gains(self, picks: list[int]) -> np.ndarray:
        """What each candidate would remove next, by the formula."""
        cross = self.covariance(self.targets, self.pool, picks)
        own = np.diagonal(self.covariance(self.pool, self.pool, picks))
        return self.weights @ cross**2 / (own + self.noise)


def pool_weights(pool: np.ndarray, scores: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weights of objective "pool": one softmax a query at a tenth of the pool's spread, mixed by the shares."""
    temperature = 0.1 * max(off_diagonal_spread(unit(pool)), 1e-3)
    logits = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    weights = shares @ (logits / logits.sum(axis=1, keepdims=True))
    return np.where(weights >= 1e-12 * weights.max(), weights, 0.0)  # less is no target
