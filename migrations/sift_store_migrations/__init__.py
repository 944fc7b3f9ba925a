"""The schema of sift-store in PostgreSQL, by Alembic: up, down, and one migrator at a time.

    sift-store migrate postgresql://user@host/database

A revision that builds indexes builds them concurrently: searching and writing go on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

__all__ = ["HEAD", "MigrationError", "migrate", "quoted", "revisions", "run"]

# The newest revision; what the adapter works with.
HEAD = "0003"
# Any number will do that nobody else locks.
_LOCK = 0x51F7_5704E
_POLL = 0.2


class MigrationError(Exception):
    """A migration could not begin or failed; every revision before it is in place, and its own is not."""


def revisions() -> list[str]:
    """All revisions, oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [item.revision for item in reversed(list(script.walk_revisions()))]


def migrate(
    parameters: Mapping[str, Any], schema: str, revision: str = "head", *, wait: float = 60.0
) -> tuple[str | None, str | None]:
    """Bring a schema to a revision, up or down.

    Args:
        parameters: for `psycopg.connect`. schema: made if it is not there.
        revision: "head", "base" (which drops all collections) or one of `revisions`.
        wait: seconds to wait for another migrator of the same database.

    Returns:
        The revision before and after; None: none.

    Raises:
        MigrationError: another migrator does not end, the role may not create what is needed, no such revision.
    """
    if revision not in ("head", "base", *revisions()):
        raise MigrationError(f"revision {revision!r} is not known; one of head, base, {', '.join(revisions())} wanted")
    options = {
        **parameters,
        "client_encoding": "utf8",
        "prepare_threshold": None,
    }  # behind a pooler none stays prepared
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**options), poolclass=NullPool)
    try:
        with _alone(options, wait), engine.connect() as connection:
            if revision != "base":
                run(connection, f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            connection.commit()
            before = _current(connection, schema)
            config = _config(connection, schema)
            order = [None, *revisions()]
            wanted = HEAD if revision == "head" else None if revision == "base" else revision
            step = command.upgrade if order.index(wanted) >= order.index(before) else command.downgrade
            if wanted != before:
                step(config, revision)
            return before, _current(connection, schema)
    except (DBAPIError, psycopg.Error) as exc:
        cause = exc.orig if isinstance(exc, DBAPIError) else exc
        said = getattr(getattr(cause, "diag", None), "message_primary", None) or str(cause)
        raise MigrationError(f"migrating {schema}: {' '.join(said.split())}") from exc
    except (CommandError, ValueError) as exc:
        raise MigrationError(
            f"{schema} is at a revision that this version of sift-store does not know; install a newer one"
        ) from exc
    finally:
        engine.dispose()


@contextmanager
def _alone(options: Mapping[str, Any], wait: float) -> Iterator[None]:
    """Hold a lock in a transaction on a connection of its own, which a pooler keeps together.

    It is asked for again and again, not waited for: a statement that waits holds a snapshot that a concurrent index
    build would wait for.
    """
    end = time.monotonic() + wait
    # Without parameters: in the extended protocol the portal stays, and its snapshot, until the next statement.
    question = f"SELECT pg_try_advisory_xact_lock({_LOCK:d})".encode()
    with closing(psycopg.connect(**{**options, "autocommit": True})) as connection:
        while True:
            connection.execute("BEGIN")
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            if connection.execute(question).fetchone() == (True,):
                break
            # A build that saw this transaction's snapshot waits for its end, so each question has one of its own.
            connection.execute("ROLLBACK")
            if time.monotonic() > end:
                raise MigrationError(f"another migration has been running for {wait:g} s; try again when it has ended")
            time.sleep(_POLL)
        yield


def _current(connection: Connection, schema: str) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    found: str | None = context.get_current_revision()
    connection.rollback()
    return found


def _config(connection: Connection | None = None, schema: str = "") -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes.update(connection=connection, schema=schema)
    return config


def quoted(*names: str) -> str:
    """A qualified identifier, whatever is in its names."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def run(connection: Connection, sql: str) -> None:
    """Execute SQL as it is: neither a colon nor a percent sign in a name means anything."""
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
