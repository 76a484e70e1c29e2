"""`Coverage`: what the ledger says of every instant of a range: who committed it last, and whether that still holds."""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, or_, select

from tasks.state.tables import runs
from tasks.window import Window, to_utc

FAILURES = ("failed", "refused", "crashed")
"""How an attempt ends that leaves something to do; one that was fenced or superseded gave way to another."""

_KINDS = ("incremental", "explicit", "full")
_FETCHED = 1_000


@dataclass(frozen=True, slots=True)
class Attempted:
    """What the ledger says of one attempt.

    Attributes:
        run_id: the run it belongs to.
        window: what was read; unbounded where nobody knows.
        status: how it ended.
        at: when, target clock, UTC.
        contract: fingerprint of the schema and transform that judged its rows.
        code_version: what ran.
        rows: how many were read, in all parts of the window, or None.
        message: why it failed.
    """

    run_id: str
    window: Window
    status: str
    at: datetime
    contract: str | None
    code_version: str | None
    rows: int | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a range of which the same attempt tells.

    Attributes:
        start: UTC.
        end: not part of it, UTC.
        attempt: the attempt.
    """

    start: datetime
    end: datetime
    attempt: Attempted


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of a range; segments are disjoint and in order.

    Attributes:
        covered: who committed last what lies there; what is in none of them was never covered.
        failed: where the last word was a failure, whether it is covered or not.
    """

    covered: tuple[Segment, ...] = ()
    failed: tuple[Segment, ...] = ()

    def covering(self, window: Window) -> list[Segment]:
        """What of `covered` overlaps `window`, which has both bounds."""
        return _overlapped(self.covered, window)

    def failing(self, window: Window) -> list[Segment]:
        """What of `failed` overlaps it."""
        return _overlapped(self.failed, window)

    def fills(self, window: Window, contract: str | None = None) -> bool:
        """Whether all of `window` was covered, and last under `contract`, if one is given."""
        place = window.start
        for one in self.covering(window):
            assert place is not None, "the window has both bounds"
            if one.start > place or (contract is not None and one.attempt.contract != contract):
                return False
            place = one.end
        return place is not None and window.end is not None and place >= window.end


class Gaps:
    """What of a range nobody has taken yet.

    Args:
        start: UTC.
        end: not part of it, UTC.
    """

    def __init__(self, start: datetime, end: datetime) -> None:
        self._starts, self._ends = ([start], [end]) if start < end else ([], [])

    def __bool__(self) -> bool:
        return bool(self._starts)

    def take(self, window: Window) -> list[tuple[datetime, datetime]]:
        """Take what is left of `window`; the parts that were."""
        first = 0 if window.start is None else bisect_right(self._ends, window.start)
        last = len(self._starts) if window.end is None else bisect_left(self._starts, window.end)
        if first >= last or window.empty:
            return []
        starts, ends = self._starts[first:last], self._ends[first:last]
        left_starts, left_ends = [], []
        if window.start is not None and starts[0] < window.start:
            left_starts.append(starts[0])
            left_ends.append(window.start)
            starts[0] = window.start
        if window.end is not None and ends[-1] > window.end:
            left_starts.append(window.end)
            left_ends.append(ends[-1])
            ends[-1] = window.end
        self._starts[first:last], self._ends[first:last] = left_starts, left_ends
        return list(zip(starts, ends, strict=True))


@dataclass
class Painting:
    """Coverage in the making: attempts are laid under it, the newest first.

    Attributes:
        span: the range, with both bounds.
    """

    span: Window
    _covered: list[Segment] = field(default_factory=list)
    _failed: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        start, end = self.span.start, self.span.end
        assert start is not None and end is not None, "what is painted has two ends"
        self._uncovered, self._unsaid = Gaps(start, end), Gaps(start, end)
        self._parts: dict[tuple[str, Window], int] = {}
        self._last_run: str | None = None

    @property
    def full(self) -> bool:
        """Whether every instant is covered."""
        return not self._uncovered

    def hides(self, attempt: Attempted) -> bool:
        """Whether nothing can be seen of the attempt, nor of any that ended before it."""
        # The run that was laid last may have read its window in parts.
        return self.full and attempt.run_id != self._last_run

    def under(self, attempt: Attempted) -> None:
        """Lay an attempt under those that ended after it."""
        self._last_run = attempt.run_id
        key = (attempt.run_id, attempt.window)
        if attempt.status == "partial":
            # Of what nobody sees, nobody asks how much it was.
            if key in self._parts:
                self._parts[key] += attempt.rows or 0
            return
        said = self._unsaid.take(attempt.window)
        if attempt.status in FAILURES:
            self._failed += [Segment(start, end, attempt) for start, end in said]
        else:
            parts = self._uncovered.take(attempt.window)
            self._covered += [Segment(start, end, attempt) for start, end in parts]
            if parts:
                self._parts[key] = attempt.rows or 0

    @property
    def coverage(self) -> Coverage:
        """What can be seen."""
        covered = (replace(one, attempt=self._whole(one.attempt)) for one in self._covered)
        return Coverage(*(tuple(sorted(found, key=lambda one: one.start)) for found in (covered, self._failed)))

    def _whole(self, attempt: Attempted) -> Attempted:
        """With the rows of the parts that were committed before it."""
        return replace(attempt, rows=self._parts[attempt.run_id, attempt.window])


