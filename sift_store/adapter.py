"""The seam to databases: what an adapter is given, what it gives back, what it declares.

An adapter is a module named by an entry point of the group ``sift_store.stores``; the entry point's name is the URL
scheme. The module has three functions, `open_store`, `list_collections` and `drop_collection` (see `StoreModule`).
``sift_store.testing`` holds the contract suite that every adapter must pass on its real engine.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sift_store.deadline import Deadline
from sift_store.errors import InvalidInputError, StorageError
from sift_store.filters import Filter, matches
from sift_store.location import Location
from sift_store.records import MAX_DEPTH, Id, Payload, Record

__all__ = [
    "INDEX_TYPES",
    "Adapter",
    "CandidateQuery",
    "Candidates",
    "Capabilities",
    "EmbedderIdentity",
    "Finding",
    "Key",
    "Progress",
    "Replacement",
    "SparseVector",
    "Statistics",
    "StoreModule",
    "check_dimension",
    "check_generation",
    "no_client",
    "outside",
]

Key: TypeAlias = Hashable
Progress: TypeAlias = Callable[[int, int], None]

INDEX_TYPES = ("bool", "datetime", "float", "integer", "keyword")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter declares of itself. A test may be skipped only by one of these.

    Attributes:
        engine: name and version of the engine, for people.
        persistent: data outlives the process.
        native_filter: a filter of the engine's own can be given as `where`; what it looks like, or "".
        writable: False for a collection that was attached.
        timeout: seconds that one search may take if the caller gives no `timeout`; None: no limit.
        score_error: what rounding in the engine may add to a score, for vectors kept at less than 32 bits.
        hybrid: a query may have a sparse vector beside the dense one.
        depth: how far payloads may nest.
    """

    engine: str
    persistent: bool
    native_filter: str = ""
    writable: bool = True
    timeout: float | None = None
    score_error: float = 1e-5
    hybrid: bool = False
    depth: int = MAX_DEPTH


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """What a store remembers of the embedder it was built with. `name` is None for an unnamed callable."""

    name: str | None = None
    query_prefix: str = ""
    passage_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A store's state, as the planner and `doctor` see it.

    Attributes:
        count: passages stored. indexed: of these, in the approximate index.
        dimension: of the vectors, None before the first add. metric: of `score`.
        fields: payload indexes, metadata key -> type, one of `INDEX_TYPES`.
        embedder: as stored; None before the first add.
        building: whether an index is being built in the background.
        generation: how often the whole content was replaced since opening: vectors asked for under one generation
            mean nothing under the next.
    """

    count: int
    indexed: int
    dimension: int | None
    metric: Literal["cosine", "dot", "euclid"]
    fields: Mapping[str, str] = field(hash=False)
    embedder: EmbedderIdentity | None
    building: bool = False
    generation: int = 0


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Weights of a few of very many terms: indices, distinct and >= 0, and a value for each."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CandidateQuery:
    """Phase one of a search: the nearest passages of one query vector.

    Attributes:
        vector: (d,) float32; unit length where the metric is cosine.
        limit: most candidates wanted. where: the filter, or None.
        with_vectors: whether their vectors are wanted.
        exact: compare with every vector. ef: breadth of the index walk, None for the engine's own.
        sparse: the same query by its words; only where the adapter declares `Capabilities.hybrid`.
    """

    vector: npt.NDArray[np.float32]
    limit: int
    where: Filter | None = None
    with_vectors: bool = True
    exact: bool = False
    ef: int | None = None
    sparse: SparseVector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What phase one found, best first.

    Attributes:
        keys: (n,) handles of the engine's own, for `Adapter.fetch`.
        scores: (n,) float32, higher is better.
        vectors: (n, d) float32, unit length, or None if not asked for.
        moved: bytes of vectors that came out of the engine; what a cache held does not count.
        generation: of the content that was searched, as in `Statistics`.
        note: what went otherwise than planned, for `explain`.
        fused: the scores come from several rankings put together and are no similarities.
    """

    keys: Sequence[Key]
    scores: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32] | None
    moved: int = 0
    generation: int = 0
    note: str = ""
    fused: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`: how bad, what was seen, what mends it."""

    level: Literal["ok", "note", "warning", "error"]
    what: str
    mend: str = ""


class Replacement(Protocol):
    """New content for a whole collection, invisible until `commit`. Other writes are refused while it exists."""

    def write(self, records: Sequence[Record], dimension: int) -> None:
        """Store records with their vectors, all of that dimension."""

    def commit(self) -> int:
        """Take the place of the old content, at once or not at all; the new generation."""

    def abandon(self) -> int | None:
        """Drop what was written, unless it is live already: then the generation. Lets writers in again."""


class Adapter(Protocol):
    """One open collection. Input is checked by the caller; vectors come as unit-length float32 rows.

    Engine errors leave as `sift_store.errors.StorageError`. All methods may be called from any thread. The methods of
    an adapter that `open_async_store` gave (see `StoreModule`) are coroutine functions of the same names and arguments.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What it declares of itself."""

    def statistics(self, *, deadline: Deadline | None = None) -> Statistics:
        """The state now; cheap enough for every search. A server's may be some seconds old, but for our own writes."""

    def create(self, dimension: int, embedder: EmbedderIdentity) -> None:
        """Make the collection, if it is not there; another opener may have made it with another dimension."""

    def upsert(self, records: Sequence[Record], *, generation: int | None = None, within: Filter | None = None) -> None:
        """Write records with vectors, replacing whole records of the same id. Durable on return.

        Args:
            records: no id twice.
            generation: the content that the vectors were made for; in the same step as the write it is made sure that
                it is still there.
            within: a scope; in the same step as the write it is made sure that no record outside it is replaced.

        Raises:
            InvalidInputError: an id is taken outside the scope; nothing was written.
            StorageError: the content was replaced meanwhile; nothing was written.
            PartialWriteError: stopped half-way.
        """

    def candidates(self, queries: Sequence[CandidateQuery], *, deadline: Deadline | None = None) -> list[Candidates]:
        """Phase one, one answer a query, in order. Fewer than `limit` only if no more match.

        An engine in the process cannot be stopped; there the deadline is checked by the caller, between calls.

        Raises:
            DeadlineError: it is over.
        """

    def fetch(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Record | None]:
        """Phase two: text and payload of candidates, in order, without vectors; None for those deleted meanwhile."""

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:
        """Records by id, in order; None where there is none."""

    def update_payload(self, ids: Sequence[Id], payload: Payload, *, within: Filter | None = None) -> None:
        """Merge top-level keys into the payloads of existing records; `within` as for `upsert`."""

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:
        """Delete the records that have one of the ids (if given) and match the filter (if given); how many went."""

    def count(self, where: Filter | None) -> int:
        """How many records match, exactly."""

    def scan(self, after: Key | None, limit: int, *, vectors: bool = False) -> tuple[list[Record], Key | None]:
        """A page of all records in the engine's order, and where the next begins, or None."""

    def replace(self, embedder: EmbedderIdentity) -> Replacement:
        """Begin new content for the whole collection, with another embedder; writes are refused from now on."""

    def optimize(self, *, wait: bool) -> None:
        """Build the approximate index beside the live data; return at once, or when all that was there is in it."""

    def bulk(self) -> AbstractContextManager[None]:
        """While it is entered no build of the index begins by itself. Not a coroutine function, in either kind."""

    def doctor(self) -> Iterable[Finding]:
        """What the engine's own state shows."""

    def close(self) -> None:
        """Release everything. A second call does nothing."""


class StoreModule(Protocol):
    """What an entry point of the group ``sift_store.stores`` names.

    A module may have more functions. ``attach_store(location, *, client)`` opens a collection that others made, to read
    it. ``open_async_store`` and ``attach_async_store`` are coroutine functions that give an adapter whose methods are
    coroutine functions; ``takes_async(client)`` says whether they can use a client (default: only none). Otherwise the
    async store runs the sync adapter on a worker thread.
    """

    def open_store(self, location: Location, *, indexed: Mapping[str, str], client: Any = None) -> Adapter:
        """Open a collection, existing or not; nothing is created before `Adapter.create`.

        `client` is the caller's own connection, used and left open.
        """

    def list_collections(self, location: Location) -> list[str]:
        """Names of the collections there, sorted."""

    def drop_collection(self, location: Location) -> bool:
        """Delete the collection; whether there was one."""


_OVERTAKEN = "the collection was re-embedded meanwhile and nothing was done; ask again"


def check_generation(found: int, wanted: int | None, cause: BaseException | None = None) -> None:
    """Vectors made for one generation of content mean nothing in the next.

    Raises:
        StorageError: the collection was re-embedded between making the vectors and using them.
    """
    if wanted not in (None, found):
        raise StorageError(_OVERTAKEN) from cause


def check_dimension(query: CandidateQuery, dimension: int | None) -> None:
    """A query vector of another length was made before the collection was re-embedded.

    Raises:
        StorageError: its length is not the collection's.
    """
    if dimension not in (None, query.vector.size):
        raise StorageError(_OVERTAKEN)


def outside(stored: Iterable[Record | None], within: Filter) -> None:
    """For adapters: refuse to touch stored records that a scope does not hold.

    Raises:
        InvalidInputError: names the first; nothing of the record but its id, which the caller gave.
    """
    for record in stored:
        if record is not None and not matches(within, record.payload):
            raise InvalidInputError(f"id {record.id!r} is taken outside this store's scope; choose another")


def no_client(location: Location, client: object) -> None:
    """For adapters without a connection: refuse to be given one.

    Raises:
        InvalidInputError: one was given.
    """
    if client is not None:
        raise InvalidInputError(
            f"client: {type(client).__name__} given, but {location.scheme!r} has no connection; leave it out"
        )
