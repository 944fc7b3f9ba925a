"""Adapters over a server, once for all of them: a collection says what to ask, a session asks it.

A collection's operations are generators that yield requests and are sent the answers; what a request is, is between
the collection and its session. The same operations run over a sync and an async session.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from sift_store.adapter import (
    CandidateQuery,
    Candidates,
    Capabilities,
    Key,
    Statistics,
)
from sift_store.deadline import Deadline
from sift_store.errors import ReadOnlyError, StoreClosedError
from sift_store.filters import Filter
from sift_store.records import Id, Payload, Record

__all__ = ["AsyncServedAdapter", "AsyncSession", "Remembered", "ServedAdapter", "ServedCollection", "Session"]

T = TypeVar("T")
# An operation, made anew for each attempt.
Make = Callable[[], Any]

# How long what another process may change is taken for granted. What this process changes it sees at once.
_FRESH = 5.0


class ServedCollection(Protocol):
    """Operations as generators, named and meant as in `Adapter`; those that write only where it is writable."""

    @property
    def capabilities(self) -> Capabilities:
        """What it declares of itself."""

    def known_statistics(self) -> Statistics | None:
        """What was read a moment ago, or None."""

    def forget(self) -> None:
        """Something was changed, or failed: know nothing."""

    def statistics(self) -> Any: ...  # noqa: D102  # the seam says what each operation does
    def candidates(self, queries: Sequence[CandidateQuery]) -> Any: ...  # noqa: D102
    def fetch(self, keys: Sequence[Key]) -> Any: ...  # noqa: D102
    def get(self, ids: Sequence[Id], *, vectors: bool) -> Any: ...  # noqa: D102
    def count(self, where: Filter | None) -> Any: ...  # noqa: D102
    def scan(self, after: Key | None, limit: int, *, vectors: bool) -> Any: ...  # noqa: D102


class Remembered:
    """The statistics of a collection on a server, remembered for a few seconds; not those of an empty one."""

    def __init__(self) -> None:
        self._statistics: tuple[float, Statistics] | None = None
        self._changes = 0

    @property
    def changes(self) -> int:
        """How often something was forgotten; to be taken before the state is read."""
        return self._changes

    def known_statistics(self) -> Statistics | None:
        """What was read a moment ago, or None."""
        known = self._statistics
        return known[1] if known and time.monotonic() - known[0] < _FRESH and known[1].count else None

    def forget(self) -> None:
        """Read the state anew at the next call: something was changed, or failed."""
        self._changes += 1
        self._statistics = None

    def remember(self, statistics: Statistics, changes: int) -> None:
        """Keep what was read, unless another thread has written since `changes`: then it is old already."""
        if changes == self._changes:
            self._statistics = (time.monotonic(), statistics)


class Session(Protocol):
    """Runs operations: reads may be tried again, writes run once. The driver's errors leave as ours."""

    def read(self, doing: str, make: Make, deadline: Deadline | None = None) -> Any:
        """Run an operation that only reads."""

    def write(self, doing: str, make: Make) -> Any:
        """Run an operation that writes."""

    def close(self) -> None:
        """Close the connections that are ours."""


class AsyncSession(Protocol):
    """The same with coroutine functions."""

    def read(self, doing: str, make: Make, deadline: Deadline | None = None) -> Awaitable[Any]:
        """Run an operation that only reads."""

    def write(self, doing: str, make: Make) -> Awaitable[Any]:
        """Run an operation that writes."""

    def close(self) -> Awaitable[None]:
        """Close the connections that are ours."""


C = TypeVar("C", bound=ServedCollection)


class _Served(Generic[C]):
    """What the two have in common."""

    def __init__(self, collection: C) -> None:
        self._collection = collection
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """What the collection declares of itself."""
        return self._collection.capabilities

    def bulk(self) -> AbstractContextManager[None]:
        """Nothing to hold back: a server builds its index by its own rules."""
        return nullcontext()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed; open it again")

    @property
    def _own(self) -> Any:
        """The collection, if it may be written.

        Raises:
            ReadOnlyError: it was attached.
        """
        if not self._collection.capabilities.writable:
            raise ReadOnlyError("an attached collection is only read; write to it with the program that it belongs to")
        return self._collection


