"""What an operation asks of the server, described without doing it: the sync and the async session run the same.

An operation is a generator. It yields one of the asks below and is sent the answer; what it returns is its result.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from qdrant_client import models

__all__ = [
    "DEPTH",
    "READS",
    "TIMED",
    "TIMEOUT",
    "Ask",
    "Call",
    "Found",
    "Info",
    "Nearest",
    "Pause",
    "PointKey",
    "Query",
    "Retrieve",
    "Stored",
    "Work",
]

T = TypeVar("T")

# Seconds for one search or other read that was given no deadline.
TIMEOUT = 30.0

# How far payloads nest: a message of gRPC nests a hundred deep, and a payload takes three of these for each level.
DEPTH = 28

# A point's id as it travels: a number, or a UUID as text.
PointKey: TypeAlias = int | str


@dataclass(frozen=True, slots=True)
class Call:
    """A method of qdrant-client's, by name."""

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Info:
    """The state of a collection; answered by a `models.CollectionInfo`."""

    collection: str


@dataclass(frozen=True, slots=True)
class Query:
    """One nearest-neighbour query.

    Attributes:
        vector: (d,) float32. sparse: for a second ranking, put together with the first by `fusion`.
        where: the filter. params: of the index walk.
    """

    vector: npt.NDArray[np.float32]
    limit: int
    where: models.Filter | None
    params: models.SearchParams
    sparse: models.SparseVector | None = None


@dataclass(frozen=True, slots=True)
class Nearest:
    """Several queries in one request; answered by a list of `Found`. No payload travels, and one vector a point.

    Attributes:
        using: the named vector, "" for the only one. dimension: of it. with_vectors: whether they are wanted.
        alone: no other vector is kept with it. sparse: name of the sparse vectors. fusion: "rrf" or "dbsf".
    """

    collection: str
    queries: Sequence[Query]
    using: str
    dimension: int
    with_vectors: bool
    alone: bool
    sparse: str = ""
    fusion: str = "rrf"


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to one query, best first; points without the vector are left out if vectors were wanted.

    Attributes:
        keys, scores: (n,), scores as the server gives them. vectors: (n, d) float32, or None. missing: points left out.
    """

    keys: list[PointKey]
    scores: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32] | None
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Points by id with payload; answered by a list of `Stored`, in no order, of those that are there."""

    collection: str
    keys: Sequence[PointKey]
    using: str
    with_vectors: bool
    alone: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A point: its id, payload, and vector if wanted and there."""

    key: PointKey
    payload: Mapping[str, Any]
    vector: Any = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


Ask: TypeAlias = Call | Info | Nearest | Retrieve | Pause
Work: TypeAlias = Generator[Ask, Any, T]

# Calls that take a time limit of their own.
TIMED = frozenset({"count", "scroll"})
# Calls that change nothing, and so may be tried again.
READS = frozenset({"count", "get_aliases", "get_collections", "info", "scroll"})
