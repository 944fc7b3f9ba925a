"""One collection for frameworks whose objects serve sync and asynchronous code alike."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from sift_store.async_store import AsyncSiftStore
from sift_store.errors import InvalidInputError
from sift_store.shell import Opening, native_opener
from sift_store.store import SiftStore

__all__ = ["Twins"]


class _Here(NamedTuple):
    """The asynchronous store of one event loop, and what closes it with the loop."""

    opening: asyncio.Task[AsyncSiftStore]
    lifetime: AsyncGenerator[AsyncSiftStore]


class Twins:
    """A sync store, and an asynchronous one for each event loop, each opened when it is first asked for.

    An asynchronous one is closed with its loop: by `asyncio.run`, and by all that shuts down a loop's asynchronous
    generators. The sync one is closed with this object.

    Args:
        open_: gives the sync store. open_async: gives an asynchronous one, on the running loop; None: what the sync
            one has open is shared.
    """

    def __init__(
        self,
        open_: Callable[[], SiftStore],
        open_async: Callable[[], Coroutine[Any, Any, AsyncSiftStore]] | None = None,
    ) -> None:
        self._open, self._open_async = open_, open_async
        self._lock = threading.Lock()
        self._sync: SiftStore | None = None
        self._loops: dict[asyncio.AbstractEventLoop, _Here] = {}

    @classmethod
    def attach(cls, location: str, **given: Any) -> Twins:
        """Both kinds of what `SiftStore.attach` gives, with the same arguments."""
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

    def sync(self) -> SiftStore:
        """The sync store."""
        with self._lock:
            if self._sync is None:
                self._sync = self._open()
                weakref.finalize(self, self._sync.close)
            return self._sync

    async def here(self) -> AsyncSiftStore:
        """The asynchronous store of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            here = self._loops.get(loop)
            if here is None or (here.opening.done() and here.opening.exception() is not None):
                lifetime = self._lifetime(loop)
                here = self._loops[loop] = _Here(loop.create_task(_first(lifetime)), lifetime)
        return await asyncio.shield(here.opening)

    async def _lifetime(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[AsyncSiftStore]:
        store = await (self._open_async() if self._open_async is not None else self._shared())
        try:
            yield store
        finally:
            self._loops.pop(loop, None)
            await store.close()

    async def _shared(self) -> AsyncSiftStore:
        return await AsyncSiftStore._twin_of(await asyncio.to_thread(self.sync))

    def close(self) -> None:
        """Close the sync store, if it was opened here; the asynchronous ones end with their loops."""
        with self._lock:
            if self._sync is not None:
                self._sync.close()


async def _first(lifetime: AsyncGenerator[AsyncSiftStore]) -> AsyncSiftStore:
    return await anext(lifetime)


async def _lent(store: AsyncSiftStore) -> AsyncSiftStore:
    return store._lent()


def _no_sync_store() -> SiftStore:
    raise InvalidInputError("an AsyncSiftStore was given, which only coroutines can use; await, or give a SiftStore")
