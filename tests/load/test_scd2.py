"""`Scd2`: versions of a row, and from when until when each was valid in the source's time."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text

from tasks.errors import ConfigError, GuardRefused, HistoryError, TargetError
from tasks.extract.sequence import SequenceExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.load.scd2 import Scd2
from tasks.load.upsert import Upsert
from tasks.pipeline import Overrides, Pipeline, run_pipeline
from tasks.state.tables import dead_letters
from tests.conftest import Databases, on_postgresql_too
from tests.orders import ORDERS, START, OrderSchema, order, put, remove

QUERY = "SELECT id, customer, amount, updated_at FROM orders"
READ = TableExtract("source", query=QUERY, cursor="updated_at", lookback=timedelta(days=99))
KEPT = Scd2("target", "dim_orders", key=["id"], untracked=["customer"])
HISTORY = replace(ORDERS, name="history", extract=READ, load=KEPT)
COMPARED = replace(
    HISTORY,
    name="compared",
    extract=SnapshotDiff("source", "orders", key=["id"], clock="(SELECT at FROM clocks)"),
    load=replace(KEPT, untracked=["customer", "updated_at"]),
)

Version = tuple[int, float, float | None, float | None]
"""Order, from, to (days after `START`) and amount."""


def versions(target: Engine) -> list[Version]:
    """What is in the target, by key and time; `is_current` says what `valid_to` does."""
    statement = text("SELECT id, valid_from, valid_to, is_current, amount FROM dim_orders ORDER BY id, valid_from")
    with target.connect() as connection:
        rows = connection.execute(statement).all()
    assert all(bool(row.is_current) == (row.valid_to is None) for row in rows)
    return [(row.id, days(row.valid_from), days(row.valid_to), row.amount) for row in rows]


def days(value: Any) -> Any:
    """Days after `START`, of a time as the database gives it."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (at.replace(tzinfo=at.tzinfo or UTC) - START) / timedelta(days=1)


def at(databases: Databases, day: float) -> None:
    """Set the source's clock."""
    with databases.source.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS clocks"))
        connection.execute(text("CREATE TABLE clocks (at text)"))
        connection.execute(text("INSERT INTO clocks VALUES (:at)"), {"at": (START + timedelta(days=day)).isoformat()})


def terms(pipeline: Pipeline, overrides: Overrides | None = None) -> dict[str, int]:
    """What a run counted, without the zeros."""
    counts = run_pipeline(pipeline, overrides=overrides).counts
    return {name: value for name, value in counts.as_dict().items() if value}


