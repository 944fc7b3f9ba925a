"""PgBouncer for the tests: a pooler in front of a PostgreSQL that runs, as hosted databases have one.

Debian's package puts it where only root's PATH leads, so that folder is looked into as well. It refuses to run as root:
then it runs as the same unprivileged user as the packaged PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psycopg
from postgres_server import Server, _free_port, _somebody

Mode = Literal["transaction", "session"]
MISSING = "PgBouncer is not installed; Debian: apt-get install pgbouncer"

# Connections to the server for one database. In transaction mode so few that clients really share them; in session mode
# each client keeps one while it is connected, and a store may have ten and two more for maintenance.
_SIZES: dict[Mode, int] = {"transaction": 3, "session": 40}


def program() -> str | None:
    """The path of PgBouncer, if it is installed."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which("pgbouncer", path=os.pathsep.join(places))


def installed() -> bool:
    """Whether PgBouncer is here."""
    return program() is not None


class Pooler(Server):
    """A running PgBouncer. URLs and connections lead through it, databases are made and dropped behind it.

    Attributes:
        direct: the server behind.
        mode: for how long a client keeps a connection to the server.
    """

    def __init__(self, direct: Server, mode: Mode, port: int) -> None:
        named = {name: direct.parameters[name] for name in ("user", "password") if direct.parameters.get(name)}
        super().__init__({**named, "host": "127.0.0.1", "port": port, "dbname": "postgres"})
        self.direct, self.mode = direct, mode

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection in autocommit mode that prepares nothing, as the next client would stumble over it."""
        return psycopg.connect(**{**self.parameters, "dbname": database}, autocommit=True, prepare_threshold=None)

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database of its own; dropping it ends the pooler's connections to it, which would be in the way."""
        with self.direct.database() as name:
            yield name


@contextmanager
def pooled(server: Server, mode: Mode, **settings: object) -> Iterator[Pooler]:
    """A PgBouncer of one's own in front of a server, gone afterwards; `settings` go into its configuration.

    Connections to the server are lent in turn (`server_round_robin`): two transactions of one client seldom meet
    the same one where there are more.
    """
    path = program()
    if path is None:
        raise RuntimeError(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="sift-store-pgbouncer-"))
    try:
        pooler = Pooler(server, mode, _free_port())
        process = _start(path, folder, _configuration(pooler, folder, settings))
        try:
            _wait_for(pooler, process, folder)
            yield pooler
        finally:
            process.send_signal(signal.SIGTERM)  # at once; SIGINT would wait for the clients
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configuration(pooler: Pooler, folder: Path, settings: dict[str, object]) -> str:
    behind = pooler.direct.parameters
    options = {
        "listen_addr": pooler.parameters["host"],
        "listen_port": pooler.parameters["port"],
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": folder / "users",
        "pool_mode": pooler.mode,
        "default_pool_size": _SIZES[pooler.mode],
        "max_client_conn": 500,
        "server_round_robin": 1,
        "server_lifetime": 3600,
        "server_idle_timeout": 600,
        "query_wait_timeout": 60,
        "log_connections": 0,
        "log_disconnections": 0,
        **settings,
    }
    user, password = (str(behind.get(name) or "").replace('"', '""') for name in ("user", "password"))
    (folder / "users").write_text(f'"{user}" "{password}"\n', encoding="utf-8")
    lines = [f"{name} = {value}" for name, value in options.items()]
    databases = ["[databases]", f"* = host={behind['host']} port={behind['port']}"]
    return "\n".join([*databases, "[pgbouncer]", *lines, ""])


def _start(path: str, folder: Path, configuration: str) -> subprocess.Popen[bytes]:
    (folder / "pgbouncer.ini").write_text(configuration, encoding="utf-8")
    user = _somebody() if os.geteuid() == 0 else None
    if user is not None:
        for made in (folder, *folder.iterdir()):
            shutil.chown(made, user)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen([path, str(folder / "pgbouncer.ini")], cwd="/", user=user, stdout=log, stderr=log)


def _wait_for(pooler: Pooler, process: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(300):
        try:
            pooler.connect().close()
        except psycopg.OperationalError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"PgBouncer does not answer: {(folder / 'log').read_text(encoding='utf-8')[-2000:]}")
