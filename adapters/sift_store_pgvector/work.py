"""What an operation asks of the server, described without doing it: the sync and the async session run the same.

An operation is a generator. It yields a list of statements, which go to the server together, and is sent the rows of
each; or a `CopyIn`. What it returns is the operation's result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

__all__ = ["DIALECT", "TIMEOUT", "CopyIn", "Rows", "Statement", "Work", "compiled", "quoted", "quoted_name"]

T = TypeVar("T")
Rows: TypeAlias = list[tuple[Any, ...]]
Work: TypeAlias = Generator["Sequence[Statement] | CopyIn", Any, T]

# Seconds for one search or other read that was given no deadline.
TIMEOUT = 30.0

DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy's own


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with named parameters. Values never stand in the text.

    Attributes:
        settings: configuration parameters for the transaction it runs in.
        brief: it looks up a few keys; no need for a time limit on the server.
    """

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    brief: bool = False


@dataclass(frozen=True, slots=True)
class CopyIn:
    """``COPY … FROM STDIN (FORMAT BINARY)`` with the blocks of bytes to send.

    Attributes:
        blocks: from Python's name of the connection's encoding, in which the server expects text even here.
    """

    sql: str
    blocks: Callable[[str], Iterable[bytes]]


def compiled(statement: Any) -> Statement:
    """A SQLAlchemy statement as SQL text, with identifiers quoted, and the parameters that it has so far."""
    made = statement.compile(dialect=DIALECT)
    return Statement(made.string, made.params or {})


def quoted(table: Table) -> str:
    """A table's qualified name for `regclass` and for SQL without parameters; elsewhere a percent sign is doubled."""
    return quoted_name(table.schema, table.name)


def quoted_name(*names: str | None) -> str:
    """A qualified name, whatever is in its parts."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name is not None)
