"""The server as a whole: both fronts over one folder of collections."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_server.engine import Collections
from edge_server.gate import Gate
from edge_server.grpc_front import GrpcFront
from edge_server.rest_front import RestFront

__all__ = ["EdgeServer", "serve"]


class EdgeServer(Gate):
    """A server on 127.0.0.1 that can be stopped and started again with its data.

    Attributes:
        port: of HTTP. grpc_port: of gRPC; nobody listens there if the server has no gRPC.
    """

    def __init__(
        self,
        folder: Path,
        *,
        grpc: bool = True,
        api_key: str | None = None,
        read_only_key: str | None = None,
        fast: bool = False,
    ) -> None:
        super().__init__(Collections(folder, fast=fast), api_key, read_only_key)
        self._with_grpc = grpc
        self._fronts: list[RestFront | GrpcFront] = []
        self.port, self.grpc_port = 0, 0 if grpc else _free_port()

    def start(self) -> None:
        """Listen, on the same ports as before."""
        if self._fronts:
            return
        rest = RestFront(self, self.port)
        self._fronts, self.port = [rest], rest.port
        if self._with_grpc:
            front = GrpcFront(self, self.grpc_port)
            self._fronts, self.grpc_port = [rest, front], front.port

    def stop(self) -> None:
        """Cut all connections and refuse new ones; the data stays."""
        while self._fronts:
            self._fronts.pop().stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(
    *, grpc: bool = True, api_key: str | None = None, read_only_key: str | None = None, fast: bool = False
) -> Iterator[EdgeServer]:
    """A server over a folder of its own, which goes with it.

    Args:
        grpc: whether there is gRPC. api_key: what a caller has to send. read_only_key: one that may not write.
        fast: for benchmarks: vectors are encoded once, as the real server would not spend Python's time on them.
    """
    with tempfile.TemporaryDirectory(prefix="edge-server-", ignore_cleanup_errors=True) as folder:
        server = EdgeServer(Path(folder), grpc=grpc, api_key=api_key, read_only_key=read_only_key, fast=fast)
        server.start()
        try:
            yield server
        finally:
            server.stop()
            server.collections.close()
