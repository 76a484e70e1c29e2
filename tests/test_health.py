"""What is measured of a pipeline: breached strictly above its limit, kept at it, and nothing where nobody can tell."""

from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pandera.pandas as pa
import pytest
from sqlalchemy import Engine, create_engine, select, text

from tasks.counts import Counted
from tasks.errors import GuardRefused, SourceUnavailable, TargetError, TidegateError
from tasks.extract.table import TableExtract
from tasks.health import Finding, Health, error_rate, measure
from tasks.observe import causes
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tasks.state.tables import runs
from tests.conftest import Databases, on_every_target
from tests.extract.test_sequence import Numbered, Shelf
from tests.extract.test_sql import DAILY, TRACKED
from tests.orders import DAY, ORDERS, SNAPSHOT, START, order, put

EVERYTHING = 1.0


class ShortWords(Numbered):
    word: str = pa.Field(str_length={"max_value": 10})


def at(days: float, **sla: object) -> Pipeline:
    """Orders whose source's clock stands `days` days after `START`, and what they promise."""
    extract = TableExtract(
        "source", "orders", cursor="updated_at", lookback=99 * DAY, clock=f"'{(START + days * DAY).isoformat(' ')}'"
    )
    return replace(ORDERS, extract=extract, sla=Sla(abort_error_rate=EVERYTHING, **sla))  # type: ignore[arg-type]


def found(health: Health, measured: causes.Measured) -> Finding:
    [one] = [finding for finding in health.findings if finding.measured == measured]
    return one


@pytest.mark.parametrize(("days", "breached"), [(3.0, False), (3 + 1 / 86_400, True)], ids=["at the limit", "above it"])
def test_freshness_is_breached_strictly_above_its_limit_by_the_sources_clock(
    sqlite: Databases, days: float, breached: bool
) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(at(2))
    one = found(measure(at(days, max_freshness=DAY), sqlite.target), causes.FRESHNESS)
    assert one.breached is breached
    assert one.event == ("etl.freshness.breached" if breached else "etl.freshness.kept")
    assert one.text == (
        "Everything up to 2026-01-03 00:00:00 UTC is loaded, 1 d ago, "
        f"{'more' if breached else 'no more'} than the 1 d promised."
    )
    assert one.look == "tidegate status orders"
    assert one.figures["covered_until"] == "2026-01-03T00:00:00+00:00"


