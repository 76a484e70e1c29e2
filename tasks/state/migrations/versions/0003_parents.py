"""Parents: an extract that reads the children of each knows how far it has come with every one of them."""

import sqlalchemy as sa

from tasks.column_types import EXACT_TEXT, UtcDateTime
from tasks.state.migrations.additions import create_table

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add them."""
    create_table(
        "etl_parents",
        sa.Column("pipeline", sa.String(255), primary_key=True),
        sa.Column("parent", EXACT_TEXT, primary_key=True),
        sa.Column("watermark", UtcDateTime),
        sa.Column("covered_until", UtcDateTime, nullable=False),
    )
