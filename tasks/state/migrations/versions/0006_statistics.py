"""The ledger keeps what the rows of a window looked like as a whole."""

import sqlalchemy as sa

from tasks.state.migrations.additions import add_column

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add it."""
    add_column("etl_runs", sa.Column("statistics", sa.Text))
