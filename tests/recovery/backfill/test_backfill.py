"""A backfill: planned by the ledger, carried out, gone on with where it was left, and told of."""

from tasks.recovery.backfill.here import run_backfill_here
from tasks.recovery.backfill.ledger import left, open_backfill
from tasks.recovery.backfill.plan import plan_backfill
from tests.conftest import Databases, on_every_target
from tests.orders import DAY, ORDERS, START, loaded, order, put


@on_every_target
def test_what_is_missing_is_loaded_window_by_window_and_reported(databases: Databases) -> None:
    put(databases.source, [order(number, day=number) for number in range(5)])
    plan = plan_backfill(ORDERS, START, START + 4 * DAY)
    assert [one.standing for one in plan.windows] == ["missing"] * 4
    backfill = open_backfill(ORDERS, plan)
    assert left(ORDERS, backfill) == backfill.windows
    report = run_backfill_here(ORDERS, backfill, jobs=2)
    assert (report.status, len(report.done), report.counts.inserted, report.attempts) == ("done", 4, 4, 4)
    assert [row["id"] for row in loaded(databases.target)] == [0, 1, 2, 3]
    assert left(ORDERS, backfill) == ()
    assert [one.standing for one in plan_backfill(ORDERS, START, START + 4 * DAY).windows] == ["covered"] * 4
    assert not open_backfill(ORDERS, plan).resumed
