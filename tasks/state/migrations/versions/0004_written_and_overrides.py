"""The ledger tells how many rows of the target were written, and which guards were overridden for a run."""

import sqlalchemy as sa

from tasks.state.migrations.additions import add_column

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add both."""
    add_column("etl_runs", sa.Column("written", sa.BigInteger))
    add_column("etl_runs", sa.Column("overrides", sa.Text))
