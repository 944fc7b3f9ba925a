"""Searches over Qdrant's two wires, side by side: the client's own, its MMR, LangChain's, sift-store; and the decoding.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 SIFT_STORE_DATA=… python benchmarks/qdrant.py search
    … python benchmarks/qdrant.py decode

The server is the tests' own, a process on the same machine: real sockets in front of Qdrant Edge. It keeps vectors
encoded, so that vectors cost it next to nothing, as they would the real server; the rest it does in Python, so that
every request costs some milliseconds more than at the real server. Real MiniLM embeddings, as in search.py; for 1024
dimensions the same, turned into the larger space, so that all similarities stay. All clients keep their connections,
all methods walk with ef 200.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import in_turns, report
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_qdrant import QdrantVectorStore
from pydantic_core import from_json
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest
from search import corpus, timed
from sift_store_qdrant.grpc_wire import GrpcWire
from sift_store_qdrant.rest_wire import RestWire
from sift_store_qdrant.work import Nearest

from sift_store import SiftStore
from sift_store.plan import DEFAULT_CANDIDATES

K = 10
ROUNDS = 10
PARAMS = models.SearchParams(hnsw_ef=DEFAULT_CANDIDATES)
TESTS = Path(__file__).parents[1] / "tests"


class NoEmbedder(Embeddings):
    """LangChain's stores want one; vectors are given here."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


