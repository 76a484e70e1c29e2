"""Pauses that a source asks for, and how long a run stands still for them."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.api import ApiClock
from tasks.extract.http.client import HttpClient
from tasks.extract.http.parallel import in_order
from tasks.extract.http.pauses import pause
from tasks.extract.http.rate import RateLimit
from tasks.extract.http.retry import Retry
from tasks.extract.http.wait_budget import WaitBudget
from tasks.pipeline import Pipeline, run_pipeline
from tasks.run_scope import run_scope
from tests.conftest import Databases
from tests.extract.http.virtual_extract import in_virtual_time
from tests.extract.shop import DAY, HOUR, WHOLE, Serve, ids, record
from tests.paged_api import PagedApi
from tests.scripted_server import Reply, Script, ScriptedServer, Seen
from tests.virtual_time import START, VirtualTime

GOOD = Reply([{"id": 1}])
NOW = int(START.timestamp())
DATE = {"Date": "Tue, 08 Jan 2013 06:00:00 GMT"}
YEARS = str(10 * 365 * 24 * 3600)

ASKING: dict[str, tuple[Mapping[str, str], float]] = {
    "Retry-After in seconds": ({"Retry-After": "30"}, 30),
    "Retry-After as a date": ({"Retry-After": "Tue, 08 Jan 2013 06:00:30 GMT"}, 30),
    "X-RateLimit in seconds": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"}, 30),
    "X-RateLimit in fractions": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "29.5"}, 29.5),
    "X-RateLimit since 1970": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW + 30)}, 30),
    "X-RateLimit in ms": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 30}000"}, 30),
    "X-RateLimit overdrawn": ({"X-RateLimit-Remaining": "-2", "X-RateLimit-Reset": "30"}, 30),
    "X-Rate-Limit": ({"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": str(NOW + 30)}, 30),
    "RateLimit in three fields": ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30),
    "RateLimit": ({"RateLimit": '"default";r=0;t=30'}, 30),
    "RateLimit of two policies": ({"RateLimit": '"minute";r=0;t=5, "day";r=0;t=30, "year";r=7;t=99'}, 30),
    "RateLimit as a dictionary": ({"RateLimit": "limit=10, remaining=0, reset=30"}, 30),
    "the later of two": (
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "20", "RateLimit": '"default";r=0;t=30'},
        30,
    ),
    "Retry-After before a quota": ({"Retry-After": "30", "RateLimit": '"default";r=0;t=99'}, 30),
    "a quota where Retry-After says nothing": ({"Retry-After": "soon", "RateLimit": '"default";r=0;t=30'}, 30),
    # The source's clock is ten minutes behind.
    "since 1970 by the source's clock": (
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW - 570), "Date": "Tue, 08 Jan 2013 05:50:00 GMT"},
        30,
    ),
}

NOT_ASKING: dict[str, Mapping[str, str]] = {
    "nothing said": {},
    "something left": {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "30"},
    "no reset": {"X-RateLimit-Remaining": "0"},
    "no remaining": {"X-RateLimit-Reset": "30"},
    "a word": {"X-RateLimit-Remaining": "none", "X-RateLimit-Reset": "30"},
    "a reset gone by": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW - 1)},
    "a reset now": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"},
    "Retry-After of 0": {"Retry-After": "0"},
    "Retry-After gone by": {"Retry-After": "Tue, 08 Jan 2013 05:59:30 GMT"},
    "Retry-After of 0 beside a quota": {"Retry-After": "0", "RateLimit": '"default";r=0;t=30'},
    "RateLimit with something left": {"RateLimit": '"default";r=3;t=30'},
    "RateLimit without a time": {"RateLimit": '"default";r=0'},
    "RateLimit of truth values": {"RateLimit": '"default";r=?0;t=30'},
    "RateLimit without parameters": {"RateLimit": '"default"'},
    "RateLimit that is none": {"RateLimit": 'default";;r=0'},
    "RateLimit beyond ASCII": {"RateLimit": '"défaut";r=0;t=30'},
}


@pytest.mark.parametrize("form", ASKING)
def test_each_form_is_understood(form: str) -> None:
    headers, seconds = ASKING[form]
    lower = {name.lower(): value for name, value in headers.items()}
    assert pause(lower, START) == seconds


@pytest.mark.parametrize("form", NOT_ASKING)
def test_what_asks_for_nothing_or_cannot_be_read_is_no_pause(form: str) -> None:
    lower = {name.lower(): value for name, value in NOT_ASKING[form].items()}
    assert (pause(lower, START) or 0) <= 0


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_no_header_whatever_it_holds_is_an_error(field: str, remaining: str, reset: str) -> None:
    pause({"ratelimit": field, "x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset}, START)


def waits(script: Script, requests: int = 2, **client_args: object) -> list[float]:
    """What a client sleeps that asks so often."""
    time = VirtualTime()
    with ScriptedServer(script) as server, in_time(server, time, **client_args) as client:
        for _ in range(requests):
            client.get_json("/a")
    return time.slept


def in_time(server: ScriptedServer, time: VirtualTime, **client_args: object) -> HttpClient:
    return HttpClient(server.url, sleep=time.sleep, moment=time.moment, clock=time.clock, **client_args)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ASKING)
def test_a_good_answer_that_asks_for_a_pause_makes_the_next_request_wait(form: str) -> None:
    headers, seconds = ASKING[form]
    assert waits({"/a": [Reply([], headers=headers), GOOD]}) == [seconds]


@pytest.mark.parametrize("form", ASKING)
def test_a_refused_request_waits_as_long_as_any_header_asks(form: str) -> None:
    headers, seconds = ASKING[form]
    assert waits({"/a": [Reply(status=429, headers=headers), GOOD]}, 1) == [seconds]


@pytest.mark.parametrize("form", NOT_ASKING)
def test_a_good_answer_that_asks_for_nothing_leaves_the_next_request_alone(form: str) -> None:
    if NOT_ASKING[form].get("RateLimit", "").isascii():
        assert waits({"/a": [Reply([], headers=NOT_ASKING[form]), GOOD]}) == []


def test_the_last_answer_of_a_run_makes_nobody_wait() -> None:
    assert waits({"/a": [Reply([], headers={"Retry-After": "30"})]}, 1) == []


def test_a_redirect_that_asks_for_a_pause_is_followed_after_it() -> None:
    moved = Reply(status=302, headers={"Location": "/b", "Retry-After": "30"})
    assert waits({"/a": [moved], "/b": [GOOD]}, 1) == [30]


def test_a_shorter_pause_that_is_asked_for_later_takes_nothing_from_a_longer_one() -> None:
    time = VirtualTime()
    with (
        run_scope(),
        ScriptedServer({"/a": [Reply([], headers={"Retry-After": "30"})], "/b": [Reply([])]}) as server,
        in_time(server, time) as client,
    ):
        client.get_json("/a")
        client._waiting.heed({"retry-after": "1"}, START)
        client.get_json("/b")
    assert time.slept == [30]


def test_a_pause_asked_of_one_thread_holds_back_all_eight() -> None:
    time, moments = VirtualTime(8), list[float]()
    first = threading.Event()

    def answer(seen: Seen) -> Reply:
        moments.append(time.moment())
        return Reply(status=429, headers={"Retry-After": "30"}) if len(moments) == 1 else GOOD

    def sleep(seconds: float) -> None:
        first.set()
        time.sleep(seconds)

    def ask(url: str, number: int) -> None:
        retry = Retry(first=timedelta(0))
        with time.leaving(), HttpClient(url, sleep=sleep, moment=time.moment, retry=retry) as client:
            # The others begin when the first is about to wait.
            assert number == 0 or first.wait(60)
            client.get_json("/a")

    with ScriptedServer(answer) as server, run_scope(), ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(copy_context().run, ask, server.url, number) for number in range(8)]:
            future.result()
    assert moments == [0] + [30] * 8


def test_a_pause_holds_back_a_thread_that_already_waits_for_its_turn() -> None:
    time, moments = VirtualTime(2), list[float]()

    def answer(seen: Seen) -> Reply:
        moments.append(time.moment())
        return Reply([], headers={"Retry-After": "30"} if len(moments) == 1 else {})

    def ask(url: str) -> None:
        with time.leaving(), HttpClient(url, rate=RateLimit(1), sleep=time.sleep, moment=time.moment) as client:
            client.get_json("/a")

    with ScriptedServer(answer) as server, run_scope(), ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(copy_context().run, ask, server.url) for _ in range(2)]:
            future.result()
    assert moments == [0, 30]


def test_who_waits_for_its_turn_stops_when_nobody_wants_the_answer() -> None:
    began = threading.Event()

    with ScriptedServer({"/a": [GOOD]}) as server, HttpClient(server.url) as client:
        client._waiting.heed({"retry-after": "1000"}, START)

        def ask() -> Iterator[object]:
            began.set()
            yield client.get_json("/a")

        items = in_order([lambda: iter([None]), ask], 2)
        assert next(items) is None
        assert began.wait(60)
        items.close()  # type: ignore[attr-defined]
        assert server.seen == []


def test_after_a_pause_the_pace_is_kept_and_nothing_was_saved_up() -> None:
    time, moments = VirtualTime(), list[float]()

    def answer(seen: Seen) -> Reply:
        moments.append(time.moment())
        return Reply([], headers={"Retry-After": "30"} if len(moments) == 1 else {})

    with ScriptedServer(answer) as server, in_time(server, time, rate=RateLimit(1)) as client:
        for _ in range(4):
            client.get_json("/a")
    assert moments == [0, 30, 31, 32]


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": YEARS},
        {"Retry-After": "9" * 400},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW + int(YEARS))},
        {"RateLimit": f'"default";r=0;t={YEARS}'},
    ],
    ids=["Retry-After", "a number without end", "X-RateLimit", "RateLimit"],
)
def test_a_pause_of_years_is_not_waited_for_and_says_what_allows_more(headers: dict[str, str]) -> None:
    time = VirtualTime()
    with ScriptedServer({"/a": [Reply([], headers=headers)]}) as server, in_time(server, time) as client:
        client.get_json("/a")
        with pytest.raises(SourceError) as caught:
            client.get_json("/a")
        assert len(server.seen) == 1
    assert time.slept == []
    for part in (
        f"GET {server.url}/a is not sent: the source asks for a pause. It has to wait",
        "1,800.0 s are left of the 1,800.0 s",
        "Retry(run_budget=…)",
    ):
        assert part in str(caught.value)


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
