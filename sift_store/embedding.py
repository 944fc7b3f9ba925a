"""The seam to embedders: anything that turns text into vectors, made to look alike and checked.

Accepted: the name of an installed embedder ("minilm"), the name or folder of a sentence-transformers model, an object
with `embed_documents` and `embed_query`, or a callable from a list of texts to vectors.
"""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from sift_store.adapter import EmbedderIdentity, Progress, SparseVector, Statistics
from sift_store.errors import EmbedderError, SiftStoreError
from sift_store.filters import exact_text, storable
from sift_store.kernels import unit_rows
from sift_store.registry import EMBEDDERS, find

__all__ = [
    "Embedder",
    "EmbedderLike",
    "Embedding",
    "SparseEmbedder",
    "SparseEmbedding",
    "as_embedding",
    "as_sparse_embedding",
    "check_embedder",
    "estimated_tokens",
    "stored_embedding",
]

_BATCH = 256
_CACHED_QUERIES = 256
# The entry point that takes any model name or folder.
_GENERAL = "sentence-transformers"


@runtime_checkable
class Embedder(Protocol):
    """What an embedder offers.

    Optional beside it: `name`, `query_prefix`, `passage_prefix` and `dimension` (kept with the store and checked at
    open), `max_tokens` and `count_tokens(texts) -> list[int]` (for chunking and token budgets), and the coroutine
    functions `aembed_documents` and `aembed_query`, which an `AsyncSiftStore` awaits instead of using a thread.
    """

    def embed_documents(self, texts: list[str]) -> Any:
        """Vectors of passages, (n, d)."""

    def embed_query(self, text: str) -> Any:
        """Vector of a query, (d,)."""


EmbedderLike: TypeAlias = "str | Embedder | Callable[[list[str]], Any] | Embedding"


