"""`AsyncSiftStore`: the steps of `SiftStore`, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy.typing as npt

from sift_store.adapter import Finding, Progress, Statistics
from sift_store.context import Context, Steps
from sift_store.copying import Copied, copy_steps
from sift_store.embedding import EmbedderLike, SparseEmbedder
from sift_store.errors import StoreClosedError
from sift_store.hooks import Hook
from sift_store.plan import Method
from sift_store.records import Id, Payload, Record
from sift_store.results import Explanation, Hits
from sift_store.searching import Question, compare_steps, search_steps
from sift_store.shell import COMPARED, Opening, Shell, embedding_for, native_opener, open_steps
from sift_store.store import SiftStore
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

__all__ = ["AsyncSiftStore"]

T = TypeVar("T")


class AsyncSiftStore(Shell):
    """`SiftStore` with awaits: the same names, arguments, results and errors.

    Servers are awaited by their own asynchronous clients; embedders, hooks and the choice run on threads, beside each
    other. An engine in the process has one thread, so the event loop stays free but its searches do not run in
    parallel; concurrency means a server.
    """

    def __init__(
        self,
        context: Context,
        name: str = "",
        *,
        owner: bool = True,
        opening: Opening | None = None,
        workers: Workers | None = None,
    ) -> None:
        super().__init__(context, name, owner=owner, opening=opening)
        self._context = dataclasses.replace(context, awaits=True)
        self._workers = workers or Workers()

    @classmethod
    async def open(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: EmbedderLike | None = None,
        indexed: Mapping[str, str] | None = None,
        client: Any = None,
    ) -> Self:
        """As `SiftStore.open`; `client` may be an asynchronous one."""
        return await cls._opened(Opening(location, embedder, indexed, client))

    @classmethod
    async def attach(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: EmbedderLike | None = None,
        sparse_embedder: SparseEmbedder | None = None,
        client: Any = None,
    ) -> Self:
        """As `SiftStore.attach`."""
        opening = Opening(location, embedder, None, client, attach=True, sparse_embedder=sparse_embedder)
        return await cls._opened(opening)

    @classmethod
    async def _opened(cls, opening: Opening) -> Self:
        workers = Workers()
        try:
            context, name = await _run(open_steps(opening, native_async=True), workers)
        except BaseException:
            workers.shutdown()
            raise
        return cls(context, name, opening=opening, workers=workers)

    @classmethod
    async def _twin_of(cls, store: SiftStore) -> Self:
        """The same collection, embedder and scope: by an asynchronous client of its own, or else over what is open."""
        opening, context = store._opening, store._context
        if opening is None or native_opener(opening) is None:
            return cls(context, store._name, owner=False, opening=opening)
        twin = await cls._opened(dataclasses.replace(opening, embedder=context.embedding))
        twin._context = dataclasses.replace(twin._context, scope=context.scope, stamps=context.stamps)
        return twin

    async def add(
        self,
        texts: Iterable[str],
        ids: Iterable[Any] | None = None,
        payloads: Iterable[Mapping[str, Any] | None] | None = None,
        vectors: npt.ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Id]:
        """As `SiftStore.add`; `progress` is called on a thread."""
        return await self._run(add_steps(self._context, texts, ids, payloads, vectors, progress))

    async def search(
        self,
        query: str | None = None,
        *,
        k: int | None = None,
        where: Any = None,
        method: Method = "sift",
        vector: npt.ArrayLike | None = None,
        queries: Sequence[str] | None = None,
        weights: npt.ArrayLike | None = None,
        hook: Hook | None = None,
        **options: Any,
    ) -> Hits:
        """As `SiftStore.search`, with the same options; a hook runs on a thread, a coroutine function here."""
        asked = self._ask(Question(query, queries, vector, weights), k, where, method, **options)
        return (await self._run(search_steps(self._context, *asked, hook)))[0]

    async def search_batch(
        self, queries: Sequence[str] | None = None, *, vectors: npt.ArrayLike | None = None, **options: Any
    ) -> list[Hits]:
        """As `SiftStore.search_batch`."""
        return await self._run(search_steps(self._context, *self._ask_many(queries, vectors, options)))

    async def compare(self, query: str, *, k: int | None = None, where: Any = None) -> dict[Method, Hits]:
        """As `SiftStore.compare`."""
        (question,), request = self._ask(Question(query), k, where)
        return await self._run(compare_steps(self._context, question, request, COMPARED))

    async def explain(
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
        """As `SiftStore.explain`."""
        question = Question(query, queries, vector, weights)
        asked = self._ask(question, k, where, **options)
        return Explanation(question.shown, (await self._run(search_steps(self._context, *asked)))[0])

    async def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:
        """As `SiftStore.get`."""
        return await self._run(get_steps(self._context, ids, vectors))

    async def update_payload(self, ids: Sequence[Id], payload: Payload) -> None:
        """As `SiftStore.update_payload`."""
        await self._run(update_steps(self._context, ids, payload))

    async def delete(self, ids: Sequence[Id] | None = None, *, where: Any = None) -> int:
        """As `SiftStore.delete`."""
        return await self._run(delete_steps(self._context, ids, where))

    async def count(self, where: Any = None) -> int:
        """As `SiftStore.count`."""
        return await self._run(count_steps(self._context, where))

    async def copy_to(self, target: AsyncSiftStore, *, progress: Progress | None = None) -> Copied:
        """As `SiftStore.copy_to`."""
        return await self._run(copy_steps(self._context, self._context_of(target, AsyncSiftStore), progress))

    def scoped(self, equalities: Mapping[str, Any]) -> Self:
        """As `SiftStore.scoped`; not awaited."""
        context = self._scoped_context(equalities)
        return type(self)(context, self._name, owner=False, opening=self._opening, workers=self._workers)

    async def statistics(self) -> Statistics:
        """As `SiftStore.statistics`."""
        return await self._run(statistics_steps(self._context))

    async def reembed(self, embedder: EmbedderLike, *, progress: Progress | None = None) -> int:
        """As `SiftStore.reembed`."""
        return await self._run(reembed_steps(self._context, embedding_for(embedder), progress))

    async def optimize(self, *, wait: bool = True) -> None:
        """As `SiftStore.optimize`; while it waits, other calls go on."""
        self._context.check_process()
        workers = Workers()
        try:
            await _run(optimize_steps(self._context, wait), workers)
        finally:
            workers.shutdown()

    @asynccontextmanager
    async def bulk(self) -> AsyncIterator[Self]:
        """As `SiftStore.bulk`."""
        self._context.check_process()
        check_writable(self._context)
        with self._context.adapter.bulk():
            yield self
        await self.optimize()

    async def doctor(self) -> list[Finding]:
        """As `SiftStore.doctor`."""
        return await self._run(doctor_steps(self._context))

    async def close(self) -> None:
        """As `SiftStore.close`."""
        if self._owner and self._context.process == os.getpid():
            close = self._context.adapter.close
            await (close() if inspect.iscoroutinefunction(close) else asyncio.to_thread(close))
            self._workers.shutdown()

    def _lent(self) -> Self:
        """The same store, for somebody who must not close it."""
        return type(self)(self._context, self._name, owner=False, opening=self._opening, workers=self._workers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        self._context.check_process()
        return await _run(steps, self._workers)


class Workers:
    """Threads of one store: one for an engine in the process, which does one thing at a time, and some for all else.

    Embedders, hooks and the choice itself do not wait for each other.
    """

    def __init__(self) -> None:
        self._engine = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sift-store")
        self._others = ThreadPoolExecutor(thread_name_prefix="sift-store-other")

    def submit(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a call on a thread of its kind."""
        thread = self._engine if _touches_engine(call) else self._others
        return asyncio.get_running_loop().run_in_executor(thread, call)

    def shutdown(self) -> None:
        """End the threads once what they do has ended."""
        self._engine.shutdown(wait=False)
        self._others.shutdown(wait=False)


