"""One run after another: what is in the target, and what the ledger says."""

from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pyarrow as pa
import pytest
from sqlalchemy import func, inspect, select, text

from tasks.errors import ConfigError, ContractError, GuardRefused
from tasks.extract.rows import RowsExtract
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.replace import Replace
from tasks.pipeline import References, Sla, run_pipeline
from tasks.state.tables import dead_letters, runs, watermarks, windows
from tests.conftest import Databases, on_every_target, on_postgresql_too
from tests.orders import DAY, ORDERS, SNAPSHOT, START, loaded, order, put, remove

OVERLAPPING = replace(
    ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", lookback=timedelta(days=99))
)


@on_postgresql_too
def test_a_rerun_changes_nothing(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, day=1)])
    assert run_pipeline(OVERLAPPING).counts.inserted == 2
    before = loaded(databases.target)
    again = run_pipeline(OVERLAPPING).counts
    assert (again.extracted, again.unchanged) == (2, 2)
    assert loaded(databases.target) == before


def test_a_rerun_rewrites_no_row(postgresql: Databases) -> None:
    put(postgresql.source, [order(1), order(2, day=1)])
    run_pipeline(OVERLAPPING)
    versions = text("SELECT id, xmin::text, ctid::text FROM fct_orders ORDER BY id")
    with postgresql.target.connect() as connection:
        before = connection.execute(versions).all()
    run_pipeline(OVERLAPPING)
    with postgresql.target.connect() as connection:
        assert connection.execute(versions).all() == before


@on_every_target
def test_only_what_changed_is_updated(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, day=1)])
    run_pipeline(OVERLAPPING)
    put(databases.source, [order(2, amount=9, day=2), order(3, day=3)])
    counts = run_pipeline(OVERLAPPING).counts
    assert (counts.inserted, counts.updated, counts.unchanged) == (1, 1, 1)
    assert [row["amount"] for row in loaded(databases.target)] == [1, 9, 1]


def test_an_incremental_run_starts_at_the_watermark_less_the_lookback(databases: Databases) -> None:
    put(databases.source, [order(number, day=number) for number in range(10)])
    run_pipeline(ORDERS)
    nearby = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", lookback=2 * DAY))
    report = run_pipeline(nearby)
    assert report.window.start == START + 7 * DAY
    assert report.counts.extracted == 3


def test_a_late_row_within_the_lookback_is_loaded(databases: Databases) -> None:
    put(databases.source, [order(1, day=10)])
    run_pipeline(ORDERS)
    put(databases.source, [order(2, day=9)])
    nearby = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", lookback=2 * DAY))
    assert run_pipeline(nearby).counts.inserted == 1


def test_an_explicit_window_is_half_open_and_leaves_the_watermark(databases: Databases) -> None:
    put(databases.source, [order(number, day=number) for number in range(5)])
    report = run_pipeline(ORDERS, START + DAY, START + 3 * DAY)
    assert [row["id"] for row in loaded(databases.target)] == [1, 2]
    assert report.watermark is None


def test_an_explicit_end_beyond_the_bound_is_clipped(databases: Databases) -> None:
    put(databases.source, [order(1)])
    clocked = replace(
        ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", clock="'2026-01-05 00:00:00+00:00'")
    )
    report = run_pipeline(clocked, START, START + 99 * DAY)
    assert report.window.end == START + 4 * DAY


@on_postgresql_too
def test_a_quiet_source_still_moves_covered_until(databases: Databases) -> None:
    put(databases.source, [order(1)])
    first = run_pipeline(ORDERS)
    second = run_pipeline(ORDERS)
    assert first.covered_until is not None and second.covered_until is not None
    assert second.covered_until >= first.covered_until
    assert second.watermark == first.watermark == START


def test_a_long_range_is_committed_window_by_window(databases: Databases) -> None:
    put(databases.source, [order(number, day=number) for number in range(5)])
    report = run_pipeline(replace(ORDERS, split=2 * DAY), START, START + 5 * DAY)
    assert [window.entry.counts.inserted for window in report.windows] == [2, 2, 1]


def test_an_extract_without_cursor_refuses_a_range(databases: Databases) -> None:
    put(databases.source, [order(1)])
    with pytest.raises(ConfigError, match="without start and end"):
        run_pipeline(SNAPSHOT, START)


@on_every_target
def test_older_never_overwrites_newer(databases: Databases) -> None:
    put(databases.source, [order(1, amount=5, day=5)])
    run_pipeline(ORDERS)
    put(databases.source, [order(1, amount=2, day=2)])
    counts = run_pipeline(ORDERS, START, START + 9 * DAY).counts
    assert counts.stale == 1
    assert loaded(databases.target)[0]["amount"] == 5


