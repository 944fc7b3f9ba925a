"""What a list in a filter costs: SIFT over passages without payload index, lists of 1 to 10,000 values, each store.

    python benchmarks/filters.py

Stores take turns; medians. PostgreSQL and Qdrant are the tests' own, on the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]

import postgres_server  # noqa: E402  # found by the line above
import qdrant_server  # noqa: E402

from sift_store import SiftStore  # noqa: E402

LENGTHS = (1, 10, 100, 1_000, 10_000)
DIMENSION = 32


@contextmanager
def stores(count: int) -> Iterator[dict[str, SiftStore]]:
    rng = np.random.default_rng(0)
    texts, ids = [f"text {place}" for place in range(count)], list(range(count))
    numbers = rng.integers(0, 100_000, size=count).tolist()
    payloads = [{"number": number, "word": f"w{number}", "share": number + 0.5} for number in numbers]
    vectors = rng.normal(size=(count, DIMENSION))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(postgres_server.any_server())
        database = stack.enter_context(server.database())
        qdrant = stack.enter_context(qdrant_server.any_server())
        name = stack.enter_context(qdrant.name())
        places = {
            "memory": "memory://",
            "embedded": f"{folder}/filters.sift",
            "PostgreSQL": server.url(database, collection="filters"),
            "Qdrant, gRPC": qdrant.url(name),
        }
        opened = {kind: stack.enter_context(SiftStore.open(place)) for kind, place in places.items()}
        for store in opened.values():
            store.add(texts, ids=ids, payloads=payloads, vectors=vectors)
        yield opened


def measure(opened: dict[str, SiftStore], key: str, values: list[object], repeats: int) -> dict[str, float]:
    query = np.ones(DIMENSION)
    where = {key: {"$in": values}}
    taken: dict[str, list[float]] = {kind: [] for kind in opened}
    for _ in range(repeats):
        for kind, store in opened.items():
            start = time.perf_counter()
            store.search(vector=query, k=5, where=where)
            taken[kind].append((time.perf_counter() - start) * 1e3)
    return {kind: statistics.median(times) for kind, times in taken.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--passages", type=int, default=20_000)
    arguments.add_argument("--repeats", type=int, default=7)
    given = arguments.parse_args()
    with stores(given.passages) as opened:
        print(f"| {given.passages:,} × {DIMENSION}, ms | {' | '.join(opened)} |")
        print("| --- |" + " ---: |" * len(opened))
        rng = np.random.default_rng(1)
        for key, made in (("number", int), ("word", "w{}".format), ("share", lambda number: number + 0.5)):
            for length in LENGTHS:
                values = [made(number) for number in rng.integers(0, 100_000, size=length).tolist()]
                row = measure(opened, key, values, given.repeats)
                print(f"| {key}, {length:,} | " + " | ".join(f"{row[kind]:.1f}" for kind in opened) + " |", flush=True)


if __name__ == "__main__":
    main()
