"""`tidegate runs` and `tidegate run-info`: the ledger of a pipeline, and one run of it."""

import json
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import update

from tasks.pipeline import Overrides, run_pipeline
from tasks.state.tables import runs
from tests.commands.conftest import Declare, Tidegate
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, START, order, put

KEYS = [
    "attempt", "run_id", "pipeline", "target", "kind", "window", "status", "message", "counts", "error_rate", "written",
    "warned", "late", "requests", "seconds", "phases", "started_at", "finished_at", "watermark", "position",
    "flow_run_id", "code_version", "contract", "overrides",
]  # fmt: skip
SPLIT = """
from dataclasses import replace
from datetime import timedelta
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, split=timedelta(days=1))
"""


def test_the_newest_is_shown_first_and_only_what_failed_when_asked(
    sqlite: Databases, orders: str, tidegate: Tidegate
) -> None:
    assert tidegate("run", "orders").exit_code == 1
    put(sqlite.source, [order(1), order(2, amount=-1)])
    ids = [run_pipeline(ORDERS).run_id for _ in range(2)]
    told = json.loads(tidegate("runs", "orders", "--json").stdout)
    assert [one["status"] for one in told] == ["committed", "committed", "failed"]
    assert [one["run_id"] for one in told[:2]] == ids[::-1]
    assert [list(one) for one in told] == [KEYS] * 3
    assert told[1]["counts"] == {
        "extracted": 2, "added": 0, "inserted": 1, "updated": 0, "deleted": 0, "unchanged": 0, "deduplicated": 0,
        "stale": 0, "rejected": 1, "filtered": 0,
    }  # fmt: skip
    (failed,) = json.loads(tidegate("runs", "orders", "--failed", "--json").stdout)
    assert failed["message"].startswith("SourceError") and failed["counts"] is None
    lines = tidegate("runs", "orders", "--limit", "1").stdout.splitlines()
    assert len(lines) == 2 and ids[1][:8] in lines[1]
    lines = tidegate("runs", "orders").stdout.splitlines()
    assert "SourceError" in lines[4] and max(map(len, lines)) <= 120


def test_before_the_first_run_there_is_nothing_to_show(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    assert tidegate("runs", "orders").stdout == "orders: nothing has run yet.\n"
    assert tidegate("runs", "orders", "--json").stdout == "[]\n"


def test_a_run_is_told_in_full_by_the_beginning_of_its_id(
    databases: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    declare("orders", SPLIT)
    put(databases.source, [order(1), order(2, amount=-1), order(3, amount=-2, day=1), order(4, amount=-3, day=1)])
    why = Overrides(reason="a test", abort_error_rate=1)
    from flows.orders import PIPELINE  # type: ignore[import-not-found]

    report = run_pipeline(PIPELINE, START, START + 2 * DAY, overrides=why)
    told = json.loads(tidegate("run-info", report.run_id[:8], "--json").stdout)
    assert (told["run_id"], told["status"], told["error_rate"]) == (report.run_id, "committed", 0.75)
    assert told["counts"]["extracted"] == 4
    assert [one["window"]["start"] for one in told["attempts"]] == [
        START.isoformat(), (START + timedelta(days=1)).isoformat()
    ]  # fmt: skip
    assert told["attempts"][0]["overrides"]["reason"] == "a test"
    assert list(told["attempts"][0]["phases"]) == ["extract", "validate", "stage", "commit"]
    (fault,) = told["dead_letters"]
    assert (fault["column"], fault["letters"]) == ("amount", 3)
    assert fault["examples"] == [-1.0, -2.0]
    shown = tidegate("run-info", report.run_id).stdout
    assert f"run {report.run_id} of orders into fct_orders: committed" in shown
    assert "2026-01-01 → 01-02" in shown and "-1.0, -2.0" in shown


def test_letters_that_a_run_closed_are_counted(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1, amount=-1)])
    run_pipeline(ORDERS)
    put(sqlite.source, [order(1, amount=1, day=1)])
    report = run_pipeline(ORDERS)
    assert json.loads(tidegate("run-info", report.run_id, "--json").stdout)["letters_closed"] == 1


def test_a_run_is_found_by_the_flow_run_it_was_in(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    run_id, flow_run = run_pipeline(ORDERS).run_id, str(uuid4())
    with sqlite.target.begin() as connection:
        connection.execute(update(runs).values(flow_run_id=flow_run))
    assert json.loads(tidegate("run-info", flow_run, "--json").stdout)["run_id"] == run_id


def test_an_id_that_stands_for_none_or_for_several_is_refused(
    sqlite: Databases, orders: str, tidegate: Tidegate
) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    run_pipeline(ORDERS)
    with sqlite.target.begin() as connection:
        connection.execute(update(runs).values(flow_run_id="f" * 36))
    for name, why in (
        ("0" * 32, "No ledger has a run"),
        ("f" * 36, "several runs"),
        ("abc", "too short"),
        ("%%%%", "No"),
    ):
        shown = tidegate("run-info", name)
        assert shown.exit_code == 1
        assert why in shown.stderr


def test_an_interrupted_run_is_still_running_in_the_ledger(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    run_id = run_pipeline(ORDERS).run_id
    with sqlite.target.begin() as connection:
        connection.execute(update(runs).values(status="running", finished_at=None, extracted=None))
    shown = tidegate("run-info", run_id[:6])
    assert "running, still running" in shown.stdout
