"""`watch_pipelines`: every pipeline is measured, although none runs and one cannot be asked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from tasks.declaration import Pipeline
from tasks.errors import WatchFailed
from tasks.extract.log import LogExtract
from tasks.load.upsert import Upsert
from tasks.observe import causes
from tasks.pipeline import Sla, remove_feed, run_pipeline
from tasks.watch import watch_pipelines
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, TABLE, execute
from tests.orders import DAY, ORDERS, order, put

NOBODY = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def followed(postgresql: Databases) -> Iterator[Pipeline]:
    """Bookings by the log of PostgreSQL, loaded once."""
    execute(postgresql.source, TABLE)
    pipeline = replace(BOOKINGS, extract=LogExtract("source", "bookings", max_lag=1 << 20))
    run_pipeline(pipeline)
    yield pipeline
    remove_feed(pipeline)


def elsewhere(name: str, connection: str) -> Pipeline:
    return replace(ORDERS, name=name, load=Upsert(connection, "fct_orders", key=["id"]))


def test_one_database_that_does_not_answer_stops_no_other_pipeline(
    sqlite: Databases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TIDEGATE_GONE_URL", NOBODY)
    put(sqlite.source, [order(1, amount=-1)])
    run_pipeline(ORDERS)
    with pytest.raises(WatchFailed) as failed:
        watch_pipelines("watch", [elsewhere("first", "gone"), ORDERS, elsewhere("last", "gone")])
    said = str(failed.value)
    assert said.startswith("watch: 3 pipelines; breached: orders (recent-error-rate); not measured: first, last.")
    assert said.count("'gone'") == 1, "it was asked once"
    assert "orders: In the last run 1 of 1 rows were rejected, 100 %" in caplog.text
    assert "first could not be measured, and all others are." in caplog.text


@pytest.mark.parametrize("state_tables", [False])
def test_a_target_without_a_ledger_is_told_and_no_failure(sqlite: Databases) -> None:
    report = watch_pipelines("watch", [ORDERS])
    assert report["orders"].row["message"] == (
        "orders: the target 'target' has no ledger: nothing has ever been loaded into it."
    )
    assert inspect(sqlite.target).get_table_names() == []


def test_a_pipeline_that_is_well_is_a_row_without_a_breach(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    done = run_pipeline(ORDERS)
    report = watch_pipelines("watch", [replace(ORDERS, sla=Sla(max_freshness=DAY))])
    assert str(report) == "1 pipeline; none is in breach"
    assert done.covered_until is not None
    assert report["orders"].row == {
        "pipeline": "orders",
        "breached": None,
        "covered until": done.covered_until.isoformat(),
        "recent error rate": 0.0,
        "open letters": 0,
        "last run": "committed",
        "message": None,
    }


def test_watching_writes_nothing(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1)])
    run_pipeline(ORDERS)
    files = [Path(str(engine.url.database)) for engine in (sqlite.source, sqlite.target)]
    before = [file.read_bytes() for file in files]
    watch_pipelines("watch", [ORDERS])
    assert [file.read_bytes() for file in files] == before


def test_the_log_that_a_source_keeps_is_measured_although_nobody_reads_it(
    followed: Pipeline, postgresql: Databases
) -> None:
    [kept] = watch_pipelines("watch", [followed])["bookings"].notices
    assert (kept.event, kept.alarming) == (causes.SLOT_LAG.kept, False)
    execute(
        postgresql.source,
        "CREATE TABLE filler AS SELECT repeat(md5(n::text), 60) AS words FROM generate_series(1, 2000) AS n",
    )
    report = watch_pipelines("watch", [followed])
    [notice] = report["bookings"].notices
    assert (notice.event, notice.alarming) == (causes.SLOT_LAG.breached, True)
    lag: Any = notice.payload["lag"]
    assert lag > notice.payload["max_lag"] == 1 << 20
    assert f"keeps {lag:,} bytes of log at source, more than 1,048,576" in notice.text
    assert report["bookings"].breached == ["etl.slot.lag-exceeded"]


def test_a_source_that_does_not_answer_leaves_what_the_target_says(
    followed: Pipeline, postgresql: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", NOBODY)
    with pytest.raises(WatchFailed, match="none is in breach; not measured: bookings"):
        watch_pipelines("watch", [followed])
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", postgresql.source_url)


def test_a_slot_that_was_never_made_is_not_looked_for(postgresql: Databases) -> None:
    put(postgresql.source, [order(1)])
    run_pipeline(ORDERS)
    feed = replace(BOOKINGS, extract=LogExtract("source", "bookings"))
    assert watch_pipelines("watch", [feed])["bookings"].notices == ()
    with postgresql.target.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM etl_feeds")).scalar_one() == 0
