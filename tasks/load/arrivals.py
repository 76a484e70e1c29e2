"""`Arrivals`: what has been read and staged before a commit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tasks.change_columns import Clearing, Marker
from tasks.shrink import Shrink
from tasks.state.statistics import Statistics
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What has been read and staged before the commit.

    Attributes:
        extracted: rows read.
        added: rows the transform made of others.
        filtered: rows it left out.
        refiltered: those of them that an earlier run has left out already.
        staged: good rows in staging.
        rejected: dead letters in staging.
        watermark: highest cursor read, UTC.
        opened_at: target clock before the first row was read.
        read_at: target clock after the last one.
        phases: seconds by phase.
        cleared_at: `etl_row` from which on the staged rows are all there is, or None.
        cleared_by: the marker that said so.
        position: where a feed goes on, or None.
        covered_until: source time (UTC) before which everything has been read.
        passed: cursor that earlier runs had come to; new rows below it are late. None: no row is.
        null_cursors: source rows that are in no window, having no cursor.
        shrink: what the source lost since the last snapshot it was compared with, or None.
        partial: the window has more, which another commit brings; this one leaves the watermark where it is.
        unchanged: the source says that it is what it was; that nothing came in means nothing.
        began: target clock before the first row of a window that is read in parts, UTC; None of one that is not.
        unreadable: dead letters of what the source did not hand out; they say nothing of the rows that it did.
        scope: ranges of the partition column of which what came is all there is; see `Incoming`.
        statistics: of the good rows.
        complete: everything that the source has came in; what did not is gone.
        requests: HTTP requests that were sent for it; None of what is read otherwise.
        clearings: every marker, in order, where the rows are dated; see `Load.dated`.
    """

    extracted: int
    added: int
    filtered: int
    staged: int
    rejected: int
    watermark: datetime | None
    opened_at: datetime
    read_at: datetime
    phases: dict[str, float]
    cleared_at: int | None = None
    cleared_by: Marker | None = None
    position: str | None = None
    covered_until: datetime | None = None
    passed: datetime | int | str | None = None
    null_cursors: int = 0
    shrink: Shrink | None = None
    partial: bool = False
    unchanged: bool = False
    began: datetime | None = None
    unreadable: int = 0
    refiltered: int = 0
    scope: tuple[Window, ...] | None = None
    statistics: Statistics = field(default_factory=Statistics)
    complete: bool = False
    clearings: Sequence[Clearing] = ()
    requests: int | None = None