def test_without_a_clock_of_the_source_freshness_goes_by_the_targets(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    fresh = replace(ORDERS, sla=Sla(max_freshness=timedelta(hours=1)))
    assert not found(measure(fresh, sqlite.target), causes.FRESHNESS).breached
    with sqlite.target.begin() as connection:
        connection.execute(text("UPDATE etl_watermarks SET covered_until = '2020-01-01 00:00:00.000000'"))
    assert found(measure(fresh, sqlite.target), causes.FRESHNESS).breached


def test_freshness_of_a_mart_goes_by_the_time_of_its_upstreams(sqlite: Databases) -> None:
    """Their clock stands in January 2026, whatever time it is here."""
    put(sqlite.source, [order(1)])
    orders = replace(at(2), load=TRACKED.load)
    run_pipeline(orders)
    daily = replace(DAILY, sla=Sla(max_freshness=DAY))
    run_pipeline(daily)
    kept = found(measure(daily, sqlite.target), causes.FRESHNESS)
    assert not kept.breached and kept.text.startswith("Everything up to 2026-01-03 00:00:00 UTC is loaded, ")
    run_pipeline(replace(at(4), load=TRACKED.load))
    assert found(measure(daily, sqlite.target), causes.FRESHNESS).breached


def test_a_pipeline_that_promises_no_freshness_has_none(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    assert [one.measured for one in measure(ORDERS, sqlite.target).findings] == [
        causes.RECENT_ERROR_RATE,
        causes.DEAD_LETTERS,
    ]


def test_where_nothing_was_ever_covered_freshness_goes_by_the_first_run(sqlite: Databases) -> None:
    absent = at(2, max_freshness=DAY)
    with pytest.raises(TidegateError):
        run_pipeline(absent)
    one = found(measure(absent, sqlite.target), causes.FRESHNESS)
    assert (one.breached, one.figures["covered_until"]) == (False, None)
    with sqlite.target.begin() as connection:
        connection.execute(text("UPDATE etl_runs SET started_at = '2020-01-01 00:00:00.000000'"))
    one = found(measure(absent, sqlite.target), causes.FRESHNESS)
    assert one.breached and one.text.startswith("Nothing is known to be loaded whole, and the first run was ")


@pytest.mark.parametrize("state_tables", [False])
def test_a_target_without_a_ledger_says_so(sqlite: Databases) -> None:
    health = measure(at(0, max_freshness=DAY), sqlite.target)
    assert (health.vitals, health.findings) == (None, ())
    assert health.note == "orders: the target 'target' has no ledger: nothing has ever been loaded into it."


def test_a_ledger_of_another_version_is_not_read(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as connection:
        connection.execute(text("UPDATE etl_schema_version SET version_num = '0001'"))
    health = measure(ORDERS, sqlite.target)
    assert health.vitals is None and "is at version 0001" in str(health.note)


def test_of_a_pipeline_that_has_never_run_nothing_is_known(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    health = measure(replace(at(0, max_freshness=DAY), name="others"), sqlite.target)
    assert health.note == "others has never run."
    assert health.findings == ()


@pytest.mark.parametrize(("bad", "breached"), [(1, False), (2, True)], ids=["at the limit", "above it"])
def test_many_small_runs_are_judged_together(sqlite: Databases, bad: int, breached: bool) -> None:
    """A row a run, of which 1 or 2 of 5 are bad. A run of its own is breached by any of them."""
    sla = {"max_error_rate": 0.2, "recent_runs": 5}
    for number in range(5):
        put(sqlite.source, [order(number, amount=-1 if number < bad else 1, day=number)])
        report = run_pipeline(at(number + 1, **sla))
        assert report.counted == Counted(1, int(number < bad))
    one = found(measure(at(6, **sla), sqlite.target), causes.RECENT_ERROR_RATE)
    assert one.breached is breached
    assert one.text == (
        f"In the last 5 runs {bad} of 5 rows were rejected, {20 * bad} %, {'more' if breached else 'no more'} than "
        "the 20 % promised."
    )
    fewer = found(measure(at(6, **sla | {"recent_runs": 3}), sqlite.target), causes.RECENT_ERROR_RATE)
    assert (fewer.figures["counted"], fewer.figures["counted_rejected"]) == (3, 0)


def test_a_range_that_somebody_asked_for_is_no_recent_run(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, amount=-1) for number in range(5)])
    run_pipeline(at(1))
    run_pipeline(at(1), START, START + DAY)
    vitals = measure(at(1), sqlite.target).vitals
    assert vitals is not None and (vitals.recent, vitals.recent_runs) == (Counted(5, 5), 1)


@on_every_target
def test_what_the_lookback_reads_again_raises_no_second_alert_and_hides_no_new_one(databases: Databases) -> None:
    put(databases.source, [*(order(number) for number in range(18)), order(18, amount=-1), order(19, amount=-1)])
    first = run_pipeline(at(1))
    assert error_rate(at(1), first.run_id, first.counted).text == (
        "2 of 20 rows were rejected, 10 %, more than the 5 % promised."
    )
    again = run_pipeline(at(2))
    assert (again.counts.incoming, again.counts.rejected, again.counted) == (20, 2, Counted())
    assert not error_rate(at(2), again.run_id, again.counted).breached
    put(databases.source, [order(20, amount=-1, day=2), order(21, day=0.5)])
    third = run_pipeline(at(3))
    assert third.counted == Counted(2, 1), "one bad row, and a good one that came late"
    assert third.counts.error_rate == 3 / 22
    with databases.target.connect() as connection:
        ledger = connection.execute(select(runs.c.reread, runs.c.reread_rejected).order_by(runs.c.started_at)).all()
    assert [tuple(row) for row in ledger] == [(0, 0), (20, 2), (20, 2)]


def test_a_full_read_counts_every_row_every_time(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2, amount=-1)])
    for _ in range(2):
        assert run_pipeline(SNAPSHOT).counted == Counted(2, 1)


