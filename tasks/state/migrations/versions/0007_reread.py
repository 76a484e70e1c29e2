"""The ledger tells which changes only the lookback brought again."""

import sqlalchemy as sa

from tasks.state.migrations.additions import add_column

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add them."""
    add_column("etl_runs", sa.Column("reread", sa.BigInteger))
    add_column("etl_runs", sa.Column("reread_rejected", sa.BigInteger))
