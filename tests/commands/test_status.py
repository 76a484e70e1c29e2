"""`tidegate status`: how far, how fresh, and how the last run ended."""

import json
from datetime import timedelta

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from sqlalchemy import text, update

from tasks.pipeline import run_pipeline
from tasks.state.tables import watermarks
from tests.commands.conftest import Declare, Tidegate, untouched
from tests.conftest import Databases
from tests.orders import ORDERS, START, order, put

PROMISED = """
from dataclasses import replace
from datetime import timedelta
from tasks.pipeline import Sla
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, sla=Sla(max_freshness=timedelta(hours=1), abort_error_rate=1.0))
"""
OWN_CLOCK = """
from dataclasses import replace
from datetime import timedelta
from tasks.extract.table import TableExtract
from tasks.pipeline import Sla
from tests.orders import ORDERS
EXTRACT = TableExtract("source", "orders", cursor="updated_at", clock="(SELECT at FROM clock)")
PIPELINE = replace(ORDERS, extract=EXTRACT, sla=Sla(max_freshness=timedelta(hours=1)))
"""
ELSEWHERE = """
from dataclasses import replace
from tasks.load.upsert import Upsert
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, name="elsewhere", load=Upsert("nowhere", "fct_orders", key=["id"]))
"""


def told(tidegate: Tidegate, *names: str) -> list[dict]:  # type: ignore[type-arg]
    shown = tidegate("status", *names, "--json")
    assert shown.exit_code == 0
    return list(json.loads(shown.stdout))


@untouched
def test_before_the_first_run_nothing_is_known_and_no_table_is_made(
    sqlite: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    declare("orders", PROMISED)
    assert told(tidegate) == [
        {
            "pipeline": "orders",
            "watermark": None,
            "covered_until": None,
            "watermark_version": 0,
            "freshness": {"status": "unknown", "age_seconds": None, "limit_seconds": 3600.0},
            "last_run": None,
            "open_letters": None,
            "problem": None,
            "next_run": None,
        }
    ]
    assert "unknown of 60m" in tidegate("status").stdout


def test_it_tells_how_far_a_pipeline_has_come_and_how_its_last_run_ended(
    databases: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    declare("orders", PROMISED)
    put(databases.source, [order(1), order(2, day=1), order(3, amount=-1), order(4)])
    report = run_pipeline(ORDERS)
    (one,) = told(tidegate, "orders")
    assert one["watermark"] == (START + timedelta(days=1)).isoformat()
    assert report.covered_until is not None
    assert one["covered_until"] == report.covered_until.isoformat()
    assert one["freshness"]["status"] == "ok"
    assert one["last_run"]["run_id"] == report.run_id
    assert (one["last_run"]["status"], one["last_run"]["error_rate"]) == ("committed", 0.25)
    assert one["open_letters"] == 1
    shown = tidegate("status").stdout
    assert "committed" in shown and "25.00%" in shown


def test_freshness_beyond_the_promise_is_breached(sqlite: Databases, declare: Declare, tidegate: Tidegate) -> None:
    declare("orders", PROMISED)
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    with sqlite.target.begin() as connection:
        connection.execute(update(watermarks).values(covered_until=START))
    (one,) = told(tidegate)
    assert one["freshness"]["status"] == "breached"
    assert one["freshness"]["age_seconds"] > 3600
    assert "breached" in tidegate("status").stdout


def test_a_failed_run_is_the_last_one_too(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    assert tidegate("run", "orders").exit_code == 1
    (one,) = told(tidegate)
    assert (one["last_run"]["status"], one["last_run"]["error_rate"]) == ("failed", None)


def test_a_target_that_is_away_does_not_hide_the_others(
    sqlite: Databases, orders: str, declare: Declare, tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("elsewhere", ELSEWHERE)
    monkeypatch.setenv("TIDEGATE_NOWHERE_URL", "postgresql://etl:open-sesame@127.0.0.1:1/nowhere")
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    away, here = told(tidegate)
    assert (away["pipeline"], here["pipeline"]) == ("elsewhere", "orders")
    assert away["problem"].startswith("TargetUnavailable")
    assert here["last_run"]["status"] == "committed"
    shown = tidegate("status")
    assert "elsewhere: TargetUnavailable" in shown.stderr
    assert "open-sesame" not in shown.output


def test_a_server_that_is_away_is_a_problem_that_is_told(
    sqlite: Databases, declare: Declare, tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("elsewhere", ELSEWHERE)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        (one,) = told(tidegate)
    assert "did not tell where 'nowhere' is" in one["problem"] and "TIDEGATE_NOWHERE_URL" in one["problem"]


def test_a_pipeline_that_is_not_there_is_named_with_those_that_are(orders: str, tidegate: Tidegate) -> None:
    shown = tidegate("status", "flihgts")
    assert shown.exit_code == 1
    assert "flows/flihgts.py" in shown.stderr and "'orders'" in shown.stderr


def test_a_source_that_cannot_tell_its_time_hides_nothing_else(
    sqlite: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    declare("orders", OWN_CLOCK)
    put(sqlite.source, [order(1)])
    with sqlite.source.begin() as connection:
        connection.execute(text("CREATE TABLE clock AS SELECT '2026-01-05 00:00:00+00:00' AS at"))
    assert tidegate("run", "orders").exit_code == 0
    with sqlite.source.begin() as connection:
        connection.execute(text("DROP TABLE clock"))
    [one] = told(tidegate)
    assert (one["freshness"]["status"], one["last_run"]["status"]) == ("unknown", "committed")
    assert "no such table: clock" in one["problem"]
