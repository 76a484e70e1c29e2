"""`SqlTransform`: a mart of orders by day and customer, read again where its upstreams changed, and only there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import pandera.pandas as pa
import pytest
from sqlalchemy import Engine, select, text

from tasks.errors import ConfigError, GuardRefused, SourceError, TargetError
from tasks.extract.sql import SqlTransform
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.upsert import Upsert
from tasks.partitioned import Partitioned
from tasks.pipeline import Audit, Pipeline, Sla, run_pipeline
from tasks.state.tables import dead_letters, watermarks
from tasks.window import Window
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, START, order, put, remove

DAYS = Partitioned("updated_at", "day")
BY_DAY = Partitioned("day", "day")

QUERY = """
    SELECT substr(CAST(updated_at AS char(30)), 1, 10) AS day, customer, count(*) AS orders, sum(amount) AS amount
    FROM fct_orders
    WHERE updated_at >= :start AND updated_at < :end
    GROUP BY 1, 2 -- of every day from :start on
"""


class DailySchema(pa.DataFrameModel):
    """What a customer ordered in a day."""

    day: date
    customer: str
    orders: int = pa.Field(gt=0)
    amount: float = pa.Field(nullable=True, le=1_000)


_hooks: list[Callable[[], object]] = []


@dataclass(frozen=True)
class Meanwhile(SqlTransform):
    """A mart that something happens to after it has asked what changed: before it reads, or when it has read."""

    late: bool = False

    def rows(self, ranges: Sequence[Window]) -> Iterator[Any]:
        for hook in [] if self.late else _hooks:
            hook()
        yield from super().rows(ranges)
        for hook in _hooks if self.late else []:
            hook()


class MonthlySchema(pa.DataFrameModel):
    """What a customer ordered in a month, which is called by its first day."""

    month: date
    customer: str
    orders: int
    amount: float = pa.Field(nullable=True)


class CustomerSchema(pa.DataFrameModel):
    """How much a customer ordered."""

    customer: str
    orders: int


class NumberSchema(pa.DataFrameModel):
    """A number."""

    number: int


TRACKED = replace(
    ORDERS,
    extract=TableExtract("source", "orders", cursor="updated_at", lookback=99 * DAY),
    load=Upsert("target", "fct_orders", key=["id"], track=DAYS),
)

DAILY = Pipeline(
    name="daily",
    extract=SqlTransform("target", query=QUERY, upstreams=[TRACKED.load], by=BY_DAY),
    schema=DailySchema,
    load=ReplacePartition("target", "mart_daily", key=["day", "customer"], partition="day", grain="day"),
    sla=Sla(abort_error_rate=1.0),
)


def day(number: int) -> date:
    return (START + number * DAY).date()


def mart(target: Engine) -> dict[tuple[date, str], tuple[int, float]]:
    """Orders and amount, by day and customer."""
    with target.connect() as connection:
        found = connection.execute(text("SELECT day, customer, orders, amount FROM mart_daily")).all()
    return {(date.fromisoformat(str(on)), who): (orders, amount) for on, who, orders, amount in found}


def load_orders(databases: Databases, *orders: dict[str, Any]) -> None:
    put(databases.source, orders)
    run_pipeline(TRACKED)


def test_the_first_run_reads_everything_and_the_next_nothing(databases: Databases) -> None:
    load_orders(databases, order(1), order(2, amount=2), order(3, day=1), order(4, day=5, customer="bob"))
    first = run_pipeline(DAILY)
    assert (first.counts.extracted, first.counts.inserted) == (3, 3)
    assert mart(databases.target) == {(day(0), "ann"): (2, 3), (day(1), "ann"): (1, 1), (day(5), "bob"): (1, 1)}
    again = run_pipeline(DAILY)
    assert (again.counts.extracted, again.windows[0].entry.status) == (0, "committed")
    assert len(mart(databases.target)) == 3


def test_a_late_correction_has_its_day_read_again_and_no_other(targets: Databases) -> None:
    load_orders(targets, *(order(number, day=number) for number in range(6)))
    run_pipeline(DAILY)
    load_orders(targets, order(9, day=2.5), order(4, amount=7, day=4))
    report = run_pipeline(DAILY)
    assert (report.counts.extracted, report.counts.updated, report.counts.unchanged) == (2, 2, 0)
    assert mart(targets.target)[day(2), "ann"] == (2, 2)
    assert mart(targets.target)[day(4), "ann"] == (1, 7)


def test_rows_of_other_days_are_not_touched(postgresql: Databases) -> None:
    load_orders(postgresql, *(order(number, day=number) for number in range(6)))
    run_pipeline(DAILY)
    versions = text("SELECT day, xmin::text, ctid::text FROM mart_daily")
    with postgresql.target.connect() as connection:
        before = set(connection.execute(versions))
    load_orders(postgresql, order(4, amount=7, day=4))
    run_pipeline(DAILY)
    with postgresql.target.connect() as connection:
        assert {row.day for row in before ^ set(connection.execute(versions))} == {day(4)}


def test_a_row_that_moves_to_another_day_has_both_read_again(sqlite: Databases) -> None:
    load_orders(sqlite, order(1), order(2), order(3, day=1))
    run_pipeline(DAILY)
    load_orders(sqlite, order(1, day=1.5))
    run_pipeline(DAILY)
    assert mart(sqlite.target) == {(day(0), "ann"): (1, 1), (day(1), "ann"): (2, 2)}


@pytest.mark.parametrize("late", [False, True], ids=["before the SELECT", "after the SELECT"])
def test_a_commit_upstream_that_comes_in_between_is_read_by_the_next_run(postgresql: Databases, late: bool) -> None:
    load_orders(postgresql, order(1))
    put(postgresql.source, [order(2, amount=5), order(3, day=3)])
    query = DAILY.extract.dataset
    mean = replace(DAILY, extract=Meanwhile("target", query=query, upstreams=[TRACKED.load], by=BY_DAY, late=late))
    _hooks.append(lambda: run_pipeline(TRACKED))
    run_pipeline(mean)
    _hooks.clear()
    run_pipeline(mean)
    assert mart(postgresql.target) == {(day(0), "ann"): (2, 6), (day(3), "ann"): (1, 1)}
    assert run_pipeline(mean).counts.extracted == 0


def test_a_run_that_has_nothing_to_read_does_not_supersede_a_replay(sqlite: Databases) -> None:
    load_orders(sqlite, order(1))
    query = DAILY.extract.dataset
    replayed = replace(DAILY, extract=Meanwhile("target", query=query, upstreams=[TRACKED.load], by=BY_DAY))
    run_pipeline(replayed)
    idle: list[int] = []
    _hooks.append(lambda: idle.append(run_pipeline(DAILY).counts.extracted))
    counts = run_pipeline(replayed, START, START + 9 * DAY).counts
    _hooks.clear()
    assert (counts.unchanged, idle) == (1, [0])


def test_a_range_that_is_asked_for_is_read_in_whole_partitions_whatever_has_changed(databases: Databases) -> None:
    load_orders(databases, *(order(number, day=number) for number in range(6)))
    run_pipeline(DAILY)
    spoil(databases.target)
    load_orders(databases, order(5, amount=5, day=5))
    report = run_pipeline(DAILY, START + 1.5 * DAY, START + 2.5 * DAY)
    assert report.window == Window(START + DAY, START + 3 * DAY)
    assert (report.counts.extracted, report.counts.updated) == (2, 2)
    right = {number for number in range(6) if mart(databases.target)[day(number), "ann"] == (1, 1)}
    assert right == {1, 2}
    assert run_pipeline(DAILY).counts.updated == 1, "what had changed waits for the next run"


def test_a_long_range_is_cut_between_partitions(sqlite: Databases) -> None:
    load_orders(sqlite, *(order(number, day=number) for number in range(6)))
    report = run_pipeline(replace(DAILY, split=timedelta(hours=60)), START, START + 6 * DAY)
    assert [done.attempt.window.start for done in report.windows] == [START, START + 3 * DAY, START + 5 * DAY]
    assert len(mart(sqlite.target)) == 6


def test_a_full_refresh_reads_everything_again_and_takes_away_what_is_no_more(sqlite: Databases) -> None:
    load_orders(sqlite, *(order(number, day=number) for number in range(4)))
    run_pipeline(DAILY)
    with sqlite.target.begin() as connection:
        connection.execute(text("DELETE FROM fct_orders WHERE id = 3"))
    allowed = replace(DAILY, load=replace(DAILY.load, allow_empty=True))  # type: ignore[type-var]
    assert run_pipeline(allowed).counts.extracted == 0
    assert run_pipeline(allowed, full_refresh=True).counts.deleted == 1
    assert len(mart(sqlite.target)) == 3


BY_HOUR = Upsert("target", "fct_orders", key=["id"], track=Partitioned("updated_at", "hour"))


@pytest.mark.parametrize(
    "other",
    [
        SqlTransform("target", query=QUERY.replace("sum(", "1 * sum("), upstreams=[TRACKED.load], by=BY_DAY),
        SqlTransform("target", query=QUERY, upstreams=[BY_HOUR], by=BY_DAY),
    ],
    ids=["another SELECT", "parts called otherwise"],
)
def test_what_is_declared_anew_is_read_from_the_beginning(sqlite: Databases, other: SqlTransform) -> None:
    load_orders(sqlite, order(1), order(2, day=1))
    run_pipeline(DAILY)
    assert run_pipeline(replace(DAILY, extract=other)).counts.unchanged == 2
    assert run_pipeline(replace(DAILY, extract=other)).counts.extracted == 0


def test_days_that_touch_are_read_in_one_go(sqlite: Databases, caplog: pytest.LogCaptureFixture) -> None:
    load_orders(sqlite, *(order(number, day=number) for number in range(40)))
    run_pipeline(DAILY)
    changed = [*range(30), 35]
    load_orders(sqlite, *(order(number, amount=3, day=number) for number in changed))
    with caplog.at_level("INFO"):
        assert run_pipeline(DAILY).counts.updated == len(changed)
    [said] = [record.message for record in caplog.records if record.message.startswith("daily: read ")]
    assert said.startswith(
        f"daily: read {Window(START, START + 30 * DAY)}, {Window(START + 35 * DAY, START + 36 * DAY)} of"
    )


def test_a_day_changed_upstream_has_its_whole_month_read_again(sqlite: Databases) -> None:
    months = Partitioned("month", "month")
    query = QUERY.replace(
        "substr(CAST(updated_at AS char(30)), 1, 10) AS day",
        "substr(CAST(updated_at AS char(30)), 1, 7) || '-01' AS month",
    )
    monthly = Pipeline(
        name="monthly",
        extract=SqlTransform("target", query=query, upstreams=[TRACKED.load], by=months),
        schema=MonthlySchema,
        load=ReplacePartition("target", "mart_monthly", key=["month", "customer"], partition="month", grain="month"),
    )
    load_orders(sqlite, *(order(number, day=10 * number) for number in range(6)))
    assert run_pipeline(monthly).counts.inserted == 2
    load_orders(sqlite, order(9, day=15))
    report = run_pipeline(monthly)
    assert (report.counts.extracted, report.counts.updated) == (1, 1)
    with sqlite.target.connect() as connection:
        found = connection.execute(text("SELECT orders FROM mart_monthly ORDER BY month")).scalars().all()
    assert found == [5, 2]


def test_an_upstream_without_tracked_partitions_has_everything_read_again_where_it_was_written_to(
    sqlite: Databases,
) -> None:
    mart_of_untracked = replace(DAILY, extract=SqlTransform("target", query=QUERY, upstreams=["fct_orders"], by=BY_DAY))
    load_orders(sqlite, order(1), order(2, day=1))
    assert run_pipeline(mart_of_untracked).counts.extracted == 2
    load_orders(sqlite)
    assert run_pipeline(mart_of_untracked).counts.extracted == 0
    load_orders(sqlite, order(3, day=2))
    report = run_pipeline(mart_of_untracked)
    assert (report.counts.extracted, report.counts.inserted) == (3, 1)
    assert run_pipeline(mart_of_untracked).counts.extracted == 0


def test_a_mart_without_ranges_is_replaced_when_an_upstream_changed_and_left_alone_when_not(
    sqlite: Databases,
) -> None:
    query = "SELECT customer, count(*) AS orders FROM fct_orders GROUP BY customer"
    whole = Pipeline(
        name="whole",
        extract=SqlTransform("target", query=query, upstreams=[TRACKED.load]),
        schema=CustomerSchema,
        load=Replace("target", "mart_customers", key=["customer"]),
        audits=[Audit("somebody orders", "SELECT 1 AS nobody WHERE NOT EXISTS (SELECT * FROM staged)")],
    )
    load_orders(sqlite, order(1), order(2, customer="bob"), order(3, customer="cid"))
    assert run_pipeline(whole).counts.inserted == 3
    assert run_pipeline(whole).counts.incoming == 0
    load_orders(sqlite, order(2, customer="ann", day=1))
    report = run_pipeline(whole)
    assert (report.counts.updated, report.counts.deleted, report.counts.unchanged) == (1, 1, 1)
    with pytest.raises(ConfigError, match="is read whole, without a cursor"):
        run_pipeline(whole, START, START + DAY)


@pytest.mark.parametrize("strategy", [Upsert, Append])
def test_ranges_are_loaded_by_strategies_that_delete_nothing_too(sqlite: Databases, strategy: type) -> None:
    pipeline = replace(DAILY, load=strategy("target", "mart_daily", key=["day", "customer"]))
    load_orders(sqlite, order(1), order(2, day=1))
    assert run_pipeline(pipeline).counts.inserted == 2
    load_orders(sqlite, order(1, amount=9), order(3, day=2))
    counts = run_pipeline(pipeline).counts
    assert (counts.extracted, counts.inserted, counts.updated + counts.deduplicated) == (2, 1, 1)


def test_bad_rows_become_dead_letters_and_their_day_keeps_its_last_good_rows(sqlite: Databases) -> None:
    load_orders(sqlite, order(1), order(2, day=1))
    run_pipeline(DAILY)
    load_orders(sqlite, order(3, amount=5_000), order(4, customer="bob"))
    counts = run_pipeline(DAILY).counts
    assert (counts.extracted, counts.rejected, counts.inserted) == (2, 1, 1)
    assert mart(sqlite.target)[day(0), "ann"] == (1, 1)
    with sqlite.target.connect() as connection:
        assert "less_than_or_equal_to(1000)" in connection.execute(select(dead_letters.c.reasons)).scalar_one()


def test_after_a_refusal_the_same_days_are_read_again(sqlite: Databases) -> None:
    audited = replace(DAILY, audits=[Audit("nobody orders for 100", "SELECT * FROM staged WHERE amount >= 100")])
    load_orders(sqlite, order(1), order(2, day=1))
    run_pipeline(audited)
    load_orders(sqlite, order(2, amount=100, day=1))
    for _ in range(2):
        with pytest.raises(GuardRefused, match="the audit 'nobody orders for 100' found 1 rows"):
            run_pipeline(audited)
    assert mart(sqlite.target)[day(1), "ann"] == (1, 1)
    load_orders(sqlite, order(2, amount=99, day=1))
    assert run_pipeline(audited).counts.updated == 1


@pytest.mark.parametrize("table", ["mart_daily", "etl_partitions_read", "etl_watermarks"])
def test_the_rows_and_what_was_read_for_them_are_committed_together_or_not_at_all(
    sqlite: Databases, table: str
) -> None:
    load_orders(sqlite, order(1), order(2, day=1))
    run_pipeline(DAILY)
    load_orders(sqlite, order(2, amount=7, day=1))
    before = everything(sqlite.target)
    with sqlite.target.begin() as connection:
        for event in ("INSERT", "UPDATE"):
            refuse = "BEGIN SELECT RAISE(ABORT, 'not today'); END"
            connection.execute(text(f"CREATE TRIGGER not_{event} BEFORE {event} ON {table} {refuse}"))
    with pytest.raises(TargetError, match="not today"):
        run_pipeline(DAILY)
    assert everything(sqlite.target) == before
    with sqlite.target.begin() as connection:
        connection.execute(text("DROP TRIGGER not_INSERT"))
        connection.execute(text("DROP TRIGGER not_UPDATE"))
    assert run_pipeline(DAILY).counts.updated == 1


def test_a_day_that_lost_its_last_row_stays_a_decision(sqlite: Databases) -> None:
    orders = replace(
        TRACKED,
        extract=TableExtract("source", "orders"),
        load=Replace("target", "fct_orders", key=["id"], max_shrink=1, track=DAYS),
    )
    put(sqlite.source, [order(1), order(2), order(3, day=1)])
    run_pipeline(orders)
    run_pipeline(DAILY)
    remove(sqlite.source, [3])
    run_pipeline(orders)
    with pytest.raises(GuardRefused):
        run_pipeline(DAILY)
    allowed = replace(DAILY, load=replace(DAILY.load, allow_empty=True, max_shrink=1))  # type: ignore[type-var]
    assert run_pipeline(allowed).counts.deleted == 1
    assert set(mart(sqlite.target)) == {(day(0), "ann")}


def test_it_covers_what_its_upstreams_cover(sqlite: Databases) -> None:
    load_orders(sqlite, order(1))
    report = run_pipeline(DAILY)
    with sqlite.target.connect() as connection:
        until = connection.execute(
            select(watermarks.c.covered_until).where(watermarks.c.pipeline == "orders")
        ).scalar_one()
    assert report.covered_until == until


def test_a_row_outside_of_what_was_asked_for_fails_the_run(postgresql: Databases) -> None:
    """New York's day would be replaced by the part of it that lies in the day of UTC."""
    query = QUERY.replace(
        "substr(CAST(updated_at AS char(30)), 1, 10) AS day",
        "(updated_at AT TIME ZONE 'America/New_York')::date AS day",
    )
    load_orders(postgresql, order(1, day=0.5), order(2, day=1.1))
    pipeline = replace(DAILY, extract=SqlTransform("target", query=query, upstreams=[TRACKED.load], by=BY_DAY))
    with pytest.raises(
        SourceError, match=r"was run for .* and returns day = 2026-01-01\. Compare what it groups by with"
    ):
        run_pipeline(pipeline, START + DAY, START + 2 * DAY)


