"""Which windows are submitted next, and which flow runs are lost, as told by what server and ledger say; no server."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st

from tasks.recovery.backfill.dispatch import TRIES, UNDER_WAY, Child, Dispatch, Phase, Trace
from tasks.window import Window
from tests.properties.effort import Prove, effort

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOWS = tuple(Window(START + number * DAY, START + (number + 1) * DAY) for number in range(6))


def child(window: Window, phase: Phase = "scheduled") -> Child:
    return Child(uuid4(), window, phase)


def sent(dispatch: Dispatch, to_do: Sequence[Window]) -> list[Child]:
    """Submit whatever is to be submitted now."""
    children = [child(window) for window in dispatch.next(to_do)]
    for one in children:
        dispatch.sent(one)
    return children


def test_no_more_are_under_way_than_asked_and_the_oldest_go_first() -> None:
    dispatch = Dispatch(jobs=2)
    assert [one.window for one in sent(dispatch, WINDOWS)] == list(WINDOWS[:2])
    assert dispatch.next(WINDOWS) == []


def test_what_another_parent_has_submitted_is_not_submitted_again() -> None:
    dispatch = Dispatch(jobs=3)
    dispatch.seen([child(WINDOWS[0], "running"), child(WINDOWS[2])], ())
    assert dispatch.next(WINDOWS) == [WINDOWS[1]]


def test_a_window_that_the_ledger_has_is_done_whatever_became_of_its_flow_run() -> None:
    dispatch = Dispatch(jobs=1)
    [only] = sent(dispatch, WINDOWS[:1])
    dispatch.seen([replace(only, phase="crashed")], to_do=())
    assert dispatch.over(()) and not dispatch.given_up


def test_a_completed_flow_run_does_not_make_a_window_done() -> None:
    dispatch = Dispatch(jobs=1)
    [only] = sent(dispatch, WINDOWS[:1])
    dispatch.seen([replace(only, phase="completed", message="upstream is behind")], WINDOWS[:1])
    assert dispatch.given_up == {WINDOWS[0]: "upstream is behind"}


def test_a_window_whose_flow_run_failed_is_given_up_and_the_rest_goes_on() -> None:
    dispatch = Dispatch(jobs=1)
    [first] = sent(dispatch, WINDOWS[:2])
    dispatch.seen([replace(first, phase="failed", message="no such column")], WINDOWS[:2])
    assert dispatch.given_up == {WINDOWS[0]: "no such column"}
    assert dispatch.next(WINDOWS[:2]) == [WINDOWS[1]]


def test_a_window_whose_flow_runs_crash_is_tried_so_often_and_no_more() -> None:
    dispatch = Dispatch(jobs=1)
    for number in range(TRIES):
        assert not dispatch.over(WINDOWS[:1]), number
        [one] = sent(dispatch, WINDOWS[:1])
        dispatch.seen([replace(one, phase="crashed", message="killed")], WINDOWS[:1])
    assert dispatch.over(WINDOWS[:1])
    assert "3 of its flow runs crashed, the last one: killed" in dispatch.given_up[WINDOWS[0]]


def test_a_flow_run_that_has_not_begun_is_needless_once_its_window_is_loaded() -> None:
    dispatch = Dispatch(jobs=2)
    waiting, running = sent(dispatch, WINDOWS[:2])
    dispatch.seen([replace(running, phase="running")], ())
    assert dispatch.needless(()) == [waiting]


@pytest.mark.parametrize(
    ("phase", "trace", "seconds"),
    [("pending", "none", 180), ("running", "dead", 20), ("running", "none", 180)],
)
def test_a_flow_run_that_nobody_ends_is_lost_after_a_while(phase: Phase, trace: Trace, seconds: float) -> None:
    dispatch = Dispatch(jobs=1)
    [one] = sent(dispatch, WINDOWS)
    dispatch.seen([replace(one, phase=phase)], WINDOWS)
    assert dispatch.lost({one.id: trace}, WINDOWS, 0) == []
    assert dispatch.lost({one.id: trace}, WINDOWS, seconds - 1) == []
    assert [lost.id for lost, _ in dispatch.lost({one.id: trace}, WINDOWS, seconds)] == [one.id]


@pytest.mark.parametrize(("phase", "trace"), [("scheduled", "none"), ("running", "open")])
def test_a_flow_run_that_waits_its_turn_or_is_at_work_is_never_lost(phase: Phase, trace: Trace) -> None:
    dispatch = Dispatch(jobs=1)
    [one] = sent(dispatch, WINDOWS)
    dispatch.seen([replace(one, phase=phase)], WINDOWS)
    dispatch.lost({one.id: trace}, WINDOWS, 0)
    assert dispatch.lost({one.id: trace}, WINDOWS, 1e6) == []


def test_a_flow_run_whose_window_is_loaded_is_lost_sooner() -> None:
    dispatch = Dispatch(jobs=1)
    [one] = sent(dispatch, WINDOWS)
    dispatch.seen([replace(one, phase="running")], ())
    assert dispatch.lost({}, (), 0) == []
    assert [lost.id for lost, _ in dispatch.lost({}, (), 60)] == [one.id]


def test_a_flow_run_may_wait_for_upstreams_as_long_as_they_are_waited_for() -> None:
    dispatch = Dispatch(jobs=1, waits=3_600)
    [one] = sent(dispatch, WINDOWS)
    dispatch.seen([replace(one, phase="running")], WINDOWS)
    dispatch.lost({}, WINDOWS, 0)
    assert dispatch.lost({}, WINDOWS, 3_779) == []
    assert len(dispatch.lost({}, WINDOWS, 3_780)) == 1


def test_a_flow_run_that_opens_another_attempt_is_not_lost() -> None:
    dispatch = Dispatch(jobs=1)
    [one] = sent(dispatch, WINDOWS)
    dispatch.seen([replace(one, phase="running")], WINDOWS)
    dispatch.lost({one.id: "dead"}, WINDOWS, 0)
    dispatch.lost({one.id: "open"}, WINDOWS, 10)
    dispatch.lost({one.id: "dead"}, WINDOWS, 15)
    assert dispatch.lost({one.id: "dead"}, WINDOWS, 34) == []


ENDS: tuple[Phase, ...] = ("completed", "failed", "crashed", "cancelled")


@effort(few=20, many=2_000)
def test_whatever_happens_no_window_is_under_way_twice_and_every_one_is_loaded_or_told_of(prove: Prove) -> None:
    prove(st.tuples(st.data(), st.integers(1, 4)), comes_to_its_end)


def comes_to_its_end(example: tuple[st.DataObject, int]) -> None:
    data, jobs = example
    server: dict[UUID, Child] = {}
    loaded: set[Window] = set()
    dispatch = Dispatch(jobs)
    kills = data.draw(st.integers(0, 3))
    for _ in range(200):
        to_do = [one for one in WINDOWS if one not in loaded]
        if dispatch.over(to_do):
            break
        if kills and data.draw(st.booleans()):
            kills -= 1
            # Killed, and started again: it knows nothing but what the server has.
            dispatch = Dispatch(jobs)
            dispatch.seen([one for one in server.values() if one.phase in UNDER_WAY], ())
        for one in sent(dispatch, to_do):
            server[one.id] = one
        under_way = [one for one in server.values() if one.phase in UNDER_WAY]
        assert len(under_way) <= jobs
        assert len({one.window for one in under_way}) == len(under_way)
        if under_way:
            ending = data.draw(st.sampled_from(under_way))
            server[ending.id] = replace(ending, phase=data.draw(st.sampled_from(ENDS)))
            # It may crash after its commit, and complete without one.
            if data.draw(st.booleans()):
                loaded.add(ending.window)
        known = [server[id] for id in dispatch.under_way]
        dispatch.seen(known, [one for one in WINDOWS if one not in loaded])
    else:
        raise AssertionError("it does not come to its end")
    assert set(WINDOWS) == loaded | set(dispatch.given_up)
