"""One collection for frameworks whose objects serve sync and asynchronous code alike."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple, Self, TypeAlias

from sift_store.async_store import AsyncSiftStore
from sift_store.embedding import as_embedding
from sift_store.errors import InvalidInputError
from sift_store.sharing import Unpickled
from sift_store.shell import Opening, native_opener
from sift_store.store import SEARCH_OPTIONS, SiftStore

__all__ = ["Twins", "search_arguments"]


class _Here(NamedTuple):
    """The asynchronous store of one event loop, and what closes it with the loop."""

    opening: asyncio.Task[AsyncSiftStore]
    lifetime: AsyncGenerator[AsyncSiftStore]


_Loops: TypeAlias = dict[asyncio.AbstractEventLoop, _Here]
_OpenAsync: TypeAlias = Callable[[], Coroutine[Any, Any, AsyncSiftStore]]


class Twins(Unpickled):
    """A sync store, and an asynchronous one for each event loop, each opened when it is first asked for.

    An asynchronous one is closed with its loop: by `asyncio.run`, and by all that shuts down a loop's asynchronous
    generators. All are closed with the last user of this object.

    Args:
        open_: gives the sync store. open_async: gives an asynchronous one, on the running loop; None: what the sync
            one has open is shared.
    """

    def __init__(self, open_: Callable[[], SiftStore], open_async: _OpenAsync | None = None) -> None:
        self._open, self._open_async = open_, open_async
        self._opening, self._lock = threading.Lock(), threading.Lock()  # the second is never held for long
        self._sync: SiftStore | None = None
        self._loops: _Loops = {}
        weakref.finalize(self, _end, self._loops).atexit = False

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @classmethod
    def attach(cls, location: str, **given: Any) -> Twins:
        """Both kinds of what `SiftStore.attach` gives, with the same arguments."""
        given["embedder"] = as_embedding(given.get("embedder"))  # one cache of questions for all
        opening = Opening(location, None, None, given.get("client"), attach=True)
        native = partial(AsyncSiftStore.attach, location, **given) if native_opener(opening) is not None else None
        return cls(partial(SiftStore.attach, location, **given), native)

    @classmethod
    def of(cls, store: object) -> Twins:
        """Both kinds of a store that is open, and stays so; an `AsyncSiftStore` serves asynchronous code alone.

        A server is reached by an asynchronous client of its own, unless the store was given a client; what runs in the
        process is shared.

        Raises:
            InvalidInputError: something else was given.
        """
        if isinstance(store, SiftStore):
            return cls(store._lent, partial(AsyncSiftStore._twin_of, store))
        if isinstance(store, AsyncSiftStore):
            return cls(_no_sync_store, partial(_lent, store))
        raise InvalidInputError(f"store: {type(store).__name__} given, a SiftStore or an AsyncSiftStore wanted")

    @classmethod
    def shared(cls, owner: object, make: Callable[[], Twins]) -> Twins:
        """Those of an object that others keep, made once for as long as it lives, however often it is asked for."""
        with _SHARED_LOCK:
            held = _SHARED.get(id(owner))
            if held is not None and held[0]() is owner:
                return held[1]
            made = make()
            _SHARED[id(owner)] = weakref.ref(owner), made
            weakref.finalize(owner, _SHARED.pop, id(owner), None).atexit = False
            return made

    def sync(self) -> SiftStore:
        """The sync store."""
        with self._opening:
            if self._sync is None:
                self._sync = self._open()
                weakref.finalize(self, self._sync.close)
            return self._sync

    async def here(self) -> AsyncSiftStore:
        """The asynchronous store of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for ended in [other for other in self._loops if other.is_closed()]:
                del self._loops[ended]
            here = self._loops.get(loop)
            if here is None or _has_failed(here.opening):
                lifetime = _lifetime(self._open_async or self._shared, loop, self._loops)
                here = self._loops[loop] = _Here(loop.create_task(_first(lifetime)), lifetime)
        return await asyncio.shield(here.opening)

    async def _shared(self) -> AsyncSiftStore:
        return await AsyncSiftStore._twin_of(await asyncio.to_thread(self.sync))

    def close(self) -> None:
        """Close the sync store, if it was opened here; the next call opens another. Loops' own end with their loops."""
        with self._opening:
            if self._sync is not None:
                self._sync.close()
                self._sync = None


# Of objects that are alive: by their identity, as not all can be hashed.
_SHARED: dict[int, tuple[weakref.ref[Any], Twins]] = {}
_SHARED_LOCK = threading.Lock()


async def _lifetime(
    open_: _OpenAsync, loop: asyncio.AbstractEventLoop, loops: _Loops
) -> AsyncGenerator[AsyncSiftStore]:
    """Gives a store, and closes it when it is itself closed. Knows nothing of the `Twins`, which may be lost before."""
    store = await open_()
    try:
        yield store
    finally:
        loops.pop(loop, None)
        await store.close()


async def _first(lifetime: AsyncGenerator[AsyncSiftStore]) -> AsyncSiftStore:
    return await anext(lifetime)


def _has_failed(opening: asyncio.Task[AsyncSiftStore]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


def _end(loops: _Loops) -> None:
    """Have every loop that still runs close its store."""
    for loop, here in list(loops.items()):
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(_close_soon, loop, here.lifetime)


def _close_soon(loop: asyncio.AbstractEventLoop, lifetime: AsyncGenerator[AsyncSiftStore]) -> None:
    task = loop.create_task(_closed(lifetime))
    _ENDING.add(task)
    task.add_done_callback(_ENDING.discard)


async def _closed(lifetime: AsyncGenerator[AsyncSiftStore]) -> None:
    await lifetime.aclose()


# A loop knows its tasks weakly.
_ENDING: set[asyncio.Task[None]] = set()


async def _lent(store: AsyncSiftStore) -> AsyncSiftStore:
    return store._lent()


def _no_sync_store() -> SiftStore:
    raise InvalidInputError("an AsyncSiftStore was given, which only coroutines can use; await, or give a SiftStore")


def search_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a search that a framework's object passes on; its name for `where` may be `filter`.

    Raises:
        InvalidInputError: no search takes one of them.
    """
    named = {("where" if name == "filter" else name): value for name, value in given.items()}
    unknown = sorted(named.keys() - SEARCH_OPTIONS)
    if unknown:
        raise InvalidInputError(f"{unknown[0]}: no argument of a search; there are {', '.join(sorted(SEARCH_OPTIONS))}")
    return named
