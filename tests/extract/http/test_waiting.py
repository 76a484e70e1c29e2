"""Pauses that a source asks for, and how long a run stands still for them."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import SourceError
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.pauses import pause
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.parallel import in_order
from tasks.run_scope import run_scope
from tests.extract.http.virtual_clients import in_time, waits
from tests.scripted_server import Reply, ScriptedServer, Seen
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
