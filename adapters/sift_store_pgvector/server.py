"""What kind of server this is: versions, where pgvector is, whether our schema is there and at the right revision."""

from __future__ import annotations

from sift_store_migrations import HEAD

from sift_store.errors import StorageError
from sift_store_pgvector.work import Statement, Work, quoted_name

__all__ = ["Server"]

_LOOK = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
    (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
    (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'),
    to_regtype('vector') IS NOT NULL,
    coalesce(to_regtype('vector')::oid::int8, 0), coalesce(to_regtype('halfvec')::oid::int8, 0)
"""
_ITERATIVE = (0, 8)


class Server:
    """What was seen of a server.

    Attributes:
        version: of PostgreSQL, as it names itself. vector_version: of pgvector, None where it is not installed.
        vector_oids: the numbers of its types.
        iterative: whether an index walk can go on until there are enough rows (pgvector 0.8).
    """

    def __init__(self) -> None:
        self.version, self.version_number = "", 0
        self.vector_version: str | None = None
        self.vector_oids: list[int] = []
        self._ready: set[str] = set()

    @property
    def engine(self) -> str:
        """For people."""
        return f"PostgreSQL {self.version.split()[0]}, pgvector {self.vector_version or 'not installed'}"

    @property
    def iterative(self) -> bool:
        """See above."""
        if self.vector_version is None:
            return False
        return tuple(int(part) for part in self.vector_version.split(".")[:2] if part.isdigit()) >= _ITERATIVE

    def look(self) -> Work[None]:
        """Read the versions.

        Raises:
            StorageError: pgvector is installed where the search path does not lead.
        """
        ((row,),) = yield [Statement(_LOOK)]
        self.version, self.version_number, self.vector_version, where, visible, *oids = row
        self.vector_oids = [oid for oid in oids if oid]
        if self.vector_version and not visible:
            raise StorageError(
                f"pgvector is installed in schema {where!r}, which is not on the search path; add it: "
                f"ALTER ROLE … SET search_path = public, {where}, or ?options=-csearch_path=public,{where} in the URL"
            )

    def schema_ready(self, schema: str) -> Work[bool]:
        """Whether our tables are in a schema.

        Raises:
            StorageError: they are of another revision than this version works with.
        """
        if schema in self._ready:
            return True
        version = quoted_name(schema, "alembic_version")
        ((found,),) = yield [Statement("SELECT to_regclass(%(table)s) IS NOT NULL", {"table": version})]
        if not found[0]:
            return False
        (rows,) = yield [Statement(f"SELECT version_num FROM {version.replace('%', '%%')}")]
        revision = rows[0][0] if rows else None
        if revision is None:
            return False
        if revision != HEAD:
            raise StorageError(
                f"the schema {schema!r} is at revision {revision}, this version of sift-store works with {HEAD}; run "
                "sift-store migrate with the URL, or install the version that fits"
            )
        self._ready.add(schema)
        return True
