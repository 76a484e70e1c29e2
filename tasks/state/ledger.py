"""The ledger: one row for each attempt, with every term of the conservation sum."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select, update

from tasks.counts import Counted, Counts
from tasks.state.attempts import Attempt, Status
from tasks.state.statistics import Statistics
from tasks.state.tables import COUNTS, runs
from tasks.window import to_utc

PHASES = ("extract", "validate", "stage", "commit")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of a finished attempt; durations in seconds, times in UTC.

    Attributes:
        status: how it ended.
        counts: what became of every change.
        warned: rows loaded although a reference declared `on_missing="warn"` is missing.
        seconds: from opening to the commit.
        phases: seconds by phase: extract, validate, stage (these overlap) and commit.
        watermark: highest cursor extracted in this window.
        message: why it was refused, or which bounds it exceeds although it was loaded; None where neither is so.
        position: where a feed had come to, or None.
        late: rows that only the lookback caught.
        null_cursors: source rows that are in no window, having no cursor.
        written: rows of the target that were inserted, updated or deleted; a change may be several in a history.
        statistics: what its rows looked like; None where the source said that nothing has changed.
        reread: changes that an earlier run has counted, and that only the lookback brought again.
        reread_rejected: those of them that were rejected again.
        requests: HTTP requests that an API was sent; None of what is read otherwise.
    """

    status: Status
    counts: Counts
    warned: int
    seconds: float
    phases: dict[str, float]
    watermark: datetime | None
    message: str | None = None
    position: str | None = None
    late: int = 0
    null_cursors: int = 0
    written: int = 0
    statistics: Statistics | None = None
    reread: int = 0
    reread_rejected: int = 0
    requests: int | None = None

    @property
    def counted(self) -> Counted:
        """What came in here for the first time."""
        counts = self.counts
        return Counted(counts.incoming - self.reread, counts.rejected - self.reread_rejected)


def write_entry(connection: Connection, attempt: Attempt, entry: Entry, now: datetime) -> None:
    """Complete the attempt's row, inside its commit."""
    connection.execute(
        update(runs)
        .where(runs.c.attempt == attempt.token)
        .values(
            status=entry.status,
            message=entry.message,
            warned=entry.warned,
            error_rate=entry.counts.error_rate,
            seconds=entry.seconds,
            watermark=None if entry.watermark is None else entry.watermark.isoformat(),
            finished_at=now,
            position=entry.position,
            late=entry.late,
            null_cursors=entry.null_cursors,
            written=entry.written,
            reread=entry.reread,
            reread_rejected=entry.reread_rejected,
            requests=entry.requests,
            statistics=None if entry.statistics is None else entry.statistics.as_json(),
            **entry.counts.as_dict(),
            **{f"{phase}_seconds": seconds for phase, seconds in entry.phases.items()},
        )
    )


def read_entry(connection: Connection, attempt: Attempt) -> Entry:
    """The entry of an attempt that has one."""
    row = connection.execute(select(runs).where(runs.c.attempt == attempt.token)).one()._mapping
    return Entry(
        status=row["status"],
        counts=Counts(**{name: row[name] for name in COUNTS}),
        warned=row["warned"],
        seconds=row["seconds"],
        phases={phase: row[f"{phase}_seconds"] for phase in PHASES},
        watermark=None if row["watermark"] is None else to_utc(row["watermark"]),
        message=row["message"],
        position=row["position"],
        late=row["late"] or 0,
        null_cursors=row["null_cursors"] or 0,
        written=row["written"] or 0,
        statistics=None if row["statistics"] is None else Statistics.parse(row["statistics"]),
        reread=row["reread"] or 0,
        reread_rejected=row["reread_rejected"] or 0,
        requests=row["requests"],
    )


def last_position(connection: Connection, attempt: Attempt, contract: str) -> str | None:
    """Where a run over the attempt's very window was left; None where it was read to its end, or never.

    Args:
        connection: to the target.
        attempt: at the window.
        contract: fingerprint; what another contract has judged is read anew.
    """
    newest = (
        select(runs.c.status, runs.c.position, runs.c.contract)
        .where(*_of_window(attempt), runs.c.status.in_(("committed", "partial")))
        .order_by(runs.c.finished_at.desc())
        .limit(1)
    )
    row = connection.execute(newest).one_or_none()
    if row is None or (row.status, row.contract) != ("partial", contract):
        return None
    return str(row.position)


def earlier_parts(connection: Connection, attempt: Attempt, began: datetime) -> Counts:
    """What has been committed of the attempt's window since its reading began (UTC)."""
    names = ("extracted", "added", "rejected")
    sums = (func.coalesce(func.sum(runs.c[name]), 0).label(name) for name in names)
    parts = select(*sums).where(*_of_window(attempt), runs.c.status == "partial", runs.c.started_at >= began)
    row = connection.execute(parts).one()._mapping
    return Counts(**{name: int(row[name]) for name in names})


def _of_window(attempt: Attempt) -> list[ColumnElement[bool]]:
    """Whether a ledger row is about the attempt's very window, in a run of its kind."""
    bounds = zip((runs.c.window_start, runs.c.window_end), (attempt.window.start, attempt.window.end), strict=True)
    same = [column.is_(None) if bound is None else column == bound for column, bound in bounds]
    return [runs.c.pipeline == attempt.pipeline, runs.c.kind == attempt.kind, *same]
