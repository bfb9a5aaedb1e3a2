"""The chain of hashes over decisions, what can be erased of them, and how long they are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, which rewrites no row: those that are there stay outside the chain."""
    for name in ("personal", "salt", "personal_digest"):
        op.add_column("decisions", sa.Column(name, sa.LargeBinary))
    op.add_column("decisions", sa.Column("keep_days", sa.Integer))
    op.add_column("decisions", sa.Column("link", sa.LargeBinary))
    op.drop_index("decisions_by_time", "decisions")
    op.create_index("decisions_by_age", "decisions", ["keep_days", "time"])
    op.create_table(
        "chain",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("link", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "dropped_decisions",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )
