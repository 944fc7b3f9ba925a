"""What every request passes, whichever wire it came by: the record of requests, keys, and the trouble a test orders."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from edge_server.engine import VERSION, Collections, Refused

__all__ = ["Gate"]

T = TypeVar("T")

_WRITES = {
    "change_aliases",
    "create_collection",
    "create_index",
    "delete",
    "delete_collection",
    "delete_index",
    "delete_payload",
    "overwrite_payload",
    "set_payload",
    "update_batch",
    "update_collection",
    "upsert",
}


@dataclass
class _Trouble:
    times: int
    only: str | None
    status: int
    text: str
    retry_after: int | None = None


class Gate:
    """The collections behind, and what a test sets while the server runs.

    Attributes:
        version: what the server says it is.
        requests: the name of every request that arrived.
        delay: seconds that pass between the work and its answer.
        peer_id: the random number that tells a node of Qdrant from all others.
        encodings: what the requests over HTTP said of compressed answers.
    """

    def __init__(self, collections: Collections, api_key: str | None, read_only_key: str | None) -> None:
        self.collections = collections
        self.version = VERSION
        self.requests: list[str] = []
        self.encodings: list[str | None] = []
        self.delay = 0.0
        self.peer_id = secrets.randbits(53) | 1
        self._api_key, self._read_only_key = api_key, read_only_key
        self._troubles: list[_Trouble] = []
        self._lock = threading.Lock()

    def limit(self, times: int, retry_after: int | None, only: str | None = None) -> None:
        """Refuse the next so many requests, or those of one name, as too many."""
        self._troubles.append(_Trouble(times, only, 429, "Rate limiting exceeded: too many requests", retry_after))

    def fail(self, times: int, status: int, only: str | None = None) -> None:
        """Answer the next so many requests, or those of one name, with a status of HTTP."""
        self._troubles.append(_Trouble(times, only, status, f"Service internal error: status {status} was ordered"))

    def run(self, name: str, headers: Mapping[str, str | bytes], work: Callable[[], T]) -> T:
        """Let a request through and do its work; whatever goes wrong leaves as `Refused`.

        Args:
            name: of the request. headers: of HTTP in lower case, or the metadata of gRPC. work: what it asks for.
        """
        self.requests.append(name)
        try:
            self._admit(name, headers)
            return work()
        except BaseException as exc:  # a panic of the engine's is no Exception
            raise _refused(exc) from exc
        finally:
            if self.delay:
                time.sleep(self.delay)

    def _admit(self, name: str, headers: Mapping[str, str | bytes]) -> None:
        if name != "health" and (self._api_key or self._read_only_key):
            key = headers.get("api-key") or str(headers.get("authorization") or "").removeprefix("Bearer ")
            if not key:
                raise Refused("Must provide an API key or an Authorization bearer token", 401)
            if key not in (self._api_key, self._read_only_key):
                raise Refused("Invalid API key or JWT", 401)
            if key != self._api_key and name in _WRITES:
                raise Refused("Forbidden: Global write access is required", 403)
        with self._lock:
            for trouble in self._troubles:
                if trouble.times > 0 and trouble.only in (None, name):
                    trouble.times -= 1
                    raise Refused(trouble.text, trouble.status, trouble.retry_after)


def _refused(exc: BaseException) -> Refused:
    text = str(exc)
    if isinstance(exc, Refused):
        return exc
    if isinstance(exc, ValidationError):
        return Refused(f"Format error in JSON body: {text}")
    if text.startswith("No point with id"):
        return Refused(f"Not found: {text}", 404)
    if type(exc) is Exception or isinstance(exc, ValueError | TypeError | OverflowError):  # how the engine complains
        return Refused(f"Wrong input: {text}")
    return Refused(f"Service internal error: {type(exc).__name__}: {text}", 500)
