"""The contract of filters."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from sift_store import (
    FilterError,
    SiftStore,
)
from sift_store.adapter import Capabilities
from sift_store.filters import matches, parse
from sift_store.memory import MemoryAdapter
from sift_store.testing.fixtures import Fixtures

__all__ = ["FilterContract"]


class FilterContract(Fixtures):
    """The filter language means the same in every store: what `sift_store.filters.matches` says."""

    PAYLOADS: tuple[dict[str, Any], ...] = (
        {},
        {"year": 2020, "lang": "en", "price": 1.5, "draft": True, "at": "2020-05-01T10:00:00+02:00"},
        {"year": 2021, "lang": "de", "price": 2, "draft": False, "at": "2020-05-01T08:00:00Z"},
        {"year": 2022, "lang": "", "price": -3.25, "at": "2021-01-01"},
        {"year": [2019, 2023], "lang": ["en", "fr"], "price": [0.5, 10]},
        {"year": None, "lang": None, "draft": None},
        {"year": [], "lang": []},
        {"other": {"deep": {"er": 3}}, "n": 3},
        {"other": {"deep": {"er": "3"}}, "n": 3.0},
        {"n": True, "t": "2020"},
        {"n": "3", "t": "2020-01-01T00:00:00"},
        {"n": 2**60 + 1},
        {"key with spaces": 1, "select * from": 2, "ключ": "значение", "a'b": 1, "x[0]": 1},
        {"lang": "'; DROP TABLE points; --"},
    )
    FILTERS: tuple[Any, ...] = (
        {"year": 2020},
        {"year": {"$eq": 2020}},
        {"year": {"$ne": 2020}},
        {"year": {"$gt": 2020}},
        {"year": {"$gte": 2020, "$lt": 2022}},
        {"year": {"$lte": 2020.5}},
        {"year": {"$gt": math.inf}},
        {"year": {"$lt": math.inf}},
        {"year": {"$gte": -math.inf}},
        {"year": {"$lte": -math.inf}},
        {"price": {"$gt": -math.inf, "$lt": 2}},
        {"year": {"$in": [2020, 2023]}},
        {"year": {"$in": []}},
        {"year": {"$nin": [2020, 2023]}},
        {"year": {"$nin": []}},
        {"year": {"$exists": True}},
        {"year": {"$exists": False}},
        {"year": {"$not": {"$gte": 2021}}},
        {"lang": "en"},
        {"lang": ""},
        {"lang": {"$ne": "en"}},
        {"lang": {"$in": ["de", "fr"]}},
        {"lang": "'; DROP TABLE points; --"},
        {"price": 2},
        {"price": 2.0},
        {"price": {"$lt": 1}},
        {"price": {"$gt": 1, "$lt": 3}},
        {"draft": True},
        {"draft": False},
        {"draft": {"$ne": True}},
        {"draft": {"$in": [True, False]}},
        {"at": datetime(2020, 5, 1, 8, tzinfo=UTC)},
        {"at": {"$gte": datetime(2020, 5, 1, 8)}},  # naive means UTC
        {"at": {"$gt": date(2020, 5, 1), "$lt": date(2021, 1, 1)}},
        {"n": 3},
        {"n": 3.0},
        {"n": True},
        {"n": "3"},
        {"n": 1},
        {"n": 2**60 + 1},
        {"n": 2**60},
        {"n": {"$in": [3, "3", True]}},
        {"n": {"$gte": 1}},
        {"t": "2020"},
        {"t": {"$gte": datetime(2020, 1, 1, tzinfo=UTC)}},
        {"other.deep.er": 3},
        {"other.deep": {"$exists": True}},
        {"other.deep.er": {"$ne": 3}},
        {"nowhere": 1},
        {"nowhere": {"$ne": 1}},
        {"key with spaces": 1},
        {"select * from": 2},
        {"ключ": "значение"},
        {"a'b": 1},
        {"x[0]": 1},
        {},
        {"year": 2020, "lang": "en"},
        {"$and": [{"year": {"$exists": True}}, {"lang": {"$ne": "de"}}]},
        {"$or": [{"year": 2021}, {"price": {"$lt": 0}}]},
        {"$not": {"$or": [{"year": 2020}, {"draft": False}]}},
        {"$or": [{"$and": [{"year": 2020}, {"lang": "en"}]}, {"$not": {"year": {"$exists": True}}}]},
    )

    @pytest.fixture
    def filled(self, store: SiftStore) -> SiftStore:
        """A store with one passage a payload."""
        texts = [f"text {place}" for place in range(len(self.PAYLOADS))]
        store.add(texts, ids=list(range(len(texts))), payloads=self.PAYLOADS)
        return store

    def test_every_operator_on_every_type(self, filled: SiftStore) -> None:
        for where in self.FILTERS:
            wanted = {place for place, payload in enumerate(self.PAYLOADS) if matches(parse(where), payload)}
            found = {hit.id for hit in filled.search("text", k=50, where=where, method="knn")}
            assert found == wanted, where
            assert filled.count(where) == len(wanted), where

    def test_random_combinations(self, filled: SiftStore) -> None:
        rng = random.Random(0)

        def combined(depth: int) -> Any:
            if depth == 0 or rng.random() < 0.4:
                return rng.choice(self.FILTERS)
            kind = rng.choice(["$and", "$or", "$not"])
            return {kind: combined(depth - 1) if kind == "$not" else [combined(depth - 1) for _ in range(2)]}

        for _ in range(150):
            where = combined(3)
            assert filled.count(where) == sum(matches(parse(where), payload) for payload in self.PAYLOADS), where

    def test_a_filter_leaves_k_when_k_match(self, store: SiftStore) -> None:
        rng = np.random.default_rng(1)
        store.add(
            [f"t{i}" for i in range(2000)],
            ids=list(range(2000)),
            payloads=[{"year": i % 100} for i in range(2000)],
            vectors=rng.normal(size=(2000, 32)),
        )
        hits = store.search(vector=rng.normal(size=32), k=10, where={"year": 17})
        assert len(hits) == 10
        assert {hit.payload["year"] for hit in hits} == {17}

    def test_an_adapter_refuses_a_filter_of_another_engine(self, store: SiftStore, capabilities: Capabilities) -> None:
        store.add(["a"])
        with pytest.raises(FilterError, match="object given as a filter"):
            store.search("a", where=object())
        assert capabilities.native_filter

    def test_the_specification_is_the_memory_store(self) -> None:
        assert MemoryAdapter({}).capabilities.persistent is False
