"""`Window`, against sets of small integers."""

import itertools
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.window import Window, to_utc
from tests.orders import DAY, START
from tests.properties.effort import Prove, effort

LAST = 9
"""Instants are days from 0 to `LAST`; unbounded sides reach beyond both."""

BOUNDS = st.none() | st.integers(0, LAST)
Slice = tuple[int | None, int | None]


def _ordered(pair: Slice) -> Slice:
    start, end = pair
    return pair if start is None or end is None else (min(start, end), max(start, end))


SLICES = st.tuples(BOUNDS, BOUNDS).map(_ordered)


def window(of: Slice) -> Window:
    return Window(*(None if bound is None else START + bound * DAY for bound in of))


def days(of: Window) -> set[int]:
    """The days inside, by definition; those beyond the range stand for unbounded sides."""
    every = range(-1, LAST + 2)
    return {
        day
        for day in every
        if (of.start is None or START + day * DAY >= of.start) and (of.end is None or START + day * DAY < of.end)
    }


@effort(few=50, many=3_000)
def test_windows_overlap_where_they_share_an_instant(prove: Prove) -> None:
    def claim(pair: tuple[Slice, Slice]) -> None:
        one, other = map(window, pair)
        assert one.overlaps(other) == other.overlaps(one) == bool(days(one) & days(other))

    prove(st.tuples(SLICES, SLICES), claim)


@effort(few=40, many=3_000)
def test_a_window_is_empty_where_no_instant_is_inside(prove: Prove) -> None:
    prove(SLICES, lambda pair: _equal(window(pair).empty, not days(window(pair))))


@effort(few=40, many=3_000)
def test_clipping_leaves_what_lies_before_the_bound(prove: Prove) -> None:
    def claim(example: tuple[Slice, int]) -> None:
        pair, bound = example
        clipped = window(pair).clip(START + bound * DAY)
        assert days(clipped) == {day for day in days(window(pair)) if day < bound}
        assert clipped.start == window(pair).start, "what is left begins where it began, also when nothing is"

    prove(st.tuples(SLICES, st.integers(0, LAST)), claim)


@effort(few=50, many=3_000)
def test_the_parts_of_a_window_follow_each_other_and_are_the_whole(prove: Prove) -> None:
    def claim(example: tuple[Slice, int]) -> None:
        pair, hours = example
        whole, by = window(pair), timedelta(hours=hours)
        parts = list(whole.split(by))
        assert (parts[0].start, parts[-1].end) == (whole.start, whole.end)
        for part, following in itertools.pairwise(parts):
            assert part.end == following.start
        if whole.duration is None or whole.empty:
            assert parts == [whole]
        else:
            assert all(part.duration == by for part in parts[:-1])
            assert timedelta(0) < (parts[-1].duration or timedelta(0)) <= by

    prove(st.tuples(SLICES, st.integers(1, 100)), claim)


@pytest.mark.parametrize("by", [timedelta(0), -DAY])
def test_a_window_is_not_split_by_nothing(by: timedelta) -> None:
    with pytest.raises(ConfigError, match="positive duration"):
        list(Window(START, START + DAY).split(by))


FORMS = st.sampled_from(["aware", "naive", "text", "zulu", "elsewhere"])
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))


@effort(few=40, many=3_000)
def test_an_instant_is_the_same_in_every_form(prove: Prove) -> None:
    def claim(example: tuple[datetime, str, int]) -> None:
        naive, form, hours = example
        aware = naive.replace(tzinfo=UTC)
        elsewhere = aware.astimezone(timezone(timedelta(hours=hours)))
        forms: dict[str, datetime | str] = {
            "aware": aware, "naive": naive, "text": naive.isoformat(), "zulu": f"{naive.isoformat()}Z",
            "elsewhere": elsewhere.isoformat(),
        }  # fmt: skip
        parsed = Window.parse(forms[form], None).start
        assert parsed == aware
        assert parsed is not None and parsed.utcoffset() == timedelta(0)

    prove(st.tuples(INSTANTS, FORMS, st.integers(-12, 14)), claim)


def test_a_day_is_its_midnight_in_utc() -> None:
    assert Window.parse(date(2013, 1, 8), "2013-01-09") == Window(to_utc("2013-01-08T00:00Z"), to_utc("2013-01-09"))


@pytest.mark.parametrize("text", ["2024-13-01", "yesterday", "", "2024-02-30"])
def test_a_text_that_is_no_time_is_named_with_its_bound_and_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=f"end '{text}' is not a date or time. Write it as 2013-01-08"):
        Window.parse(None, text)


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ends before it starts.*swap the bounds"):
        Window.parse("2013-01-02", "2013-01-01")


@pytest.mark.parametrize("zone", [None, timezone(timedelta(hours=1))])
def test_bounds_are_in_utc(zone: timezone | None) -> None:
    with pytest.raises(ConfigError, match=r"Use Window\.parse"):
        Window(datetime(2026, 1, 1, tzinfo=zone), None)


def test_a_window_reads_as_half_open() -> None:
    assert str(Window(None, START)) == "[the beginning, 2026-01-01T00:00:00+00:00)"
    assert str(Window(START)) == "[2026-01-01T00:00:00+00:00, the end)"


def _equal(one: bool, other: bool) -> None:
    assert one == other
