"""What the sync and the async store share: the context, and how arguments become a question and a request."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy.typing as npt

from sift_store.adapter import INDEX_TYPES, Adapter, Statistics
from sift_store.context import Context, InUse, Steps
from sift_store.embedding import (
    EmbedderLike,
    Embedding,
    SparseEmbedder,
    SparseEmbedding,
    as_embedding,
    as_sparse_embedding,
    check_embedder,
    stored_embedding,
)
from sift_store.errors import EmbedderError, FilterError, InvalidInputError, LocationError
from sift_store.filters import And, Equals, conjunction, parse
from sift_store.kernels import unit_rows
from sift_store.location import Location, parse_location
from sift_store.plan import Method, Request
from sift_store.records import canonical, check_payload, listed
from sift_store.registry import store_module
from sift_store.searching import Question
from sift_store.sharing import Unpickled

__all__ = ["COMPARED", "Opening", "Shell", "embedding_for", "native_opener", "open_steps"]

_REQUESTED = frozenset(field.name for field in dataclasses.fields(Request)) - {"k", "where", "method"}

# What `compare` sets side by side.
COMPARED: tuple[Method, ...] = ("knn", "mmr", "sift")


class Shell(Unpickled):
    """One open collection, perhaps seen through a scope."""

    def __init__(self, context: Context, name: str = "", *, owner: bool = True, opening: Opening | None = None) -> None:
        opened: object = context
        if not isinstance(opened, Context):
            kind = type(self).__name__
            raise InvalidInputError(f"{kind}({context!r}): open a store with {kind}.open(location) or {kind}.attach")
        self._context = context
        self._name = name
        self._owner = owner
        self._opening = opening

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @property
    def embedding(self) -> Embedding | None:
        """The embedder in use, None for a store of vectors alone."""
        return self._context.embedding

    @staticmethod
    def _context_of(other: object, kind: type[Shell]) -> Context:
        """The context of another store, of the kind that the same steps can run on."""
        if not isinstance(other, kind):
            raise InvalidInputError(f"target: {type(other).__name__} given, an open {kind.__name__} wanted")
        return other._context

    def _ask(
        self,
        question: Question | Sequence[Question],
        k: int | None,
        where: Any,
        method: Method = "sift",
        **options: Any,
    ) -> tuple[list[Question], Request]:
        unknown = sorted(options.keys() - _REQUESTED)
        if unknown:  # as Python says it of a function's own parameters
            raise TypeError(f"search() got an unexpected keyword argument {unknown[0]!r}")
        request = Request(k=k, where=parse(where), method=method, **options)
        return ([question] if isinstance(question, Question) else list(question)), request

    def _ask_many(
        self, queries: Sequence[str] | None, vectors: npt.ArrayLike | None, options: dict[str, Any]
    ) -> tuple[list[Question], Request]:
        if (queries is None) == (vectors is None):
            raise InvalidInputError("search_batch: either a list of texts or vectors, one row a query, wanted")
        single = sorted(options.keys() & {"hook", "query", "vector", "weights"})
        if single:
            raise InvalidInputError(f"search_batch: {', '.join(single)} cannot be given for many questions")
        if queries is not None:
            questions = [Question(text=text) for text in listed(queries, "queries")]
        else:
            questions = [Question(vector=row) for row in unit_rows(listed(vectors, "vectors"), "vectors")]
        return self._ask(questions, **{"k": None, "where": None, **options})

    def _scoped_context(self, equalities: Mapping[str, Any]) -> Context:
        condition = parse(equalities)
        parts = condition.parts if isinstance(condition, And) else (condition,)
        stamps = check_payload({part.key: part.value for part in parts if isinstance(part, Equals)}, "scope")
        if not stamps or len(stamps) != len(parts) or any("." in key for key in stamps):
            raise FilterError(
                f"scope {equalities!r}: one or more top-level equalities such as {{'tenant': 'a'}} wanted"
            )
        inherited = self._context.stamps
        clash = [key for key in stamps if key in inherited and canonical(inherited[key]) != canonical(stamps[key])]
        if clash:
            raise FilterError(f"scope: {clash[0]!r} is fixed already and cannot be widened or changed")
        scope = conjunction(self._context.scope, condition)
        return dataclasses.replace(self._context, scope=scope, stamps={**inherited, **stamps})


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """What `open` and `attach` were given. `indexed` is None for attach."""

    location: str | os.PathLike[str] = field(repr=False)
    embedder: EmbedderLike | None
    indexed: Mapping[str, str] | None
    client: Any
    attach: bool = False
    sparse_embedder: SparseEmbedder | None = None

    @property
    def verb(self) -> str:
        """What was called."""
        return "attach" if self.attach else "open"


def open_steps(opening: Opening, *, native_async: bool) -> Steps[tuple[Context, str]]:
    """Open an adapter, check the embedder against what the store remembers; the context, and a name for people.

    Args:
        native_async: take the adapter of coroutine functions, where there is one.
    """
    where = parse_location(opening.location)
    fields = _checked_fields(opening.indexed)
    embedding: Embedding | None = yield partial(as_embedding, opening.embedder)
    sparse = as_sparse_embedding(opening.sparse_embedder)
    adapter: Adapter = yield _opener(where, opening, fields, native_async)
    try:
        statistics: Statistics = yield adapter.statistics
        check_embedder(statistics, embedding)
        _check_hybrid(adapter, sparse)
    except BaseException:
        yield adapter.close
        raise
    if embedding is None and statistics.embedder is not None:
        embedding = stored_embedding(statistics.embedder)
    name = where.address if where.scheme == "path" else f"{where.scheme}://…"
    what = f"table={where.options['table']}" if "table" in where.options else f"collection={where.collection}"
    in_use = InUse(embedding, statistics.generation)
    return Context(adapter, in_use, None, {}, sparse=sparse), f"{name}?{what}"


def _check_hybrid(adapter: Adapter, sparse: SparseEmbedding | None) -> None:
    if adapter.capabilities.hybrid and sparse is None:
        raise InvalidInputError("sparse= in the URL asks for hybrid search: give sparse_embedder=, too")
    if sparse is not None and not adapter.capabilities.hybrid:
        raise InvalidInputError("sparse_embedder: given, but no sparse vectors were named; say &sparse=NAME in the URL")


def _opener(where: Location, opening: Opening, fields: dict[str, str], native_async: bool) -> Callable[[], Any]:
    open_ = getattr(store_module(where), f"{opening.verb}_store", None)
    if open_ is None:
        raise LocationError(f"{where.scheme!r} cannot be attached; open it with SiftStore.open")
    if native_async:
        open_ = native_opener(opening) or open_
    given = {} if opening.attach else {"indexed": fields}
    return partial(open_, where, client=opening.client, **given)


def native_opener(opening: Opening) -> Callable[..., Any] | None:
    """The coroutine function that opens an adapter of coroutine functions there; None if there is none."""
    module = store_module(parse_location(opening.location))
    takes = getattr(module, "takes_async", lambda client: client is None)
    return getattr(module, f"{opening.verb}_async_store", None) if takes(opening.client) else None


def _checked_fields(indexed: Mapping[str, str] | None) -> dict[str, str]:
    if indexed is not None and not isinstance(indexed, Mapping):
        raise InvalidInputError(f"indexed: {type(indexed).__name__} given, a mapping of key to type wanted")
    fields = dict(indexed or {})
    for key, kind in fields.items():
        if not isinstance(key, str) or key.startswith("$"):
            raise InvalidInputError(f"indexed: key {key!r} given, a metadata key wanted")
        parse({key: {"$exists": True}})  # its checks of a key
        if not isinstance(kind, str) or kind not in INDEX_TYPES:
            raise InvalidInputError(f"indexed[{key!r}]: {kind!r} given, one of {', '.join(INDEX_TYPES)} wanted")
    return fields


def embedding_for(embedder: EmbedderLike) -> Embedding:
    """The embedder that `reembed` was given."""
    embedding = as_embedding(embedder)
    if embedding is None:
        raise EmbedderError("reembed: None given, an embedder wanted")
    return embedding
