"""How often the content of what is owed another look could not be read."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column, which rewrites no row; gateways of the version before go on writing rows without it."""
    op.add_column("rescan_debts", sa.Column("failed_reads", sa.Integer, nullable=False, server_default="0"))
