"""Backfills know what they set out to do; the ledger tells how many requests a window took."""

import sqlalchemy as sa

from tasks.column_types import LONG_TEXT, UtcDateTime
from tasks.state.migrations.additions import add_column, create_index, create_table

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add both."""
    create_table(
        "etl_backfills",
        sa.Column("backfill_id", sa.String(32), primary_key=True),
        sa.Column("pipeline", sa.String(255), nullable=False),
        sa.Column("asked_start", UtcDateTime),
        sa.Column("asked_end", UtcDateTime),
        sa.Column("cut_by", sa.String(16), nullable=False),
        sa.Column("chosen", sa.String(16), nullable=False),
        sa.Column("contract", sa.String(64), nullable=False),
        sa.Column("code_version", sa.Text),
        sa.Column("planned", LONG_TEXT, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("message", LONG_TEXT),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
    )
    create_index("etl_backfills_by_pipeline", "etl_backfills", ["pipeline", "started_at"])
    add_column("etl_runs", sa.Column("requests", sa.BigInteger))
