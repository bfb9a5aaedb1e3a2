"""The first schema: decisions, revisions, lists, activations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the triggers that keep what is written as it was written."""
    sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "decisions",
        sa.Column("sequence", sequence, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("content_digest", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("author", sa.Text),
        sa.Column("surface", sa.Text),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_index("decisions_by_time", "decisions", ["time"])
    op.create_table(
        "revisions",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "lists",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "activations",
        sa.Column("sequence", sequence, primary_key=True),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("activations_by_policy", "activations", ["policy", "sequence"])
    if op.get_bind().dialect.name == "sqlite":
        _refuse("activations", "UPDATE", "activations are append-only")
        _refuse("activations", "DELETE", "activations are append-only")
        _refuse("revisions", "UPDATE", "revisions are immutable")
        _refuse("lists", "UPDATE", "lists are immutable")


def _refuse(table: str, verb: str, reason: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_refuse_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{reason}'); END"
    )
