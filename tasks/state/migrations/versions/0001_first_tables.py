"""The first tables: targets, watermarks, windows, the ledger, dead letters."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from tasks.column_types import LONG_TEXT, UtcDateTime
from tasks.state.migrations.additions import create_index, create_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create them."""
    create_table("etl_targets", sa.Column("target", sa.String(255), primary_key=True))
    create_table(
        "etl_watermarks",
        sa.Column("pipeline", sa.String(255), primary_key=True),
        sa.Column("watermark", sa.Text),
        sa.Column("covered_until", UtcDateTime),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    create_table(
        "etl_windows",
        sa.Column("attempt", sa.String(32), primary_key=True),
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("pipeline", sa.String(255), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("window_start", UtcDateTime),
        sa.Column("window_end", UtcDateTime),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("read_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
    )
    create_index("etl_windows_by_pipeline", "etl_windows", ["pipeline", "status"])
    create_index("etl_windows_by_target", "etl_windows", ["target", "status"])
    counts = ["extracted", "added", "inserted", "updated", "deleted", "unchanged", "deduplicated", "stale", "rejected"]
    seconds = ["seconds", "extract_seconds", "validate_seconds", "stage_seconds", "commit_seconds"]
    create_table(
        "etl_runs",
        sa.Column("attempt", sa.String(32), primary_key=True),
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("pipeline", sa.String(255), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("window_start", UtcDateTime),
        sa.Column("window_end", UtcDateTime),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("message", LONG_TEXT),
        *(sa.Column(name, sa.BigInteger) for name in [*counts, "filtered", "warned"]),
        sa.Column("error_rate", sa.Double),
        *(sa.Column(name, sa.Double) for name in seconds),
        sa.Column("watermark", sa.Text),
        sa.Column("flow_run_id", sa.String(36)),
        sa.Column("code_version", sa.Text),
        sa.Column("contract", sa.String(64)),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
    )
    create_index("etl_runs_by_pipeline", "etl_runs", ["pipeline", "started_at"])
    create_index("etl_runs_by_run", "etl_runs", ["run_id"])
    create_table(
        "etl_dead_letters",
        sa.Column("letter", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("pipeline", sa.String(255), nullable=False),
        sa.Column("row_key", sa.Text().with_variant(mysql.VARCHAR(512), "mysql", "mariadb"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("window_start", UtcDateTime),
        sa.Column("window_end", UtcDateTime),
        sa.Column("cursor_value", UtcDateTime),
        sa.Column("record", LONG_TEXT, nullable=False),
        sa.Column("record_types", LONG_TEXT, nullable=False),
        sa.Column("reasons", LONG_TEXT, nullable=False),
        sa.Column("contract", sa.String(64), nullable=False),
        sa.Column("first_seen", UtcDateTime, nullable=False),
        sa.Column("last_seen", UtcDateTime, nullable=False),
        sa.Column("times_seen", sa.Integer, nullable=False),
        sa.Column("closed_run_id", sa.String(32)),
        sa.Column("closed_at", UtcDateTime),
        sa.UniqueConstraint("pipeline", "row_key", name="etl_dead_letters_row"),
    )
    create_index("etl_dead_letters_by_status", "etl_dead_letters", ["pipeline", "status"])
