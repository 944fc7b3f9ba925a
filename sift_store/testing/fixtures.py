"""What every class of the contract has: an empty store with the test embedder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sift_store import (
    SiftStore,
)
from sift_store.adapter import Capabilities
from sift_store.location import parse_location
from sift_store.registry import store_module
from sift_store.testing.words import WordEmbedder

__all__ = ["JORDAN", "Fixtures"]

JORDAN = [
    "The age of Michael Jordan is 61 years.",
    "Michael Jordan was born on February 17, 1963.",
    "Michael Jordan has five children.",
    "Paris is the capital of France.",
    "Berlin is the capital of Germany.",
]


class Fixtures:
    """What a backend supplies (`location`) and what the tests use."""

    @pytest.fixture
    def location(self) -> str:
        """A fresh path or URL for each test; its collection does not exist yet."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, location: str) -> Iterator[SiftStore]:
        """An empty store with the test embedder and one payload index of each type."""
        indexed = {"year": "integer", "lang": "keyword", "price": "float", "draft": "bool", "at": "datetime"}
        with SiftStore.open(location, embedder=WordEmbedder(), indexed=indexed) as opened:
            yield opened

    @pytest.fixture
    def capabilities(self, location: str) -> Capabilities:
        """What the adapter declares."""
        place = parse_location(location)
        adapter = store_module(place).open_store(place, indexed={})
        adapter.close()
        return adapter.capabilities

    @pytest.fixture
    def rounding(self, capabilities: Capabilities) -> float:
        """What may be wrong with a score, as declared."""
        return capabilities.score_error
