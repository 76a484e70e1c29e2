"""A backfill: what is missing is loaded window by window, gone on with where it was left, and told of."""

import os
import signal
import threading
from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pytest
from sqlalchemy import select

from tasks.extract.api import ApiExtract
from tasks.extract.http.pace.rate import RateLimit
from tasks.pipeline import Pipeline, run_pipeline
from tasks.recovery.backfill.here import Progress, run_backfill_here
from tasks.recovery.backfill.ledger import close_backfill, find_backfill, left, open_backfill
from tasks.recovery.backfill.pace import paced
from tasks.recovery.backfill.plan import BackfillPlan, Only, plan_backfill
from tasks.recovery.backfill.report import report_backfill
from tasks.state.tables import backfills
from tasks.window import Window
from tests.conftest import Databases, on_every_target
from tests.orders import DAY, ORDERS, START, loaded, order, put

DAYS = 4


def planned(pipeline: Pipeline = ORDERS, only: Only = "missing") -> BackfillPlan:
    return plan_backfill(pipeline, START, START + DAYS * DAY, "day", only)


def ids(databases: Databases) -> list[int]:
    return [row["id"] for row in loaded(databases.target)]


@pytest.fixture
def source(sqlite: Databases) -> Databases:
    """An order a day."""
    put(sqlite.source, [order(number, day=number) for number in range(DAYS + 1)])
    return sqlite


@on_every_target
def test_what_is_missing_is_loaded_window_by_window_and_reported(databases: Databases) -> None:
    put(databases.source, [order(number, day=number) for number in range(DAYS + 1)])
    plan = planned()
    assert [one.standing for one in plan.windows] == ["missing"] * DAYS
    backfill = open_backfill(ORDERS, plan)
    assert left(ORDERS, backfill) == backfill.windows
    report = run_backfill_here(ORDERS, backfill, jobs=2)
    assert (report.status, len(report.done), report.counts.inserted, report.attempts) == ("done", DAYS, DAYS, DAYS)
    assert ids(databases) == list(range(DAYS))
    assert left(ORDERS, backfill) == ()
    assert [one.standing for one in planned().windows] == ["covered"] * DAYS
    assert not open_backfill(ORDERS, plan).resumed


def test_who_asks_the_same_goes_on_and_does_only_what_is_left(source: Databases) -> None:
    first = open_backfill(ORDERS, planned(only="all"))
    for window in (first.windows[1], first.windows[2]):
        run_pipeline(ORDERS, window.start, window.end)
    again = open_backfill(ORDERS, planned(only="all"))
    assert (again.backfill_id, again.started_at, again.resumed) == (first.backfill_id, first.started_at, True)
    assert left(ORDERS, again) == (first.windows[0], first.windows[3])
    report = run_backfill_here(ORDERS, again)
    assert ([one.attempts for one in report.windows], report.status) == ([1] * DAYS, "done")


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_one_that_failed_or_was_cancelled_is_gone_on_with(source: Databases, ending: str) -> None:
    first = open_backfill(ORDERS, planned())
    close_backfill(ORDERS, first, ending, "so it went")  # type: ignore[arg-type]
    assert (report_backfill(ORDERS, first).status, report_backfill(ORDERS, first).message) == (ending, "so it went")
    assert open_backfill(ORDERS, planned()).backfill_id == first.backfill_id
    assert report_backfill(ORDERS, first).status == "running"


def test_what_has_come_to_do_since_is_added_to_one_that_is_gone_on_with(source: Databases) -> None:
    def until(hours: float) -> BackfillPlan:
        """As if the source were proven no further."""
        bounded = plan_backfill(ORDERS, START, START + timedelta(hours=hours))
        return replace(bounded, asked=Window(START, None))

    first = open_backfill(ORDERS, until(36))
    run_pipeline(ORDERS, first.windows[0].start, first.windows[0].end)
    again = open_backfill(ORDERS, until(60))
    assert again.backfill_id == first.backfill_id
    assert again.windows == tuple(one.window for one in plan_backfill(ORDERS, START, START + 2.5 * DAY).windows)
    assert left(ORDERS, again) == again.windows[1:]
    found = find_backfill(ORDERS, first.backfill_id)
    assert found is not None and found.windows == again.windows


def test_one_that_is_done_or_asked_otherwise_or_is_to_begin_afresh_is_another(source: Databases) -> None:
    first = open_backfill(ORDERS, planned())
    known = {first.backfill_id, open_backfill(ORDERS, planned(only="all")).backfill_id}
    known.add(open_backfill(ORDERS, planned(), afresh=True).backfill_id)
    known.add(open_backfill(ORDERS, plan_backfill(ORDERS, START, START + DAYS * DAY, "week")).backfill_id)
    assert len(known) == 4
    found = find_backfill(ORDERS, first.backfill_id)
    assert found is not None and found.windows == first.windows
    assert find_backfill(replace(ORDERS, name="others"), first.backfill_id) is None


