"""The ledger keeps what the rows of a window looked like as a whole."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add it."""
    op.add_column("etl_runs", sa.Column("statistics", sa.Text))
