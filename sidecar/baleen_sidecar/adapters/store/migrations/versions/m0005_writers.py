"""Whose chain a row is in, where several write one database."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns, which rewrites no row; in a file, which has one chain, they stay empty and need no index."""
    for table in ("decisions", "dropped_decisions"):
        op.add_column(table, sa.Column("writer", sa.Integer))
        op.add_column(table, sa.Column("number", sa.BigInteger))
    op.add_column("chain", sa.Column("writer", sa.Text().with_variant(sa.Text(collation="C"), "postgresql")))
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("decisions_by_number", "decisions", ["writer", "number"], unique=True)
        op.create_index("dropped_by_number", "dropped_decisions", ["writer", "number"], unique=True)
        op.create_index("chain_by_writer", "chain", ["writer"], unique=True)
