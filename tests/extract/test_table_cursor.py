"""Incremental reads by a cursor: nothing lost or doubled at a boundary, and rows without a cursor counted."""

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tasks.errors import ConfigError, ContractError, SourceError
from tasks.extract.table import TableExtract
from tasks.pipeline import Pipeline, run_pipeline
from tasks.window import Window
from tests.conftest import Databases, not_about_postgresql
from tests.orders import DAY, ORDERS, START, loaded
from tests.variants import slow_but

SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)

INSTANT = {"postgresql": "timestamptz", "mariadb": "datetime(6)", "sqlite": "datetime"}
WHOLE_SECONDS = {"postgresql": "timestamptz(0)", "mariadb": "datetime", "sqlite": "datetime"}
DATE = {"postgresql": "date", "mariadb": "date", "sqlite": "date"}


class Shop:
    """Orders with a cursor of some type, and a clock of the shop's own."""

    def __init__(self, databases: Databases, kind: dict[str, str], **extract: Any) -> None:
        self.databases = databases
        self.execute(f"CREATE TABLE orders (id integer, customer varchar(20), amount double precision, "
                     f"updated_at {kind[databases.kind]} NULL)",
                     f"CREATE TABLE clock (now {INSTANT[databases.kind]})")  # fmt: skip
        self.execute("INSERT INTO clock VALUES (:at)", at=self.stored(START))
        self.pipeline: Pipeline = replace(
            ORDERS,
            extract=TableExtract(
                "source",
                **{"table": "orders", "cursor": "updated_at", "clock": "(SELECT now FROM clock)",
                   "lag": TICK if databases.kind == "mariadb" else timedelta(0), **extract},
            ),
        )  # fmt: skip

    @property
    def extract(self) -> TableExtract:
        chosen = self.pipeline.extract
        assert isinstance(chosen, TableExtract)
        return chosen

    def stored(self, at: datetime | date | None) -> Any:
        """`at` as the source's driver takes it."""
        if isinstance(at, datetime):
            naive = at.astimezone(UTC).replace(tzinfo=None)
            return {"postgresql": at, "mariadb": naive, "sqlite": naive.isoformat(" ")}[self.databases.kind]
        return at.isoformat() if at is not None and self.databases.kind == "sqlite" else at

    def execute(self, *statements: str, **values: Any) -> None:
        with self.databases.source.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), values)

    def write(self, number: int, at: datetime | date | None) -> None:
        """An order, new or changed."""
        self.execute("DELETE FROM orders WHERE id = :number", number=number)
        self.execute("INSERT INTO orders VALUES (:number, 'ann', 1.0, :at)", number=number, at=self.stored(at))

    def run_at(self, now: datetime) -> dict[str, int]:
        """Run when the shop's clock shows `now`; what came of it."""
        self.execute("UPDATE clock SET now = :at", at=self.stored(now + self.extract.lag))
        return {name: count for name, count in run_pipeline(self.pipeline).counts.as_dict().items() if count}

    def loaded(self) -> list[int]:
        """The orders in the target."""
        return [row["id"] for row in loaded(self.databases.target)]


def test_a_window_begins_at_the_watermark_and_ends_before_the_bound(sources: Databases) -> None:
    shop = Shop(sources, INSTANT)
    for number, at in enumerate([START, START + TICK, START + SECOND - TICK, START + SECOND]):
        shop.write(number, at)
    assert shop.run_at(START + SECOND) == {"extracted": 3, "inserted": 3}
    assert shop.run_at(START + SECOND + TICK) == {"extracted": 2, "inserted": 1, "unchanged": 1}
    assert shop.loaded() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [INSTANT, WHOLE_SECONDS], ids=["microseconds", "seconds"])
def test_a_row_with_the_watermarks_own_time_that_comes_after_the_run_is_not_lost(
    sources: Databases, kind: dict[str, str]
) -> None:
    """Nor is the one that gave it that time doubled."""
    shop = Shop(sources, kind)
    shop.write(0, START)
    assert shop.run_at(START + SECOND) == {"extracted": 1, "inserted": 1}
    shop.write(1, START)
    assert shop.run_at(START + 2 * SECOND) == {"extracted": 2, "inserted": 1, "unchanged": 1}
    assert shop.loaded() == [0, 1]


