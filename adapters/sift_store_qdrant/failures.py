"""The client's errors as ours. No message holds a key, or more of the data than the caller gave."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from sift_store.deadline import Deadline
from sift_store.errors import AccessError, DeadlineError, NotFoundError, SiftStoreError, StorageError, StoreClosedError

__all__ = ["client_errors", "is_refused", "is_transient", "retry_after"]

_CODES = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.INTERNAL: 500,
}
_MENDS = {
    401: "give a key: QDRANT_API_KEY, or qdrants://:KEY@host",
    403: "the key may not do this; give one that may",
    429: "the server asks for fewer requests; ask again later",
    503: "see whether the server is up, and try again",
}
_CLOSED = ("closed channel", "channel is closed", "client has been closed", "client was closed")
# What a client in local mode says of a collection that is not there.
_LOCAL_NONE = re.compile(r"Collection .* not found", re.DOTALL)
_LONGEST = 300


def _status(error: BaseException) -> int | None:
    """The error as a status of HTTP; 503 for a connection that failed, 504 for one that took too long."""
    if isinstance(error, ResourceExhaustedResponse):
        return 429
    if isinstance(error, grpc.RpcError):
        return _CODES.get(error.code(), 400)
    if isinstance(error, UnexpectedResponse):
        return error.status_code
    if isinstance(error, ResponseHandlingException):
        if isinstance(error.source, httpx.TimeoutException):
            return 504
        return 503 if isinstance(error.source, httpx.TransportError) else None
    return 404 if isinstance(error, ValueError) and _LOCAL_NONE.fullmatch(str(error)) else None


def _is_closed(error: BaseException) -> bool:
    """Whether the client was closed, which each of its parts says in its own way."""
    cause = error.source if isinstance(error, ResponseHandlingException) else error
    return _status(error) is None and any(said in str(cause).lower() for said in _CLOSED)


def is_transient(error: BaseException) -> bool:
    """Whether a read that failed so may well succeed: the connection was lost, or the server asks for patience."""
    return _status(error) in (429, 502, 503)


def is_refused(error: BaseException) -> bool:
    """Whether the server has not so much as begun with the request, so that even a write may be tried again."""
    return _status(error) == 429


def retry_after(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait, if it does."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    return None


@contextmanager
def client_errors(doing: str, deadline: Deadline | None = None) -> Iterator[None]:
    """Turn what the client raises into the tree of `sift_store.errors`, most specific first.

    Raises:
        DeadlineError: the time is over. NotFoundError: no such collection. StoreClosedError: the client is closed.
        AccessError: the key is refused. StorageError: all else.
    """
    try:
        yield
    except (SiftStoreError, StopIteration):
        raise
    except Exception as exc:  # whatever a client and an answer that nobody has foreseen may raise
        if _is_closed(exc):
            raise StoreClosedError("the client is closed; open the store again") from exc
        status = _status(exc)
        if status == 504 or (deadline is not None and not deadline.left()):
            raise _timeout(doing, deadline) from exc
        if status == 404:
            raise NotFoundError(f"{doing}: {_message(exc)}") from exc
        if status in (401, 403):
            raise AccessError(f"{doing}: {_message(exc)}; {_MENDS[status]}") from exc
        if status is None and not isinstance(exc, RuntimeError):
            what = f"the answer cannot be read ({type(exc).__name__}: {_message(exc)})"
            raise StorageError(f"{doing}: {what}; is it a Qdrant server that this client fits?") from exc
        mend = _MENDS.get(status or 0)
        if (wait := retry_after(exc)) is not None:
            mend = f"the server asks to wait {wait:g} s, longer than there is time for"
        raise StorageError(f"{doing}: {_message(exc)}{'; ' + mend if mend else ''}") from exc


def _timeout(doing: str, deadline: Deadline | None) -> DeadlineError:
    if deadline is None:
        return DeadlineError(f"{doing}: the server did not answer in time; see whether it is up, or give a client more")
    return deadline.error()


def _message(exc: BaseException) -> str:
    """What the server said, in one line and not too long."""
    said: object = None
    if isinstance(exc, grpc.RpcError):
        said = exc.details()
    elif isinstance(exc, UnexpectedResponse):
        try:
            said = json.loads(exc.content)["status"]["error"]
        except (ValueError, KeyError, TypeError):
            said = exc.reason_phrase or f"status {exc.status_code}"
    elif isinstance(exc, ResponseHandlingException):
        said = str(exc.source) or type(exc.source).__name__
    line = " ".join(str(said or exc or type(exc).__name__).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
