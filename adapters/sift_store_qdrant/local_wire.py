"""Searching in a client's local mode (`QdrantClient(":memory:")` or a path): no wire, its methods are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from sift_store_qdrant.work import Found, Info, Nearest, Query, Retrieve, Stored

__all__ = ["LocalWire"]


class LocalWire:
    """As `GrpcWire`, without a server. The client compares with every vector, in Python's own time."""

    name = "local mode"

    def send(self, client: Any, ask: Info | Nearest | Retrieve, seconds: float) -> Any:  # noqa: ARG002  # it cannot be stopped
        """Call the client's method; of an asynchronous client an awaitable."""
        match ask:
            case Info():
                return client.get_collection(ask.collection)
            case Nearest():
                return client.query_batch_points(ask.collection, [_request(ask, query) for query in ask.queries])
            case Retrieve():
                return client.retrieve(
                    ask.collection,
                    list(ask.keys),
                    with_payload=True,
                    with_vectors=_selector(ask.with_vectors, ask.using),
                )

    def answer(self, ask: Info | Nearest | Retrieve, given: Any) -> Any:
        """What the ask is answered by."""
        match ask:
            case Info():
                return given
            case Nearest():
                return [_found(part.points, ask) for part in given]
            case Retrieve():
                return [Stored(_key(point.id), point.payload or {}, _vector(point, ask.using)) for point in given]


def _selector(wanted: bool, using: str) -> bool | list[str]:
    return [using] if wanted and using else wanted


def _request(ask: Nearest, query: Query) -> models.QueryRequest:
    wanted = _selector(ask.with_vectors, ask.using)
    given: dict[str, Any] = {"limit": query.limit, "with_payload": False, "with_vector": wanted}
    dense: dict[str, Any] = {"query": query.vector.tolist(), "using": ask.using or None, "filter": query.where}
    if query.sparse is None:
        return models.QueryRequest(**dense, **given)
    prefetch = [
        models.Prefetch(**dense, limit=query.limit),
        models.Prefetch(query=query.sparse, using=ask.sparse, filter=query.where, limit=query.limit),
    ]
    return models.QueryRequest(prefetch=prefetch, query=models.FusionQuery(fusion=models.Fusion(ask.fusion)), **given)


def _found(points: Sequence[models.ScoredPoint], ask: Nearest) -> Found:
    keys = [_key(point.id) for point in points]
    scores = np.array([point.score for point in points], dtype=np.float32)
    if not ask.with_vectors:
        return Found(keys, scores, None)
    rows = [_vector(point, ask.using) for point in points]
    there = [place for place, row in enumerate(rows) if row is not None]
    vectors = np.array([rows[place] for place in there], dtype=np.float32).reshape(len(there), ask.dimension)
    return Found([keys[place] for place in there], scores[there], vectors, len(rows) - len(there))


def _vector(point: Any, using: str) -> Any:
    held = point.vector
    return held.get(using) if isinstance(held, dict) else held


def _key(id_: Any) -> int | str:
    return id_ if isinstance(id_, int) else str(id_)
