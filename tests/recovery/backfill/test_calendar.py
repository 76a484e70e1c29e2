"""A range cut by the calendar of UTC, and between partitions."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from tasks.partitioned import Partitioned
from tasks.recovery.backfill.calendar import By, cut
from tasks.window import Window


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def starts(start: str, end: str, by: By, partitions: Partitioned | None = None) -> list[str]:
    """Where the windows begin; they fill the range, whatever it is."""
    windows = list(cut(Window(at(start), at(end)), by, partitions))
    assert all(one.end == other.start for one, other in pairwise(windows))
    assert (windows[0].start, windows[-1].end) == (at(start), at(end))
    return [f"{one.start:%m-%d %H:%M}" for one in windows]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("hour", ["12-30 22:30", "12-30 23:00", "12-31 00:00"]),
        ("day", ["12-30 22:30", "12-31 00:00"]),
        ("week", ["12-30 22:30"]),
        ("month", ["12-30 22:30"]),
    ],
)
def test_the_first_and_the_last_may_be_parts(by: By, expected: list[str]) -> None:
    assert starts("2013-12-30T22:30", "2013-12-31T00:20", by) == expected


def test_a_week_begins_on_monday_and_a_month_on_its_first_day() -> None:
    assert starts("2013-12-20", "2014-01-14", "week") == ["12-20 00:00", "12-23 00:00", "12-30 00:00", "01-06 00:00",
                                                          "01-13 00:00"]  # fmt: skip
    assert starts("2013-11-30", "2014-02-02", "month") == ["11-30 00:00", "12-01 00:00", "01-01 00:00", "02-01 00:00"]


def test_no_partition_is_cut() -> None:
    """Days of New York begin at 05:00 or 04:00 UTC, so that a window of a day ends there."""
    days = Partitioned("day", "day", "America/New_York")
    assert starts("2013-03-09T05:00", "2013-03-12T04:00", "hour", days) == ["03-09 05:00", "03-10 05:00", "03-11 04:00"]
    assert starts("2013-03-01T05:00", "2013-03-31T04:00", "week", days) == [
        "03-01 05:00", "03-04 05:00", "03-11 04:00", "03-18 04:00", "03-25 04:00",
    ]  # fmt: skip


def test_an_empty_range_has_no_window() -> None:
    assert list(cut(Window(at("2013-01-01"), at("2013-01-01")), "day")) == []
