"""tidegate's own tables. They live in the target database, so that one transaction covers them and the rows.

| table | one row for each | says |
|---|---|---|
| `etl_targets` | target table | nothing; a commit locks it |
| `etl_watermarks` | pipeline | how far it has come |
| `etl_feeds` | pipeline that goes on from a position | its name at the source |
| `etl_parents` | parent of a pipeline that reads the children of each | how far its children have been read |
| `etl_windows` | attempt at a window | whether it still may commit |
| `etl_runs` | attempt at a window | what happened, in numbers: the ledger |
| `etl_partitions` | partition of a target whose changes are tracked | how often its rows changed |
| `etl_partitions_read` | partition that a pipeline has read | which of its versions |
| `etl_dead_letters` | bad row of a pipeline | the raw record and every rule it broke |
| `etl_backfills` | backfill | which windows it set out to do, and since when |

The migrations in `migrations/` make them; a test holds the two against each other.
"""

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

from tasks.column_types import EXACT_TEXT, LONG_TEXT, UtcDateTime
from tasks.counts import Counts

metadata = MetaData()

targets = Table(
    "etl_targets",
    metadata,
    Column("target", String(255), primary_key=True),
)

watermarks = Table(
    "etl_watermarks",
    metadata,
    Column("pipeline", String(255), primary_key=True),
    Column("watermark", Text, comment="Highest cursor extracted, ISO 8601 in UTC"),
    Column("covered_until", UtcDateTime, comment="Source time below which nothing can change any more"),
    Column("version", Integer, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("position", LONG_TEXT, comment="How far a feed has come, in the source's own terms"),
)

feeds = Table(
    "etl_feeds",
    metadata,
    Column("pipeline", String(255), primary_key=True),
    Column("name", String(63), nullable=False, comment="What its slot, publication or change log is called"),
)

parents = Table(
    "etl_parents",
    metadata,
    Column("pipeline", String(255), primary_key=True),
    Column("parent", EXACT_TEXT, primary_key=True, comment="What its children are asked for by"),
    Column("watermark", UtcDateTime, comment="Highest cursor of its children"),
    Column("covered_until", UtcDateTime, nullable=False, comment="Source time below which none of them can change"),
)

windows = Table(
    "etl_windows",
    metadata,
    Column("attempt", String(32), primary_key=True),
    Column("run_id", String(32), nullable=False),
    Column("pipeline", String(255), nullable=False),
    Column("target", String(255), nullable=False),
    Column("kind", String(16), nullable=False, comment="full, incremental, explicit or changes"),
    Column("window_start", UtcDateTime),
    Column("window_end", UtcDateTime),
    Column("status", String(16), nullable=False),
    Column("owner", Text, nullable=False, comment="The process that holds the attempt"),
    Column("opened_at", UtcDateTime, nullable=False, comment="Target clock before the first row was read"),
    Column("read_at", UtcDateTime, comment="Target clock after the last row was read"),
    Column("finished_at", UtcDateTime),
    Index("etl_windows_by_pipeline", "pipeline", "status"),
    Index("etl_windows_by_target", "target", "status"),
)

COUNTS = tuple(Counts().as_dict())

runs = Table(
    "etl_runs",
    metadata,
    Column("attempt", String(32), primary_key=True),
    Column("run_id", String(32), nullable=False),
    Column("pipeline", String(255), nullable=False),
    Column("target", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("window_start", UtcDateTime),
    Column("window_end", UtcDateTime),
    Column("status", String(16), nullable=False),
    Column("message", LONG_TEXT),
    *(Column(name, BigInteger) for name in COUNTS),
    Column("warned", BigInteger, comment="Rows loaded although a reference with on_missing='warn' is missing"),
    Column("error_rate", Double),
    Column("seconds", Double, comment="From opening to the end of the commit"),
    Column("extract_seconds", Double),
    Column("validate_seconds", Double),
    Column("stage_seconds", Double),
    Column("commit_seconds", Double),
    Column("watermark", Text),
    Column("flow_run_id", String(36)),
    Column("code_version", Text),
    Column("contract", String(64), comment="Fingerprint of schema and transform"),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("position", LONG_TEXT, comment="Where a feed had come to"),
    Column("late", BigInteger, comment="Rows that only the lookback caught"),
    Column("null_cursors", BigInteger, comment="Source rows that are in no window, having no cursor"),
    Column("written", BigInteger, comment="Rows of the target that were inserted, updated or deleted"),
    Column("overrides", Text, comment="Guards that were overridden for this run, and why; JSON"),
    Column("statistics", Text, comment="Rows that the contract let through, and NULLs by column; JSON"),
    Column(
        "reread", BigInteger, comment="Changes that an earlier run has counted, and only the lookback brought again"
    ),
    Column("reread_rejected", BigInteger, comment="Those of them that were rejected again"),
    Column("requests", BigInteger, comment="HTTP requests that an API was sent, retries included"),
    Index("etl_runs_by_pipeline", "pipeline", "started_at"),
    Index("etl_runs_by_run", "run_id"),
)

partitions = Table(
    "etl_partitions",
    metadata,
    Column("target", String(255), primary_key=True),
    Column("part", EXACT_TEXT, primary_key=True, comment="A day's ISO date, an hour's instant, or the value's text"),
    Column("version", BigInteger, nullable=False, comment="Grows with every commit that changes a row of it"),
)

partitions_read = Table(
    "etl_partitions_read",
    metadata,
    Column("pipeline", String(255), primary_key=True, comment="Who has read it"),
    Column("target", String(255), primary_key=True),
    Column("part", EXACT_TEXT, primary_key=True),
    Column("version", BigInteger, nullable=False, comment="Which version that was"),
)

dead_letters = Table(
    "etl_dead_letters",
    metadata,
    Column("letter", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("pipeline", String(255), nullable=False),
    Column("row_key", Text().with_variant(String(512), "mysql", "mariadb"), nullable=False),
    Column("status", String(16), nullable=False, comment="open or closed"),
    Column("run_id", String(32), nullable=False, comment="The run that saw it last"),
    Column("window_start", UtcDateTime),
    Column("window_end", UtcDateTime),
    Column("cursor_value", UtcDateTime, comment="The row's cursor; a good row at least as new closes the letter"),
    Column("record", LONG_TEXT, nullable=False, comment="The raw record, JSON"),
    Column("record_types", LONG_TEXT, nullable=False, comment="Arrow type of every field of the record, JSON"),
    Column("reasons", LONG_TEXT, nullable=False, comment="Every rule it broke: rule, column, value; JSON"),
    Column("contract", String(64), nullable=False, comment="Fingerprint of the schema and transform that judged it"),
    Column("first_seen", UtcDateTime, nullable=False),
    Column("last_seen", UtcDateTime, nullable=False),
    Column("times_seen", Integer, nullable=False),
    Column("closed_run_id", String(32)),
    Column("closed_at", UtcDateTime),
    UniqueConstraint("pipeline", "row_key", name="etl_dead_letters_row"),
    Index("etl_dead_letters_by_status", "pipeline", "status"),
    Index("etl_dead_letters_by_first_seen", "pipeline", "first_seen"),
    Index("etl_dead_letters_by_closed_at", "pipeline", "closed_at"),
)

backfills = Table(
    "etl_backfills",
    metadata,
    Column("backfill_id", String(32), primary_key=True),
    Column("pipeline", String(255), nullable=False),
    Column("asked_start", UtcDateTime, comment="As it was asked for; NULL is the beginning"),
    Column("asked_end", UtcDateTime, comment="As it was asked for; NULL is as far as is proven"),
    Column("cut_by", String(16), nullable=False, comment="hour, day, week or month"),
    Column("chosen", String(16), nullable=False, comment="Which windows: missing, failed, stale or all"),
    Column("contract", String(64), nullable=False, comment="Fingerprint of the schema and transform it is done with"),
    Column("code_version", Text),
    Column("planned", LONG_TEXT, nullable=False, comment="The windows that were to do when it was opened; JSON"),
    Column("status", String(16), nullable=False, comment="running, done, failed or cancelled"),
    Column("message", LONG_TEXT, comment="Why it ended so"),
    Column("started_at", UtcDateTime, nullable=False, comment="Target clock; what is older is not of it"),
    Column("finished_at", UtcDateTime),
    Index("etl_backfills_by_pipeline", "pipeline", "started_at"),
)
