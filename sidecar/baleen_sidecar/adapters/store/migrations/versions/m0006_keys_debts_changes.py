"""Idempotency keys, what is owed another look, and which decisions that look changed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the tables."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "idempotency_keys",
        sa.Column("id", text, primary_key=True),
        sa.Column("fingerprint", text, nullable=False),
        sa.Column("decision_id", text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_keys_by_time", "idempotency_keys", ["time"])
    op.create_table(
        "rescan_debts",
        sa.Column("decision_id", text, primary_key=True),
        sa.Column("time", text, nullable=False),
        sa.Column("risk", sa.Integer, nullable=False),
        sa.Column("models", text, nullable=False),
        sa.Column("content", text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.Column("claim", text, nullable=False),
    )
    op.create_index("rescan_debts_by_turn", "rescan_debts", ["risk", "time"])
    op.create_table(
        "decision_changes",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("decision_id", text, nullable=False),
        sa.Column("rescan_of", text, nullable=False),
        sa.Column("was", text, nullable=False),
        sa.Column("became", text, nullable=False),
        sa.Column("time", text, nullable=False),
        sa.Column("tenant", text),
    )