def run_over(databases: Databases, orders: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Show these changes, and no others, to a run."""
    put(databases.source, [])
    with databases.source.begin() as connection:
        connection.execute(text("DELETE FROM orders"))
    put(databases.source, orders)
    return terms(HISTORY)


# -- versions by a cursor ---------------------------------------------------------------------------------------------


def test_a_change_closes_the_version_before_it_at_its_own_time(databases: Databases) -> None:
    assert run_over(databases, [order(1, 5, day=1)]) == {"extracted": 1, "inserted": 1}
    assert run_over(databases, [order(1, 6, day=3)]) == {"extracted": 1, "updated": 1}
    assert versions(databases.target) == [(1, 1, 3, 5), (1, 3, None, 6)]


@on_postgresql_too
def test_a_late_change_splits_the_version_it_falls_into_and_is_counted_as_late(databases: Databases) -> None:
    """The row of day 4 made no difference when it came; now it ends what the late one began."""
    run_over(databases, [order(1, 5, day=1)])
    assert run_over(databases, [order(1, 5, day=4)]) == {"extracted": 1, "updated": 1}
    assert versions(databases.target) == [(1, 1, None, 5)]
    put(databases.source, [order(1, 6, day=2)])
    report = run_pipeline(HISTORY)
    assert (report.counts.updated, report.late) == (1, 1)
    assert versions(databases.target) == [(1, 1, 2, 5), (1, 2, 4, 6), (1, 4, None, 5)]


def test_a_late_change_that_is_equal_to_what_followed_is_merged_with_it(databases: Databases) -> None:
    run_over(databases, [order(1, 5, day=3)])
    run_over(databases, [order(1, 5, day=1)])
    assert versions(databases.target) == [(1, 1, None, 5)]


def test_an_untracked_change_opens_no_version_and_is_shown_by_the_one_there_is(databases: Databases) -> None:
    run_over(databases, [order(1, 5, day=1, customer="ann")])
    run_over(databases, [order(1, 5, day=2, customer="bob")])
    run_over(databases, [order(1, 5, day=1.5, customer="too late")])
    assert versions(databases.target) == [(1, 1, None, 5)]
    with databases.target.connect() as connection:
        assert connection.execute(text("SELECT customer FROM dim_orders")).scalars().all() == ["bob"]


def test_what_an_event_said_is_remembered_when_its_version_has_come_to_show_another(databases: Databases) -> None:
    """Days 1 and 3 were one version, which showed bob; a late day 2 parts them, and the first shows ann again."""
    for day, amount, customer in ((1, 5, "ann"), (3, 5, "bob"), (9, 7, "eve"), (2, 6, "joe")):
        run_over(databases, [order(1, amount, day=day, customer=customer)])
    assert versions(databases.target) == [(1, 1, 2, 5), (1, 2, 3, 6), (1, 3, 9, 5), (1, 9, None, 7)]
    with databases.target.connect() as connection:
        shown = connection.execute(text("SELECT customer FROM dim_orders ORDER BY valid_from")).scalars().all()
    assert shown == ["ann", "joe", "bob", "eve"]


@on_postgresql_too
def test_null_is_a_value_like_any_other(databases: Databases) -> None:
    for day, amount in enumerate([None, None, 1.0, None]):
        run_over(databases, [order(1, amount, day=day)])
    assert versions(databases.target) == [(1, 0, 2, None), (1, 2, 3, 1), (1, 3, None, None)]


def test_a_change_that_is_known_is_unchanged_and_one_that_differs_takes_its_place(databases: Databases) -> None:
    run_over(databases, [order(1, 5, day=1), order(2, 5, day=1)])
    assert run_over(databases, [order(1, 5, day=1), order(2, 6, day=1)]) == {
        "extracted": 2,
        "unchanged": 1,
        "updated": 1,
    }
    assert versions(databases.target) == [(1, 1, None, 5), (2, 1, None, 6)]


def test_of_two_changes_at_one_instant_the_later_read_counts(sqlite: Databases) -> None:
    rows = "SELECT 1 AS id, 'ann' AS customer, {} AS amount, '2026-01-02 00:00:00' AS updated_at"
    both = " UNION ALL ".join(rows.format(amount) for amount in (7, 9, 8))
    pipeline = replace(HISTORY, extract=replace(READ, query=both))
    assert terms(pipeline) == {"extracted": 3, "inserted": 1, "deduplicated": 2}
    assert versions(sqlite.target) == [(1, 1, None, 8)]


def test_several_versions_of_a_new_key_in_one_run_are_one_that_is_new_and_others(databases: Databases) -> None:
    rows = [f"SELECT 1 AS id, 'ann' AS customer, {day} AS amount, updated_at FROM days WHERE day = {day}"
            for day in (3, 1, 2)]  # fmt: skip
    with databases.source.begin() as connection:
        kind = "timestamptz" if databases.kind == "postgresql" else "datetime"
        connection.execute(text(f"CREATE TABLE days (day int, updated_at {kind})"))
        for day in (1, 2, 3):
            connection.execute(text(f"INSERT INTO days VALUES ({day}, '2026-01-0{day} 00:00:00+00:00')"))
    query = " UNION ALL ".join(rows)
    assert terms(replace(HISTORY, extract=replace(READ, query=query))) == {
        "extracted": 3,
        "inserted": 1,
        "updated": 2,
    }
    assert versions(databases.target) == [(1, 0, 1, 1), (1, 1, 2, 2), (1, 2, None, 3)]


def test_a_rerun_writes_nothing(postgresql: Databases) -> None:
    """No row of the target or of the table beside it is a new one to PostgreSQL."""
    run_over(postgresql, [order(number, 5, day=1) for number in range(3)])
    run_over(postgresql, [order(1, 5, day=2), order(2, 6, day=2)])
    marks = text("SELECT xmin::text, ctid::text FROM dim_orders UNION ALL SELECT xmin::text, ctid::text "
                 "FROM etl_events_dim_orders ORDER BY 1, 2")  # fmt: skip
    with postgresql.target.connect() as connection:
        before = connection.execute(marks).all()
    report = run_pipeline(HISTORY, full_refresh=True)
    assert report.counts.unchanged == report.counts.extracted == 2
    assert report.windows[0].entry.written == 0
    with postgresql.target.connect() as connection:
        assert connection.execute(marks).all() == before


def test_the_rows_that_a_change_wrote_are_counted_apart(databases: Databases) -> None:
    """One change closes a version and opens another."""
    run_over(databases, [order(1, 5, day=1)])
    put(databases.source, [order(1, 6, day=2)])
    report = run_pipeline(HISTORY)
    assert (report.counts.updated, report.windows[0].entry.written) == (1, 2)


def test_a_letter_is_not_closed_by_a_change_that_came_long_ago(databases: Databases) -> None:
    """The good row of day 9 is known, and gathered again when another change of its key comes."""
    run_over(databases, [order(1, 5, day=9)])
    run_over(databases, [order(1, -1, day=5)])
    run_over(databases, [order(1, 7, day=2)])
    with databases.target.connect() as connection:
        assert connection.execute(dead_letters.select()).one().status == "open"
    run_over(databases, [order(1, 6, day=5)])
    with databases.target.connect() as connection:
        assert connection.execute(dead_letters.select()).one().status == "closed"
    assert versions(databases.target) == [(1, 2, 5, 7), (1, 5, 9, 6), (1, 9, None, 5)]


# -- versions by snapshots --------------------------------------------------------------------------------------------


@on_postgresql_too
def test_a_snapshot_stamps_the_clock_of_its_source_and_a_return_leaves_a_gap(databases: Databases) -> None:
    put(databases.source, [order(1, 5), order(2, 5)])
    at(databases, 1)
    assert terms(COMPARED) == {"extracted": 2, "inserted": 2}
    remove(databases.source, [2])
    put(databases.source, [order(1, 6)])
    at(databases, 2)
    assert terms(COMPARED) == {"extracted": 2, "updated": 1, "deleted": 1}
    assert versions(databases.target) == [(1, 1, 2, 5), (1, 2, None, 6), (2, 1, 2, 5)]
    put(databases.source, [order(2, 5)])
    at(databases, 4)
    assert terms(COMPARED) == {"extracted": 2, "updated": 1, "unchanged": 1}, "so much differs that all of it is read"
    assert versions(databases.target)[2:] == [(2, 1, 2, 5), (2, 4, None, 5)]
    at(databases, 5)
    assert terms(COMPARED) == {}


def test_a_full_refresh_by_a_cursor_closes_nothing_since_nobody_knows_when_it_went(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2)])
    run_pipeline(HISTORY)
    remove(sqlite.source, [2])
    report = run_pipeline(HISTORY, full_refresh=True)
    assert (report.counts.deleted, report.counts.unchanged, report.windows[0].attempt.kind) == (0, 1, "incremental")


def test_a_full_refresh_closes_what_the_source_has_lost(databases: Databases) -> None:
    """The refresh compares with nothing, so it is the marker before its rows that says what is gone."""
    put(databases.source, [order(1, 5), order(2, 5), order(3, 5)])
    at(databases, 1)
    run_pipeline(COMPARED)
    remove(databases.source, [2])
    put(databases.source, [order(3, -5)])
    at(databases, 3)
    counts = run_pipeline(COMPARED, full_refresh=True).counts
    assert (counts.extracted, counts.added, counts.unchanged, counts.deleted, counts.rejected) == (2, 1, 1, 1, 1)
    assert versions(databases.target) == [(1, 1, None, 5), (2, 1, 3, 5), (3, 1, None, 5)]


def test_a_source_that_is_empty_closes_no_version_unless_it_is_told_to(databases: Databases) -> None:
    put(databases.source, [order(1, 5), order(2, 5)])
    at(databases, 1)
    run_pipeline(COMPARED)
    remove(databases.source, [1, 2])
    at(databases, 2)
    with pytest.raises(GuardRefused):
        run_pipeline(COMPARED)
    assert versions(databases.target) == [(1, 1, None, 5), (2, 1, None, 5)]
    told = Overrides("the shop has closed", max_shrink=1, allow_empty=True)
    assert terms(COMPARED, told) == {"added": 2, "deleted": 2}
    assert versions(databases.target) == [(1, 1, 2, 5), (2, 1, 2, 5)]


def test_a_clock_that_was_set_back_turns_no_history_around(databases: Databases) -> None:
    put(databases.source, [order(1, 5)])
    at(databases, 5)
    run_pipeline(COMPARED)
    put(databases.source, [order(1, 6)])
    at(databases, 2)
    run_pipeline(COMPARED)
    assert versions(databases.target) == [(1, 5, None, 6)]


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_source_without_times_is_refused_with_a_remedy(sqlite: Databases) -> None:
    whole = replace(HISTORY, extract=TableExtract("source", "orders"))
    with pytest.raises(ConfigError, match="is read whole, without a cursor, so nobody can tell"):
        run_pipeline(whole)
    numbered = replace(HISTORY, extract=SequenceExtract("source", "orders", cursor="id"))
    with pytest.raises(ConfigError, match="the cursor 'id' is of type int64, which is no instant"):
        run_pipeline(numbered)


def test_a_column_of_ours_in_the_contract_is_refused(sqlite: Databases) -> None:
    class Clashing(ORDERS.schema):  # type: ignore[name-defined,misc]
        is_current: bool

    with pytest.raises(ConfigError, match="makes the column 'is_current' itself"):
        run_pipeline(replace(HISTORY, schema=Clashing))


def test_an_untracked_column_is_one_of_the_contract_and_not_of_the_key(sqlite: Databases) -> None:
    with pytest.raises(ConfigError, match="'id' is in the key, so it never changes"):
        Scd2("target", "dim_orders", key=["id"], untracked=["id"])
    with pytest.raises(ConfigError, match="the untracked column 'colour' is not in the contract"):
        run_pipeline(replace(HISTORY, load=replace(KEPT, untracked=["colour"])))


def test_a_table_that_another_strategy_has_loaded_is_no_history(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(replace(ORDERS, load=Upsert("target", "dim_orders", key=["id"])))
    with pytest.raises(TargetError, match=r"the key of the load is \(id, valid_from\), and that of the"):
        run_pipeline(HISTORY)


BREAKING = {
    "current twice": "UPDATE dim_orders SET valid_to = NULL, is_current = true",
    "overlap": "UPDATE dim_orders SET valid_to = '2026-01-09 00:00:00.000000' WHERE valid_to IS NOT NULL",
    "gap": "UPDATE dim_orders SET valid_to = '2026-01-02 12:00:00.000000' WHERE valid_to IS NOT NULL",
    "upside down": "UPDATE dim_orders SET valid_to = '2026-01-01 00:00:00.000000' WHERE valid_to IS NOT NULL",
    "no end and not current": "UPDATE dim_orders SET is_current = false WHERE valid_to IS NULL",
    "ended without a delete": "UPDATE dim_orders SET is_current = false, valid_to = '2026-02-01 00:00:00.000000' "
    "WHERE valid_to IS NULL",
}  # fmt: skip


@pytest.mark.parametrize("breaking", BREAKING.values(), ids=list(BREAKING))
def test_a_history_that_would_be_none_is_rolled_back(sqlite: Databases, breaking: str) -> None:
    """Somebody's trigger has another opinion of what was written."""
    run_over(sqlite, [order(1, 5, day=1)])
    with sqlite.target.begin() as connection:
        connection.exec_driver_sql(f"CREATE TRIGGER meddling AFTER INSERT ON dim_orders BEGIN {breaking}; END")
    before = versions(sqlite.target)
    with pytest.raises(HistoryError, match=r"'?dim_orders'?: the version of \(id\) = \(1,\) from 2026"):
        run_over(sqlite, [order(1, 6, day=3)])
    assert versions(sqlite.target) == before


# -- what is made -----------------------------------------------------------------------------------------------------


@on_postgresql_too
def test_the_target_has_its_columns_and_a_key_of_versions(databases: Databases) -> None:
    run_over(databases, [order(1, 5, day=1)])
    inspector = inspect(databases.target)
    assert inspector.get_pk_constraint("dim_orders")["constrained_columns"] == ["id", "valid_from"]
    nullable = {column["name"]: column["nullable"] for column in inspector.get_columns("dim_orders")}
    assert nullable == {"id": False, "customer": True, "amount": True, "updated_at": False,
                        "valid_from": False, "valid_to": True, "is_current": False}  # fmt: skip


def test_a_column_that_is_ignored_is_in_no_version(sqlite: Databases) -> None:
    class Wider(OrderSchema):
        region: str

    run_over(sqlite, [order(1, 5, day=1)])
    put(sqlite.source, [order(1, 6, day=2)])
    wider = replace(HISTORY, schema=Wider, transform=lambda raw: raw.assign(region="north"), on_drift="ignore")
    run_pipeline(wider)
    assert versions(sqlite.target) == [(1, 1, 2, 5), (1, 2, None, 6)]
    assert "region" not in {column["name"] for column in inspect(sqlite.target).get_columns("dim_orders")}


def test_it_may_bear_a_schema(postgresql: Databases) -> None:
    with postgresql.target.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Mart"'))
    put(postgresql.source, [order(1, 5, day=1)])
    pipeline = replace(HISTORY, load=replace(KEPT, table="Mart.dim_orders"))
    for _ in range(2):
        run_pipeline(pipeline)
        put(postgresql.source, [order(1, 5, day=2)])
    with postgresql.target.connect() as connection:
        assert connection.execute(text('SELECT count(*) FROM "Mart".dim_orders')).scalar_one() == 1
        assert connection.execute(text('SELECT count(*) FROM "Mart".etl_events_dim_orders')).scalar_one() == 2
