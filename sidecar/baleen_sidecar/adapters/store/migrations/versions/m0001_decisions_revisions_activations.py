"""The first schema: decisions, revisions, lists, activations."""

import sqlalchemy as sa
from alembic import op

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the triggers that keep what is written as it was written."""
    sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "decisions",
        sa.Column("sequence", sequence, primary_key=True),
        sa.Column("id", text, nullable=False, unique=True),
        sa.Column("time", text, nullable=False),
        sa.Column("content_digest", text, nullable=False),
        sa.Column("decision", text, nullable=False),
        sa.Column("author", text),
        sa.Column("surface", text),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_index("decisions_by_time", "decisions", ["time"])
    op.create_table(
        "revisions",
        sa.Column("digest", text, primary_key=True),
        sa.Column("policy", text, nullable=False),
        sa.Column("content", text, nullable=False),
    )
    op.create_table(
        "lists",
        sa.Column("digest", text, primary_key=True),
        sa.Column("content", text, nullable=False),
    )
    op.create_table(
        "activations",
        sa.Column("sequence", sequence, primary_key=True),
        sa.Column("policy", text, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("version", text, nullable=False),
        sa.Column("time", text, nullable=False),
        sa.Column("reason", text, nullable=False),
    )
    op.create_index("activations_by_policy", "activations", ["policy", "sequence"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION baleen_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END$$"
        )
    _refuse("activations", "UPDATE", "activations are append-only")
    _refuse("activations", "DELETE", "activations are append-only")
    _refuse("revisions", "UPDATE", "revisions are immutable")
    _refuse("lists", "UPDATE", "lists are immutable")


def _refuse(table: str, verb: str, reason: str) -> None:
    act = (
        f"FOR EACH ROW EXECUTE FUNCTION baleen_refuse('{reason}')"
        if op.get_bind().dialect.name == "postgresql"
        else f"BEGIN SELECT RAISE(ABORT, '{reason}'); END"
    )
    op.execute(f"CREATE TRIGGER {table}_refuse_{verb.lower()} BEFORE {verb} ON {table} {act}")
