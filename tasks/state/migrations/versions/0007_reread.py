"""The ledger tells which changes only the lookback brought again; letters are found by when they came and went."""

import sqlalchemy as sa

from tasks.state.migrations.additions import add_column, create_index

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add them."""
    add_column("etl_runs", sa.Column("reread", sa.BigInteger))
    add_column("etl_runs", sa.Column("reread_rejected", sa.BigInteger))
    create_index("etl_dead_letters_by_first_seen", "etl_dead_letters", ["pipeline", "first_seen"])
    create_index("etl_dead_letters_by_closed_at", "etl_dead_letters", ["pipeline", "closed_at"])
