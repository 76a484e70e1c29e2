"""The pace of requests: the bucket alone, and in a client, in threads and in a run."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.rate import RateLimit, TokenBucket
from tasks.extract.http.pace.retry import Retry
from tasks.pipeline import run_pipeline
from tasks.run_scope import run_scope
from tests.conftest import Databases
from tests.extract.http.virtual_clients import in_virtual_time
from tests.extract.shop import WHOLE, Serve, ids, record
from tests.paged_api import PagedApi
from tests.scripted_server import Reply, ScriptedServer, Seen
from tests.virtual_time import VirtualTime

GOOD = Reply([{"id": 1}])
NO_JITTER = Retry(first=timedelta(0))

RATES = st.builds(
    RateLimit, st.integers(1, 9), st.sampled_from([timedelta(seconds=1), timedelta(minutes=7)]), burst=st.integers(1, 6)
)
GAPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 1_000)), max_size=40)


def passed(rate: RateLimit, gaps: Sequence[float]) -> list[tuple[float, float]]:
    """When each of the arrivals came and was let through, one after the other."""
    bucket = TokenBucket(rate)
    done: list[tuple[float, float]] = []
    arrival = 0.0
    for gap in gaps:
        arrival += gap
        now = max(arrival, done[-1][1] if done else arrival)
        while (moment := bucket.take(now)) > now:
            now = moment
        done.append((arrival, now))
    return done


@given(RATES, GAPS)
@example(RateLimit(3), [0.0] * 9)
def test_no_period_lets_more_through_than_requests_and_burst(rate: RateLimit, gaps: list[float]) -> None:
    moments = [moment for _, moment in passed(rate, gaps)]
    for number, first in enumerate(moments):
        inside = [moment for moment in moments[number:] if moment <= first + rate.per.total_seconds()]
        assert len(inside) <= rate.requests + rate.burst


@given(RATES, GAPS)
def test_with_a_burst_of_one_no_period_sees_more_than_the_requests(rate: RateLimit, gaps: list[float]) -> None:
    rate = replace(rate, burst=1)
    moments = [moment for _, moment in passed(rate, gaps)]
    for number, first in enumerate(moments):
        inside = [moment for moment in moments[number:] if moment < first + rate.per.total_seconds() - 1e-6]
        assert len(inside) <= rate.requests


@given(RATES, GAPS)
def test_nobody_waits_longer_than_the_rate_demands(rate: RateLimit, gaps: list[float]) -> None:
    done = passed(rate, gaps)
    for number, (arrival, moment) in enumerate(done):
        # What came before allows it from then on: so many spacings later, less what may come in a burst.
        earliest = [
            before + (number - other + 1 - rate.burst) * rate.spacing for other, (_, before) in enumerate(done[:number])
        ]
        in_turn = done[number - 1][1] if number else arrival
        assert moment == pytest.approx(max([arrival, in_turn, *earliest]), abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": 0},
        {"requests": 1, "burst": 0},
        {"requests": 1, "per": timedelta(0)},
        {"requests": 1, "shared": " "},
    ],
    ids=str,
)
def test_a_rate_of_nothing_is_a_config_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="RateLimit"):
        RateLimit(**wrong)


def arrivals(
    rate: RateLimit, script: Callable[[Seen], Reply], ask: Callable[[HttpClient], object], **client_args: Any
) -> list[float]:
    """When the requests arrived that `ask` makes."""
    time, moments = VirtualTime(), list[float]()

    def answer(seen: Seen) -> Reply:
        moments.append(time.moment())
        return script(seen)

    with (
        ScriptedServer(answer) as server,
        HttpClient(server.url, rate=rate, sleep=time.sleep, moment=time.moment, **client_args) as client,
    ):
        ask(client)
    return moments


def test_requests_of_a_client_are_spread_evenly() -> None:
    moments = arrivals(RateLimit(4), lambda _: GOOD, lambda client: [client.get_json("/a") for _ in range(6)])
    assert moments == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1.25])


def test_a_burst_goes_first() -> None:
    rate = RateLimit(2, burst=3)
    moments = arrivals(rate, lambda _: GOOD, lambda client: [client.get_json("/a") for _ in range(5)])
    assert moments == pytest.approx([0, 0, 0, 0.5, 1])


def test_retries_and_redirects_keep_the_pace_too() -> None:
    replies = iter([Reply(status=503), Reply(status=302, headers={"Location": "/b"}), Reply(fault="reset"), GOOD, GOOD])
    moments = arrivals(
        RateLimit(1, timedelta(seconds=10)),
        lambda _: next(replies),
        lambda client: [client.get_json("/a"), client.get_json("/a")],
        retry=NO_JITTER,
    )
    assert moments == pytest.approx([0, 10, 20, 30, 40])


@pytest.mark.parametrize("copied", [True, False], ids=["with its extensions", "without"])
def test_what_an_auth_asks_for_by_itself_keeps_the_pace_too(copied: bool) -> None:
    class Refreshing(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            extensions = dict(request.extensions) if copied else None
            yield httpx.Request("POST", request.url.join("/login"), extensions=extensions)
            response = yield request
            if response.status_code == 401:
                yield httpx.Request("POST", request.url.join("/token"), extensions=extensions)
                yield request

    replies = iter([Reply(b"{}"), Reply(status=401), Reply(b"{}"), GOOD])
    moments = arrivals(RateLimit(1), lambda _: next(replies), lambda client: client.get_json("/a"), auth=Refreshing())
    assert moments == pytest.approx([0, 1, 2, 3])


def test_what_an_auth_asks_of_another_origin_is_not_paced() -> None:
    class LoggingIn(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            yield httpx.Request("POST", f"{elsewhere.url}/login", extensions=dict(request.extensions))
            yield request

    asks = Reply(b"{}", headers={"Retry-After": "30"})
    with ScriptedServer({"/login": [asks]}) as elsewhere:
        moments = arrivals(
            RateLimit(1), lambda _: GOOD, lambda client: [client.get_json("/a") for _ in range(2)], auth=LoggingIn()
        )
    assert moments == pytest.approx([0, 1])


def test_eight_threads_of_a_run_share_one_pace() -> None:
    time, moments = VirtualTime(8), list[float]()

    def answer(seen: Seen) -> Reply:
        moments.append(time.moment())
        return GOOD

    def ask(url: str) -> None:
        with time.leaving(), HttpClient(url, rate=RateLimit(4), sleep=time.sleep, moment=time.moment) as client:
            for _ in range(3):
                client.get_json("/a")

    with ScriptedServer(answer) as server, run_scope(), ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(copy_context().run, ask, server.url) for _ in range(8)]:
            future.result()
    assert sorted(moments) == pytest.approx([number / 4 for number in range(24)])


def test_two_sources_of_a_run_have_a_pace_each() -> None:
    time = VirtualTime()
    with run_scope(), ScriptedServer({"/a": [GOOD]}) as one, ScriptedServer({"/a": [GOOD]}) as two:
        for server in (one, two):
            with HttpClient(server.url, rate=RateLimit(1), sleep=time.sleep, moment=time.moment) as client:
                client.get_json("/a")
    assert time.slept == []


def test_the_windows_and_attempts_of_a_run_keep_one_pace(sqlite: Databases, serve: Serve) -> None:
    time, moments = VirtualTime(), list[float]()

    def before(seen: Seen) -> Reply | None:
        moments.append(time.moment())
        return Reply(status=500) if len(moments) == 6 else None

    serve(PagedApi([record(number) for number in range(100)], before=before))
    extract = in_virtual_time(time, rate=RateLimit(2), retry=Retry(attempts=1), checkpoint=2)
    report = run_pipeline(replace(WHOLE, extract=extract, max_attempts=2))
    assert ids(sqlite.target) == list(range(100))
    assert len(report.windows) > 2
    # One page failed, and one was read again to see that it is what it was.
    assert len(moments) >= 12
    assert [later - sooner for sooner, later in pairwise(moments)] == pytest.approx([0.5] * (len(moments) - 1))


def test_an_extract_hands_its_rate_to_its_client(serve: Serve) -> None:
    serve({})
    rate = RateLimit(3)
    with replace(WHOLE.extract, rate=rate).client() as client:  # type: ignore[type-var,union-attr]
        assert client._waiting._rate == rate


def test_a_shared_rate_without_a_prefect_server_is_a_config_error() -> None:
    with (
        ScriptedServer({"/a": [GOOD]}) as server,
        HttpClient(server.url, rate=RateLimit(1, shared="shop")) as client,
        pytest.raises(ConfigError, match="'shop' is kept by a Prefect server, and none is named"),
    ):
        client.get_json("/a")
    assert server.seen == []


def test_the_command_that_creates_a_shared_rate_has_its_burst_and_its_pace() -> None:
    rate = RateLimit(90, timedelta(minutes=1), burst=5, shared="shop api")
    assert rate.create_command == "prefect gcl create 'shop api' --limit 5 --slot-decay-per-second 1.5"
