"""What the benchmarks share: real embeddings computed once, medians, tables, results as JSON."""

from __future__ import annotations

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
    lines = (data_folder() / "retrieval" / dataset / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [f"{row.get('title') or ''} {row['text']}".strip() or "-" for row in rows]


def embeddings(texts: Sequence[str], what: str) -> npt.NDArray[np.float32]:
    """MiniLM's vectors of the texts, computed once and kept by the hash of the texts."""
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    cached = RESULTS / f"embeddings-{key}.npy"
    if cached.is_file():
        return np.load(cached)
    from sift_store.embedding import as_embedding

    embedding = as_embedding("minilm")
    assert embedding is not None
    vectors = embedding.documents(
        texts, lambda done, total: print(f"\rembedding {what}: {done}/{total}", end="", file=sys.stderr)
    )
    print(file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    np.save(cached, vectors)
    return vectors


def milliseconds(call: Callable[[], Any], seconds: float = 1.0, least: int = 3, most: int = 1000) -> float:
    """Median time of a call: as many repeats as fit in `seconds`, one warm-up before."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < most):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def report(name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], **more: Any) -> None:
    """Print a table and write it, with versions and thread counts, to benchmarks/results/<name>.json."""
    table = Table(title=f"{title}\n{cpu()}, threads: {THREADS}")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row))
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
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(f"written: benchmarks/results/{path.name}")


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
