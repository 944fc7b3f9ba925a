"""The catalog of collections.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import context, op
from sift_store_migrations import quoted, run
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the extension, if it is not there, and the catalog."""
    connection = op.get_bind()
    if not connection.scalar(sa.text("SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector')")):
        op.execute("CREATE EXTENSION vector")
    op.create_table(
        "collection",
        sa.Column("number", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("vector_type", sa.Text, nullable=False),
        sa.Column("embedder", postgresql.JSONB, nullable=False),
        sa.Column("fields", postgresql.JSONB, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        schema=context.config.attributes["schema"],
    )


def downgrade() -> None:
    """Drop the catalog with all collections. The extension may serve others and stays."""
    schema = context.config.attributes["schema"]
    found = op.get_bind().execute(
        sa.text(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema "
            r"AND c.relkind = 'r' AND c.relname ~ '^(passage_\d+|vector_\d+_\d+)$'"
        ),
        {"schema": schema},
    )
    for (name,) in found.all():
        run(op.get_bind(), f"DROP TABLE {quoted(schema, name)}")
    op.drop_table("collection", schema=schema)
