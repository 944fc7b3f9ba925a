"""Checks of what `select` is given: each names the value seen and the value wanted."""

from __future__ import annotations

from typing import TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from sift_store.errors import InvalidInputError
from sift_store.greedy import Stopping
from sift_store.kernels import Kernel

__all__ = ["MAX_PICKS", "check_positive", "kernel_for", "like_cosines", "query_shares", "relevance_of", "stopping"]

Float64: TypeAlias = npt.NDArray[np.float64]

_LARGEST = int(np.finfo(np.float64).max)
# More picks than this are a mistake.
MAX_PICKS = 100_000


def kernel_for(objective: str, kernel: Kernel | None) -> Kernel:
    """The kernel given, or the objective's own."""
    if not isinstance(objective, str) or objective not in ("pool", "query"):
        raise InvalidInputError(f'objective: {objective!r} given, "pool" or "query" wanted')
    if kernel is not None and (not isinstance(kernel, str) or kernel not in get_args(Kernel)):
        raise InvalidInputError(f"kernel: {kernel!r} given, one of {', '.join(map(repr, get_args(Kernel)))} wanted")
    return kernel or ("linear" if objective == "query" else "two-scale")


def check_positive(**values: object) -> None:
    """Refuse what is neither None nor a finite number > 0."""
    for name, value in values.items():
        if value is not None and not (_is_number(value) and 0 < value < float("inf")):  # type: ignore[operator]
            raise InvalidInputError(f"{name.rstrip('_')}: {value!r} given, a finite number > 0 wanted")


def _is_number(value: object) -> bool:
    """Whether a value is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return not isinstance(value, int) or abs(value) <= _LARGEST


def _numbers(values: npt.ArrayLike, name: str) -> Float64:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
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


def relevance_of(relevance: npt.ArrayLike, shape: tuple[int, ...]) -> Float64:
    """Relevance as one row a query."""
    array = _numbers(relevance, "relevance")
    if array.shape not in (shape, shape[1:]):
        raise InvalidInputError(f"relevance: shape {array.shape} given, {shape[1:]} or {shape} wanted")
    return np.broadcast_to(array, shape)


def like_cosines(relevance: Float64, cosines: Float64) -> Float64:
    """Relevance scaled, query by query, to the standard deviation that the cosines have in this pool."""
    wanted, given = cosines.std(axis=1, keepdims=True), relevance.std(axis=1, keepdims=True)
    scaled: Float64 = relevance * np.divide(wanted, given, out=np.ones_like(given), where=(wanted > 0) & (given > 0))
    return scaled


def stopping(
    k: int | None,
    size: int,
    replace: bool,
    alpha: float | None,
    target_variance: float | None,
    costs: npt.ArrayLike | None,
    budget: float | None,
) -> Stopping:
    """The rules that end a selection from so many candidates."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_PICKS):
        raise InvalidInputError(f"k: {k!r} given, a whole number from 1 to {MAX_PICKS:,} wanted")
    if not isinstance(replace, bool | np.bool_):
        raise InvalidInputError(f"replace: {replace!r} given, True or False wanted")
    if (costs is None) != (budget is None):
        raise InvalidInputError("costs and budget go together: give both or neither")
    if k is None and budget is None:
        raise InvalidInputError("k: None given without a budget; a whole number >= 1, or costs and budget, wanted")
    check_positive(alpha=alpha, budget=budget)
    if target_variance is not None and not (_is_number(target_variance) and 0 <= target_variance <= 1):
        raise InvalidInputError(f"target_variance: {target_variance!r} given, a fraction in [0, 1] wanted")
    most = k if replace and k is not None else min(k or size, size)
    if costs is None or budget is None:
        return Stopping(most, alpha, target_variance, None, 0.0)
    array = _numbers(costs, "costs")
    if array.shape != (size,) or (array <= 0).any():
        raise InvalidInputError(
            f"costs: shape {array.shape}, least {array.min(initial=np.inf)} given, ({size},) > 0 wanted"
        )
    if replace and k is None:
        most = int(min(max(budget // array.min(), 1), MAX_PICKS))
    return Stopping(most, alpha, target_variance, array, budget)
