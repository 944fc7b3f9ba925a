"""The collections of a schema, from outside: their names, and dropping one."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from sift_store_pgvector.maintenance import Maintenance

__all__ = ["collection_names", "drop"]


def collection_names(maintenance: Maintenance, schema: str) -> list[str]:
    """Names of all collections, sorted; none where there is no schema of ours."""
    with maintenance.connected("listing collections") as connection:
        if not _there(connection, schema):
            return []
        catalog = sql.Identifier(schema, "collection")
        rows = connection.execute(sql.SQL("SELECT name FROM {} ORDER BY name").format(catalog)).fetchall()
    return sorted(row[0] for row in rows)


def drop(maintenance: Maintenance, schema: str, name: str) -> bool:
    """Drop a collection with its tables, in one transaction; whether there was one."""
    with maintenance.connected("dropping the collection") as connection, connection.transaction():
        if not _there(connection, schema):
            return False
        catalog = sql.Identifier(schema, "collection").as_string(connection).replace("%", "%%")
        gone = f"DELETE FROM {catalog} WHERE name = %s RETURNING number"
        row = connection.execute(gone.encode(), (name,)).fetchone()
        if row is None:
            return False
        tables = connection.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relkind = 'r' AND c.relname ~ %s",
            (schema, rf"^(passage_{row[0]}|vector_{row[0]}_\d+)$"),
        ).fetchall()
        for (table,) in tables:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(schema, table)))
    return True


def _there(connection: psycopg.Connection[Any], schema: str) -> bool:
    name = sql.Identifier(schema, "collection").as_string(connection)
    (there,) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone() or (False,)
    return bool(there)
