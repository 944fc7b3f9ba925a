"""Searching over REST: JSON parsed to lists and put into one array, with no objects in between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

import numpy as np
from pydantic_core import to_json
from qdrant_client import models

from sift_store_qdrant.work import Found, Info, Nearest, Query, Retrieve, Stored

__all__ = ["RestWire"]

# Compressed, a small answer comes in two pieces, of which the second waits 40 ms for an acknowledgement.
_PLAIN = {"Accept-Encoding": "identity"}
_HEADERS = {"Content-Type": "application/json", **_PLAIN}


class RestWire:
    """As `GrpcWire`, over HTTP."""

    name = "REST"

    def send(self, client: Any, ask: Info | Nearest | Retrieve, seconds: float) -> Any:
        """Begin a request; each of its steps (connecting, sending, waiting) must be done within so many seconds."""
        place = f"/collections/{quote(ask.collection, safe='')}"
        if isinstance(ask, Info):
            limit = max(seconds, 1e-3)
            return client.http.client.request(type_=Any, method="GET", url=place, headers=_PLAIN, timeout=limit)
        if isinstance(ask, Nearest):
            place += "/points/query/batch"
            body: dict[str, Any] = {"searches": [_query(ask, query) for query in ask.queries]}
        else:
            place += "/points"
            wanted = _selector(ask.with_vectors, ask.using, ask.alone)
            body = {"ids": list(ask.keys), "with_payload": True, "with_vector": wanted}
        return client.http.client.request(
            type_=Any,
            method="POST",
            url=f"{place}?timeout={max(math.ceil(seconds), 1)}",  # the server counts whole seconds
            headers=_HEADERS,
            content=to_json(body, exclude_none=True),
            timeout=max(seconds, 1e-3),
        )

    def answer(self, ask: Info | Nearest | Retrieve, given: Any) -> Any:
        """What the ask is answered by."""
        match ask:
            case Info():
                return models.CollectionInfo.model_validate(given["result"])
            case Nearest():
                return [_found(part["points"], ask) for part in given["result"]]
            case Retrieve():
                return [_stored(point, ask) for point in given["result"]]


def _selector(wanted: bool, using: str, alone: bool) -> bool | list[str]:
    """The one vector that is wanted; by name unless there is no other, as the one without a name cannot be named."""
    return [using] if wanted and using and not alone else wanted


def _query(ask: Nearest, query: Query) -> dict[str, Any]:
    part: dict[str, Any] = {
        "query": query.vector.tolist(),
        "using": ask.using or None,
        "filter": query.where,
        "params": query.params,
        "limit": query.limit,
    }
    if query.sparse is not None:
        by_words = {"query": query.sparse, "using": ask.sparse, "filter": query.where, "limit": query.limit}
        part = {"prefetch": [part, by_words], "query": {"fusion": ask.fusion}, "limit": query.limit}
    wanted = _selector(ask.with_vectors, ask.using, ask.alone)
    return {**part, "with_payload": False, "with_vector": wanted}


def _found(points: Sequence[Mapping[str, Any]], ask: Nearest) -> Found:
    keys = [point["id"] for point in points]
    scores = np.array([point["score"] for point in points], dtype=np.float32)
    if not ask.with_vectors:
        return Found(keys, scores, None)
    rows = [_vector(point, ask.using) for point in points]
    there = [place for place, row in enumerate(rows) if row is not None]
    vectors = np.array([rows[place] for place in there], dtype=np.float32).reshape(len(there), ask.dimension)
    if len(there) == len(rows):
        return Found(keys, scores, vectors)
    return Found([keys[place] for place in there], scores[there], vectors, len(rows) - len(there))


def _vector(point: Mapping[str, Any], using: str) -> Sequence[float] | None:
    held = point.get("vector")
    return cast("Sequence[float] | None", held.get(using) if isinstance(held, dict) else held)


def _stored(point: Mapping[str, Any], ask: Retrieve) -> Stored:
    return Stored(point["id"], point.get("payload") or {}, _vector(point, ask.using) if ask.with_vectors else None)
