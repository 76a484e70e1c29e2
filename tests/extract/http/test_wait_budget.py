"""How long a run stands still for its source, and how it ends when that is too long."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.api import ApiClock
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pace.wait_budget import WaitBudget
from tasks.pipeline import Pipeline, run_pipeline
from tasks.run_scope import run_scope
from tests.conftest import Databases
from tests.extract.http.virtual_clients import in_time, in_virtual_time, waits
from tests.extract.shop import DAY, HOUR, WHOLE, Serve, ids, record
from tests.paged_api import PagedApi
from tests.scripted_server import Reply, ScriptedServer, Seen
from tests.virtual_time import START, VirtualTime

GOOD = Reply([{"id": 1}])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=20), st.integers(0, 40))
def test_a_budget_counts_each_second_once_and_never_more_than_there_are(
    waits: list[tuple[int, int]], seconds: int
) -> None:
    budget, now, waited = WaitBudget(seconds), 0, set[int]()
    for gap, length in waits:
        now += gap
        more = waited | set(range(now, now + length))
        assert budget.spend(now, now + length) == (len(more) <= seconds)
        waited = more if len(more) <= seconds else waited
        assert budget.left == seconds - len(waited)


def test_a_budget_is_never_overspent_by_threads() -> None:
    budget, together = WaitBudget(100), threading.Barrier(8)

    def spend(thread: int) -> int:
        together.wait(60)
        return sum(budget.spend(moment, moment + 1) for moment in range(1_000))

    with ThreadPoolExecutor(8) as threads:
        granted = list(threads.map(spend, range(8)))
    # Each second that one paid for was free for those behind.
    assert budget.left >= 0
    assert max(granted) <= 1_000


def test_retries_and_pauses_are_paid_from_one_budget() -> None:
    refused = Reply(status=503, headers={"Retry-After": "20"})
    retry = Retry(first=timedelta(0), run_budget=timedelta(seconds=45))
    time = VirtualTime()
    with (
        ScriptedServer({"/a": [refused, Reply([], headers={"Retry-After": "20"}), GOOD, refused]}) as server,
        in_time(server, time, retry=retry) as client,
    ):
        client.get_json("/a")
        client.get_json("/a")
        with pytest.raises(SourceError) as caught:
            client.get_json("/a")
    assert time.slept == [20, 20]
    for part in ("failed 1 times, last with 503", "has to wait 20.0 s", "5.0 s are left of the 45.0 s"):
        assert part in str(caught.value)


def test_eight_threads_that_wait_for_the_same_pause_pay_for_it_once() -> None:
    time, together = VirtualTime(8), threading.Barrier(8)
    retry = Retry(run_budget=timedelta(seconds=30))

    def ask(url: str) -> None:
        with time.leaving(), HttpClient(url, sleep=time.sleep, moment=time.moment, retry=retry) as client:
            client._waiting.heed({"retry-after": "30"}, START)
            together.wait(60)
            client.get_json("/a")

    with ScriptedServer({"/a": [GOOD]}) as server, run_scope(), ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(copy_context().run, ask, server.url) for _ in range(8)]:
            future.result()
    assert time.slept == [30] * 8


def test_the_declared_pace_costs_nothing_of_the_budget() -> None:
    retry = Retry(run_budget=timedelta(0))
    slept = waits({"/a": [GOOD]}, 4, rate=RateLimit(1, timedelta(minutes=10)), retry=retry)
    assert slept == [600] * 3


def test_a_negative_budget_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="run_budget"):
        Retry(run_budget=timedelta(seconds=-1))


class Busy:
    """Refuses the first request of each window, and asks for a pause."""

    def __init__(self, seconds: int, status: int = 429) -> None:
        self.reply = Reply(status=status, headers={"Retry-After": str(seconds)})
        self.refused: set[str] = set()

    def __call__(self, seen: Seen) -> Reply | None:
        if seen.target.startswith("/clock"):
            return Reply({"now": (DAY + 24 * HOUR).isoformat()})
        if seen.params["since"] in self.refused:
            return None
        self.refused.add(seen.params["since"])
        return self.reply


def by_windows(time: VirtualTime, retry: Retry) -> Pipeline:
    extract = in_virtual_time(
        time,
        cursor="at",
        start_param="since",
        end_param="until",
        clock=ApiClock("clock", "now"),
        initial=DAY,
        retry=retry,
    )
    return replace(WHOLE, extract=extract, split=6 * HOUR, max_attempts=3)


def test_the_windows_of_a_run_spend_one_budget_and_the_run_fails_at_once(sqlite: Databases, serve: Serve) -> None:
    time = VirtualTime()
    server = serve(PagedApi([record(number, number) for number in range(24)], size=30, before=Busy(10)))
    with pytest.raises(SourceError, match=r"5\.0 s are left of the 35\.0 s"):
        run_pipeline(by_windows(time, Retry(first=timedelta(0), run_budget=timedelta(seconds=35))))
    # Three windows are in; the fourth was asked for once, and not again by another attempt.
    assert time.slept == [10, 10, 10]
    assert ids(sqlite.target) == list(range(18))
    since = [seen.params["since"][11:13] for seen in server.seen if not seen.target.startswith("/clock")]
    assert sorted(set(since)) == ["00", "06", "12", "18"]
    assert since.count("18") == 1


def test_the_next_run_has_a_budget_of_its_own(sqlite: Databases, serve: Serve) -> None:
    time = VirtualTime()
    serve(PagedApi([record(number, number) for number in range(24)], size=30, before=Busy(10)))
    pipeline = by_windows(time, Retry(first=timedelta(0), run_budget=timedelta(seconds=35)))
    with pytest.raises(SourceError):
        run_pipeline(pipeline)
    run_pipeline(pipeline)
    assert ids(sqlite.target) == list(range(24))


def test_the_attempts_at_a_window_spend_one_budget(sqlite: Databases, serve: Serve) -> None:
    time = VirtualTime()

    def refuse(seen: Seen) -> Reply | None:
        return Reply(status=429, headers={"Retry-After": "10"})

    server = serve(PagedApi([record(1)], before=refuse))
    retry = Retry(attempts=2, first=timedelta(0), run_budget=timedelta(seconds=35))
    with pytest.raises(SourceError, match=r"5\.0 s are left of the 35\.0 s"):
        run_pipeline(replace(WHOLE, extract=in_virtual_time(time, retry=retry), max_attempts=9))
    # Each attempt at the window asks twice, and after its second answer the next one waits, too.
    assert time.slept == [10, 10, 10]
    assert len(server.seen) == 4


def test_a_pause_too_long_for_a_request_is_not_broken_by_the_next_attempt(sqlite: Databases, serve: Serve) -> None:
    time, moments = VirtualTime(), list[float]()

    def refuse(seen: Seen) -> Reply | None:
        moments.append(time.moment())
        return Reply(status=429, headers={"Retry-After": "600"}) if len(moments) == 1 else None

    serve(PagedApi([record(1)], before=refuse))
    run_pipeline(replace(WHOLE, extract=in_virtual_time(time, retry=Retry()), max_attempts=2))
    assert ids(sqlite.target) == [1]
    assert moments[:2] == [0, 600]


def test_without_a_run_the_budget_is_the_clients() -> None:
    script = {"/a": [Reply([], headers={"Retry-After": "20"})]}
    for _ in range(3):
        assert waits(script, retry=Retry(run_budget=timedelta(seconds=20))) == [20]


def test_exhausted_attempts_stay_worth_another_attempt_at_the_window() -> None:
    with pytest.raises(SourceUnavailable, match="failed 2 times"):
        waits({"/a": [Reply(status=503)]}, 1, retry=Retry(attempts=2, first=timedelta(0)))
