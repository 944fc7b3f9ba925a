"""Every store answers as ``memory://`` does: the same writes go to both, and both are asked the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from sift_store import SiftStore
from sift_store.filters import EVERYTHING
from sift_store.records import Record, canonical
from sift_store.testing.fixtures import Fixtures
from sift_store.testing.inputs import FILTERS, INDEXED, PASSAGES, Case, cases

__all__ = ["DifferentialContract"]

_DIMENSION = 8
# Passages and filters that each store is given; `make fuzz` sets more.
_INPUTS = int(os.environ.get("SIFT_STORE_FUZZ", "500"))


class DifferentialContract(Fixtures):
    """What goes in comes out, and filters find the same, as in the store that keeps Python's own values."""

    @pytest.fixture
    def pair(self, location: str) -> Iterator[tuple[SiftStore, SiftStore]]:
        """The store under test and the specification."""
        with SiftStore.open(location, indexed=INDEXED) as store, SiftStore.open("memory://", indexed=INDEXED) as memory:
            yield store, memory

    def test_it_answers_as_memory_does(self, pair: tuple[SiftStore, SiftStore]) -> None:
        for case in _drawn(_INPUTS // (PASSAGES + FILTERS)):
            for store in pair:
                store.delete(where=EVERYTHING)
            _compare(case, *pair)


@cache
def _drawn(count: int) -> list[Case]:
    """The same cases for every store: to draw them takes longer than to try them."""
    drawn: list[Case] = []

    @seed(20261130)
    @settings(
        max_examples=max(count, 1),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def draw(case: Case) -> None:
        drawn.append(case)

    draw()
    return drawn


def _compare(case: Case, store: SiftStore, memory: SiftStore) -> None:
    vectors = np.random.default_rng(0).normal(size=(PASSAGES, _DIMENSION))
    for each in (store, memory):
        assert each.add(case.texts, ids=case.ids, payloads=case.payloads, vectors=vectors) == case.ids
    _same_records(store, memory, case.ids)
    for where in case.filters:
        _same_answers(store, memory, where, vectors[0])
    for each in (store, memory):
        each.update_payload(case.changed, case.change)
    _same_records(store, memory, case.ids)
    for where in [case.gone, *case.filters[:2]]:
        _same_answers(store, memory, where, vectors[0])
    assert store.delete(case.ids, where=case.gone) == memory.delete(case.ids, where=case.gone), case.gone
    _same_records(store, memory, case.ids)


def _same_records(store: SiftStore, memory: SiftStore, names: Sequence[Any]) -> None:
    for name, one, other in zip(names, store.get(names), memory.get(names), strict=True):
        assert _told(one) == _told(other), name


def _told(record: Record | None) -> Any:
    """A record so that values which Python calls equal differ: 1, 1.0 and True, 0.0 and -0.0."""
    return None if record is None else (type(record.id), record.id, record.text, canonical(record.payload))


def _same_answers(store: SiftStore, memory: SiftStore, where: Any, query: Any) -> None:
    hits = [each.search(vector=query, k=PASSAGES, where=where, method="knn") for each in (store, memory)]
    one, other = ({(type(hit.id), hit.id): hit.payload for hit in answer} for answer in hits)
    differing = {key: one.get(key) or other.get(key) for key in one.keys() ^ other.keys()}
    assert not differing, where
    assert store.count(where) == len(other), where