def test_a_last_row_that_is_bad_counts_once_although_every_window_begins_with_it(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2, amount=-1, day=1)])
    pipeline = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at"))
    assert [run_pipeline(pipeline).counted for _ in range(2)] == [Counted(2, 1), Counted()]


def test_what_a_transform_left_out_before_is_not_counted_again(sqlite: Databases) -> None:
    def odd_ones(raw: pd.DataFrame) -> pd.DataFrame:
        return raw[raw["id"].isin([1, 3, 5, 7, 9])]

    put(sqlite.source, [order(number) for number in range(8)])
    assert run_pipeline(replace(at(1), transform=odd_ones, drops_rows=True)).counted == Counted(8, 0)
    put(sqlite.source, [order(8, day=1), order(9, amount=-1, day=1), order(7, amount=-1, day=1)])
    again = run_pipeline(replace(at(2), transform=odd_ones, drops_rows=True))
    assert (again.counts.filtered, again.counted) == (5, Counted(3, 2))


def test_what_a_number_orders_counts_once_although_it_is_read_until_it_is_proven(sqlite: Databases) -> None:
    shelf = Shelf(sqlite, lag=timedelta(hours=1), lookback=5)
    shelf.pipeline = replace(shelf.pipeline, sla=Sla(abort_error_rate=EVERYTHING))
    shelf.put(1, 2, 3)
    shelf.execute("INSERT INTO shelf VALUES (9, 4, 'a word that no column of the contract takes')")
    short = replace(shelf.pipeline, schema=ShortWords)
    assert [run_pipeline(short).counted for _ in range(3)] == [Counted(4, 1), Counted(), Counted()]
    shelf.put(5, first=4)
    again = run_pipeline(short)
    assert (again.counts.incoming, again.counted) == (5, Counted(1, 0))


def test_a_bad_row_that_is_bad_otherwise_counts_once_more_however_late(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2, day=0.9)])
    run_pipeline(at(1))
    put(sqlite.source, [order(1, amount=-2, day=0.5)])
    assert run_pipeline(at(2)).counted == Counted(1, 1)
    assert run_pipeline(at(3)).counted == Counted()


def test_a_row_that_is_mended_counts_once_more_as_good(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1)])
    run_pipeline(at(1))
    put(sqlite.source, [order(1, amount=1, day=0.5)])
    assert run_pipeline(at(2)).counted == Counted(1, 0)
    assert run_pipeline(at(3)).counted == Counted()


def test_a_refused_run_tells_its_whole_rate(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(at(1))
    put(sqlite.source, [order(2, amount=-1, day=1), order(3, amount=-1, day=1)])
    strict = replace(at(2), sla=Sla(abort_error_rate=0.5))
    with pytest.raises(GuardRefused):
        run_pipeline(strict)
    with sqlite.target.connect() as connection:
        row = connection.execute(select(runs).where(runs.c.status == "refused")).one()
    assert (row.extracted, row.rejected, row.reread, row.reread_rejected) == (3, 2, 0, 0)
    assert run_pipeline(at(2)).counted == Counted(2, 2), "they had not been counted by a run that committed"


@pytest.mark.parametrize(("limit", "breached"), [(2, False), (1, True), (None, False)])
def test_open_letters_are_breached_strictly_above_their_limit(
    sqlite: Databases, limit: int | None, breached: bool
) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2, amount=-1)])
    run_pipeline(at(1))
    one = found(measure(at(1, max_open_letters=limit), sqlite.target), causes.DEAD_LETTERS)
    assert one.breached is breached
    said = {2: ", no more than the 2 allowed", 1: ", more than the 1 allowed", None: ""}[limit]
    assert one.text == f"2 dead letters are open{said}."


