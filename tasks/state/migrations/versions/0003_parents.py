"""Parents: an extract that reads the children of each knows how far it has come with every one of them."""

import sqlalchemy as sa
from alembic import op

from tasks.column_types import EXACT_TEXT, UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "etl_parents",
        sa.Column("pipeline", sa.String(255), primary_key=True),
        sa.Column("parent", EXACT_TEXT, primary_key=True),
        sa.Column("watermark", UtcDateTime),
        sa.Column("covered_until", UtcDateTime, nullable=False),
    )
