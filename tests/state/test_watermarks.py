"""Watermarks: they never move back, and only from where they were seen."""

from datetime import datetime

import pytest
from hypothesis import strategies as st

from tasks.dialects import dialect_of
from tasks.errors import Fenced
from tasks.state.schema import ensure_schema
from tasks.state.watermarks import Watermark, move_watermark, read_watermark
from tests.conftest import Databases, on_every_target
from tests.orders import DAY, START
from tests.properties.effort import Prove, effort


def move(databases: Databases, seen: Watermark, moved: Watermark, pipeline: str = "orders") -> None:
    """Move the watermark of `pipeline`, in a transaction of its own."""
    with dialect_of(databases.target).transaction(databases.target) as connection:
        move_watermark(connection, pipeline, seen, moved, START, "[a, b)")


def current(databases: Databases, pipeline: str = "orders") -> Watermark:
    """The committed watermark."""
    with databases.target.connect() as connection:
        return read_watermark(connection, pipeline)


@pytest.fixture
def migrated(databases: Databases) -> Databases:
    """Databases whose target has the state tables."""
    ensure_schema(databases.target, dialect_of(databases.target))
    return databases


TIMES = st.none() | st.integers(0, 9).map(lambda day: START + day * DAY)


@effort(few=40, many=2_000)
def test_neither_time_ever_moves_back(prove: Prove) -> None:
    def claim(steps: list[tuple[datetime | None, datetime | None]]) -> None:
        mark = Watermark()
        for number, (value, covered) in enumerate(steps):
            mark = mark.advanced(value, covered)
            assert mark.value == max((seen for seen, _ in steps[: number + 1] if seen), default=None)
            assert mark.covered_until == max((seen for _, seen in steps[: number + 1] if seen), default=None)
            assert mark.version == number + 1

    prove(st.lists(st.tuples(TIMES, TIMES), max_size=8), claim)


def test_a_pipeline_that_never_ran_has_none(migrated: Databases) -> None:
    assert current(migrated) == Watermark(None, None, 0)


def test_a_watermark_is_read_as_it_was_written_to_the_microsecond(migrated: Databases) -> None:
    moved = Watermark().advanced(START.replace(microsecond=1), START.replace(microsecond=999_999))
    move(migrated, Watermark(), moved)
    assert current(migrated) == moved
    further = moved.advanced(START + DAY, None)
    move(migrated, moved, further)
    assert current(migrated) == further


def test_pipelines_have_watermarks_of_their_own(migrated: Databases) -> None:
    move(migrated, Watermark(), Watermark().advanced(START, START))
    assert current(migrated, "others") == Watermark()


@on_every_target
@pytest.mark.parametrize("version", [0, 1], ids=["the first of two first runs", "a later one"])
def test_a_watermark_that_moved_since_it_was_seen_is_fenced(migrated: Databases, version: int) -> None:
    seen = Watermark()
    for _ in range(version):
        moved = seen.advanced(START, START)
        move(migrated, seen, moved)
        seen = moved
    won = seen.advanced(START + DAY, START + DAY)
    move(migrated, seen, won)
    with pytest.raises(Fenced, match=r"orders \[a, b\): another run moved the watermark.*concurrency limit of 1"):
        move(migrated, seen, seen.advanced(START + 2 * DAY, START + 2 * DAY))
    assert current(migrated) == won
