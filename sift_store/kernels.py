"""Kernels over unit vectors, and the one door through which vectors enter the numerics."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sift_store.errors import VectorError

__all__ = ["FloatArray", "Kernel", "directed_rows", "rbf", "similarity_spread", "two_scale", "unit_rows"]

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]  # float32 or float64
Kernel = Literal["linear", "rbf", "two-scale"]

# Rows whose squared norm is this close to 1 are taken as they are, so that unit vectors keep their bits.
_UNIT_TOLERANCE = 4e-6
# A pool of one or two, or of equal similarities, has no spread of its own.
_MIN_SPREAD = 1e-3


# Squares below this lose digits in float32.
_TINY = 1e-18


def unit_rows(vectors: npt.ArrayLike, name: str, dimension: int | None = None) -> FloatArray:
    """Check vectors and scale each row to unit length.

    Args:
        vectors: shape (n, d), or (d,) for one row; float32 and float64 are kept, all else becomes float32.
        name: what the vectors are, for the error message.
        dimension: the d wanted, or None for any.

    Returns:
        C-contiguous (n, d) array. Rows that are unit length already (to 4e-6 in the square) keep their bits.

    Raises:
        VectorError: not two-dimensional, empty, of another dimension, or with NaN, infinite or zero rows.

    Cost: O(n·d).
    """
    array = _as_float(vectors, name)
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2 or 0 in array.shape:
        raise VectorError(f"{name}: shape {array.shape} given, (n, d) with n, d >= 1 wanted")
    if dimension is not None and array.shape[1] != dimension:
        raise VectorError(f"{name}: dimension {array.shape[1]} given, {dimension} wanted; was another embedder used?")
    squared = np.einsum("ij,ij->i", array, array)
    if np.abs(squared - 1).max() <= _UNIT_TOLERANCE:  # never true of NaN
        return np.ascontiguousarray(array)
    if not np.isfinite(squared).all():
        row = int(np.flatnonzero(~np.isfinite(squared))[0])
        if np.isfinite(array[row]).all():  # only the square overflowed
            return unit_rows(array / np.abs(array).max(axis=1, keepdims=True), name)
        raise VectorError(f"{name}: row {row} holds NaN or infinity; finite numbers wanted")
    if not squared.all():
        row = int(np.flatnonzero(squared == 0)[0])
        if array[row].any():  # only the square underflowed
            return unit_rows(array / np.abs(array).max(axis=1, keepdims=True, initial=np.finfo(array.dtype).tiny), name)
        raise VectorError(f"{name}: row {row} is all zeros; a direction is wanted. Was its text empty?")
    return np.ascontiguousarray(array / np.sqrt(squared)[:, None])


def directed_rows(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scale rows that others stored to unit length, and tell which have a direction: not of zeros, NaN or infinity.

    Args:
        vectors: (n, d) float32.

    Returns:
        (n, d) float32, rows without a direction all zeros; (n,) bool. Cost: O(n·d), in float64 where squares overflow.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not (np.isfinite(lengths) & (lengths > _TINY)).all():
        wide = vectors.astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    directed = np.isfinite(lengths) & (lengths > 0)
    unit = np.where(directed[:, None], vectors, 0) / np.where(directed, lengths, 1)[:, None]
    return unit.astype(np.float32, copy=False), directed


def _as_float(vectors: npt.ArrayLike, name: str) -> FloatArray:
    try:
        array: Any = np.asarray(vectors)
        if array.dtype.kind == "O":  # rows of tensors, or integers too long for numpy's own
            array = np.asarray([np.asarray(row) for row in array.tolist()] if array.ndim == 1 else array.astype(float))
        if array.dtype.kind not in "fiu":
            raise VectorError(f"{name}: values of type {array.dtype} given, real numbers wanted")
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:
        if isinstance(exc, VectorError):
            raise
        raise VectorError(f"{name}: cannot be read as an array of numbers ({exc})") from exc
    return array  # type: ignore[no-any-return]  # floating by the lines above


def similarity_spread(similarities: FloatArray) -> float:
    """Standard deviation of the similarities between different items of a pool.

    Embedders differ in scale: about 0.11 for all-MiniLM-L6-v2, 0.026 for multilingual-e5-small.

    Args:
        similarities: (K, K) cosines, symmetric, with ones on the diagonal.

    Returns:
        The spread, at least 0.001. Cost: O(K²).
    """
    size = len(similarities)
    if size < 2:
        return _MIN_SPREAD
    pairs = size * (size - 1)
    mean = (float(similarities.sum()) - size) / pairs
    squares = float(np.vdot(similarities, similarities)) - size
    return max(float(np.sqrt(max(squares / pairs - mean * mean, 0.0))), _MIN_SPREAD)


def rbf(similarities: FloatArray, bandwidth: float) -> FloatArray:
    """The Gaussian kernel of unit vectors, written in cosines: exp((s - 1) / bandwidth).

    ``|a - b|² = 2 - 2s``, so this is exp(-|a - b|² / (2 bandwidth)).

    Args:
        similarities: cosines, any shape. bandwidth: > 0, in units of cosine.
    """
    scaled = similarities - similarities.dtype.type(1)
    scaled *= similarities.dtype.type(1 / bandwidth)
    return np.exp(scaled, out=scaled)


def two_scale(similarities: FloatArray, bandwidth: float) -> FloatArray:
    """The mean of two Gaussian kernels, one 16 times narrower: what a passage shares, and what it says alone.

    ``(exp((s - 1) / bandwidth) + exp(16 (s - 1) / bandwidth)) / 2``. Under the broad one alone, a passage that is
    merely like a pick has nothing left to tell.

    Args:
        similarities: cosines, any shape. bandwidth: of the broad kernel, > 0, in units of cosine.
    """
    broad = rbf(similarities, bandwidth)
    narrow = np.square(broad)
    for _ in range(3):
        np.square(narrow, out=narrow)
    broad += narrow
    broad *= broad.dtype.type(0.5)
    return broad
