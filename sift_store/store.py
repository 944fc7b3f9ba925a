"""`SiftStore`, and what is done to collections from outside. Its async twin is in async_store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy.typing as npt

from sift_store.adapter import Finding, Progress, Statistics
from sift_store.context import Steps
from sift_store.copying import Copied, copy_steps
from sift_store.embedding import EmbedderLike, SparseEmbedder
from sift_store.errors import LocationError
from sift_store.hooks import Hook
from sift_store.kernels import Kernel
from sift_store.location import parse_location
from sift_store.plan import Method, Order
from sift_store.records import Id, Payload, Record
from sift_store.registry import store_module
from sift_store.results import Explanation, Hits
from sift_store.searching import Question, compare_steps, search_steps
from sift_store.selection import Objective
from sift_store.shell import COMPARED, Opening, Shell, embedding_for, open_steps
from sift_store.writing import (
    add_steps,
    check_writable,
    count_steps,
    delete_steps,
    doctor_steps,
    get_steps,
    optimize_steps,
    reembed_steps,
    statistics_steps,
    update_steps,
)

__all__ = ["SEARCH_OPTIONS", "SiftStore", "drop_collection", "list_collections", "migrate_schema", "run"]

T = TypeVar("T")


def list_collections(location: str | os.PathLike[str]) -> list[str]:
    """Names of the collections at a path or URL, sorted."""
    where = parse_location(location)
    return store_module(where).list_collections(where)


def drop_collection(location: str | os.PathLike[str]) -> bool:
    """Delete the collection that a path or URL names, with all it holds; whether there was one.

    Raises:
        StoreLockedError: somebody has it open.
    """
    where = parse_location(location)
    return store_module(where).drop_collection(where)


def migrate_schema(location: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the schema in a database to a revision: the one before and the one after, None for none.

    Raises:
        LocationError: this kind of store has no schema.
    """
    where = parse_location(location)
    migrate = getattr(store_module(where), "migrate_schema", None)
    if migrate is None:
        raise LocationError(
            f"{where.scheme!r} has no schema to migrate; a postgresql:// URL wanted, or a second store to copy to"
        )
    moved: tuple[str | None, str | None] = migrate(where, revision)
    return moved


