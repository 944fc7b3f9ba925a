"""The choice among passages that somebody else retrieved: what a search does after its candidates have come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sift_store.adapter import Key, Statistics
from sift_store.answering import make_hits
from sift_store.choosing import choose_steps
from sift_store.context import CandidatePool, Context, InUse
from sift_store.errors import InvalidInputError
from sift_store.kernels import unit_rows
from sift_store.memory import MemoryAdapter
from sift_store.plan import Request, make_plan
from sift_store.records import Record
from sift_store.results import Hits
from sift_store.store import run

__all__ = ["rerank"]

_OPTIONS = frozenset(
    {"kernel", "lambda_", "max_tokens", "method", "min_score", "objective", "order", "replace", "target_variance"}
)


def rerank(
    candidates: Sequence[Record],
    query: npt.ArrayLike,
    k: int | None = None,
    *,
    relevance: npt.ArrayLike | None = None,
    **options: Any,
) -> Hits:
    """Choose among records at hand as `SiftStore.search` chooses among its candidates: copies out, overlaps out, SIFT.

    Args:
        candidates: each with its vector. query: (d,), or (m, d) for several sub-queries. k: most hits, default 5.
        relevance: (n,) scores of another retriever or a reranker; default the cosine to the query. They become
            `Hit.score`, weigh the candidates after scaling to the spread of the cosines, and make their `Hit.rank`.
        options: the other arguments of a search that have a meaning here: method, objective, replace, max_tokens,
            min_score, target_variance, kernel, lambda_, order.

    Raises:
        InvalidInputError: a record without a vector; else as `SiftStore.search`.
    """
    without_meaning = sorted(options.keys() - _OPTIONS)
    if without_meaning:
        raise InvalidInputError(
            f"rerank: {without_meaning[0]}= has no meaning for candidates at hand; {', '.join(sorted(_OPTIONS))} have"
        )
    request = Request(k=k, **options)
    without = [record.id for record in candidates if record.vector is None]
    if without:
        raise InvalidInputError(f"candidates: {len(without)} of {len(candidates)} have no vector, first {without[0]!r}")
    started = time.perf_counter()
    targets = unit_rows(query, "query").astype(np.float32, copy=False)
    pool = _pool(candidates, targets, relevance)
    dimension = None if pool.vectors is None or not len(pool.vectors) else pool.vectors.shape[1]
    statistics = Statistics(len(candidates), 0, dimension, "cosine", {}, None)
    plan = make_plan(request, statistics)
    context = Context(MemoryAdapter({}), InUse(None, 0), None, {})
    choice = run(choose_steps(context, pool, request, plan))
    timings = {"select": (time.perf_counter() - started) * 1e3}
    return make_hits(pool, choice, request, plan, statistics, timings)


def _pool(
    candidates: Sequence[Record], targets: npt.NDArray[np.float32], relevance: npt.ArrayLike | None
) -> CandidatePool:
    """The candidates by descending relevance, their texts there already."""
    keys = cast("list[Key]", list(range(len(candidates))))
    empty = np.empty((0, targets.shape[1]), np.float32)
    rows = [record.vector for record in candidates if record.vector is not None]
    vectors = unit_rows(rows, "vectors of the candidates", targets.shape[1]).astype(np.float32) if rows else empty
    scores = (vectors @ targets.T).max(axis=1) if relevance is None else np.asarray(relevance, dtype=np.float32)
    if scores.shape != (len(candidates),) or not np.isfinite(scores).all():
        raise InvalidInputError(
            f"relevance: {scores.shape} given, a finite number for each of {len(candidates)} wanted"
        )
    order = np.argsort(-scores, kind="stable")
    records: dict[int, Record | None] = {place: candidates[row] for place, row in enumerate(order.tolist())}
    return CandidatePool(
        keys, scores[order], vectors[order], targets, None, 0, fused=relevance is not None, records=records
    )