@on_every_target
def test_dead_letters_grow_where_each_of_three_runs_left_more(databases: Databases) -> None:
    """The third is one too many; a run that files none ends it, and so does one that closes as many as it files."""
    for number in range(3):
        assert not found(measure(at(9), databases.target), causes.DEAD_LETTERS).breached if number else True
        put(databases.source, [order(number, amount=-1, day=number)])
        run_pipeline(at(number + 1))
    one = found(measure(at(9), databases.target), causes.DEAD_LETTERS)
    assert one.breached
    assert one.text == "3 dead letters are open, and each of the last 3 runs left more: +1, +1, +1."
    put(databases.source, [order(3, amount=-1, day=3), order(0, amount=1, day=3)])
    run_pipeline(at(4))
    assert not found(measure(at(9), databases.target), causes.DEAD_LETTERS).breached


def test_a_run_of_many_windows_is_one_run(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, amount=-1, day=number) for number in range(4)])
    run_pipeline(replace(at(4), split=DAY))
    health = measure(at(4), sqlite.target)
    assert health.vitals is not None
    assert (health.vitals.recent_runs, health.vitals.recent, health.vitals.growth) == (1, Counted(4, 4), (4,))


def test_the_last_run_is_told_with_its_status_and_message(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    done = run_pipeline(ORDERS)
    health = measure(ORDERS, sqlite.target)
    assert health.vitals is not None and health.vitals.last is not None
    assert (health.vitals.last.run_id, health.vitals.last.status) == (done.run_id, "committed")
    with sqlite.source.begin() as connection:
        connection.execute(text("DROP TABLE orders"))
    with pytest.raises(TidegateError):
        run_pipeline(ORDERS)
    health = measure(ORDERS, sqlite.target)
    assert health.vitals is not None and health.vitals.last is not None and health.vitals.last.message
    assert health.vitals.last.status == "failed"
    assert health.vitals.last.message.startswith("SourceError: There is no table 'orders'")


def test_it_is_measured_in_a_session_that_may_write_nothing(postgresql: Databases) -> None:
    put(postgresql.source, [order(1, amount=-1)])
    run_pipeline(at(1))
    read_only = reader(postgresql)
    seen, known = (measure(at(1, max_freshness=DAY), engine).findings for engine in (read_only, postgresql.target))
    assert seen == known and len(seen) == 3
    read_only.dispose()


def reader(databases: Databases) -> Engine:
    return create_engine(
        databases.target_url, connect_args={"options": "-c timezone=UTC -c default_transaction_read_only=on"}
    )


def test_a_source_that_does_not_tell_its_time_is_a_source_that_is_away(
    sqlite: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(at(1))
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(SourceUnavailable):
        measure(at(1, max_freshness=DAY), sqlite.target)


def test_a_ledger_that_cannot_be_read_is_an_error_of_the_target(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as connection:
        connection.execute(text("DROP TABLE etl_dead_letters"))
    with pytest.raises(TargetError):
        measure(ORDERS, sqlite.target)


def test_a_payload_is_plain_and_names_the_run(sqlite: Databases) -> None:
    told = error_rate(ORDERS, "abc", Counted(80, 12)).payload("abc")
    assert told == {
        "run_id": "abc",
        "text": "12 of 80 rows were rejected, 15 %, more than the 5 % promised.",
        "look": "tidegate dead-letters list orders --run abc",
        "counted": 80,
        "counted_rejected": 12,
        "error_rate": 0.15,
        "max_error_rate": 0.05,
    }
