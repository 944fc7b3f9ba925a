"""A whole search on the embedded store, side by side with the engine's own queries and LangChain's way to MMR.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 SIFT_STORE_DATA=… python benchmarks/search.py

100,000 × 384 embeddings: MiniLM on the real passages of five sets, tiled with jitter where they are too few. The
query's vector is given, so embedding is not in these times; it is timed apart. The same ef for all.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as q
from common import RESULTS, embeddings, report, texts_of
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from sift_store_edge.vectors import VectorCache

from sift_store import SiftStore
from sift_store.embedding import as_embedding
from sift_store.plan import DEFAULT_CANDIDATES

SETS = ("hotpotqa_big", "2wiki_all", "entailmentbank", "perspectrum", "cranfield")
K = 10
ROUNDS = 10


def corpus(size: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Vectors, texts and query vectors."""
    vectors = np.concatenate([embeddings(texts_of(name, "corpus"), name) for name in SETS])
    texts = [text for name in SETS for text in texts_of(name, "corpus")]
    queries = np.concatenate([embeddings(texts_of(name, "queries"), name) for name in SETS])
    rng = np.random.default_rng(0)
    rows = np.arange(size) % len(vectors)
    jitter = rng.normal(size=(size, vectors.shape[1])).astype(np.float32)
    jitter *= 0.3 / np.linalg.norm(jitter, axis=1, keepdims=True)
    jitter[: len(vectors)] = 0
    tiled = vectors[rows] + jitter
    names = [texts[row] if place < len(texts) else f"{texts[row]} ({place})" for place, row in enumerate(rows)]
    return tiled / np.linalg.norm(tiled, axis=1, keepdims=True), names, rng.permutation(queries)


def filled(path: Path, vectors: np.ndarray, texts: list[str]) -> tuple[SiftStore, dict[str, float]]:
    """The store with its index built, and how long each step took; an existing one is used again."""
    steps: dict[str, float] = {}
    if not path.exists():
        with SiftStore.open(path) as store:
            start = time.perf_counter()
            store.add(texts, ids=list(range(len(texts))), vectors=vectors)
            steps["add, s"] = time.perf_counter() - start
            start = time.perf_counter()
            store.optimize(wait=False)
            pauses = []
            while store._context.adapter.statistics().building:
                pauses += timed(lambda query: store.search(vector=query, k=K), vectors[:1])
                time.sleep(0.02)
            store.optimize()
            steps["build the index, s"] = time.perf_counter() - start
            steps["searches meanwhile, p50 ms"] = float(np.median(pauses))
            steps["the longest of them, ms"] = max(pauses)
    start = time.perf_counter()
    store = SiftStore.open(path)
    steps["open, s"] = time.perf_counter() - start
    return store, steps


def timed(call: Callable[[np.ndarray], Any], queries: np.ndarray) -> list[float]:
    """Milliseconds of each query."""
    times = []
    for query in queries:
        start = time.perf_counter()
        call(query)
        times.append((time.perf_counter() - start) * 1e3)
    return times