@on_postgresql_too
def test_a_bad_row_becomes_a_dead_letter_and_the_rest_goes_on(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, amount=-3)])
    counts = run_pipeline(ORDERS).counts
    assert (counts.inserted, counts.rejected) == (1, 1)
    with databases.target.connect() as connection:
        letter = connection.execute(select(dead_letters)).one()
    assert letter.status == "open"
    assert '"amount": -3.0' in letter.record
    assert "greater_than_or_equal_to(0)" in letter.reasons and "-3.0" in letter.reasons


def test_the_same_bad_row_again_updates_its_letter(databases: Databases) -> None:
    put(databases.source, [order(1, amount=-3)])
    run_pipeline(OVERLAPPING)
    run_pipeline(OVERLAPPING)
    with databases.target.connect() as connection:
        letter = connection.execute(select(dead_letters)).one()
    assert letter.times_seen == 2
    assert letter.last_seen > letter.first_seen


@on_every_target
def test_a_row_that_later_arrives_good_closes_its_letter(databases: Databases) -> None:
    put(databases.source, [order(1, amount=-3)])
    run_pipeline(ORDERS)
    put(databases.source, [order(1, amount=3, day=1)])
    report = run_pipeline(ORDERS)
    with databases.target.connect() as connection:
        letter = connection.execute(select(dead_letters)).one()
    assert (letter.status, letter.closed_run_id) == ("closed", report.run_id)


def test_an_older_good_version_leaves_the_letter_open(databases: Databases) -> None:
    put(databases.source, [order(1, amount=-3, day=5)])
    run_pipeline(ORDERS)
    put(databases.source, [order(1, amount=3, day=1)])
    run_pipeline(ORDERS, START, START + 9 * DAY)
    with databases.target.connect() as connection:
        assert connection.execute(select(dead_letters.c.status)).scalar_one() == "open"


@on_every_target
@pytest.mark.parametrize("cursor", [None, "updated_at"])
@pytest.mark.parametrize(("amounts", "status"), [((3.0, -3.0), "open"), ((-3.0, 3.0), "closed")])
def test_of_a_row_that_comes_in_good_and_bad_at_once_the_later_version_decides(
    databases: Databases, cursor: str | None, amounts: tuple[float, ...], status: str
) -> None:
    rows = pa.Table.from_pylist([order(1, amount=amount) for amount in amounts])
    run_pipeline(replace(ORDERS, extract=RowsExtract(rows, "orders", cursor)))
    with databases.target.connect() as connection:
        assert connection.execute(select(dead_letters.c.status)).scalar_one() == status


@on_every_target
def test_a_missing_reference_is_a_dead_letter_with_its_raw_record(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, customer="bob"), order(3, customer=None)])
    _customers(databases, ["ann"])
    referring = replace(ORDERS, references=[References("customer", "dim_customers.name")])
    counts = run_pipeline(referring).counts
    assert (counts.inserted, counts.rejected) == (2, 1)
    with databases.target.connect() as connection:
        letter = connection.execute(select(dead_letters)).one()
    assert '"customer": "bob"' in letter.record
    assert "references dim_customers.name" in letter.reasons


def test_a_missing_reference_that_only_warns_is_loaded_and_counted(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, customer="bob")])
    _customers(databases, ["ann"])
    referring = replace(ORDERS, references=[References("customer", "dim_customers.name", on_missing="warn")])
    report = run_pipeline(referring)
    assert (report.counts.inserted, report.counts.rejected, report.warned) == (2, 0, 1)


def test_a_reference_to_an_absent_table_says_what_to_run(databases: Databases) -> None:
    put(databases.source, [order(1)])
    with pytest.raises(ConfigError, match="Run the pipeline that loads it first"):
        run_pipeline(replace(ORDERS, references=[References("customer", "dim_customers.name")]))


def test_a_missing_column_fails_the_run_before_anything_is_written(databases: Databases) -> None:
    put(databases.source, [order(1)])
    narrow = TableExtract("source", query="SELECT id, updated_at FROM orders", cursor="updated_at")
    with pytest.raises(ContractError, match="column 'customer' is missing"):
        run_pipeline(replace(ORDERS, extract=narrow))
    assert loaded(databases.target) == []
    assert _statuses(databases) == ["failed"]


def test_a_transform_that_raises_on_one_row_costs_only_that_row(databases: Databases) -> None:
    def fails_on_two(raw: pd.DataFrame) -> pd.DataFrame:
        if (raw["id"] == 2).any():
            raise ValueError("two")
        return raw

    put(databases.source, [order(number) for number in range(5)])
    counts = run_pipeline(replace(ORDERS, transform=fails_on_two)).counts
    assert (counts.inserted, counts.rejected) == (4, 1)


@on_every_target
def test_replace_deletes_what_is_gone_and_keeps_what_was_rejected(databases: Databases) -> None:
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"], max_shrink=0.5))
    put(databases.source, [order(number) for number in range(4)])
    run_pipeline(pipeline)
    remove(databases.source, [0])
    put(databases.source, [order(1, amount=-1)])
    counts = run_pipeline(pipeline).counts
    assert (counts.added, counts.deleted, counts.rejected, counts.unchanged) == (1, 1, 1, 2)
    assert [row["id"] for row in loaded(databases.target)] == [1, 2, 3]


