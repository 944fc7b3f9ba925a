"""Indexes on ranges: numbers and dates within payloads.

A value of a payload may be a list, which matches if any element does. An index holds the least and the largest of its
numbers, or of the moments that its texts name; together they bound every range.

Revision ID: 0002
Revises: 0001
"""

import hashlib

import sqlalchemy as sa
from alembic import context, op
from sift_store_migrations import quoted, run

revision = "0002"
down_revision = "0001"

_VALUES = """
    jsonb_array_elements(
        CASE jsonb_typeof(payload #> path) WHEN 'array' THEN payload #> path ELSE jsonb_build_array(payload #> path) END
    ) AS held(value)
"""
_NUMBER = """
    SELECT {what}((value #>> '{{}}')::numeric) FROM {values} WHERE jsonb_typeof(value) = 'number'
"""
# ISO 8601 text; UTC where it names no zone, so that what it means does not hang on the session's settings.
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?"
_ISO = rf"^(?!0000)\d{{4}}-\d\d-\d\d([T ]{_CLOCK}(Z|[+-](0\d|1[0-5]):[0-5]\d)?)?$"
_MOMENT = r"""
    SELECT {what}(CASE
        WHEN body ~ '\d\d:\d\d.*(Z|[+-]\d\d:\d\d)$' THEN body::timestamptz
        WHEN length(body) = 10 THEN (body || ' 00:00:00+00')::timestamptz
        ELSE (body || '+00')::timestamptz
    END)
    FROM (
        SELECT CASE
            WHEN jsonb_typeof(value) = 'string' AND value #>> '{{}}' ~ '{iso}' AND jsonb_path_exists(
                to_jsonb(left(value #>> '{{}}', 10)), '$.datetime("YYYY-MM-DD")', '{{}}', true
            ) THEN value #>> '{{}}'
        END AS body FROM {values}
    ) AS texts
    WHERE body IS NOT NULL
"""
_FUNCTIONS = {
    "least_number": ("numeric", _NUMBER, "min"),
    "largest_number": ("numeric", _NUMBER, "max"),
    "earliest": ("timestamptz", _MOMENT, "min"),
    "latest": ("timestamptz", _MOMENT, "max"),
}
_OF_TYPE = {
    "integer": ("least_number", "largest_number"),
    "float": ("least_number", "largest_number"),
    "datetime": ("earliest", "latest"),
}


def upgrade() -> None:
    """Make the functions, then the indexes that declared fields of existing collections have lacked."""
    schema = _schema()
    for name, (type_, body, what) in _FUNCTIONS.items():
        made = body.format(what=what, values=_VALUES, iso=_ISO)
        run(
            op.get_bind(),
            f"CREATE OR REPLACE FUNCTION {quoted(schema, name)}(payload jsonb, path text[]) RETURNS {type_} "
            f"LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function${made}$function$",
        )
    wanted = list(_indexes())
    with op.get_context().autocommit_block():
        for name, table, expression in wanted:
            _drop_if_invalid(name)
            build = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {quoted(name)} ON {quoted(schema, table)} ({expression})"
            run(op.get_bind(), build)


def downgrade() -> None:
    """Drop the indexes and the functions."""
    schema = _schema()
    wanted = list(_indexes())
    with op.get_context().autocommit_block():
        for name, _, _ in wanted:
            run(op.get_bind(), f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(schema, name)}")
    for name in _FUNCTIONS:
        run(op.get_bind(), f"DROP FUNCTION {quoted(schema, name)}(jsonb, text[])")


def _schema() -> str:
    schema: str = context.config.attributes["schema"]
    return schema


def _indexes() -> list[tuple[str, str, str]]:
    """Name, table and expression of each index on a range."""
    schema = _schema()
    catalog = sa.table("collection", sa.column("number"), sa.column("fields", sa.JSON), schema=schema)
    found = op.get_bind().execute(sa.select(catalog.c.number, catalog.c.fields).order_by(catalog.c.number))
    made = []
    for number, fields in found.all():
        for key, kind in fields.items():
            path = ", ".join("'" + part.replace("'", "''") + "'" for part in key.split("."))
            for function in _OF_TYPE.get(kind, ()):
                name = f"passage_{number}_{function}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
                made.append((name, f"passage_{number}", f"{quoted(schema, function)}(payload, ARRAY[{path}]::text[])"))
    return made


def _drop_if_invalid(name: str) -> None:
    """What an interrupted build left behind."""
    found = op.get_bind().scalar(
        sa.text(
            "SELECT NOT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON "
            "n.oid = c.relnamespace WHERE c.relname = :name AND n.nspname = :schema"
        ),
        {"name": name, "schema": context.config.attributes["schema"]},
    )
    if found:
        run(op.get_bind(), f"DROP INDEX CONCURRENTLY {quoted(_schema(), name)}")
