"""`Partitioned`: half-open ranges that follow each other without gap or overlap, whatever a zone does to its clocks."""

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.partitioned import Grain, Partitioned
from tasks.window import Window

TICK = timedelta(microseconds=1)

ZONES = [
    "UTC",
    "America/New_York",
    "America/Havana",  # midnight comes twice
    "America/Sao_Paulo",  # midnight was left out
    "America/St_Johns",  # until 2011 the clocks were put back from 00:01 into the day before
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # had no 30th of December 2011
    "Asia/Kolkata",
    "Africa/Monrovia",  # until 1972 44 minutes and 30 seconds behind
]
# Around the changes of all these zones, and anywhere.
INSTANTS = st.datetimes(datetime(1969, 1, 1), datetime(2030, 1, 1)) | st.sampled_from([
    datetime(2010, 11, 7, 2, 30), datetime(2011, 4, 2, 15), datetime(2011, 12, 30, 10), datetime(2013, 11, 3, 5),
    datetime(2017, 10, 15, 3), datetime(2018, 11, 4, 4, 30), datetime(1972, 1, 7, 0, 44, 30),
])  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(INSTANTS, st.timedeltas(timedelta(hours=-3), timedelta(hours=3)), st.sampled_from(ZONES),
       st.sampled_from(["hour", "day", "month"]))  # fmt: skip
def test_every_instant_lies_in_one_partition_and_the_next_begins_where_it_ends(
    instant: datetime, shift: timedelta, zone: str, grain: Grain
) -> None:
    by, at = Partitioned("at", grain, zone), (instant + shift).replace(tzinfo=UTC)
    around = by.around(at)
    assert around.start is not None and around.end is not None
    assert around.start <= at < around.end
    assert by.around(around.start) == by.around(around.end - TICK) == around
    assert by.around(around.end).start == around.end
    assert by.window(by.part(at)) == around, "a partition is found by its name"
    assert by.part(around.start) == by.part(around.end - TICK) != by.part(around.end)
    assert by.aligned(Window(at, at + TICK)) == by.aligned(around) == around


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", "2013-03-10", 23),
        ("America/New_York", "2013-11-03", 25),
        ("America/Havana", "2018-11-04", 25),
        ("America/Sao_Paulo", "2017-10-15", 23),
        ("Pacific/Apia", "2011-12-30", 0),
        ("UTC", "2013-03-10", 24),
    ],
)
def test_a_day_is_as_long_as_the_zone_makes_it(zone: str, day: str, hours: int) -> None:
    assert Partitioned("at", "day", zone).window(day).duration == timedelta(hours=hours)


def test_an_hour_that_comes_twice_is_two_partitions() -> None:
    by = Partitioned("at", "hour", "America/New_York")
    first, second = (by.part(datetime(2013, 11, 3, hour, 30, tzinfo=UTC)) for hour in (5, 6))
    assert (first, second) == ("2013-11-03T05:00:00+00:00", "2013-11-03T06:00:00+00:00")


def test_parts_are_called_by_what_the_zones_calendar_shows() -> None:
    evening = datetime(2013, 3, 1, 2, tzinfo=UTC)
    assert Partitioned("at", "day", "America/New_York").part(evening) == "2013-02-28"
    assert Partitioned("at", "month", "America/New_York").part(evening) == "2013-02-01"
    assert Partitioned("at", "day").part(date(2013, 3, 1)) == "2013-03-01"
    assert Partitioned("at", "month").part(date(2013, 3, 9)) == "2013-03-01"
    assert Partitioned("at").part("o'neill") == "o'neill"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("grain", ["hour", "day", "month"])
def test_the_ends_of_the_calendar_have_partitions_too(zone: str, grain: Grain) -> None:
    by = Partitioned("at", grain, zone)
    for at in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        around = by.around(at)
        assert (around.start is None or around.start <= at) and (around.end is None or at < around.end)
        assert around.start is not None or around.end is not None, "not everything there is"
        assert by.part(at)


@pytest.mark.parametrize("by", [timedelta(minutes=10), timedelta(days=1), timedelta(hours=30), timedelta(days=400)])
def test_a_window_is_cut_between_partitions_only(by: timedelta) -> None:
    partitions = Partitioned("at", "day", "America/New_York")
    whole = Window(datetime(2013, 10, 30, 4, tzinfo=UTC), datetime(2013, 11, 6, 12, tzinfo=UTC))
    pieces = list(partitions.split(whole, by))
    assert (pieces[0].start, pieces[-1].end) == (whole.start, whole.end)
    assert all(one.end == other.start and not one.empty for one, other in itertools.pairwise(pieces))
    assert all(partitions.around(piece.start).start == piece.start for piece in pieces if piece.start)


def test_a_window_that_holds_nothing_stays_as_it_is() -> None:
    noon = datetime(2013, 3, 10, 12, tzinfo=UTC)
    by = Partitioned("at", "day")
    assert by.aligned(Window(noon, noon)) == Window(noon, noon)
    assert list(by.split(Window(noon, noon), timedelta(days=1))) == [Window(noon, noon)]
    assert by.aligned(Window(None, noon)) == Window(None, datetime(2013, 3, 11, tzinfo=UTC))
    assert list(by.split(Window(None, noon), timedelta(days=1))) == [Window(None, noon)]


def test_a_value_is_no_range() -> None:
    with pytest.raises(ConfigError, match=r"'ann' is no range\. Declare a grain"):
        Partitioned("customer").window("ann")
    with pytest.raises(ConfigError, match="'ann' is no day"):
        Partitioned("at", "day").window("ann")