class SiftStore(Shell):
    """A collection of passages that answers with an informative, non-redundant subset.

    Open with `SiftStore.open`; a context manager. Safe to use from several threads.
    """

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: EmbedderLike | None = None,
        indexed: Mapping[str, str] | None = None,
        client: Any = None,
    ) -> Self:
        """Open a collection of our own, existing or not; it is created at the first add.

        Args:
            location: a path for the embedded store, or a URL ("memory://"). ``?collection=name`` picks one of several.
            embedder: a name ("minilm"), the name or folder of a sentence-transformers model, a callable from a list of
                texts to vectors, or an object with `embed_documents` and `embed_query`. None: the one the store
                remembers, or no texts but only vectors.
            indexed: payload indexes, metadata key -> "keyword", "integer", "float", "bool" or "datetime".
            client: a connection pool or engine of the caller's own, used and left open; what is accepted, the
                database's page in docs/ says.

        Raises:
            LocationError: the location names no store. StoreLockedError: another process has it open.
            EmbedderError: the store was built with another embedder.
            MissingExtraError: an optional package is not installed.
        """
        return cls._opened(Opening(location, embedder, indexed, client))

    @classmethod
    def attach(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: EmbedderLike | None = None,
        sparse_embedder: SparseEmbedder | None = None,
        client: Any = None,
    ) -> Self:
        """Open data that another program keeps, to read it: nothing is created, changed or copied.

        Args:
            location: the database, and where things are in it, e.g. ``?table=docs&id=uuid&vector=emb&text=body``. What
                is not said is found out, or asked for in an error.
            embedder: the one that the vectors were made with; None to give vectors.
            sparse_embedder: for hybrid search, with ``&sparse=name``: a callable from a question to a mapping of index
                to weight, or an object with `embed_query` that gives `indices` and `values`. client: as for `open`.

        Raises:
            LocationError: what it names is ambiguous or has no vectors. NotFoundError: there is no such table.
            EmbedderError: the embedder gives another dimension.
        """
        opening = Opening(location, embedder, None, client, attach=True, sparse_embedder=sparse_embedder)
        return cls._opened(opening)

    @classmethod
    def _opened(cls, opening: Opening) -> Self:
        return cls(*run(open_steps(opening, native_async=False)), opening=opening)

    def add(
        self,
        texts: Iterable[str],
        ids: Iterable[Any] | None = None,
        payloads: Iterable[Mapping[str, Any] | None] | None = None,
        vectors: npt.ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Id]:
        """Store passages. Durable on return; adding the same again changes nothing.

        Args:
            texts: none empty. ids: text, integers or UUIDs, replacing what has the same id; default, for all or for
                those that are None, a hash of text and payload. payloads: JSON-like mappings; dates become ISO text.
            vectors: (n, d), any length but zero; default: the embedder's. progress: called with (done, all).

        Returns:
            The ids, in the order of the texts.

        Raises:
            InvalidInputError: anything wrong with the input, before anything is written.
            PartialWriteError: the engine or the embedder failed later; `.written` holds the ids that are stored.
        """
        return self._run(add_steps(self._context, texts, ids, payloads, vectors, progress))

    def search(
        self,
        query: str | None = None,
        *,
        k: int | None = None,
        where: Any = None,
        method: Method = "sift",
        vector: npt.ArrayLike | None = None,
        queries: Sequence[str] | None = None,
        weights: npt.ArrayLike | None = None,
        objective: Objective = "pool",
        replace: bool = False,
        candidates: int | None = None,
        max_tokens: int | None = None,
        min_score: float | None = None,
        target_variance: float | None = None,
        kernel: Kernel | None = None,
        lambda_: float | None = None,
        order: Order = "pick",
        timeout: float | None = None,
        hook: Hook | None = None,
    ) -> Hits:
        """Answer one need with passages that together tell most.

        Args:
            query: text. Instead: `vector`, (d,) or (m, d), or `queries`, the sub-questions of one need.
            k: most hits; default 5, or as many as `max_tokens` pays for.
            where: a filter (see `sift_store.filters`), or one of the engine's own.
            method: "sift", or for comparison "knn" or "mmr".
            weights: of several queries, default equal.
            objective: "pool" for retrieval; "query", the paper's, for fine-tuning.
            replace: whether a passage may be picked again. candidates: how many are fetched to choose from.
            max_tokens: budget for the texts together, best gain per token first.
            min_score: least score of a hit. order: of the hits, as "pick"ed or by "score".
            target_variance: stop once the variance left, a share of the prior, is at most this; default: k decides.
            kernel, lambda_: of objective "query", as for `select`. Default: "rbf" and 0.1, measured for fine-tuning
                (docs/fine-tuning.md); "linear" and 0.01 are the paper's.
            hook: called with the question and its picks once they are there (see `sift_store.hooks`), beyond the time
                of `timeout`; what it gives back is `Hits.outcome`.
            timeout: seconds for all of it. Default: 30 for what a server does, none for a store in the process, whose
                calls cannot be stopped half-way.

        Returns:
            Hits; fewer than k with the reason in `Hits.shortfall`. Copies of a text collapse into one hit
            (method "sift") and are named in `Hits.suppressed`.

        Raises:
            InvalidInputError, FilterError, VectorError: the arguments. EmbedderError: text without an embedder.
            DeadlineError: the time is over. StorageError: the engine failed.
        """
        asked = self._ask(
            Question(query, queries, vector, weights),
            k,
            where,
            method,
            objective=objective,
            replace=replace,
            candidates=candidates,
            max_tokens=max_tokens,
            min_score=min_score,
            target_variance=target_variance,
            kernel=kernel,
            lambda_=lambda_,
            order=order,
            timeout=timeout,
        )
        return self._run(search_steps(self._context, *asked, hook))[0]

    def search_batch(
        self, queries: Sequence[str] | None = None, *, vectors: npt.ArrayLike | None = None, **options: Any
    ) -> list[Hits]:
        """`search` for each of many texts, or rows of `vectors`, in order; the engine is asked once.

        The other arguments of `search` hold for all.
        """
        return self._run(search_steps(self._context, *self._ask_many(queries, vectors, options)))

    def compare(self, query: str, *, k: int | None = None, where: Any = None) -> dict[Method, Hits]:
        """The same question by "knn", "mmr" and "sift" from the same candidates, with the variance each leaves."""
        (question,), request = self._ask(Question(query), k, where)
        return self._run(compare_steps(self._context, question, request, COMPARED))

    def explain(
        self,
        query: str | None = None,
        *,
        k: int | None = None,
        where: Any = None,
        vector: npt.ArrayLike | None = None,
        queries: Sequence[str] | None = None,
        weights: npt.ArrayLike | None = None,
        **options: Any,
    ) -> Explanation:
        """Search and say how: plan, candidates, bytes, times, and each pick with what it stands for. Print it."""
        question = Question(query, queries, vector, weights)
        asked = self._ask(question, k, where, **options)
        return Explanation(question.shown, self._run(search_steps(self._context, *asked))[0])

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:
        """Records by id, in order; None where there is none. With `vectors`, each with its unit vector."""
        return self._run(get_steps(self._context, ids, vectors))

    def update_payload(self, ids: Sequence[Id], payload: Payload) -> None:
        """Merge top-level keys into the payloads of existing records; texts and vectors stay.

        Raises:
            NotFoundError: an id is not there; nothing was changed.
        """
        self._run(update_steps(self._context, ids, payload))

    def delete(self, ids: Sequence[Id] | None = None, *, where: Any = None) -> int:
        """Delete by ids, by filter, or what matches both; how many went."""
        return self._run(delete_steps(self._context, ids, where))

    def count(self, where: Any = None) -> int:
        """How many passages match, exactly."""
        return self._run(count_steps(self._context, where))

    def copy_to(self, target: SiftStore, *, progress: Progress | None = None) -> Copied:
        """Copy all passages, with their vectors, to another store; nothing is embedded again.

        Args:
            target: an open store of our own, of any kind; created at the first passage, as at the first add. Open it
                with `indexed` for payload indexes. Stopped half-way and begun again, the copy goes on.
            progress: called with (done, all).

        Raises:
            EmbedderError: the target holds vectors of another embedder or dimension. ReadOnlyError: it was attached.
            InvalidInputError: something in the source that the target cannot hold, such as two passages of one id.
            StorageError: counts, or a sample of the passages, do not agree at the end.
        """
        return self._run(copy_steps(self._context, self._context_of(target, SiftStore), progress))

    def scoped(self, equalities: Mapping[str, Any]) -> Self:
        """This store seen through a fixed filter, for tenants: no call can widen it.

        The equalities are stamped on what is added and filter everything else. Closing it leaves this store open.
        """
        return type(self)(self._scoped_context(equalities), self._name, owner=False, opening=self._opening)

    def statistics(self) -> Statistics:
        """What is in the store: how many passages, of what dimension and metric, indexed by what, which embedder."""
        return self._run(statistics_steps(self._context))

    def reembed(self, embedder: EmbedderLike, *, progress: Progress | None = None) -> int:
        """Embed every text with another embedder; the new vectors take the old ones' place at once, or not at all."""
        return self._run(reembed_steps(self._context, embedding_for(embedder), progress))

    def optimize(self, *, wait: bool = True) -> None:
        """Build the index now, beside the live data; searching and writing go on meanwhile.

        Large stores do so by themselves in the background after an add; this waits until everything that was there when
        it was called is in the index.
        """
        self._run(optimize_steps(self._context, wait))

    @contextmanager
    def bulk(self) -> Iterator[Self]:
        """Load much and build the index once, at the end: no build begins by itself inside of the block.

            with store.bulk():
                for batch in batches:
                    store.add(batch)

        What is added is durable and found as ever. If the block raises, the index is left to the next build.
        """
        self._context.check_process()
        check_writable(self._context)
        with self._context.adapter.bulk():
            yield self
        self.optimize()

    def doctor(self) -> list[Finding]:
        """What is wrong, or will be, and the mend for each."""
        return self._run(doctor_steps(self._context))

    def close(self) -> None:
        """Release the store; a second call does nothing."""
        if self._owner and self._context.process == os.getpid():
            self._context.adapter.close()

    def _lent(self) -> Self:
        """The same store, for somebody who must not close it."""
        return type(self)(self._context, self._name, owner=False, opening=self._opening)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        self._context.check_process()
        return run(steps)


# What a search takes beside its question, for objects that pass on what they are given.
SEARCH_OPTIONS = frozenset(signature(SiftStore.search).parameters) - {"self", "query", "queries", "vector", "weights"}


def run(steps: Steps[T]) -> T:
    """Make the calls that the steps ask for."""
    try:
        call = next(steps)
        while True:
            try:
                result = call()
            except BaseException as exc:  # the steps decide what to undo; they raise it again
                call = steps.throw(exc)
            else:
                call = steps.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # a generator's return value
