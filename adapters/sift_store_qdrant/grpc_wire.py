"""Searching over gRPC: protobuf messages of our own making, and vectors taken from them as bytes, not as numbers.

qdrant-client's conversion of 200 × 1024 floats to Python objects takes 19 ms; the bytes are there at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from sift_store_qdrant.work import Found, Info, Nearest, PointKey, Query, Retrieve, Stored

__all__ = ["GrpcWire"]

_FUSIONS = {"rrf": grpc.Fusion.RRF, "dbsf": grpc.Fusion.DBSF}


class GrpcWire:
    """Asks as messages, answers as arrays. `send` gives what the client's stub gives: an answer, or an awaitable."""

    name = "gRPC"

    def send(self, client: Any, ask: Info | Nearest | Retrieve, seconds: float) -> Any:
        """Begin a request that must be answered within so many seconds."""
        limit = max(math.ceil(seconds), 1)  # the server counts whole seconds
        match ask:
            case Info():
                stub, message = (
                    client.grpc_collections.Get,
                    grpc.GetCollectionInfoRequest(collection_name=ask.collection),
                )
            case Nearest():
                queries = [_query(ask, query) for query in ask.queries]
                message = grpc.QueryBatchPoints(collection_name=ask.collection, query_points=queries, timeout=limit)
                stub = client.grpc_points.QueryBatch
            case Retrieve():
                message = grpc.GetPoints(
                    collection_name=ask.collection,
                    ids=[RestToGrpc.convert_extended_point_id(key) for key in ask.keys],
                    with_payload=_PAYLOAD,
                    with_vectors=_selector(ask.with_vectors, ask.using, ask.alone),
                    timeout=limit,
                )
                stub = client.grpc_points.Get
        return stub(message, timeout=seconds)

    def answer(self, ask: Info | Nearest | Retrieve, given: Any) -> Any:
        """What the ask is answered by."""
        match ask:
            case Info():
                return GrpcToRest.convert_collection_info(given.result)
            case Nearest():
                return [_found(batch.result, ask) for batch in given.result]
            case Retrieve():
                return [_stored(point, ask) for point in given.result]


_PAYLOAD = grpc.WithPayloadSelector(enable=True)
_NO_PAYLOAD = grpc.WithPayloadSelector(enable=False)


@cache
def _selector(wanted: bool, using: str, alone: bool) -> grpc.WithVectorsSelector:
    """The one vector that is wanted; by name unless there is no other, as the one without a name cannot be named."""
    if not wanted or alone or not using:
        return grpc.WithVectorsSelector(enable=wanted)
    return grpc.WithVectorsSelector(include=grpc.VectorsSelector(names=[using]))


def _query(ask: Nearest, query: Query) -> grpc.QueryPoints:
    dense = grpc.Query(nearest=grpc.VectorInput(dense=grpc.DenseVector(data=query.vector.tolist())))
    given: dict[str, Any] = {
        "query": dense,
        "using": ask.using or None,
        "filter": None if query.where is None else RestToGrpc.convert_filter(query.where),
        "params": RestToGrpc.convert_search_params(query.params),
        "limit": query.limit,
    }
    if query.sparse is not None:
        words = grpc.SparseVector(values=query.sparse.values, indices=query.sparse.indices)
        by_words = {
            "query": grpc.Query(nearest=grpc.VectorInput(sparse=words)),
            "using": ask.sparse,
            "filter": given["filter"],
            "limit": query.limit,
        }
        parts = [grpc.PrefetchQuery(**given), grpc.PrefetchQuery(**by_words)]
        given = {"prefetch": parts, "query": grpc.Query(fusion=_FUSIONS[ask.fusion]), "limit": query.limit}
    return grpc.QueryPoints(
        collection_name=ask.collection,
        with_payload=_NO_PAYLOAD,
        with_vectors=_selector(ask.with_vectors, ask.using, ask.alone),
        **given,
    )


def _key(id_: grpc.PointId) -> PointKey:
    return id_.uuid or id_.num


def _found(points: Sequence[grpc.ScoredPoint], ask: Nearest) -> Found:
    keys = [_key(point.id) for point in points]
    scores = np.array([point.score for point in points], dtype=np.float32)
    if not ask.with_vectors:
        return Found(keys, scores, None)
    whole = _length(ask.dimension)
    rows = [_bytes(point.vectors, ask.using) for point in points]
    if all(len(row) == whole for row in rows):
        return Found(keys, scores, _matrix(rows, ask.dimension))
    there = [place for place, row in enumerate(rows) if len(row) == whole]
    if any(0 < len(row) != whole for row in rows):
        raise ValueError(f"a vector has another dimension than {ask.dimension}")
    vectors = _matrix([rows[place] for place in there], ask.dimension)
    return Found([keys[place] for place in there], scores[there], vectors, len(rows) - len(there))


def _dense(floats: Sequence[float]) -> bytes:
    """A vector as the protocol writes it: what it is, how long, then its floats, little-endian."""
    return cast(bytes, grpc.DenseVector(data=floats).SerializeToString())


@cache
def _length(dimension: int) -> int:
    """Bytes of a vector so written."""
    return len(_dense([0.0] * dimension))


def _bytes(vectors: grpc.VectorsOutput, using: str) -> bytes:
    """A point's vector so written. Empty if there is none."""
    vector = _output(vectors, using)
    if vector is None:
        return b""
    if vector.HasField("dense"):
        return cast(bytes, vector.dense.SerializeToString())
    return _dense(vector.data) if vector.data else b""  # servers before 1.16


def _output(vectors: grpc.VectorsOutput, using: str) -> grpc.VectorOutput | None:
    if vectors.HasField("vector"):
        return vectors.vector
    named: Mapping[str, grpc.VectorOutput] = vectors.vectors.vectors
    return named.get(using)  # named[using] would make it


def _matrix(rows: Sequence[bytes], dimension: int) -> npt.NDArray[np.float32]:
    size = 4 * dimension
    floats = np.frombuffer(b"".join([row[-size:] for row in rows]), dtype="<f4").reshape(len(rows), dimension)
    return floats.astype(np.float32)  # a copy: what is decoded can be written to


def _stored(point: grpc.RetrievedPoint, ask: Retrieve) -> Stored:
    vector = _output(point.vectors, ask.using) if ask.with_vectors else None
    floats = None if vector is None else np.array(vector.dense.data or vector.data, dtype=np.float32)
    return Stored(_key(point.id), GrpcToRest.convert_payload(point.payload), floats)
