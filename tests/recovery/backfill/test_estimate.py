"""What a window will take, by what those before it took."""

from datetime import timedelta

import pytest

from tasks.pipeline import run_pipeline
from tasks.recovery.backfill.estimate import Line
from tasks.recovery.backfill.plan import PlannedWindow, plan_backfill
from tests.conftest import Databases
from tests.extract.shop import BY_TIME, DAY, HOUR, Serve, record
from tests.orders import ORDERS, START
from tests.paged_api import PagedApi
from tests.recovery.backfill.past import attempted, remember
from tests.scripted_server import Reply


def hours(many: int) -> tuple[PlannedWindow, ...]:
    return plan_backfill(ORDERS, START, START + timedelta(hours=many), "hour", "all").windows


def test_a_window_that_was_covered_brings_what_it_brought_and_others_the_average(sqlite: Databases) -> None:
    remember(
        sqlite,
        [
            attempted(0, 60, extracted=1_000, seconds=2.0, requests=11),
            attempted(60, 120, at=1, extracted=100, seconds=1.1, requests=2),
            # Half of it is covered by it still, half by what came later.
            attempted(60, 90, at=2, extracted=400, seconds=1.4, requests=5),
            attempted(None, 0, at=3, kind="incremental", extracted=10_000, seconds=11.0, requests=101),
        ],
    )
    windows = hours(3)
    assert [one.rows for one in windows] == [1_000, 450, round(1_500 / 2.5)]
    assert [round(one.seconds or 0, 2) for one in windows] == [2.0, 1.45, 1.6]
    assert [one.calls for one in windows] == [11, 6, 7]


def test_a_window_read_in_parts_counts_once(sqlite: Databases) -> None:
    parts = [attempted(0, 60, at=at, extracted=300, seconds=3.0, status="partial", run_id="r") for at in range(3)]
    remember(sqlite, [*parts, attempted(0, 60, at=3, extracted=100, seconds=1.0, run_id="r")])
    assert [one.rows for one in hours(2)] == [1_000, 1_000]


def test_of_a_pipeline_without_a_past_nothing_is_known(sqlite: Databases) -> None:
    remember(sqlite, [])
    assert [(one.rows, one.seconds, one.calls) for one in hours(1)] == [(None, None, None)]
    remember(sqlite, [attempted(None, 60, kind="incremental", extracted=1_000, seconds=2.0)])
    assert [one.rows for one in hours(1)] == [None]


def test_requests_of_an_api_are_estimated_by_those_that_were_counted(sqlite: Databases, serve: Serve) -> None:
    clock = Reply({"now": (DAY + 24 * HOUR).isoformat()})
    records = [record(number, number / 40) for number in range(40)]
    server = serve(PagedApi(records, before=lambda seen: clock if seen.target.startswith("/clock") else None))
    run_pipeline(BY_TIME, DAY, DAY + HOUR)
    pages = [seen for seen in server.seen if not seen.target.startswith("/clock")]
    plan = plan_backfill(BY_TIME, DAY, DAY + 2 * HOUR, "hour", "all")
    assert [(one.rows, one.calls) for one in plan.windows] == [(40, len(pages))] * 2
    assert (plan.rows, plan.calls) == (80, 2 * len(pages))


@pytest.mark.parametrize(
    ("points", "fixed", "each"),
    [
        ([(0, 1.0), (1_000, 3.0)], 1.0, 0.002),
        ([(1_000, 2.0)], 0.0, 0.002),
        ([(1_000, 2.0), (1_000, 4.0)], 0.0, 0.003),
        ([(0, 0.5)], 0.5, 0.0),
        ([(10, 4.0), (1_000, 2.0)], 3.0, 0.0),
        ([(10, 0.0), (20, 3.0)], 0.0, 60 / 500),
    ],
)
def test_a_cost_is_never_negative(points: list[tuple[int, float]], fixed: float, each: float) -> None:
    line = Line.through(points)
    assert line is not None
    assert (line.fixed, line.each) == pytest.approx((fixed, each))