@contextmanager
def server() -> Iterator[dict[str, int]]:
    """The server as a process of its own; its ports."""
    command = [sys.executable, "-m", "edge_server", "--fast"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        yield json.loads(running.stdout.readline())
        running.stdin.close()


def client(ports: dict[str, int], *, prefer_grpc: bool) -> QdrantClient:
    """One that keeps its connections, as it does by itself with any server but a local one."""
    return QdrantClient(
        url=f"http://127.0.0.1:{ports['port']}",
        grpc_port=ports["grpc_port"],
        prefer_grpc=prefer_grpc,
        timeout=600,
        check_compatibility=False,
        limits=httpx.Limits(max_keepalive_connections=20),
    )


def turned(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """The same similarities in more dimensions."""
    if vectors.shape[1] == dimension:
        return vectors
    square = np.random.default_rng(0).normal(size=(dimension, vectors.shape[1]))
    return (vectors @ np.linalg.qr(square)[0].T).astype(np.float32)


class OneWire:
    """All methods over one wire."""

    def __init__(self, ports: dict[str, int], name: str, *, prefer_grpc: bool) -> None:
        self.client, self.name = client(ports, prefer_grpc=prefer_grpc), name
        self.store = SiftStore.open(f"qdrant://?collection={name}", client=self.client)
        keys = {"content_payload_key": "text", "metadata_payload_key": "metadata"}
        self.langchain = QdrantVectorStore(
            self.client, name, NoEmbedder(), validate_embeddings=False, validate_collection_config=False, **keys
        )

    def ids(self, query: np.ndarray, limit: int = DEFAULT_CANDIDATES, **what: Any) -> Any:
        """As anybody would ask."""
        what = {"with_payload": False, **what}
        return self.client.query_points(self.name, query.tolist(), limit=limit, search_params=PARAMS, **what).points

    def engine_mmr(self, query: np.ndarray) -> Any:
        mmr = models.NearestQuery(
            nearest=query.tolist(), mmr=models.Mmr(diversity=0.5, candidates_limit=DEFAULT_CANDIDATES)
        )
        return self.client.query_points(self.name, mmr, limit=K, search_params=PARAMS, with_payload=True)

    def langchain_mmr(self, query: np.ndarray) -> Any:
        return self.langchain.max_marginal_relevance_search_by_vector(
            query.tolist(), k=K, fetch_k=DEFAULT_CANDIDATES, search_params=PARAMS
        )

    def langchain_core_mmr(self, query: np.ndarray) -> Any:
        """Vectors fetched, and LangChain's own function."""
        points = self.ids(query, with_vectors=True)
        picks = maximal_marginal_relevance(query, [point.vector for point in points], k=K)
        return self.client.retrieve(self.name, [points[pick].id for pick in picks])

    def methods(self) -> dict[str, Callable[[np.ndarray], Any]]:
        n = DEFAULT_CANDIDATES
        return {
            f"client, {n} ids": self.ids,
            f"client, {n} ids with vectors": lambda query: self.ids(query, with_vectors=True),
            f"client, nearest {K} with payload": lambda query: self.ids(query, K, with_payload=True),
            f"client, the engine's MMR, {K} of {n}": self.engine_mmr,
            f"langchain-qdrant MMR, {K} of {n}": self.langchain_mmr,
            f"LangChain's own function for MMR, {K} of {n}": self.langchain_core_mmr,
            f"sift-store nearest {K}": lambda query: self.store.search(vector=query, k=K, method="knn"),
            f"sift-store SIFT, {K} of {n}": lambda query: self.store.search(vector=query, k=K),
        }


def search(arguments: argparse.Namespace) -> None:
    """One search, by every method, over both wires."""
    rows: list[list[object]] = []
    stages = {}
    for dimension, size in zip(arguments.dimensions, arguments.sizes, strict=True):
        vectors, texts, queries = corpus(size)
        vectors, queries = turned(vectors, dimension), turned(queries[: arguments.queries], dimension)
        with server() as ports:
            with SiftStore.open("qdrant://?collection=b", client=client(ports, prefer_grpc=True)) as store:
                store.add(texts, ids=list(range(size)), vectors=vectors)
                store.optimize()
            wires = {"gRPC": OneWire(ports, "b", prefer_grpc=True), "REST": OneWire(ports, "b", prefer_grpc=False)}
            times: dict[tuple[str, str], list[float]] = {}
            methods = {(wire, name): call for wire, one in wires.items() for name, call in one.methods().items()}
            for one in wires.values():  # the server has read and encoded all that is asked for
                timed(lambda query, one=one: one.store.search(vector=query, k=K), queries)
            for part in np.array_split(queries, ROUNDS):
                for key, call in methods.items():
                    times.setdefault(key, []).extend(timed(call, part))
            for wire, one in wires.items():
                laps = [list(one.store.search(vector=query, k=K).timings.values()) for query in queries]
                stages[f"{wire}, {dimension}"] = np.median(np.array(laps), axis=0).tolist()
        p50 = {key: float(np.median(values)) for key, values in times.items()}
        for wire in wires:
            floor = p50[wire, f"client, {DEFAULT_CANDIDATES} ids"]
            theirs = p50[wire, f"langchain-qdrant MMR, {K} of {DEFAULT_CANDIDATES}"]
            for (over, name), median in p50.items():
                if over == wire:
                    p95 = float(np.percentile(times[over, name], 95))
                    ratio, faster = f"{median / floor:.2f}×", f"{theirs / median:.1f}×"
                    rows.append([f"{dimension}, {wire}", name, median, p95, ratio, faster])
    columns = ["", "", "p50 ms", "p95 ms", f"of the client's {DEFAULT_CANDIDATES} ids", "faster than langchain-qdrant"]
    sizes = ", ".join(
        f"{size:,} × {dimension}" for size, dimension in zip(arguments.sizes, arguments.dimensions, strict=True)
    )
    report("qdrant-search", f"One search over {sizes}, {arguments.queries} queries", columns, rows, stages_ms=stages)
    for wire, laps in stages.items():
        names = ("embed", "candidates", "select", "fetch")
        shown = ", ".join(f"{name} {lap:.2f}" for name, lap in zip(names, laps, strict=True))
        print(f"stages of SIFT, {wire}: {shown} ms")


def decode(arguments: argparse.Namespace) -> None:
    """From an answer's bytes to ids, scores and one float32 array."""
    rows = []
    for dimension in arguments.dimensions:
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(DEFAULT_CANDIDATES, dimension)).astype(np.float32)
        points = [
            grpc.ScoredPoint(
                id=grpc.PointId(num=place),
                score=0.5,
                vectors=grpc.VectorsOutput(vector=grpc.VectorOutput(dense=grpc.DenseVector(data=vector.tolist()))),
            )
            for place, vector in enumerate(vectors)
        ]
        answer = grpc.QueryBatchResponse(result=[grpc.BatchResult(result=points)])
        message = answer.SerializeToString()
        fields = [point.vectors.vector.dense.data for point in answer.result[0].result]
        ask = Nearest("b", (), "", dimension, with_vectors=True, alone=True)
        (found,) = GrpcWire().answer(ask, answer)
        assert (found.vectors == vectors).all()
        parsed = {
            "result": [
                {"points": [{"id": i, "score": 0.5, "vector": vector.tolist()} for i, vector in enumerate(vectors)]}
            ]
        }
        text = json.dumps(parsed).encode()
        calls: dict[str, Callable[[], Any]] = {
            "np.array over the protobuf field of each": lambda fields=fields: [
                np.array(field, dtype=np.float32) for field in fields
            ],
            "sift-store, gRPC: ids, scores, one array": lambda ask=ask, answer=answer: GrpcWire().answer(ask, answer),
            "protobuf's own parsing of the answer": lambda message=message: grpc.QueryBatchResponse.FromString(message),
            "qdrant-client's conversion to objects": lambda answer=answer: [
                GrpcToRest.convert_scored_point(point) for point in answer.result[0].result
            ],
            "sift-store, REST: ids, scores, one array": lambda ask=ask, parsed=parsed: RestWire().answer(ask, parsed),
            "JSON's own parsing of the answer": lambda text=text: from_json(text),
        }
        medians = in_turns(calls, seconds=1.0)
        floor = medians["np.array over the protobuf field of each"]
        rows += [[dimension, name, median, f"{median / floor:.2f}×"] for name, median in medians.items()]
    columns = ["dimensions", "", "p50 ms", "of np.array"]
    report("qdrant-decode", f"Decoding {DEFAULT_CANDIDATES} candidates with vectors", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["search", "decode"])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 50_000])
    parser.add_argument("--queries", type=int, default=300)
    arguments = parser.parse_args()
    {"search": search, "decode": decode}[arguments.what](arguments)


if __name__ == "__main__":
    main()