def _touches_engine(call: Callable[[], Any]) -> bool:
    """Whether a call is a method of an adapter, or of a replacement of its content."""
    owner = getattr(getattr(call, "func", call), "__self__", None)
    return hasattr(owner, "capabilities") or hasattr(owner, "commit")


async def _run(steps: Steps[T], workers: Workers) -> T:
    """Make the calls that the steps ask for: await coroutine functions, run others on a thread.

    A task that was cancelled ends so, whatever the calls raise that undo its work.
    """
    stopped: asyncio.CancelledError | None = None
    try:
        call = next(steps)
        while True:
            under_way = _started(call, workers)
            try:
                result = await asyncio.shield(under_way)
            except asyncio.CancelledError as cancelled:
                stopped = cancelled
                await _ended(under_way)
                if not under_way.cancelled() and under_way.exception() is None:
                    _take_in(steps, under_way.result(), stopped)
                call = steps.throw(stopped)
            except BaseException as exc:
                call = steps.throw(exc)
            else:
                call = steps.send(result)
    except StopIteration as done:
        if stopped is not None:
            raise stopped from None
        return done.value  # type: ignore[no-any-return]  # a generator's return value
    except Exception as exc:
        if stopped is not None:
            raise stopped from exc
        raise


def _started(call: Callable[[], Any], workers: Workers) -> asyncio.Future[Any]:
    if _is_awaited(call):
        return asyncio.create_task(call())
    try:
        return workers.submit(call)
    except RuntimeError as exc:  # the threads have ended
        raise StoreClosedError("the store is closed; open it again") from exc


def _is_awaited(call: Callable[[], Any]) -> bool:
    """Whether a call gives a coroutine: a coroutine function, or an object whose `__call__` is one."""
    function = getattr(call, "func", call)
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _take_in(steps: Steps[Any], result: Any, stopped: asyncio.CancelledError) -> None:
    """Let cancelled steps have the result of their last call, so that they know what there is to undo."""
    try:
        steps.send(result)
    except StopIteration:
        raise stopped from None


async def _ended(future: asyncio.Future[Any]) -> None:
    """Stop a coroutine, but wait for a call that runs on a thread, however often the waiting task is cancelled."""
    if isinstance(future, asyncio.Task):
        future.cancel()
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
