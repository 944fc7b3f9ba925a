"""The HTTP side: JSON to the client's models, and answers back."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import numpy as np
import qdrant_edge as q
from pydantic import TypeAdapter
from pydantic_core import to_json
from qdrant_client import models as m

from edge_server.engine import Collections, Found, Refused
from edge_server.gate import Gate

__all__ = ["RestFront"]


class RestFront:
    """A listening HTTP server. `port` 0 means any; the attribute says which."""

    def __init__(self, gate: Gate, port: int) -> None:
        self._server = _Server(gate, port)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut all connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._server.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # ended by itself
                continue


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, gate: Gate, port: int) -> None:
        self.gate = gate
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is none
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        retry_after = None
        try:
            status, content = 200, self._answer(body)
        except Refused as exc:
            status, retry_after = exc.status, exc.retry_after
            content = to_json({"status": {"error": str(exc)}, "time": 0.0})
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _respond

    def _answer(self, body: bytes) -> bytes:
        gate, headers = self.server.gate, {name.lower(): value for name, value in self.headers.items()}
        gate.encodings.append(headers.get("accept-encoding"))
        key, arguments = _place(self.command, self.path)
        if key == "GET ":
            return gate.run("health", headers, lambda: _version(gate))
        route = _ROUTES.get(key)
        if route is None:
            raise Refused(f"{self.command} {self.path} is not known here", 404)

        def work() -> bytes:
            if key == "GET collections/*/cluster":
                gate.collections.info(*arguments)
                return b'{"result":%b,"status":"ok","time":0.0}' % to_json({"peer_id": gate.peer_id, **_ONE_NODE})
            given = [] if route.body is None else [route.body.validate_json(body)]
            result = route.do(gate.collections, *arguments, *given)
            return b'{"result":%b,"status":"ok","time":0.0}' % result

        return gate.run(route.name, headers, work)


def _place(method: str, path: str) -> tuple[str, list[str]]:
    """What a route is looked up by, and the names in the path."""
    segments = [unquote(segment) for segment in path.partition("?")[0].strip("/").split("/")]
    named = [1, 3] if segments[2:3] == ["index"] else [1]
    if segments[0] != "collections" or (method, segments[1:]) == ("POST", ["aliases"]):
        named = []
    arguments = [segments[place] for place in named if place < len(segments)]
    shown = ["*" if place in named else segment for place, segment in enumerate(segments)]
    return f"{method} {'/'.join(shown)}", arguments


# --- answers ----------------------------------------------------------------------------------------------------------
# Points are put together as text, so that vectors which are kept need no second encoding.


def _numbers(values: Any) -> bytes:
    # The server's numbers are float32 and it writes the shortest text that gives the same float32 again.
    return b"[%b]" % ",".join(map(str, np.asarray(values, np.float32))).encode()


def _vector(vector: Any) -> bytes:
    if isinstance(vector, q.SparseVector):
        return b'{"indices":%b,"values":%b}' % (to_json(vector.indices), _numbers(vector.values))
    if vector and isinstance(vector[0], list):
        return b"[%b]" % b",".join(map(_numbers, vector))
    return _numbers(vector)


def _encode(vectors: Any) -> bytes:
    if isinstance(vectors, dict):
        return b"{%b}" % b",".join(b"%b:%b" % (to_json(name), _vector(part)) for name, part in vectors.items())
    return _vector(vectors)


def _record(found: Found) -> bytes:
    payload = b"null" if found.payload is None else to_json(found.payload)
    return b'{"id":%b,"payload":%b,"vector":%b}' % (to_json(found.id), payload, found.vector or b"null")


def _scored(found: Found) -> bytes:
    score = str(np.float32(found.score)).encode()
    return b'{"version":%d,"score":%b,%b' % (found.version, score, _record(found)[1:])


def _points(points: Iterable[bytes]) -> bytes:
    return b'{"points":[%b]}' % b",".join(points)


def _json(result: Any) -> bytes:
    return to_json(result, exclude_none=True)


def _version(gate: Gate) -> bytes:
    return to_json({"title": "qdrant - vector search engine", "version": gate.version})


# --- routes -----------------------------------------------------------------------------------------------------------


def _query(collections: Collections, name: str, given: m.QueryRequest) -> bytes:
    return _points(map(_scored, collections.query(name, [given], _encode)[0]))


def _query_batch(collections: Collections, name: str, given: m.QueryRequestBatch) -> bytes:
    answers = collections.query(name, given.searches, _encode)
    return b"[%b]" % b",".join(_points(map(_scored, answer)) for answer in answers)


def _retrieve(collections: Collections, name: str, given: m.PointRequest) -> bytes:
    return b"[%b]" % b",".join(map(_record, collections.retrieve(name, given, _encode)))


def _scroll(collections: Collections, name: str, given: m.ScrollRequest) -> bytes:
    found, rest = collections.scroll(name, given, _encode)
    return b'%b,"next_page_offset":%b}' % (_points(map(_record, found))[:-1], to_json(rest))


def _count(collections: Collections, name: str, given: m.CountRequest) -> bytes:
    return to_json({"count": collections.count(name, given)})


def _upsert(collections: Collections, name: str, given: Any) -> bytes:
    return _json(collections.upsert(name, given))


def _delete(collections: Collections, name: str, given: Any) -> bytes:
    return _json(collections.delete(name, given))


def _set_payload(collections: Collections, name: str, given: m.SetPayload) -> bytes:
    return _json(collections.set_payload(name, given))


def _overwrite_payload(collections: Collections, name: str, given: m.SetPayload) -> bytes:
    return _json(collections.set_payload(name, given, overwrite=True))


def _delete_payload(collections: Collections, name: str, given: m.DeletePayload) -> bytes:
    return _json(collections.delete_payload(name, given))


def _update_batch(collections: Collections, name: str, given: m.UpdateOperations) -> bytes:
    return _json(collections.batch(name, given.operations))


def _create_index(collections: Collections, name: str, given: m.CreateFieldIndex) -> bytes:
    return _json(collections.index(name, given.field_name, given.field_schema))


def _delete_index(collections: Collections, name: str, field: str) -> bytes:
    return _json(collections.unindex(name, field))


def _list(collections: Collections) -> bytes:
    return to_json({"collections": [{"name": name} for name in collections.names()]})


def _info(collections: Collections, name: str) -> bytes:
    return _json(collections.info(name))


def _exists(collections: Collections, name: str) -> bytes:
    return to_json({"exists": collections.exists(name)})


def _create(collections: Collections, name: str, given: m.CreateCollection) -> bytes:
    return to_json(collections.create(name, given))


def _update(collections: Collections, name: str, given: m.UpdateCollection) -> bytes:
    return to_json(collections.update(name, given))


def _drop(collections: Collections, name: str) -> bytes:
    return to_json(collections.drop(name))


def _aliases(collections: Collections, name: str | None = None) -> bytes:
    return _json({"aliases": collections.aliases(name)})


def _change_aliases(collections: Collections, given: m.ChangeAliasesOperation) -> bytes:
    return to_json(collections.change_aliases(given.actions))


@dataclass(frozen=True)
class _Route:
    name: str
    do: Callable[..., bytes]
    body: TypeAdapter[Any] | None = None


_ONE_NODE: dict[str, Any] = {"shard_count": 1, "local_shards": [], "remote_shards": [], "shard_transfers": []}

_ROUTES = {
    "GET collections": _Route("list_collections", _list),
    "GET aliases": _Route("aliases", _aliases),
    "POST collections/aliases": _Route("change_aliases", _change_aliases, TypeAdapter(m.ChangeAliasesOperation)),
    "GET collections/*": _Route("get_collection", _info),
    "PUT collections/*": _Route("create_collection", _create, TypeAdapter(m.CreateCollection)),
    "PATCH collections/*": _Route("update_collection", _update, TypeAdapter(m.UpdateCollection)),
    "DELETE collections/*": _Route("delete_collection", _drop),
    "GET collections/*/cluster": _Route("cluster_info", _info),
    "GET collections/*/exists": _Route("collection_exists", _exists),
    "GET collections/*/aliases": _Route("collection_aliases", _aliases),
    "PUT collections/*/index": _Route("create_index", _create_index, TypeAdapter(m.CreateFieldIndex)),
    "DELETE collections/*/index/*": _Route("delete_index", _delete_index),
    "PUT collections/*/points": _Route("upsert", _upsert, TypeAdapter(m.PointInsertOperations)),
    "POST collections/*/points": _Route("retrieve", _retrieve, TypeAdapter(m.PointRequest)),
    "POST collections/*/points/delete": _Route("delete", _delete, TypeAdapter(m.PointsSelector)),
    "POST collections/*/points/payload": _Route("set_payload", _set_payload, TypeAdapter(m.SetPayload)),
    "PUT collections/*/points/payload": _Route("overwrite_payload", _overwrite_payload, TypeAdapter(m.SetPayload)),
    "POST collections/*/points/payload/delete": _Route("delete_payload", _delete_payload, TypeAdapter(m.DeletePayload)),
    "POST collections/*/points/batch": _Route("update_batch", _update_batch, TypeAdapter(m.UpdateOperations)),
    "POST collections/*/points/scroll": _Route("scroll", _scroll, TypeAdapter(m.ScrollRequest)),
    "POST collections/*/points/count": _Route("count", _count, TypeAdapter(m.CountRequest)),
    "POST collections/*/points/query": _Route("query", _query, TypeAdapter(m.QueryRequest)),
    "POST collections/*/points/query/batch": _Route("query_batch", _query_batch, TypeAdapter(m.QueryRequestBatch)),
}
