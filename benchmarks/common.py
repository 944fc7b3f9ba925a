"""What the benchmarks share: real embeddings computed once, medians, tables, results as JSON."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from sift_store.embedding import as_embedding
from sift_store.evaluation import VectorCache
from sift_store.jsonl import read_jsonl

RESULTS = Path(__file__).parent / "results"
THREADS = {name: os.environ.get(name, "unset") for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}


def data_folder() -> Path:
    """The folder with retrieval/<set>/corpus.jsonl, from SIFT_STORE_DATA."""
    folder = Path(os.environ.get("SIFT_STORE_DATA", ""))
    if not os.environ.get("SIFT_STORE_DATA") or not (folder / "retrieval").is_dir():
        sys.exit("set SIFT_STORE_DATA to a folder that holds retrieval/<set>/corpus.jsonl and queries.jsonl")
    return folder


def texts_of(dataset: str, name: str) -> list[str]:
    """Texts of a set's corpus.jsonl or queries.jsonl, titles before them."""
    rows = read_jsonl(data_folder() / "retrieval" / dataset / f"{name}.jsonl")
    return [f"{row.get('title') or ''} {row['text']}".strip() or "-" for _, row in rows]


def embeddings(texts: Sequence[str], what: str) -> npt.NDArray[np.float32]:
    """MiniLM's vectors of the texts, computed once and kept by the hash of the texts."""
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    cached = RESULTS / f"embeddings-{key}.npy"
    if cached.is_file():
        return np.load(cached)
    embedding = as_embedding("minilm")
    assert embedding is not None
    vectors = embedding.documents(
        texts, lambda done, total: print(f"\rembedding {what}: {done}/{total}", end="", file=sys.stderr)
    )
    print(file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    np.save(cached, vectors)
    return vectors


def asked_vectors() -> VectorCache:
    """The embedder that --embedder names (minilm), with what `make quality` has embedded by it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--embedder", default="minilm")
    embedding = as_embedding(parser.parse_args().embedder)
    assert embedding is not None
    return VectorCache(embedding, RESULTS / "quality" / "vectors")


def in_turns(calls: dict[str, Callable[[], Any]], seconds: float, turns: int = 5) -> dict[str, float]:
    """Median milliseconds of each call, `seconds` for each, in turns: all meet the same moods of the machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(turns):
        for name, call in calls.items():
            end = time.perf_counter() + seconds / turns
            while True:
                start = time.perf_counter()
                call()
                now = time.perf_counter()
                times[name].append((now - start) * 1e3)
                if now >= end:
                    break
    return {name: float(np.median(values)) for name, values in times.items()}


def report(name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], **more: Any) -> None:
    """Print a table and write it, with versions and thread counts, to benchmarks/results/<name>.json."""
    table = Table(title=f"{title}\n{cpu()}, threads: {THREADS}")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*map(_shown, row))
    Console(width=140).print(table)
    RESULTS.mkdir(exist_ok=True)
    content = {
        "title": title,
        "cpu": cpu(),
        "threads": THREADS,
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        **more,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(_markdown(columns, rows), encoding="utf-8")
    print(f"written: benchmarks/results/{name}.json and .md")


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *([_shown(cell) for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.2f}" if cell < 10 else f"{cell:.1f}" if cell < 100 else f"{cell:.0f}"
    return str(cell)


_PACKAGES = (
    "sift-store",
    "numpy",
    "qdrant-edge-py",
    "activeft",
    "torch",
    "langchain-core",
    "llama-index-core",
    "pyversity",
)


def cpu() -> str:
    """The processor's name and how many cores are at hand."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