def doubled(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(amount=raw["amount"] * 2)


def test_a_changed_transform_makes_windows_stale_and_a_backfill_of_them_loads_them_anew(source: Databases) -> None:
    run_backfill_here(ORDERS, open_backfill(ORDERS, planned()))
    changed = replace(ORDERS, transform=doubled)
    begun = open_backfill(ORDERS, planned(only="all"))
    assert [one.standing for one in planned(changed, "stale").windows] == ["stale"] * DAYS
    report = run_backfill_here(changed, open_backfill(changed, planned(changed, "stale")))
    assert (report.status, len(report.done)) == ("done", DAYS)
    assert [one.standing for one in planned(changed, "stale").windows] == ["covered"] * DAYS
    # Windows of the backfill by the contract of before are not done by today's.
    assert len(left(ORDERS, begun)) == DAYS


def test_a_backfill_of_another_contract_that_asked_the_same_is_called_off(source: Databases) -> None:
    outdated = open_backfill(ORDERS, planned())
    changed = replace(ORDERS, transform=doubled)
    assert not open_backfill(changed, planned(changed)).resumed
    with source.target.connect() as connection:
        statuses = dict(connection.execute(select(backfills.c.backfill_id, backfills.c.status)).tuples().all())
    assert statuses.pop(outdated.backfill_id) == "cancelled"
    assert list(statuses.values()) == ["running"]


def failing(raw: pd.DataFrame) -> pd.DataFrame:
    if 1 in set(raw["id"]):
        raise SystemError("no")
    return raw


def test_a_window_that_fails_keeps_none_of_the_others_and_is_the_one_that_is_left(source: Databases) -> None:
    broken = replace(ORDERS, transform=failing, sla=replace(ORDERS.sla, abort_error_rate=0.5))
    told: list[Progress] = []
    report = run_backfill_here(broken, open_backfill(broken, planned(broken)), 2, told.append)
    assert ids(source) == [0, 2, 3]
    assert [one.status for one in report.windows] == ["committed", "refused", "committed", "committed"]
    assert report.status == "failed" and report.message is not None
    assert report.message.startswith("1 of its windows are left. [2026-01-02")
    assert sorted(one.ended for one in told) == [1, 2, 3, 4]
    [failed] = [one for one in told if one.error]
    assert failed.window == report.failed[0].window
    assert [one.standing for one in planned(broken, "failed").chosen] == ["failed"]


def test_ctrl_c_ends_it_after_the_windows_under_way_and_the_rest_is_left(source: Databases) -> None:
    reading, interrupted = threading.Event(), threading.Event()

    def slow(raw: pd.DataFrame) -> pd.DataFrame:
        reading.set()
        assert interrupted.wait(30)
        return raw

    def interrupt() -> None:
        assert reading.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        interrupted.set()

    pipeline = replace(ORDERS, transform=slow)
    backfill = open_backfill(pipeline, planned(pipeline))
    threading.Thread(target=interrupt).start()
    report = run_backfill_here(pipeline, backfill)
    assert report.status == "cancelled"
    # Whether the next window had begun when the signal came is a matter of moments.
    assert 1 <= len(report.done) < DAYS and not report.failed
    assert len(left(pipeline, backfill)) == len(report.left)
    assert run_backfill_here(pipeline, open_backfill(pipeline, planned(pipeline))).status == "done"
    assert ids(source) == list(range(DAYS))


def test_a_window_in_several_commits_is_one_window_of_the_report(source: Databases) -> None:
    split = replace(ORDERS, split=timedelta(hours=6))
    report = run_backfill_here(split, open_backfill(split, planned(split)))
    assert [one.attempts for one in report.windows] == [1] * DAYS
    assert [one.counts.inserted for one in report.windows] == [1] * DAYS


def test_runs_that_ask_an_api_together_keep_its_rate() -> None:
    asked = ApiExtract("shop", "rows", rate=RateLimit(10, burst=4))
    extract = paced(replace(ORDERS, extract=asked), 4).extract
    assert isinstance(extract, ApiExtract) and extract.rate is not None
    assert (extract.rate.spacing * 10, extract.rate.burst) == (4, 1)
    assert extract.fingerprint == asked.fingerprint
    assert paced(ORDERS, 4) == ORDERS
