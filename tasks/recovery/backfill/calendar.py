"""`cut`: a range of source time, cut where hours, days, weeks or months of UTC begin."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

from tasks.partitioned import Partitioned
from tasks.window import Window

By = Literal["hour", "day", "week", "month"]

_DECEMBER = 12


def cut(span: Window, by: By, partitions: Partitioned | None = None) -> Iterator[Window]:
    """`span`, which has both bounds, in consecutive windows; the first and the last may be part of one.

    Args:
        span: what to cut; where there are partitions, it begins with one.
        by: what a window is; a week begins on Monday.
        partitions: none of these is cut: a window that would end inside of one ends behind it.
    """
    start, end = span.start, span.end
    assert start is not None and end is not None, "what is cut has two ends"
    while start < end:
        until = _next(start, by)
        if partitions is not None:
            whole = partitions.aligned(Window(start, until)).end
            until = end if whole is None else whole
        until = min(until, end)
        yield Window(start, until)
        start = until


def _next(instant: datetime, by: By) -> datetime:
    """The first beginning of an hour, day, week or month after `instant`."""
    if by == "hour":
        return instant.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if by == "day":
        return midnight + timedelta(days=1)
    if by == "week":
        return midnight + timedelta(days=7 - midnight.weekday())
    first = midnight.replace(day=1)
    if first.month == _DECEMBER:
        return first.replace(year=first.year + 1, month=1)
    return first.replace(month=first.month + 1)