class Embedding:
    """An embedder as the store uses it: checks, batches, progress, a small cache of queries.

    Attributes:
        identity: what the store keeps of it. dimension: of its vectors; None if only its vectors tell. source: what was
            given.
    """

    def __init__(self, embedder: Embedder | Callable[[list[str]], Any]) -> None:
        if isinstance(embedder, Embedder):
            self._documents: Callable[[list[str]], Any] = embedder.embed_documents
            self._query: Callable[[str], Any] = embedder.embed_query
            self._adocuments = getattr(embedder, "aembed_documents", None)
            self._aquery = getattr(embedder, "aembed_query", None)
        else:
            self._adocuments = self._aquery = None
            self._documents = embedder
            self._query = lambda text: embedder([text])
        self.identity = EmbedderIdentity(
            name=_text(embedder, "name", None),
            query_prefix=_text(embedder, "query_prefix", "") or "",
            passage_prefix=_text(embedder, "passage_prefix", "") or "",
        )
        self.dimension: int | None = _dimension(embedder)
        self.source = embedder
        self._count_tokens: Callable[[list[str]], list[int]] | None = getattr(embedder, "count_tokens", None)
        self._cache: OrderedDict[str, npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def max_tokens(self) -> int | None:
        """Tokens of a passage that it reads; None if unknown."""
        return getattr(self.source, "max_tokens", None)

    def documents(self, texts: Sequence[str], progress: Progress | None = None) -> npt.NDArray[np.float32]:
        """Vectors of passages, (n, d), in batches of 256; `progress(done, all)` after each.

        Raises:
            EmbedderError: the embedder failed or gave another number of vectors.
            VectorError: it gave NaN, infinite or zero vectors.
        """
        rows = []
        for batch, done in _batches(texts):
            with self._failures():
                given = self._documents(batch)
            rows.append(self._passages(given, len(batch)))
            if progress:
                progress(done, len(texts))
        return self._together(rows)

    async def _documents_awaited(self, texts: Sequence[str], progress: Progress | None) -> npt.NDArray[np.float32]:
        rows = []
        for batch, done in _batches(texts):
            with self._failures():
                given = await self._adocuments(batch)  # type: ignore[misc]  # asked for where there is one
            rows.append(self._passages(given, len(batch)))
            if progress:
                progress(done, len(texts))
        return self._together(rows)

    def _together(self, rows: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        dimensions = {part.shape[1] for part in rows}
        if len(dimensions) > 1:
            told = ", then ".join(map(str, dimensions))
            raise EmbedderError(f"{self._name} gave vectors of dimension {told}; one dimension wanted")
        return np.concatenate(rows)

    def documents_call(self, texts: Sequence[str], progress: Progress | None, awaits: bool) -> Callable[[], Any]:
        """What to call for the vectors of passages; a coroutine function where `awaits` and the embedder has one."""
        if awaits and self._adocuments is not None:
            return partial(self._documents_awaited, texts, progress)
        return partial(self.documents, texts, progress)

    def query(self, text: str) -> npt.NDArray[Any]:
        """Vector of a query, (d,), as long as the embedder gave it. The last 256 are kept."""
        kept = self._kept(text)
        if kept is not None:
            return kept
        with self._failures():
            given = self._query(text)
        return self._keep(text, given)

    async def _query_awaited(self, text: str) -> npt.NDArray[Any]:
        kept = self._kept(text)
        if kept is not None:
            return kept
        with self._failures():
            given = await self._aquery(text)  # type: ignore[misc]  # asked for where there is one
        return self._keep(text, given)

    def query_call(self, text: str, awaits: bool) -> Callable[[], Any]:
        """What to call for the vector of a query; a coroutine function where `awaits` and the embedder has one."""
        return partial(self._query_awaited if awaits and self._aquery is not None else self.query, text)

    def _kept(self, text: str) -> npt.NDArray[Any] | None:
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
            return self._cache.get(text)

    def _keep(self, text: str, given: Any) -> npt.NDArray[Any]:
        vector: npt.NDArray[Any] = self._checked(given, 1)[0].copy()
        vector.flags.writeable = False
        with self._lock:
            self._cache[text] = vector
            while len(self._cache) > _CACHED_QUERIES:
                self._cache.popitem(last=False)
        return vector

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, at least 1: the embedder's own count, or characters / 4."""
        if self._count_tokens is None:
            return estimated_tokens(texts)
        with self._failures():
            counts = [max(operator.index(count), 1) for count in self._count_tokens(list(texts))]
        if len(counts) != len(texts):
            raise EmbedderError(f"{self._name} counted {len(counts)} texts of {len(texts)}; one count a text wanted")
        return counts

    @property
    def _name(self) -> str:
        return self.identity.name or "the embedder"

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except SiftStoreError:
            raise
        except Exception as exc:
            raise EmbedderError(f"{self._name} failed: {type(exc).__name__}: {exc}") from exc

    def _passages(self, given: Any, wanted: int) -> npt.NDArray[np.float32]:
        return unit_rows(self._checked(given, wanted), "vectors").astype(np.float32, copy=False)

    def _checked(self, given: Any, wanted: int) -> npt.NDArray[Any]:
        unit_rows(given, f"vectors of {self._name}")  # its checks
        rows = np.atleast_2d(np.asarray(given))
        if len(rows) != wanted:
            raise EmbedderError(f"{self._name} gave {len(rows)} vectors for {wanted} texts; one a text wanted")
        return rows


def _text(embedder: object, attribute: str, default: str | None) -> str | None:
    """An attribute that a store keeps, checked: a library's callable may have one of that name for itself."""
    value = getattr(embedder, attribute, default)
    if value is None or (isinstance(value, str) and storable(value)):
        return value if value is None else exact_text(value)
    raise EmbedderError(f"the embedder's {attribute}: {value!r} given, text or nothing wanted")


def _dimension(embedder: object) -> int | None:
    value = getattr(embedder, "dimension", None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise EmbedderError(f"the embedder's dimension: {value!r} given, a whole number >= 1 or nothing wanted")
    return int(value)


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[str], int]]:
    """Batches, and how many texts there are up to the end of each."""
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        yield batch, start + len(batch)


SparseEmbedder: TypeAlias = "Callable[[str], Any] | Any"


class SparseEmbedding:
    """What gives the sparse vector of a question: a callable, or an object with `embed_query`, as LangChain's have.

    It gives a mapping from index to weight, or something with `indices` and `values`.
    """

    def __init__(self, embedder: SparseEmbedder) -> None:
        self._query: Callable[[str], Any] = getattr(embedder, "embed_query", embedder)

    def query(self, text: str) -> SparseVector:
        """The sparse vector of a question.

        Raises:
            EmbedderError: the embedder failed, or gave something else.
        """
        try:
            given = self._query(text)
            if isinstance(given, Mapping):
                indices, values = list(given.keys()), list(given.values())
            else:
                indices, values = list(given.indices), list(given.values)
            vector = SparseVector(tuple(map(operator.index, indices)), tuple(map(float, values)))
        except Exception as exc:
            raise EmbedderError(f"the sparse embedder failed: {type(exc).__name__}: {exc}") from exc
        distinct = len(set(vector.indices)) == len(vector.indices) == len(vector.values)
        within = all(0 <= index < 2**32 for index in vector.indices)
        if not distinct or not within or not np.isfinite(vector.values).all():
            raise EmbedderError("the sparse embedder gave no finite value for each of some distinct indices below 2³²")
        return vector


def as_sparse_embedding(embedder: SparseEmbedder | None) -> SparseEmbedding | None:
    """Make a `SparseEmbedding` of whatever was given; None stays None.

    Raises:
        EmbedderError: neither callable nor with `embed_query`.
    """
    if embedder is None or isinstance(embedder, SparseEmbedding):
        return embedder
    if not callable(embedder) and not hasattr(embedder, "embed_query"):
        raise EmbedderError(
            f"sparse_embedder: {type(embedder).__name__} given; a callable from text to a mapping of index to weight, "
            "or an object with embed_query wanted"
        )
    return SparseEmbedding(embedder)


def estimated_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens at four characters each, for when nothing can count them."""
    return [max(len(text) // 4, 1) for text in texts]


def as_embedding(embedder: EmbedderLike | None) -> Embedding | None:
    """Make an `Embedding` of whatever was given as an embedder; None stays None.

    Raises:
        EmbedderError: neither a name, nor callable, nor with the two methods; or a model that does not load.
        MissingExtraError: the package that knows the name is not installed.
    """
    if embedder is None or isinstance(embedder, Embedding):
        return embedder
    if isinstance(embedder, str):
        return Embedding(_by_name(embedder))
    if not callable(embedder) and not isinstance(embedder, Embedder):
        raise EmbedderError(
            f"embedder: {type(embedder).__name__} given; a name such as 'minilm', a callable from texts to vectors, or "
            "an object with embed_documents and embed_query wanted"
        )
    return Embedding(embedder)


def stored_embedding(identity: EmbedderIdentity) -> Embedding | None:
    """The embedder that a store remembers, loaded when it is first used; None if it had no name."""
    return None if identity.name is None else Embedding(_StoredEmbedder(identity))


def check_embedder(statistics: Statistics, embedding: Embedding | None) -> None:
    """Refuse an embedder other than the one that the store was built with.

    Raises:
        EmbedderError: name, prefixes or dimension differ. Callables that tell neither are checked by dimension when
            they are used, and by `doctor`, which compares vectors.
    """
    stored = statistics.embedder
    if embedding is None or stored is None:
        return
    if embedding.dimension not in (None, statistics.dimension):
        raise EmbedderError(
            f"the embedder gives dimension {embedding.dimension}, the store has {statistics.dimension}; open it with "
            "the embedder it was built with, or re-embed the collection"
        )
    if stored.name is None or embedding.identity.name is None:
        return
    if embedding.identity != stored:
        raise EmbedderError(
            f"the store was built with {_describe(stored)}, {_describe(embedding.identity)} given; open it with the "
            "first, or re-embed the collection with the second (sift-store reembed, or store.reembed(embedder))"
        )


def _describe(identity: EmbedderIdentity) -> str:
    prefixes = f" (query prefix {identity.query_prefix!r}, passage prefix {identity.passage_prefix!r})"
    return f"{identity.name!r}{prefixes if identity.query_prefix or identity.passage_prefix else ''}"


class _StoredEmbedder:
    """Stands for a named embedder until it is needed: opening a store should not load a model."""

    def __init__(self, identity: EmbedderIdentity) -> None:
        self.name = identity.name
        self.query_prefix, self.passage_prefix = identity.query_prefix, identity.passage_prefix
        self._identity = identity
        self._loaded: Embedder | None = None
        self._lock = threading.Lock()

    def embed_documents(self, texts: list[str]) -> Any:
        return self._embedder().embed_documents(texts)

    def embed_query(self, text: str) -> Any:
        return self._embedder().embed_query(text)

    def count_tokens(self, texts: list[str]) -> list[int]:
        count = getattr(self._embedder(), "count_tokens", estimated_tokens)
        return list(count(texts))

    @property
    def max_tokens(self) -> int | None:
        return getattr(self._embedder(), "max_tokens", None)

    def _embedder(self) -> Embedder:
        with self._lock:
            if self._loaded is None:
                self._loaded = _by_name(str(self.name), self._identity)
            return self._loaded


def _by_name(name: str, identity: EmbedderIdentity | None = None) -> Embedder:
    entry = find(EMBEDDERS, name)
    if entry is not None and name != _GENERAL:
        return cast(Embedder, entry.load()())
    general = find(EMBEDDERS, _GENERAL)
    if general is None:
        raise EmbedderError(f"embedder {name!r}: no installed package knows it")
    prefixes = {}
    if identity is not None:
        prefixes = {"query_prefix": identity.query_prefix, "passage_prefix": identity.passage_prefix}
    return cast(Embedder, general.load()(name, **prefixes))
