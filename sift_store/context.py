"""What every operation of a store works with, and the pool of candidates that one question has."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from sift_store.adapter import Adapter, Key
from sift_store.deadline import Deadline
from sift_store.embedding import Embedding, SparseEmbedding
from sift_store.errors import StoreClosedError
from sift_store.filters import Filter, matches
from sift_store.records import Record

__all__ = ["CandidatePool", "Context", "InUse", "Steps", "Vectors", "fetch_steps", "fetched_keys"]

T = TypeVar("T")
Steps: TypeAlias = Generator[Callable[[], Any], Any, T]
Vectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(slots=True)
class InUse:
    """The embedder in use, shared by a store and its scopes, and the generation of content that it belongs to."""

    embedding: Embedding | None
    generation: int


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What every operation of one store works with.

    Attributes:
        scope: ANDed to every filter. stamps: put on every add. deadline: of the search under way.
        sparse: gives the sparse vectors of questions, for hybrid search.
        awaits: coroutine functions are awaited, so that an embedder's own can be used.
        process: the one that opened the store. A fork of it shares connections and files, but not their state.
    """

    adapter: Adapter
    in_use: InUse
    scope: Filter | None
    stamps: dict[str, Any]
    deadline: Deadline | None = None
    sparse: SparseEmbedding | None = None
    awaits: bool = False
    process: int = field(default_factory=os.getpid)

    def check_process(self) -> None:
        """Refuse to use in a fork what its parent goes on using.

        Raises:
            StoreClosedError: the store was opened before the fork.
        """
        if self.process != os.getpid() and self.adapter.capabilities.persistent:
            raise StoreClosedError(
                f"the store was opened in process {self.process}, of which this one, {os.getpid()}, is a fork; its "
                "connections are the parent's: open the store after the fork, in each worker"
            )

    @property
    def embedding(self) -> Embedding | None:
        """The embedder in use."""
        return self.in_use.embedding

    def check_deadline(self) -> None:
        """Raise `DeadlineError` if the search under way has no time left."""
        if self.deadline is not None:
            self.deadline.check()


@dataclass(slots=True)
class CandidatePool:
    """The candidates of one question, best first. `records` holds those whose text has been fetched."""

    keys: list[Key]
    scores: npt.NDArray[np.float32]
    vectors: Vectors | None
    targets: Vectors
    weights: npt.ArrayLike | None
    moved: int
    note: str = ""  # what went otherwise than planned
    fused: bool = False  # scores of several rankings put together
    records: dict[int, Record | None] = field(default_factory=dict)
    copies: dict[int, list[int]] = field(default_factory=dict)  # row -> later rows with the same text
    overlaps: dict[int, int] = field(default_factory=dict)  # row -> the pick that it has text in common with

    def text(self, row: int) -> str:
        """The text of a fetched row; of one that was deleted meanwhile, something that is no copy of anything."""
        record = self.records[row]
        return f"\0{row}" if record is None else record.text


def fetched_keys(context: Context, call: Callable[[], Any]) -> Sequence[Key] | None:
    """The keys that a call of `fetch_steps` asks for; None for any other call."""
    if isinstance(call, partial) and call.func == context.adapter.fetch:
        keys: Sequence[Key] = call.args[0]
        return keys
    return None


def fetch_steps(context: Context, wanted: Sequence[tuple[CandidatePool, Sequence[int]]]) -> Steps[None]:
    """Fetch the records of rows that are not there yet, all pools at once."""
    missing = [(pool, row) for pool, rows in wanted for row in rows if row not in pool.records]
    if missing:
        keys = list(dict.fromkeys(pool.keys[row] for pool, row in missing))
        context.check_deadline()
        records: list[Record | None] = yield partial(context.adapter.fetch, keys, deadline=context.deadline)
        by_key = {
            key: record if record is not None and matches(context.scope, record.payload) else None
            for key, record in zip(keys, records, strict=True)
        }
        for pool, row in missing:
            pool.records[row] = by_key[pool.keys[row]]
