"""Feeds: extracts that go on from a position. And what a run noticed of late rows and rows without a cursor."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "etl_feeds",
        sa.Column("pipeline", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
    )
    op.add_column("etl_watermarks", sa.Column("position", sa.Text))
    op.add_column("etl_runs", sa.Column("position", sa.Text))
    op.add_column("etl_runs", sa.Column("late", sa.BigInteger))
    op.add_column("etl_runs", sa.Column("null_cursors", sa.BigInteger))
