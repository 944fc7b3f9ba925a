"""Dates in more forms: those of `strftime` and of PostgreSQL itself, cut off at the microsecond.

The functions under the indexes on ranges of dates change with them, so these indexes are built anew.

Revision ID: 0003
Revises: 0002
"""

import re

import sqlalchemy as sa
from alembic import context, op
from sift_store_migrations import quoted, run

revision = "0003"
down_revision = "0002"

_VALUES = """
    jsonb_array_elements(
        CASE jsonb_typeof(payload #> path) WHEN 'array' THEN payload #> path ELSE jsonb_build_array(payload #> path) END
    ) AS held(value)
"""
_DAY = r"(?!0000)\d{4}-\d\d?-\d\d?"
_CLOCK = r"([01]?\d|2[0-3]):[0-5]?\d(:[0-5]?\d(\.\d+)?)?"
_ZONE = r"([Zz]|UTC|utc|[+-](0\d|1[0-5])(:?[0-5]\d)?)"
_ISO = rf"^\s*{_DAY}([Tt ]\s*{_CLOCK}\s*{_ZONE}?)?\s*$"
_ZONED = rf":\d.*{_ZONE}\s*$"
_MOMENT = r"""
    SELECT {what}(moment) FROM (
        SELECT CASE
            WHEN body ~ '{zoned}' THEN body::timestamptz
            WHEN body ~ ':' THEN (body || '+00')::timestamptz
            ELSE (body || ' 00:00:00+00')::timestamptz
        END AS moment
        FROM (
            SELECT CASE
                WHEN jsonb_typeof(value) = 'string' AND value #>> '{{}}' ~ '{iso}' AND jsonb_path_exists(
                    to_jsonb(substring(value #>> '{{}}', '{day}')), '$.datetime("YYYY-MM-DD")', '{{}}', true
                ) THEN regexp_replace(value #>> '{{}}', '(\.\d{{6}})\d+', '\1')
            END AS body FROM {values}
        ) AS texts
        WHERE body IS NOT NULL
    ) AS moments
    WHERE moment BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
"""
# What revision 0002 has made, for the way back.
_OLD_CLOCK = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?"
_OLD_ISO = rf"^(?!0000)\d{{4}}-\d\d-\d\d([T ]{_OLD_CLOCK}(Z|[+-](0\d|1[0-5]):[0-5]\d)?)?$"
_OLD_MOMENT = r"""
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
_FUNCTIONS = {"earliest": "min", "latest": "max"}


def upgrade() -> None:
    """Redefine the functions, and build the indexes that hold their values anew."""
    _redefine({name: _body(_MOMENT, what, iso=_ISO, zoned=_ZONED, day=_DAY) for name, what in _FUNCTIONS.items()})


def downgrade() -> None:
    """As revision 0002 has them."""
    _redefine({name: _body(_OLD_MOMENT, what, iso=_OLD_ISO) for name, what in _FUNCTIONS.items()})


def _body(text: str, what: str, **patterns: str) -> str:
    return text.format(what=what, values=_VALUES, **patterns)


def _redefine(bodies: dict[str, str]) -> None:
    schema = context.config.attributes["schema"]
    for name, body in bodies.items():
        run(
            op.get_bind(),
            f"CREATE OR REPLACE FUNCTION {quoted(schema, name)}(payload jsonb, path text[]) RETURNS timestamptz "
            f"LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function${body}$function$",
        )
    found = op.get_bind().execute(
        sa.text(
            "SELECT indexname FROM pg_indexes WHERE schemaname = :schema AND indexname ~ "
            r"'^passage_\d+_(earliest|latest)_' ORDER BY 1"
        ),
        {"schema": schema},
    )
    names = [name for (name,) in found.all()]
    with op.get_context().autocommit_block():
        for name in names:
            left_over = re.search(r"_cc(new|old)\d*$", name)  # of a build that was interrupted
            begin = "DROP INDEX CONCURRENTLY IF EXISTS" if left_over else "REINDEX INDEX CONCURRENTLY"
            run(op.get_bind(), f"{begin} {quoted(schema, name)}")
