"""Runs operations over a sync or an asynchronous client: reads are tried again, writes only if the server refused them.

Both sessions do the same, step by step; an operation knows of neither.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying

from sift_store.deadline import Deadline
from sift_store.errors import StoreClosedError
from sift_store_qdrant.failures import client_errors, is_refused, is_transient, retry_after
from sift_store_qdrant.work import READS, TIMED, TIMEOUT, Ask, Call, Info, Nearest, Pause, Retrieve, Work

__all__ = ["AsyncSession", "Session", "Wire"]

T = TypeVar("T")

# A server that restarts is back within these seconds.
_SECONDS = 6.0
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
# How long a server is waited for that says for how long; a search's deadline is shorter or longer.
_PATIENCE = 30.0


class Wire(Protocol):
    """How the requests of a search travel; the rest goes through the client's own methods."""

    name: str

    def send(self, client: Any, ask: Info | Nearest | Retrieve, seconds: float) -> Any:
        """Begin a request; the raw answer, or of an asynchronous client an awaitable of it."""

    def answer(self, ask: Info | Nearest | Retrieve, given: Any) -> Any:
        """Decode a raw answer."""


class _Retry:
    """When to try one request again, and after how long: as the server says, else a little longer each time."""

    def __init__(self, ask: Ask, deadline: Deadline | None) -> None:
        reads = not isinstance(ask, Call) or ask.method in READS
        self._again = is_transient if reads else is_refused
        self._deadline = deadline

    def options(self) -> dict[str, Any]:
        """For tenacity."""
        return {"retry": self._worth, "wait": self._wait, "stop": self._stop, "reraise": True}

    def _worth(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return error is not None and self._again(error)

    def _wait(self, state: RetryCallState) -> float:
        asked = retry_after(state.outcome.exception() if state.outcome else None)
        return asked if asked is not None else min(_FIRST_WAIT * 2 ** (state.attempt_number - 1), _LONGEST_WAIT)

    def _stop(self, state: RetryCallState) -> bool:
        """No wait is begun that the deadline would not outlive."""
        after = (state.seconds_since_start or 0.0) + state.upcoming_sleep
        asked = retry_after(state.outcome.exception() if state.outcome else None) is not None
        if self._deadline is not None and state.upcoming_sleep >= self._deadline.left():
            return True
        return after > (_PATIENCE if asked else _SECONDS)


def _seconds(deadline: Deadline | None) -> float:
    return TIMEOUT if deadline is None else deadline.left()


def _arguments(call: Call, deadline: Deadline | None) -> Mapping[str, Any]:
    """Of a call, with what is left of the time, in whole seconds, where the client takes it."""
    if deadline is None or call.method not in TIMED:
        return call.arguments
    return {**call.arguments, "timeout": max(math.ceil(deadline.left()), 1)}


class Session:
    """Operations over a `QdrantClient`."""

    def __init__(self, client: Any, wire: Wire, *, ours: bool) -> None:
        self._client, self.wire, self._ours = client, wire, ours

    def read(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline | None = None) -> T:
        """Run an operation that only reads. Raises what `client_errors` says."""
        return self._run(doing, make(), deadline or Deadline.after(TIMEOUT))

    def write(self, doing: str, make: Callable[[], Work[T]]) -> T:
        """Run an operation that writes; each of its requests has the client's own time limit."""
        return self._run(doing, make(), None)

    def _run(self, doing: str, work: Work[T], deadline: Deadline | None) -> T:
        try:
            with client_errors(doing, deadline):  # an answer may be readable and still not what was asked for
                ask = next(work)
                while True:
                    try:
                        with client_errors(doing, deadline):
                            answer = self._ask(ask, deadline)
                    except Exception as exc:
                        ask = work.throw(exc)
                    else:
                        ask = work.send(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # a generator's return value

    def _ask(self, ask: Ask, deadline: Deadline | None) -> Any:
        for attempt in Retrying(**_Retry(ask, deadline).options()):
            with attempt:
                if deadline is not None:
                    deadline.check()
                if isinstance(ask, Pause):
                    return time.sleep(ask.seconds)
                if isinstance(ask, Call):
                    return getattr(self._client, ask.method)(**_arguments(ask, deadline))
                return self.wire.answer(ask, self.wire.send(self._client, ask, _seconds(deadline)))
        raise AssertionError  # tenacity raises what the last attempt raised

    def close(self) -> None:
        """Close the client if it is ours."""
        if self._ours:
            self._client.close()


@contextmanager
def _closed_by_others() -> Iterator[None]:
    """GRPC cancels what is under way when its channel is closed; the task that waits was not cancelled."""
    try:
        yield
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise StoreClosedError("the client was closed while it waited; open the store again") from exc


class AsyncSession:
    """The same over an `AsyncQdrantClient`."""

    def __init__(self, client: Any, wire: Wire, *, ours: bool) -> None:
        self._client, self.wire, self._ours = client, wire, ours

    async def read(self, doing: str, make: Callable[[], Work[T]], deadline: Deadline | None = None) -> T:
        """As `Session.read`."""
        return await self._run(doing, make(), deadline or Deadline.after(TIMEOUT))

    async def write(self, doing: str, make: Callable[[], Work[T]]) -> T:
        """As `Session.write`."""
        return await self._run(doing, make(), None)

    async def _run(self, doing: str, work: Work[T], deadline: Deadline | None) -> T:
        try:
            with client_errors(doing, deadline):
                ask = next(work)
                while True:
                    try:
                        with client_errors(doing, deadline), _closed_by_others():
                            answer = await self._ask(ask, deadline)
                    except Exception as exc:
                        ask = work.throw(exc)
                    else:
                        ask = work.send(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # a generator's return value

    async def _ask(self, ask: Ask, deadline: Deadline | None) -> Any:
        async for attempt in AsyncRetrying(**_Retry(ask, deadline).options()):
            with attempt:
                if deadline is not None:
                    deadline.check()
                if isinstance(ask, Pause):
                    return await asyncio.sleep(ask.seconds)
                if isinstance(ask, Call):
                    return await getattr(self._client, ask.method)(**_arguments(ask, deadline))
                return self.wire.answer(ask, await self.wire.send(self._client, ask, _seconds(deadline)))
        raise AssertionError

    async def close(self) -> None:
        """Close the client if it is ours."""
        if self._ours:
            await self._client.close()