@pytest.mark.parametrize(
    "fraction",
    slow_but([timedelta(0), SECOND - TICK], [timedelta(0), TICK, timedelta(milliseconds=499), SECOND - TICK]),
)
def test_where_times_are_kept_in_seconds_the_bound_is_a_whole_one(sources: Databases, fraction: timedelta) -> None:
    """A row of this second may still come, and be kept as of its beginning."""
    shop = Shop(sources, WHOLE_SECONDS)
    shop.write(0, START)
    shop.execute("UPDATE clock SET now = :at", at=shop.stored(START + SECOND + fraction + shop.extract.lag))
    if sources.kind != "sqlite":  # whose columns keep what they are given
        assert shop.extract.bound() == START + SECOND
    shop.run_at(START + SECOND + fraction)
    shop.write(1, START + SECOND + fraction)
    assert shop.run_at(START + 3 * SECOND)["inserted"] == 1


@pytest.mark.mariadb
@pytest.mark.parametrize(("kind", "digits"), [("datetime(3)", 3), ("timestamp(1) NULL", 1), ("datetime(6)", 6)])
def test_the_bound_has_the_digits_of_the_cursor(mariadb: Databases, kind: str, digits: int) -> None:
    shop = Shop(mariadb, {"mariadb": kind}, clock="'2026-01-01 00:00:00.123457'")
    expected = START + timedelta(microseconds=123_456 // 10 ** (6 - digits) * 10 ** (6 - digits))
    assert shop.extract.bound() == expected
    assert replace(shop.extract, table=None, query="SELECT * FROM orders").bound() == expected


@not_about_postgresql
def test_the_next_window_reads_the_lookback_again(sources: Databases) -> None:
    shop = Shop(sources, INSTANT, lookback=timedelta(hours=1))
    shop.write(0, START)
    shop.run_at(START + SECOND)
    for number, at in ((1, START - timedelta(hours=1)), (2, START - timedelta(hours=1) - TICK)):
        shop.write(number, at)
    shop.run_at(START + 2 * SECOND)
    assert shop.loaded() == [0, 1]


@not_about_postgresql
def test_the_first_window_begins_at_initial(sources: Databases) -> None:
    shop = Shop(sources, INSTANT, initial=START)
    shop.write(0, START - TICK)
    shop.write(1, START)
    shop.run_at(START + SECOND)
    assert shop.loaded() == [1]


def test_a_window_ends_the_lag_before_the_clock(sources: Databases) -> None:
    shop = Shop(sources, INSTANT, lag=SECOND)
    shop.write(0, START)
    shop.write(1, START + TICK)
    shop.run_at(START + TICK)
    assert shop.loaded() == [0]


def test_a_date_is_read_again_while_its_day_lasts(sources: Databases) -> None:
    """It says no more than the day, so an order of today may come after the run."""
    shop = Shop(sources, DATE)
    shop.write(0, START.date())
    assert shop.run_at(START + timedelta(hours=9)) == {"extracted": 1, "inserted": 1}
    shop.write(1, START.date())
    assert shop.run_at(START + timedelta(hours=17)) == {"extracted": 2, "inserted": 1, "unchanged": 1}
    shop.write(2, (START + DAY).date())
    assert shop.run_at(START + DAY) == {"extracted": 2, "unchanged": 2}
    assert shop.run_at(START + DAY + TICK) == {"extracted": 3, "inserted": 1, "unchanged": 2}


@pytest.mark.parametrize("query", [False, True], ids=["table", "query"])
def test_every_partition_reads_every_row_once(sources: Databases, query: bool) -> None:
    """At bounds that lie on rows, a tick before and a tick after them."""
    shop = Shop(sources, INSTANT)
    times = [START + seconds * SECOND + ticks * TICK for seconds in range(3) for ticks in (-1, 0, 1, 500_000)]
    for number, at in enumerate(times):
        shop.write(number, at)
    extract = replace(shop.extract, table=None, query="SELECT * FROM orders") if query else shop.extract
    cuts: list[datetime | None] = [None, *sorted({at + shift for at in times for shift in (-TICK, TICK * 0)}), None]
    read = [
        number
        for start, end in itertools.pairwise(cuts)
        for batch in extract.batches(Window(start, end))
        for number in batch.column("id").to_pylist()
    ]
    assert sorted(read) == list(range(len(times)))


# -- rows without a cursor ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [INSTANT, DATE], ids=["timestamp", "date"])
@pytest.mark.parametrize("query", [False, True], ids=["table", "query"])
def test_rows_without_a_cursor_are_counted(sources: Databases, kind: dict[str, str], query: bool) -> None:
    shop = Shop(sources, kind)
    extract = replace(shop.extract, table=None, query="SELECT * FROM orders") if query else shop.extract
    assert extract.null_cursors() == 0
    for number, at in enumerate([None, START.date(), None]):
        shop.write(number, at)
    assert extract.null_cursors() == 2
    assert sum(batch.num_rows for batch in extract.batches(Window(None, START + DAY))) == 1


def test_a_full_read_misses_no_row_for_want_of_a_cursor(sources: Databases) -> None:
    shop = Shop(sources, INSTANT)
    shop.write(0, None)
    assert TableExtract("source", "orders").null_cursors() == 0


def test_an_empty_text_is_no_cursor(sources: Databases) -> None:
    shop = Shop(sources, {"postgresql": "text", "mariadb": "varchar(40)", "sqlite": "text"})
    shop.execute("INSERT INTO orders VALUES (0, 'ann', 1.0, ''), (1, 'ann', 1.0, NULL), (2, 'ann', 1.0, '2026-01-01')")
    assert shop.extract.null_cursors() == 2


@pytest.mark.mariadb
@pytest.mark.parametrize("kind", ["datetime", "timestamp", "date"])
def test_a_date_of_zeros_is_no_cursor(mariadb: Databases, kind: str) -> None:
    shop = Shop(mariadb, {"mariadb": kind})
    shop.execute("SET sql_mode = ''")
    with mariadb.source.begin() as connection:
        connection.execute(text("SET sql_mode = ''"))
        connection.execute(text("INSERT INTO orders VALUES (0, 'ann', 1.0, '0000-00-00'), (1, 'ann', 1.0, NULL)"))
        connection.execute(text("INSERT INTO orders VALUES (2, 'ann', 1.0, '2026-01-02')"))
    assert shop.extract.null_cursors() == 2


# -- what is no cursor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [False, True], ids=["table", "query"])
@pytest.mark.parametrize("kind", ["integer", "decimal(10,2)", "double precision"])
def test_a_number_is_refused_with_what_reads_it(sources: Databases, kind: str, query: bool) -> None:
    """Also from a query, where a database would compare it with a time as it likes."""
    shop = Shop(sources, dict.fromkeys(INSTANT, kind))
    shop.execute("INSERT INTO orders VALUES (0, 'ann', 1.0, 7)")
    extract = replace(shop.extract, table=None, query="SELECT * FROM orders") if query else shop.extract
    with pytest.raises(ConfigError, match="there is SequenceExtract"):
        list(extract.batches(Window(START, START + DAY)))


def test_texts_that_are_no_times_are_refused_with_what_reads_them(sources: Databases) -> None:
    shop = Shop(sources, {"postgresql": "text", "mariadb": "varchar(40)", "sqlite": "text"})
    shop.execute("INSERT INTO orders VALUES (0, 'ann', 1.0, '01ARZ3NDEKTSV4RRFFQ69G5FAV')")
    with pytest.raises(ContractError, match="there is SequenceExtract"):
        shop.run_at(START)


def test_a_query_without_its_cursor_is_refused(sources: Databases) -> None:
    shop = Shop(sources, INSTANT)
    extract = replace(shop.extract, table=None, query="SELECT id FROM orders")
    with pytest.raises(SourceError, match="updated_at"):
        list(extract.batches(Window(START, None)))
