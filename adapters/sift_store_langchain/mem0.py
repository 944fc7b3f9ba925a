"""What mem0 asks of a vector store of LangChain's beyond LangChain's own interface: a listing, as Chroma gives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sift_store.twins import Twins

__all__ = ["Listing"]


class Listing:
    """The passages that match a filter, without a question."""

    def __init__(self, twins: Twins) -> None:
        self._twins = twins

    def get(self, where: Any = None, limit: int | None = None) -> dict[str, list[Any]]:
        """Ids and metadata of at most `limit` passages (default: all), in no order that means anything."""
        store = self._twins.sync()
        statistics = store.statistics()
        if statistics.dimension is None or not statistics.count:
            return {"ids": [], "metadatas": []}
        anywhere = np.eye(1, statistics.dimension, dtype=np.float32)[0]
        hits = store.search(vector=anywhere, k=limit or statistics.count, where=where or None, method="knn")
        return {"ids": [str(hit.id) for hit in hits], "metadatas": [dict(hit.payload) for hit in hits]}
