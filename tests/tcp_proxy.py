"""A TCP proxy that behaves as networks do: cuts, stalls, refuses, delays; on command, or when it sees certain bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class Proxy:
    """Forwards to a port of this machine. Set the attributes while it runs.

    Attributes:
        delay: seconds before each piece that comes from the server is passed on.
        stalled: pass nothing on, in both directions.
        cut_at: when the client sends these bytes, pass them on, then cut both sides before any answer.
        drop_at: when the client sends these bytes, cut both sides and pass nothing on.
        refusing: accept nothing more.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.delay = 0.0
        self.stalled = False
        self.cut_at = b""
        self.drop_at = b""
        self.refusing = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pumps: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((client, server))
            for source, sink, sent in ((client, server, True), (server, client, False)):
                pump = threading.Thread(target=self._pump, args=(source, sink, sent), daemon=True)
                self._pumps.append(pump)
                pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.stalled:
                    time.sleep(0.01)
                if from_client and self.drop_at and self.drop_at in data:
                    self.drop_at = b""
                    break
                if not from_client and self.delay:
                    time.sleep(self.delay)
                if from_client and self.cut_at and self.cut_at in data:
                    self.cut_at = b""
                    sink.sendall(data)
                    time.sleep(0.3)  # the server does what it was asked; the answer goes nowhere
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return sum(pump.is_alive() for pump in self._pumps) // 2

    def cut(self) -> None:
        """Break every connection."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop."""
        self.stalled = False
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.cut()
        for pump in self._pumps:
            pump.join()
        for pair in self._pairs:
            for end in pair:
                end.close()


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy, gone afterwards."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
