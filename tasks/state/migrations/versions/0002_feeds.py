"""Feeds: extracts that go on from a position. And what a run noticed of late rows and rows without a cursor."""

import sqlalchemy as sa

from tasks.column_types import LONG_TEXT
from tasks.state.migrations.additions import add_column, create_table

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them."""
    create_table(
        "etl_feeds",
        sa.Column("pipeline", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
    )
    add_column("etl_watermarks", sa.Column("position", LONG_TEXT))
    add_column("etl_runs", sa.Column("position", LONG_TEXT))
    add_column("etl_runs", sa.Column("late", sa.BigInteger))
    add_column("etl_runs", sa.Column("null_cursors", sa.BigInteger))
