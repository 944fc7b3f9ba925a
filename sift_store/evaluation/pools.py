"""The candidates of each query of a set, found exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sift_store.evaluation.scenarios import Corpus

__all__ = ["Pool", "pools_of"]

_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """One query's candidates, best first.

    Attributes:
        query: (d,) or (m, d). vectors: (K, d). scores: (K,) cosine, float64. similarities: (K, K) cosines.
        origin: (K,) place of the passage that each candidate comes from. texts: of the candidates, where copies have
            texts of their own.
    """

    query: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float64]
    similarities: npt.NDArray[np.float32]
    origin: npt.NDArray[np.int64]
    texts: tuple[str, ...] | None = None


def pools_of(corpus: Corpus, queries: npt.NDArray[np.float32], rows: Sequence[int], candidates: int) -> Iterator[Pool]:
    """The nearest `candidates` of each query in `rows`, in that order, by comparing with every vector."""
    size = min(candidates, len(corpus.vectors))
    for start in range(0, len(rows), _BATCH):
        some = queries[list(rows[start : start + _BATCH])]
        scores = some @ corpus.vectors.T
        nearest = np.argpartition(-scores, size - 1, axis=1)[:, :size]
        for query, score, found in zip(some, scores, nearest, strict=True):
            found = found[np.lexsort((found, -score[found]))]
            vectors = corpus.vectors[found]
            similarities = vectors @ vectors.T
            np.fill_diagonal(similarities, 1)
            texts = None if corpus.texts is None else tuple(corpus.texts[row] for row in found.tolist())
            yield Pool(query, vectors, score[found].astype(np.float64), similarities, corpus.origin[found], texts)
