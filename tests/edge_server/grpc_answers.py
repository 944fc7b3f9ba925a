"""Answers with points in protobuf, put together as bytes, so that vectors which are kept need no second encoding."""

from __future__ import annotations

from typing import Any

import qdrant_edge as q
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import payload_to_grpc

from edge_server.engine import Found

__all__ = ["FIRST", "SECOND", "encode", "field", "point_id", "record", "scored"]

# Tags of fields that hold messages, by the field's number.
FIRST, SECOND, FOURTH, SIXTH = b"\x0a", b"\x12", b"\x22", b"\x32"


def field(tag: bytes, content: bytes) -> bytes:
    """A message within a message: its tag, its length as a varint, itself."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"".join((tag, length, content))


def _vector(vector: Any) -> pb.VectorOutput:
    if isinstance(vector, q.SparseVector):
        return pb.VectorOutput(sparse=pb.SparseVector(values=vector.values, indices=vector.indices))
    if vector and isinstance(vector[0], list):
        return pb.VectorOutput(multi_dense=pb.MultiDenseVector(vectors=[pb.DenseVector(data=row) for row in vector]))
    return pb.VectorOutput(dense=pb.DenseVector(data=vector))


def encode(vectors: Any) -> bytes:
    """All vectors of a point, a `VectorsOutput`."""
    if isinstance(vectors, dict):
        named = pb.NamedVectorsOutput(vectors={name: _vector(vector) for name, vector in vectors.items()})
        return pb.VectorsOutput(vectors=named).SerializeToString()
    return pb.VectorsOutput(vector=_vector(vectors)).SerializeToString()


def point_id(id_: Any) -> pb.PointId:
    return pb.PointId(num=id_) if isinstance(id_, int) else pb.PointId(uuid=str(id_))


def scored(found: Found) -> bytes:
    payload = payload_to_grpc(found.payload or {})
    point = pb.ScoredPoint(id=point_id(found.id), payload=payload, score=found.score, version=found.version)
    vectors = b"" if found.vector is None else field(SIXTH, found.vector)
    return field(FIRST, point.SerializeToString() + vectors)


def record(tag: bytes, found: Found) -> bytes:
    point = pb.RetrievedPoint(id=point_id(found.id), payload=payload_to_grpc(found.payload or {}))
    vectors = b"" if found.vector is None else field(FOURTH, found.vector)
    return field(tag, point.SerializeToString() + vectors)
