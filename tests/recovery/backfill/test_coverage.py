"""What the ledger says of a range: held against a model that looks at every instant."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest

from tasks.dialects import dialect_of
from tasks.recovery.backfill.ledger import Backfill, left
from tasks.recovery.backfill.plan import BackfillPlan, Only, plan_backfill
from tasks.state.schema import ensure_schema
from tasks.window import Window
from tests.conftest import Databases, on_every_target
from tests.orders import ORDERS, START
from tests.properties.effort import Prove, effort
from tests.recovery.backfill.past import LOADED, MINUTE, attempted, remember, today

HOURS = 4
QUARTER = 15
AXIS = [QUARTER * number for number in range(-2, HOURS * 4 + 3)]
FAILURES = ("failed", "refused", "crashed")
ONLY: tuple[Only, ...] = ("missing", "failed", "stale")


def hourly(only: Only = "missing", hours: int = HOURS) -> BackfillPlan:
    return plan_backfill(ORDERS, START, START + timedelta(hours=hours), "hour", only)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Attempts of every kind, each of which ends a minute after the one before."""
    made = []
    for at in range(draw(st.integers(0, 12))):
        start, end = sorted(draw(st.lists(st.sampled_from(AXIS), min_size=2, max_size=2)))
        kind = draw(st.sampled_from(["explicit", "explicit", "explicit", "incremental", "full", "replay", "watermark"]))
        status = draw(st.sampled_from(["committed"] * 4 + [*FAILURES, "partial", "fenced", "superseded", "skipped"]))
        unbounded = kind in ("full", "replay", "watermark") or (kind == "incremental" and draw(st.booleans()))
        made.append(
            attempted(
                None if unbounded else start,
                None if unbounded and (kind != "incremental" or draw(st.booleans())) else end,
                at=at,
                kind=kind,
                status=status,
                contract=draw(st.sampled_from([None, None, "old"])),
                opened=at - draw(st.integers(0, 2)),
                watermark=(START + end * MINUTE).isoformat() if kind == "full" and draw(st.booleans()) else None,
            )
        )
    return made


def instants(hour: int) -> Iterator[Any]:
    return (START + (hour * 60 + minute) * MINUTE for minute in range(0, 60, QUARTER))


def tells(attempt: dict[str, Any], instant: Any) -> bool:
    """Whether an attempt says anything of an instant."""
    start, end, kind, status = (attempt[name] for name in ("window_start", "window_end", "kind", "status"))
    if kind not in ("explicit", "incremental", "full") or status not in ("committed", *FAILURES):
        return False
    if kind == "full" and status == "committed":
        return bool(attempt["watermark"] and instant.isoformat() < attempt["watermark"])
    if start is None and end is None:
        return bool(status == "committed")
    return bool((start is None or start <= instant) and (end is None or instant < end))


def modelled(history: list[dict[str, Any]], hour: int) -> frozenset[str]:
    """The standings of an hour, instant by instant."""
    found = set()
    for instant in instants(hour):
        words = [attempt for attempt in history if tells(attempt, instant)]
        commits = [attempt for attempt in words if attempt["status"] == "committed"]
        if words and words[-1]["status"] != "committed":
            found.add("failed")
        if not commits:
            found.add("missing")
        elif commits[-1]["contract"] != today():
            found.add("stale")
    return frozenset(found)


@effort(few=25, many=2_000)
def test_the_plan_is_what_a_look_at_every_instant_says(sqlite: Databases, prove: Prove) -> None:
    def claim(history: list[dict[str, Any]]) -> None:
        remember(sqlite, history)
        plan = hourly("all")
        assert [one.standings for one in plan.windows] == [modelled(history, hour) for hour in range(HOURS)]
        for only in ONLY:
            chosen = hourly(only).chosen
            expected = [one.window for one in plan.windows if only in one.standings]
            assert [one.window for one in chosen] == expected

    prove(histories(), claim)


@effort(few=25, many=2_000)
def test_what_is_left_is_what_no_attempt_since_has_covered_by_the_contract(sqlite: Databases, prove: Prove) -> None:
    windows = tuple(Window(START + hour * 60 * MINUTE, START + (hour + 1) * 60 * MINUTE) for hour in range(HOURS))

    def claim(case: tuple[list[dict[str, Any]], int]) -> None:
        history, since = case
        remember(sqlite, history)
        began = LOADED + since * MINUTE
        backfill = Backfill("b", "orders", Window(), "hour", "all", today(), windows, began)
        later = [attempt for attempt in history if attempt["started_at"] >= began]
        expected = [window for hour, window in enumerate(windows) if modelled(later, hour) & {"missing", "stale"}]
        assert list(left(ORDERS, backfill)) == expected

    prove(st.tuples(histories(), st.integers(0, 6)), claim)


@on_every_target
def test_failed_missing_and_stale_are_told_apart(databases: Databases) -> None:
    ensure_schema(databases.target, dialect_of(databases.target))
    remember(
        databases,
        [
            attempted(0, 60, at=1),
            attempted(60, 120, at=1, contract="old", code_version="0.1"),
            attempted(120, 180, at=1),
            attempted(120, 180, at=2, status="failed", message="the source was away"),
            attempted(180, 210, at=2),
        ],
    )
    windows = hourly().windows
    assert [one.standing for one in windows] == ["covered", "stale", "failed", "missing"]
    assert (windows[1].contract, windows[1].code_version, windows[1].covered_at) == ("old", "0.1", LOADED + MINUTE)
    assert windows[2].failure == "the source was away"


def test_a_window_that_failed_and_was_never_covered_is_missing_and_failed(sqlite: Databases) -> None:
    remember(sqlite, [attempted(0, 60, status="crashed")])
    assert hourly("missing", hours=1).chosen == hourly("failed", hours=1).chosen != ()


def test_a_run_that_failed_before_it_had_a_window_says_nothing_of_any(sqlite: Databases) -> None:
    remember(sqlite, [attempted(0, 60), attempted(None, None, at=1, kind="incremental", status="failed")])
    assert [one.standing for one in hourly(hours=1).windows] == ["covered"]


def test_what_was_derived_from_changes_is_covered_and_by_the_contract_of_the_first_run_only(sqlite: Databases) -> None:
    """What a later run has read anew, nobody knows; what came in since, it has."""
    old = attempted(None, None, at=1, kind="changes", contract="old", started_at=START + 120 * MINUTE)
    remember(sqlite, [attempted(0, 60), old, attempted(None, None, at=2, kind="changes")])
    assert [one.standing for one in hourly().windows] == ["covered", "stale", "covered", "covered"]


@pytest.mark.slow
def test_a_ledger_of_100_000_attempts_tells_of_each_day_whether_it_is_missing(postgresql: Databases) -> None:
    remember(postgresql, (attempted(number, number + 1, at=-number / 1_000) for number in range(100_000)))
    plan = plan_backfill(ORDERS, START, START + timedelta(days=300), "day", "missing")
    assert (len(plan.windows), len(plan.chosen)) == (300, 300 - 69)
