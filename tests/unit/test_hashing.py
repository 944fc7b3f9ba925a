"""Every frozen dataclass can be put into a set: what is equal hashes equally, whatever mappings and arrays it holds."""

import collections.abc
import dataclasses
import importlib
import pkgutil
import types
import typing
from typing import Any

import numpy as np
import pytest

import sift_store
from sift_store import Hit, Record, SiftStore
from sift_store.plan import Request
from sift_store.searching import Question
from sift_store.shell import Opening
from sift_store.testing import WordEmbedder

SOMETHING = object()
# Of those that check what they are given.
ARGUMENTS: dict[type, dict[str, Any]] = {
    Opening: {"location": "memory://", "embedder": None, "indexed": {"a": "integer"}, "client": [1]},
    Question: {"texts": ["one", "two"]},
    Request: {},
}


def modules() -> list[str]:
    names = [info.name for info in pkgutil.walk_packages(sift_store.__path__, "sift_store.")]
    return [name for name in names if not name.startswith("sift_store.testing")]


def frozen_dataclasses() -> list[type]:
    kinds = set()
    for name in modules():
        for kind in vars(importlib.import_module(name)).values():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__.startswith("sift_store."):
                kinds |= {kind} if kind.__dataclass_params__.frozen else set()
    return sorted(kinds, key=lambda kind: (kind.__module__, kind.__name__))


def sample(hint: Any) -> Any:
    """A value of a type: new for each call, and one that cannot be hashed wherever the type allows it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return inner[0]
    if origin in (typing.Union, types.UnionType):
        return sample(next(part for part in inner if part is not type(None)))
    if origin is np.ndarray or hint is np.ndarray:
        return np.ones(3)
    if origin is tuple:
        return tuple(sample(part) for part in inner if part is not ...)
    if origin in (dict, collections.abc.Mapping):
        return {sample(inner[0]): sample(inner[1])}
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return [sample(inner[0])]
    if origin is set:
        return {sample(inner[0])}
    if hint is Any:
        return ["anything"]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return made(hint)
    return {str: "text", int: 3, float: 0.5, bool: True}.get(hint, SOMETHING)


def made(kind: type) -> Any:
    if kind in ARGUMENTS:
        return kind(**ARGUMENTS[kind])
    hints = typing.get_type_hints(kind)
    return kind(**{field.name: sample(hints[field.name]) for field in dataclasses.fields(kind) if field.init})


@pytest.mark.parametrize("kind", frozen_dataclasses(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_frozen_dataclass_can_be_hashed(kind: type) -> None:
    one, other = made(kind), made(kind)
    assert one in {one, other}
    if kind.__dataclass_params__.eq:
        assert one == other
        assert hash(one) == hash(other)
        assert len({one, other}) == 1


def test_all_that_a_search_gives_can_be_told_apart() -> None:
    with SiftStore.open("memory://", embedder=WordEmbedder()) as store:
        store.add(["one", "two", "three"], ids=[1, 2, 3], payloads=[{"list": [1]}] * 3)
        hits, again = store.search("one", k=2), store.search("one", k=2)
        assert set(hits) == set(again)
        assert len({*hits, *again}) == len(hits)
        for value in (hits, hits.plan, store.explain("one"), store.statistics(), *hits.suppressed, *store.doctor()):
            assert value in {value}
        assert hash(store.statistics()) == hash(store.statistics())


def test_records_are_compared_with_their_vectors() -> None:
    def record(vector: list[float] | None) -> Record:
        return Record(1, "text", {"a": [1]}, None if vector is None else np.array(vector, np.float32))

    assert record([1, 0]) == record([1, 0])
    assert hash(record([1, 0])) == hash(record([0, 1])) == hash(record(None))
    assert record([1, 0]) != record([0, 1])
    assert record([1, 0]) != record(None)
    assert record(None) == record(None)
    assert record([1, 0]) != record([1, 0, 0])
    assert record(None) != Record(1, "other", {"a": [1]})
    assert record(None) != "text"


def test_a_hit_differs_by_its_payload_too() -> None:
    one, other = (Hit(1, "text", {"a": [number]}, 0.5, None, 1, 1) for number in (1, 2))
    assert one != other
    assert len({one, other}) == 2
