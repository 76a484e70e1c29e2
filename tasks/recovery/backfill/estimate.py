"""`Estimates`: how many rows, requests and seconds a window will take, by what those before it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, select

from tasks.state.coverage import Segment
from tasks.state.tables import runs
from tasks.window import Window

_LAST = 1_000
"""Commits that the estimates stand on: older ones tell of other code and other data."""

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Line:
    """A cost that grows with the rows: `fixed` for each window, and `each` for a row; neither is negative.

    Attributes:
        fixed: of a window without rows.
        each: of a row.
    """

    fixed: float
    each: float

    def at(self, rows: int) -> float:
        """The cost of a window of so many rows."""
        return self.fixed + self.each * rows

    @classmethod
    def through(cls, points: Sequence[tuple[int, float]]) -> "Line | None":
        """The line that fits best, by least squares, through rows and what they cost; None through nothing."""
        if not points:
            return None
        many = len(points)
        rows, cost = sum(x for x, _ in points) / many, sum(y for _, y in points) / many
        spread = sum((x - rows) ** 2 for x, _ in points)
        each = sum((x - rows) * (y - cost) for x, y in points) / spread if spread else 0.0
        if each <= 0:
            # All of one size, or the small ones took longer: nobody can tell what a row costs.
            return cls(0.0, cost / rows) if rows and not spread else cls(cost, 0.0)
        fixed = cost - each * rows
        if fixed >= 0:
            return cls(fixed, each)
        return cls(0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points))


@dataclass(slots=True)
class _Took:
    """What a window took in one run."""

    rows: int = 0
    seconds: float = 0.0
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the last windows of a pipeline took.

    Attributes:
        hourly: rows of an hour of source time; None where no commit tells.
        pace: seconds of a window.
        requests: HTTP requests of a window.
    """

    hourly: float | None = None
    pace: Line | None = None
    requests: Line | None = None

    @classmethod
    def read(cls, connection: Connection, pipeline: str) -> "Estimates":
        """From the ledger."""
        last = (
            select(
                runs.c.run_id, runs.c.window_start, runs.c.window_end, runs.c.extracted, runs.c.seconds, runs.c.requests
            )
            .where(
                runs.c.pipeline == pipeline,
                runs.c.status.in_(("committed", "partial")),
                runs.c.kind != "replay",
                runs.c.extracted.is_not(None),
            )
            .order_by(runs.c.started_at.desc())
            .limit(_LAST)
        )
        took: dict[tuple[str, Window], _Took] = {}
        for row in connection.execute(last):
            # A window that was read in parts is one.
            one = took.setdefault((row.run_id, Window(row.window_start, row.window_end)), _Took())
            one.rows += row.extracted
            one.seconds += row.seconds or 0.0
            one.requests = one.requests if row.requests is None else row.requests + (one.requests or 0)
        bounded = [(window, one) for (_, window), one in took.items() if None not in (window.start, window.end)]
        hours = sum(_hours(window) for window, _ in bounded)
        return cls(
            sum(one.rows for _, one in bounded) / hours if hours else None,
            Line.through([(one.rows, one.seconds) for one in took.values()]),
            Line.through([(one.rows, float(one.requests)) for one in took.values() if one.requests is not None]),
        )

    def rows(self, window: Window, covered: Sequence[Segment]) -> int | None:
        """By what covered the window last, and the average of all where nothing did; None where nobody knows."""
        left, rows = _hours(window), 0.0
        for one in covered:
            hours, density = _hours(window, one), _density(one)
            if density is not None:
                rows += hours * density
                left -= hours
        if left <= 0:
            return round(rows)
        return None if self.hourly is None else round(rows + left * self.hourly)

    def seconds(self, rows: int | None) -> float | None:
        """Of a window of so many rows."""
        return None if rows is None or self.pace is None else self.pace.at(rows)

    def calls(self, rows: int | None) -> int | None:
        """HTTP requests of a window of so many rows."""
        return None if rows is None or self.requests is None else round(self.requests.at(rows))


def _hours(window: Window, segment: Segment | None = None) -> float:
    """Of `window`, or of what lies of it in a segment."""
    assert window.start is not None and window.end is not None
    if segment is None:
        return (window.end - window.start) / _HOUR
    return (min(window.end, segment.end) - max(window.start, segment.start)) / _HOUR


def _density(segment: Segment) -> float | None:
    """Rows of an hour of what covered the segment; None of a window that began at the beginning."""
    duration, rows = segment.attempt.window.duration, segment.attempt.rows
    return None if rows is None or not duration else rows / (duration / _HOUR)
