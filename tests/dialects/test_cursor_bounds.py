"""`[start, end)` over a cursor: half-open to the microsecond, in every form a source keeps its times in."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.errors import ConfigError, SourceError
from tasks.extract.changes import cursor_values
from tasks.extract.table import TableExtract
from tasks.window import Window
from tests.conftest import Databases
from tests.properties.effort import Prove, effort
from tests.variants import slow_but

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
INSTANTS = [NOON - timedelta(seconds=1), NOON - TICK, NOON, NOON + TICK, NOON + timedelta(milliseconds=500),
            NOON + timedelta(seconds=1)]  # fmt: skip
BOUNDS = [None, NOON, NOON + TICK, NOON + timedelta(milliseconds=500), NOON + timedelta(seconds=1)]

SQLITE_TEXTS = {
    "a blank": lambda at: at.replace(tzinfo=None).isoformat(" "),
    "a T": lambda at: at.replace(tzinfo=None).isoformat(),
    "a T and a Z": lambda at: at.replace(tzinfo=None).isoformat() + "Z",
    "a blank, always with microseconds": lambda at: at.replace(tzinfo=None).isoformat(" ", "microseconds"),
    "SQLAlchemy's own form": lambda at: at.strftime("%Y-%m-%d %H:%M:%S.%f"),
    "a blank, digits as far as they go": lambda at: (
        at.replace(tzinfo=None).isoformat(" ").rstrip("0") if at.microsecond else at.replace(tzinfo=None).isoformat(" ")
    ),
}


def fill(databases: Databases, kind: str, values: list[Any]) -> None:
    """A table of `values`, numbered from 0."""
    with databases.source.begin() as connection:
        connection.execute(text(f"CREATE TABLE events (id integer, at {kind})"))
        for number, value in enumerate(values):
            connection.execute(text("INSERT INTO events VALUES (:number, :value)"), {"number": number, "value": value})


def inside(window: Window, *, query: bool = False) -> set[int]:
    """The numbers of the rows that are read."""
    extract = TableExtract("source", None if query else "events", "at", query="SELECT * FROM events" if query else None)
    return {number for batch in extract.batches(window) for number in batch.column("id").to_pylist()}


def assert_half_open(*, query: bool = False) -> None:
    """For every pair of bounds, exactly what lies inside is read."""
    for start in BOUNDS:
        for end in [end for end in BOUNDS if start is None or end is None or start <= end]:
            expected = {
                number
                for number, at in enumerate(INSTANTS)
                if (start is None or at >= start) and (end is None or at < end)
            }
            assert inside(Window(start, end), query=query) == expected, f"[{start}, {end})"


@pytest.mark.parametrize("query", slow_but(["table"], {"table": False, "query": True}))
@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_bounds_on_postgresql(postgresql: Databases, kind: str, query: bool) -> None:
    fill(postgresql, kind, [at if kind == "timestamptz" else at.replace(tzinfo=None) for at in INSTANTS])
    assert_half_open(query=query)


@pytest.mark.parametrize(
    ("kind", "form"),
    # SQLAlchemy reads no Z in a column declared as datetime.
    [(kind, form) for kind in ("text", "datetime") for form in SQLITE_TEXTS if (kind, form[-1]) != ("datetime", "Z")],
)
def test_bounds_on_sqlite(sqlite: Databases, kind: str, form: str) -> None:
    fill(sqlite, kind, [SQLITE_TEXTS[form](at) for at in INSTANTS])
    assert_half_open()
    assert_half_open(query=True)


def test_bounds_on_texts_of_postgresql(postgresql: Databases) -> None:
    """In the one form that sorts as time does: ISO 8601 with its offset, digits always written."""
    fill(postgresql, 'text COLLATE "C"', [at.isoformat(timespec="microseconds") for at in INSTANTS])
    for window, expected in (
        (Window(NOON + TICK, None), {3, 4, 5}),
        (Window(None, NOON + TICK), {0, 1, 2}),
        (Window(NOON - TICK, NOON + TICK), {1, 2}),
    ):
        assert inside(window) == expected


def test_a_date_is_inside_where_its_midnight_is(databases: Databases) -> None:
    days = [date(2026, 1, day) for day in range(1, 4)]
    fill(databases, "date", [day.isoformat() for day in days])
    midnights = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days]
    bounds = [at + shift for at in midnights for shift in (timedelta(0), TICK)]
    for start in bounds:
        for end in [end for end in bounds if end >= start]:
            expected = {number for number, at in enumerate(midnights) if start <= at < end}
            assert inside(Window(start, end)) == expected, f"[{start}, {end})"


def test_what_lies_in_two_windows_that_meet_is_read_once(databases: Databases) -> None:
    fill(databases, "timestamp", [at.replace(tzinfo=None).isoformat(" ") for at in INSTANTS])
    for meeting in INSTANTS:
        before, after = inside(Window(None, meeting)), inside(Window(meeting, None))
        assert before | after == set(range(len(INSTANTS)))
        assert before & after == set()


def test_a_row_without_cursor_lies_in_no_window(databases: Databases) -> None:
    fill(databases, "timestamp", [None, "2026-01-01 00:00:00"])
    assert inside(Window(None, NOON)) == {1}


def test_without_a_cursor_everything_is_read(databases: Databases) -> None:
    fill(databases, "timestamp", [None, "2026-01-01 00:00:00"])
    batches = list(TableExtract("source", "events").batches(Window()))
    assert sorted(number for batch in batches for number in batch.column("id").to_pylist()) == [0, 1]


def test_a_number_is_no_cursor(databases: Databases) -> None:
    fill(databases, "integer", [1, 2])
    with pytest.raises(ConfigError, match=r"The cursor 'at' is of type INTEGER; a cursor is a timestamp, a date or"):
        inside(Window(None, NOON))


def test_a_cursor_that_is_not_there_is_named_with_the_columns(databases: Databases) -> None:
    fill(databases, "timestamp", [])
    with pytest.raises(SourceError, match=r"there is no column 'changed_at' to be the cursor; the columns are id, at"):
        list(TableExtract("source", "events", "changed_at").batches(Window()))


def test_a_table_that_is_not_there_is_named(databases: Databases) -> None:
    with pytest.raises(SourceError, match="There is no table 'nothing' in"):
        list(TableExtract("source", "nothing").batches(Window()))


def test_a_query_that_the_source_refuses_is_named(databases: Databases) -> None:
    with pytest.raises(SourceError, match="The source 'source', SELECT nonsense refused: "):
        list(TableExtract("source", query="SELECT nonsense").batches(Window()))


def test_a_table_or_a_query_is_read() -> None:
    for table, query in ((None, None), ("events", "SELECT * FROM events")):
        with pytest.raises(
            ConfigError, match=r"TableExtract\('source'\) reads a table or a query: give one of the two"
        ):
            TableExtract("source", table, query=query)


def test_a_query_may_end_in_a_semicolon(databases: Databases) -> None:
    fill(databases, "timestamp", ["2026-01-01 00:00:00"])
    batches = list(TableExtract("source", cursor="at", query="SELECT * FROM events ;\n").batches(Window(None, NOON)))
    assert [batch.num_rows for batch in batches] == [1]


def test_a_table_may_bear_a_schema(postgresql: Databases) -> None:
    with postgresql.source.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Ops"'))
        connection.execute(text('CREATE TABLE "Ops".events AS SELECT 7 AS id'))
    (batch,) = TableExtract("source", "Ops.events").batches(Window())
    assert batch.column("id").to_pylist() == [7]


FORMS = ["aware", "naive", "date", "text", "naive text", "zulu"]


@effort(few=60, many=1_000)
def test_a_cursor_is_the_same_instant_in_every_form(prove: Prove) -> None:
    def claim(example: tuple[list[datetime], str]) -> None:
        instants, form = example
        if form == "date":
            instants = [at.replace(hour=0, minute=0, second=0, microsecond=0) for at in instants]
        utc, naive = [at.replace(tzinfo=UTC) for at in instants], instants
        columns = {
            "aware": pa.array(utc, pa.timestamp("us", "America/New_York")),
            "naive": pa.array(naive, pa.timestamp("us")),
            "date": pa.array([at.date() for at in naive], pa.date32()),
            "text": pa.array([at.isoformat() for at in utc], pa.string()),
            "naive text": pa.array([at.isoformat(" ") for at in naive], pa.string()),
            "zulu": pa.array([f"{at.isoformat()}Z" for at in naive], pa.string()),
        }
        assert cursor_values(pa.table({"at": columns[form]}), "at", "here").to_pylist() == utc

    instants = st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), min_size=1, max_size=4)
    prove(st.tuples(instants, st.sampled_from(FORMS)), claim)