def recall(walk: Callable[[np.ndarray, int], Any], vectors: np.ndarray, queries: np.ndarray) -> tuple[float, float]:
    """Share of the true nearest 10 and 200 among the 200 that a walk finds."""
    shares = []
    for query in queries:
        found = {point.id for point in walk(query, 200)}
        truth = np.argsort(-(vectors @ query))[:200].tolist()
        shares.append((len(found & set(truth[:10])) / 10, len(found & set(truth)) / 200))
    ten, many = np.mean(shares, axis=0).tolist()
    return ten, many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--fresh", action="store_true", help="build the store anew")
    arguments = parser.parse_args()
    vectors, texts, queries = corpus(arguments.size)
    queries = queries[: arguments.queries]
    path = RESULTS / f"search-{arguments.size}.sift"
    if arguments.fresh and path.exists():
        shutil.rmtree(path)
    store, steps = filled(path, vectors, texts)
    adapter = store._context.adapter
    shard = adapter._serving().shard  # type: ignore[attr-defined]  # the engine below, for its own queries
    ef = store.search(vector=queries[0], k=K).plan.ef
    params = q.SearchParams(hnsw_ef=ef)

    def engine(query: np.ndarray, limit: int, walk: int | None = ef, **what: Any) -> list[q.ScoredPoint]:
        walking = q.SearchParams(hnsw_ef=walk)
        return shard.query(q.QueryRequest(limit=limit, query=q.Query.Nearest(query.tolist()), params=walking, **what))

    def engine_mmr(query: np.ndarray) -> Any:
        choice = q.Mmr(query.tolist(), 0.5, DEFAULT_CANDIDATES)
        return shard.query(q.QueryRequest(limit=K, query=choice, params=params, with_payload=True))

    def langchain_mmr(query: np.ndarray) -> Any:
        points = engine(query, DEFAULT_CANDIDATES, with_vector=True, with_payload=True)
        rows = maximal_marginal_relevance(query, [point.vector for point in points], 0.5, K)
        return [points[row].payload for row in rows]

    def forgetful(query: np.ndarray) -> Any:
        kept = adapter._cache  # type: ignore[attr-defined]
        adapter._cache = VectorCache(vectors.shape[1])  # type: ignore[attr-defined]
        hits = store.search(vector=query, k=K)
        adapter._cache = kept  # type: ignore[attr-defined]
        return hits

    methods: dict[str, Callable[[np.ndarray], Any]] = {
        f"engine, {DEFAULT_CANDIDATES} ids": lambda query: engine(query, DEFAULT_CANDIDATES),
        f"engine, nearest {K} with text": lambda query: engine(query, K, with_payload=True),
        f"engine MMR, {K} of {DEFAULT_CANDIDATES} with text": engine_mmr,
        f"LangChain-style MMR, {K} of {DEFAULT_CANDIDATES} with text": langchain_mmr,
        f"sift-store nearest {K}": lambda query: store.search(vector=query, k=K, method="knn"),
        f"sift-store SIFT, {K} of {DEFAULT_CANDIDATES}": lambda query: store.search(vector=query, k=K),
        f"sift-store SIFT, {K} of {DEFAULT_CANDIDATES}, no vectors kept": forgetful,
    }
    for call in methods.values():
        timed(call, queries)
    times: dict[str, list[float]] = {}
    for part in np.array_split(queries, ROUNDS):  # in turns, so that all meet the same moods of the machine
        for name, call in methods.items():
            times.setdefault(name, []).extend(timed(call, part))
    p50, p95 = ({name: float(np.percentile(values, at)) for name, values in times.items()} for at in (50, 95))
    floor, slow = p50[f"engine, {DEFAULT_CANDIDATES} ids"], p50[next(name for name in times if "LangChain" in name)]
    rows = [[name, p50[name], p95[name], f"{p50[name] / floor:.2f}×", f"{slow / p50[name]:.1f}×"] for name in times]
    stages = np.array([list(store.search(vector=query, k=K).timings.values()) for query in queries])
    recalls = {
        walk: recall(lambda query, limit, walk=walk: engine(query, limit, walk), vectors, queries[:100])
        for walk in (ef, 2 * ef)
    }
    report(
        "search",
        f"One search over {arguments.size:,} × 384, HNSW, ef {ef}, {len(queries)} queries",
        ["", "p50 ms", "p95 ms", f"of the engine's {DEFAULT_CANDIDATES} ids", "faster than LangChain-style"],
        rows,
        steps=steps,
        stages_ms=dict(
            zip(["embed", "candidates", "select", "fetch"], np.median(stages, axis=0).tolist(), strict=True)
        ),
        recall={f"ef {walk}": dict(zip(("@10", "@200"), found, strict=True)) for walk, found in recalls.items()},
    )
    embedding = as_embedding("minilm")
    assert embedding is not None
    asked = [text for name in SETS for text in texts_of(name, "queries")[:20]]
    print(f"embedding a query, median ms: {np.median(timed(lambda text: embedding.query(text), asked)):.1f}")  # type: ignore[arg-type]
    print("steps:", {name: round(value, 2) for name, value in steps.items()})
    print(
        "stages, median ms:",
        dict(zip(["embed", "candidates", "select", "fetch"], np.median(stages, axis=0).round(3).tolist(), strict=True)),
    )
    for walk, (ten, many) in recalls.items():
        print(f"the index walk with ef {walk} finds {ten:.3f} of the nearest 10 and {many:.3f} of the nearest 200")
    store.close()


if __name__ == "__main__":
    main()
