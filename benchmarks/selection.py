"""Selection side by side with what people use instead, in one process.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 SIFT_STORE_DATA=… python benchmarks/selection.py

Pools are the nearest passages of real queries (MiniLM on HotpotQA); 1024 dimensions are the same vectors through an
orthonormal map, which keeps every similarity.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from activeft.acquisition_functions.lazy_vtl import LazyVTL
from activeft.acquisition_functions.vtl import VTL
from activeft.active_data_loader import ActiveDataLoader
from activeft.sift import Dataset
from common import embeddings, in_turns, report, texts_of
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from pyversity import Strategy, diversify

from sift_store import select

LAMBDA = 0.01


def activeft_exact(pool: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    """activeft's VTL as its Retriever sets it up: exact, one thread."""
    rule = VTL(
        target=torch.tensor(query[None]),
        num_workers=1,
        subsample=False,
        force_nonsequential=False,
        noise_std=float(np.sqrt(LAMBDA)),
    )
    loader = ActiveDataLoader(Dataset(torch.tensor(pool)), batch_size=k, acquisition_function=rule)
    return [int(index) for index in loader.next()[0]]


def activeft_fast(pool: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    """activeft's lazy variant as its Retriever sets it up with fast=True."""
    rule = LazyVTL(target=torch.tensor(query[None]), num_workers=1, subsample=False, noise_std=float(np.sqrt(LAMBDA)))
    loader = ActiveDataLoader(Dataset(torch.tensor(pool)), batch_size=k, acquisition_function=rule)
    return [int(index) for index in loader.next()[0]]


def greedy_threshold(pool: np.ndarray, query: np.ndarray, k: int, threshold: float = 0.9) -> list[int]:
    """By score, skipping what is too similar to a pick."""
    picks: list[int] = []
    for row in np.argsort(-(pool @ query)).tolist():
        if not picks or float((pool[picks] @ pool[row]).max()) < threshold:
            picks.append(row)
            if len(picks) == k:
                break
    return picks


def methods(pool: np.ndarray, query: np.ndarray, k: int) -> dict[str, Callable[[], Any]]:
    scores = pool @ query
    as_lists, query_list = pool.tolist(), query.tolist()
    small = len(pool) <= 1000
    everything: dict[str, Callable[[], Any] | None] = {
        'sift-store "query"': lambda: select(pool, query, k, objective="query", lambda_=LAMBDA, replace=True),
        'sift-store "pool"': lambda: select(pool, query, k),
        "activeft exact": (lambda: activeft_exact(pool, query, k)) if small else None,
        "activeft fast": (lambda: activeft_fast(pool, query, k)) if small else None,
        "LangChain MMR": (lambda: maximal_marginal_relevance(query, as_lists, 0.5, k)) if small else None,
        "LlamaIndex MMR": (lambda: get_top_k_mmr_embeddings(query_list, as_lists, similarity_top_k=k))
        if small
        else None,
        "pyversity MMR": lambda: diversify(pool, scores, k, Strategy.MMR, diversity=0.5),
        "pyversity DPP": lambda: diversify(pool, scores, k, Strategy.DPP, diversity=0.5),
        "greedy threshold": lambda: greedy_threshold(pool, query, k),
        'floor of "pool": numpy\'s pool @ pool.T': lambda: pool @ pool.T,
    }
    return {name: call for name, call in everything.items() if call is not None}


def same_picks(pool: np.ndarray, query: np.ndarray, k: int) -> int:
    """Picks of "query" that are activeft's, counted up to the first that differs."""
    ours = select(pool, query, k, objective="query", lambda_=LAMBDA, replace=True).indices.tolist()
    theirs = activeft_exact(pool, query, k)
    return next((place for place, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), k)


def memory_of_query(sizes: tuple[int, ...], dimension: int, k: int) -> list[list[object]]:
    """Peak memory that "query" allocates, beside the pool itself, against K·(d + k) floats."""
    rows: list[list[object]] = []
    rng = np.random.default_rng(0)
    for size in sizes:
        pool = rng.normal(size=(size, dimension)).astype(np.float32)
        pool /= np.linalg.norm(pool, axis=1, keepdims=True)
        query = pool[0] + 0.1 * pool[1]
        tracemalloc.start()
        select(pool, query, k, objective="query")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows.append([size, peak / 2**20, peak / (size * (dimension + k) * 4), size * size * 4 / 2**20])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each cell")
    seconds = parser.parse_args().seconds
    corpus = embeddings(texts_of("hotpotqa_big", "corpus"), "HotpotQA passages")
    queries = embeddings(texts_of("hotpotqa_big", "queries"), "HotpotQA queries")
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(1024, 384)))[0].astype(np.float32).T
    shapes = [(K, d, k) for K in (200, 1000, 10000) for d in (384, 1024) for k in (10, 50)]
    rows: list[list[object]] = []
    names: list[str] = []
    for size, dimension, k in shapes:
        query = queries[7]
        pool = corpus[np.argsort(-(corpus @ query))[:size]]
        if dimension == 1024:
            pool, query = pool @ basis, query @ basis
        pool = np.ascontiguousarray(pool / np.linalg.norm(pool, axis=1, keepdims=True))
        times = in_turns(methods(pool, query, k), seconds)
        names = names or list(times)
        same = f"{same_picks(pool, query, k)}/{k}" if size <= 1000 else ""
        rows.append([f"{size} × {dimension}, {k}", *(times.get(name, "") for name in names), same])
    columns = ["K × d, k", *names, 'picks of "query" that are activeft\'s']
    report("selection", "Milliseconds, median, to choose k of K candidates of d dimensions", columns, rows)
    memory = memory_of_query((1000, 10_000, 100_000), 384, 50)
    columns = ["K", 'peak MiB of "query"', "floats per K·(d + k)", "a K×K matrix, MiB"]
    report("selection_memory", 'Memory of objective "query", d=384, k=50', columns, memory)


if __name__ == "__main__":
    main()