def read_coverage(connection: Connection, pipeline: str, span: Window, *, since: datetime | None = None) -> Coverage:
    """What the ledger says of a range, in memory for what can be seen of it: no attempt that later ones hide.

    Args:
        connection: to the target.
        pipeline: whose.
        span: the range, with both bounds.
        since: only attempts that were opened at this time (target clock, UTC) or later.
    """
    painting = Painting(span)
    with closing(_attempts(connection, pipeline, span, since)) as newest_first:
        for attempt in newest_first:
            if painting.hides(attempt):
                break
            painting.under(attempt)
    if since is None and not painting.full:
        for attempt in _changes(connection, pipeline):
            painting.under(attempt)
    return painting.coverage


def _overlapped(segments: Sequence[Segment], window: Window) -> list[Segment]:
    assert window.start is not None and window.end is not None, "the window has both bounds"
    first = bisect_right(segments, window.start, key=lambda one: one.end)
    last = bisect_left(segments, window.end, key=lambda one: one.start)
    return list(segments[first:last])


def _attempts(
    connection: Connection, pipeline: str, span: Window, since: datetime | None
) -> Generator[Attempted, None, None]:
    """Those that say something of `span`, the newest first."""
    ended = ("committed", "partial", *FAILURES)
    told = _told(pipeline).where(runs.c.kind.in_(_KINDS), runs.c.status.in_(ended), *_overlapping(span))
    if since is not None:
        told = told.where(runs.c.started_at >= since)
    for row in _rows(connection, told.order_by(runs.c.finished_at.desc(), runs.c.attempt)):
        window = Window(row.window_start, row.window_end)
        if row.status in FAILURES:
            # One without a window failed before it had one, or read everything: it says nothing of a range.
            if window != Window():
                yield _attempted(row, window)
        elif row.kind != "full":
            yield _attempted(row, window)
        elif row.watermark is not None:
            # It read what lies beyond as well; but how far that was proven, nobody has written down.
            yield _attempted(row, Window(None, to_utc(row.watermark)))


def _changes(connection: Connection, pipeline: str) -> Generator[Attempted, None, None]:
    """Runs that read what had changed upstream, the oldest first.

    Once the first has ended, everything is there, and each brings what has come since. What else they read anew, and so
    by which contract, is not written down: they are taken for the oldest word on a range.
    """
    told = _told(pipeline).where(runs.c.kind == "changes", runs.c.status == "committed")
    for row in _rows(connection, told.order_by(runs.c.finished_at, runs.c.attempt)):
        yield _attempted(row, Window(None, row.started_at))


def _rows(connection: Connection, statement: Select[Any]) -> Generator[Row[Any], None, None]:
    with connection.execute(statement.execution_options(yield_per=_FETCHED)) as rows:
        yield from rows


def _told(pipeline: str) -> Select[Any]:
    return select(
        runs.c.run_id, runs.c.kind, runs.c.window_start, runs.c.window_end, runs.c.status, runs.c.started_at,
        runs.c.finished_at, runs.c.contract, runs.c.code_version, runs.c.extracted, runs.c.watermark, runs.c.message,
    ).where(runs.c.pipeline == pipeline)  # fmt: skip


def _overlapping(span: Window) -> list[ColumnElement[bool]]:
    return [
        or_(runs.c.window_start.is_(None), runs.c.window_start < span.end),
        or_(runs.c.window_end.is_(None), runs.c.window_end > span.start),
    ]


def _attempted(row: Row[Any], window: Window) -> Attempted:
    return Attempted(
        row.run_id, window, row.status, row.finished_at, row.contract, row.code_version, row.extracted, row.message
    )