def test_the_range_is_an_instant_to_the_database(postgresql: Databases) -> None:
    """Not a text, that would be taken for an interval beside one."""
    query = QUERY.replace(":end", ":end - interval '1 day' + (:end - :start)")
    load_orders(postgresql, order(1), order(2, day=1))
    pipeline = replace(DAILY, extract=SqlTransform("target", query=query, upstreams=[TRACKED.load], by=BY_DAY))
    assert run_pipeline(pipeline, START, START + DAY).counts.extracted == 1


@pytest.mark.slow
def test_a_mart_larger_than_what_waits_in_memory_comes_out_of_the_file_that_it_is_written_to(sqlite: Databases) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 240000)"
    pipeline = Pipeline(
        name="numbers",
        extract=SqlTransform(
            "target", query=f"{numbers} SELECT i AS number FROM fct_orders, n", upstreams=["fct_orders"]
        ),
        schema=NumberSchema,
        load=Append("target", "mart_numbers", key=["number"]),
    )
    load_orders(sqlite, order(1))
    assert run_pipeline(pipeline).counts.inserted == 240_000


def test_what_it_reads_is_in_the_database_that_it_is_loaded_into(sqlite: Databases) -> None:
    pipeline = replace(DAILY, extract=SqlTransform("source", query=QUERY, upstreams=[TRACKED.load], by=BY_DAY))
    with pytest.raises(ConfigError, match=r"daily: .* reads 'source', and the load writes elsewhere"):
        run_pipeline(pipeline)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"query": "SELECT 1; SELECT 2"}, "daily: 'SELECT 1; SELECT 2' has to be one SELECT, and holds 2 statements"),
        ({"query": "DELETE FROM fct_orders"}, "has to be one SELECT that only reads, and holds DELETE"),
        ({"query": "SELECT * FROM fct_orders WHERE x > :start"}, "has :start alone. A range has both"),
        ({"query": "SELECT * FROM fct_orders WHERE x > :since"}, "has the parameter 'since', and no value for it"),
        ({"query": "SELECT * FROM fct_orders"}, "is always run for everything"),
        ({"query": QUERY.replace("fct_orders", "fct_orders, dim_x")}, "reads 'dim_x', which its upstreams do not name"),
        ({"by": None}, "is run for ranges, and nothing says what of"),
        ({"by": Partitioned("day", "month")}, "what comes in is whole by .*month.* and what is replaced is by .*day"),
        ({"by": Partitioned("day")}, "partitions by 'day' are its values. Declare their grain"),
        ({"upstreams": "fct_orders"}, r"upstreams is a list of tables. Write \['fct_orders'\]"),
        ({"query": None, "file": "absent.sql"}, "SqlTransform.'target', 'absent.sql'.: there is no file 'absent.sql'"),
        ({"query": None}, "is written in a file or in a query: give one of the two"),
    ],
)
def test_a_wrong_declaration_is_refused_before_anything_is_read(
    sqlite: Databases, changed: dict[str, Any], said: str
) -> None:
    declared: dict[str, Any] = {"query": QUERY, "upstreams": [TRACKED.load], "by": BY_DAY}
    with pytest.raises(ConfigError, match=said):
        run_pipeline(replace(DAILY, extract=SqlTransform("target", **(declared | changed))))


def test_a_replace_of_everything_by_ranges_is_refused(sqlite: Databases) -> None:
    pipeline = replace(DAILY, load=Replace("target", "mart_daily", key=["day", "customer"]))
    with pytest.raises(ConfigError, match="daily: Replace takes what did not come in for deleted, and with :start"):
        run_pipeline(pipeline)


def test_it_is_a_value(sqlite: Databases) -> None:
    assert DAILY.extract == SqlTransform("target", query=QUERY, upstreams=[TRACKED.load], by=BY_DAY)
    assert hash(DAILY.extract) == hash(SqlTransform("target", query=QUERY, upstreams=(TRACKED.load,), by=BY_DAY))


def everything(target: Engine) -> list[Any]:
    """The mart, what it has read, and its watermark."""
    tables = ("mart_daily", "etl_partitions_read", "etl_watermarks")
    with target.connect() as connection:
        return [connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3")).all() for table in tables]


def spoil(target: Engine) -> None:
    """Write nonsense into the mart behind everybody's back."""
    with target.begin() as connection:
        connection.execute(text("UPDATE mart_daily SET orders = 99"))