@pytest.mark.parametrize("gone", [[0, 1, 2], [0, 1, 2, 3]], ids=["shrunk past max_shrink", "empty"])
def test_replace_refuses_an_extract_that_lost_its_rows(databases: Databases, gone: list[int]) -> None:
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"]))
    put(databases.source, [order(number) for number in range(4)])
    run_pipeline(pipeline)
    before = loaded(databases.target)
    remove(databases.source, gone)
    with pytest.raises(GuardRefused, match=r"[Nn]othing was written"):
        run_pipeline(pipeline)
    assert loaded(databases.target) == before
    assert _statuses(databases) == ["committed", "refused"]


@on_postgresql_too
def test_too_many_bad_rows_commit_only_their_dead_letters(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, amount=-1), order(3, amount=-1)])
    with pytest.raises(GuardRefused, match="2 of 3 rows were rejected"):
        run_pipeline(replace(ORDERS, sla=Sla(abort_error_rate=0.5)))
    assert loaded(databases.target) == []
    with databases.target.connect() as connection:
        assert connection.execute(select(func.count()).select_from(dead_letters)).scalar_one() == 2
        assert connection.execute(select(func.count()).select_from(watermarks)).scalar_one() == 0


@on_every_target
def test_append_keeps_the_first_version_of_an_event(databases: Databases) -> None:
    pipeline = replace(OVERLAPPING, load=Append("target", "fct_orders", key=["id"]))
    put(databases.source, [order(1, amount=1)])
    run_pipeline(pipeline)
    put(databases.source, [order(1, amount=2, day=1), order(2)])
    counts = run_pipeline(pipeline).counts
    assert (counts.inserted, counts.deduplicated) == (1, 1)
    assert [row["amount"] for row in loaded(databases.target)] == [1, 1]


@on_every_target
def test_two_versions_of_a_key_in_one_window_count_as_deduplicated(databases: Databases) -> None:
    put(databases.source, [order(1, amount=1), order(2, amount=2, day=1)])
    twice = TableExtract(
        "source", query="SELECT 7 AS id, customer, amount, updated_at FROM orders", cursor="updated_at"
    )
    counts = run_pipeline(replace(ORDERS, extract=twice)).counts
    assert (counts.inserted, counts.deduplicated) == (1, 1)
    assert loaded(databases.target)[0]["amount"] == 2


def test_an_unmeant_loss_of_rows_in_the_transform_is_an_error(databases: Databases) -> None:
    put(databases.source, [order(1), order(2)])
    with pytest.raises(ContractError, match="drops_rows=True"):
        run_pipeline(replace(ORDERS, transform=lambda raw: raw[raw["id"] > 1]))


def test_declared_drops_and_additions_are_counted(databases: Databases) -> None:
    def twice_without_one(raw: pd.DataFrame) -> pd.DataFrame:
        kept = raw[raw["id"] > 1]
        return pd.concat([kept, kept.assign(id=kept["id"] + 100)])

    put(databases.source, [order(1), order(2), order(3)])
    counts = run_pipeline(replace(ORDERS, transform=twice_without_one, drops_rows=True, adds_rows=True)).counts
    assert (counts.extracted, counts.added, counts.filtered, counts.inserted) == (3, 2, 1, 4)


def test_the_ledger_holds_every_term_and_nothing_stays_in_staging(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, amount=-1)])
    report = run_pipeline(ORDERS)
    with databases.target.connect() as connection:
        entry = connection.execute(select(runs)).one()
        window = connection.execute(select(windows)).one()
    assert {name: getattr(entry, name) for name in report.counts.as_dict()} == report.counts.as_dict()
    assert (entry.status, window.status, entry.run_id) == ("committed", "committed", report.run_id)
    assert entry.error_rate == 0.5
    assert _staging(databases) == []


def test_a_new_column_of_the_contract_is_added_to_the_target(databases: Databases) -> None:
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)
    with databases.target.begin() as connection:
        connection.execute(text("ALTER TABLE fct_orders DROP COLUMN customer"))
    run_pipeline(OVERLAPPING)
    assert loaded(databases.target)[0]["customer"] == "ann"


def _customers(databases: Databases, names: list[str]) -> None:
    with databases.target.begin() as connection:
        connection.execute(text("CREATE TABLE dim_customers (name varchar(255) PRIMARY KEY)"))
        for name in names:
            connection.execute(text("INSERT INTO dim_customers VALUES (:name)"), {"name": name})


def _statuses(databases: Databases) -> list[str]:
    with databases.target.connect() as connection:
        return list(connection.execute(select(runs.c.status).order_by(runs.c.started_at)).scalars())


def _staging(databases: Databases) -> list[str]:
    return [name for name in inspect(databases.target).get_table_names() if name.startswith(("etl_staged", "etl_rej"))]