class ServedAdapter(_Served[C]):
    """One collection of a server. Safe to use from several threads. Subclasses add the rest of the seam."""

    def __init__(self, session: Session, collection: C) -> None:
        super().__init__(collection)
        self._session = session

    def statistics(self, *, deadline: Deadline | None = None) -> Statistics:  # noqa: D102  # the seam says what each method does
        self._check_open()
        known = self._collection.known_statistics()
        return known or self._read("reading the state", self._collection.statistics, deadline)

    def upsert(  # noqa: D102
        self, records: Sequence[Record], *, generation: int | None = None, within: Filter | None = None
    ) -> None:
        self._write("writing", partial(self._own.upsert, records, generation, within))

    def candidates(  # noqa: D102
        self, queries: Sequence[CandidateQuery], *, deadline: Deadline | None = None
    ) -> list[Candidates]:
        return self._read("searching", partial(self._collection.candidates, queries), deadline)  # type: ignore[no-any-return]

    def fetch(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Record | None]:  # noqa: D102
        return self._read("reading", partial(self._collection.fetch, keys), deadline)  # type: ignore[no-any-return]

    def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        return self._read("reading", partial(self._collection.get, ids, vectors=vectors))  # type: ignore[no-any-return]

    def update_payload(self, ids: Sequence[Id], payload: Payload, *, within: Filter | None = None) -> None:  # noqa: D102
        self._write("changing payloads", partial(self._own.update_payload, ids, payload, within))

    def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        return self._write("deleting", partial(self._own.delete, ids, where))  # type: ignore[no-any-return]

    def count(self, where: Filter | None) -> int:  # noqa: D102
        return self._read("counting", partial(self._collection.count, where))  # type: ignore[no-any-return]

    def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        return self._read("reading", partial(self._collection.scan, after, limit, vectors=vectors))  # type: ignore[no-any-return]

    def close(self) -> None:  # noqa: D102
        if not self._closed:
            self._closed = True
            self._session.close()

    def _read(self, doing: str, make: Make, deadline: Deadline | None = None) -> Any:
        self._check_open()
        try:
            return self._session.read(doing, make, deadline)
        except BaseException:
            self._collection.forget()
            raise

    def _write(self, doing: str, make: Make) -> Any:
        self._check_open()
        try:
            return self._session.write(doing, make)
        finally:
            self._collection.forget()


class AsyncServedAdapter(_Served[C]):
    """The same, of coroutine functions, on one event loop."""

    def __init__(self, session: AsyncSession, collection: C) -> None:
        super().__init__(collection)
        self._session = session

    async def statistics(self, *, deadline: Deadline | None = None) -> Statistics:  # noqa: D102  # the seam says what each method does
        self._check_open()
        known = self._collection.known_statistics()
        return known or await self._read("reading the state", self._collection.statistics, deadline)

    async def upsert(  # noqa: D102
        self, records: Sequence[Record], *, generation: int | None = None, within: Filter | None = None
    ) -> None:
        await self._write("writing", partial(self._own.upsert, records, generation, within))

    async def candidates(  # noqa: D102
        self, queries: Sequence[CandidateQuery], *, deadline: Deadline | None = None
    ) -> list[Candidates]:
        return await self._read("searching", partial(self._collection.candidates, queries), deadline)  # type: ignore[no-any-return]

    async def fetch(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Record | None]:  # noqa: D102
        return await self._read("reading", partial(self._collection.fetch, keys), deadline)  # type: ignore[no-any-return]

    async def get(self, ids: Sequence[Id], *, vectors: bool = False) -> list[Record | None]:  # noqa: D102
        return await self._read("reading", partial(self._collection.get, ids, vectors=vectors))  # type: ignore[no-any-return]

    async def update_payload(self, ids: Sequence[Id], payload: Payload, *, within: Filter | None = None) -> None:  # noqa: D102
        await self._write("changing payloads", partial(self._own.update_payload, ids, payload, within))

    async def delete(self, ids: Sequence[Id] | None, where: Filter | None) -> int:  # noqa: D102
        return await self._write("deleting", partial(self._own.delete, ids, where))  # type: ignore[no-any-return]

    async def count(self, where: Filter | None) -> int:  # noqa: D102
        return await self._read("counting", partial(self._collection.count, where))  # type: ignore[no-any-return]

    async def scan(  # noqa: D102
        self, after: Key | None, limit: int, *, vectors: bool = False
    ) -> tuple[list[Record], Key | None]:
        return await self._read("reading", partial(self._collection.scan, after, limit, vectors=vectors))  # type: ignore[no-any-return]

    async def close(self) -> None:  # noqa: D102
        if not self._closed:
            self._closed = True
            await self._session.close()

    async def _read(self, doing: str, make: Make, deadline: Deadline | None = None) -> Any:
        self._check_open()
        try:
            return await self._session.read(doing, make, deadline)
        except BaseException:
            self._collection.forget()
            raise

    async def _write(self, doing: str, make: Make) -> Any:
        self._check_open()
        try:
            return await self._session.write(doing, make)
        finally:
            self._collection.forget()
