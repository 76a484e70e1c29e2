"""Changed partitions of a target, and what their readers have seen of them."""

import sqlalchemy as sa

from tasks.column_types import EXACT_TEXT
from tasks.state.migrations.additions import create_table

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create both tables."""
    create_table(
        "etl_partitions",
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("part", EXACT_TEXT, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    create_table(
        "etl_partitions_read",
        sa.Column("pipeline", sa.String(255), primary_key=True),
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("part", EXACT_TEXT, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
