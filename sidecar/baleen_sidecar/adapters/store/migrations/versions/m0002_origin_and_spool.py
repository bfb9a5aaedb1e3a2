"""Where decisions come from that a sidecar sent, and how far a sidecar has sent its own."""

import sqlalchemy as sa
from alembic import op

text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column, which rewrites no row, and the table."""
    op.add_column("decisions", sa.Column("origin", text))
    op.create_table(
        "spool",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("shipped", sa.BigInteger, nullable=False),
    )
