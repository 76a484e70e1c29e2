"""A rate that processes share by a global concurrency limit of a real Prefect server."""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from deployments.prefect_server import PROJECT, PrefectServer
from tasks.errors import ConfigError
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.rate import RateLimit
from tests.scripted_server import Reply, ScriptedServer, Seen

pytestmark = pytest.mark.prefect

PER_SECOND = 10
REQUESTS = 10

# Alone, each would be through in a tenth of a second.
PROGRAM = f"""
import sys
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.rate import RateLimit

with HttpClient(sys.argv[1], rate=RateLimit(100, shared="shop-together")) as client:
    for _ in range({REQUESTS}):
        client.get_json("/a")
"""


@pytest.fixture
def server(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield prefect_server
        EventsWorker.drain_all()


def ask(rate: RateLimit) -> int:
    """How many requests reached the source."""
    with ScriptedServer({"/a": [Reply([])]}) as source:
        with HttpClient(source.url, rate=rate) as client:
            client.get_json("/a")
        return len(source.seen)


def test_two_processes_keep_one_rate_together(server: PrefectServer) -> None:
    server.prefect("gcl", "create", "shop-together", "--limit", "1", "--slot-decay-per-second", str(PER_SECOND))
    moments: list[float] = []

    def answer(seen: Seen) -> Reply:
        moments.append(time.monotonic())
        return Reply([])

    with ScriptedServer(answer) as source:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, source.url],
                env={**server.environment, **server.client_environment},
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        try:
            assert [process.wait(120) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
    assert len(moments) == 2 * REQUESTS
    # The first may have arrived late; each process by itself would take half as long.
    assert moments[-1] - moments[0] >= 0.75 * (2 * REQUESTS - 1) / PER_SECOND


@pytest.mark.smoke
def test_an_absent_limit_is_a_config_error_and_nothing_is_asked(server: PrefectServer) -> None:
    with ScriptedServer({"/a": [Reply([])]}) as source:
        client = HttpClient(source.url, rate=RateLimit(120, timedelta(minutes=1), burst=3, shared="shop-absent"))
        with client, pytest.raises(ConfigError) as caught:
            client.get_json("/a")
        assert source.seen == []
    assert "no global concurrency limit 'shop-absent'" in str(caught.value)
    assert "prefect gcl create shop-absent --limit 3 --slot-decay-per-second 2" in str(caught.value)


def test_the_command_that_an_error_names_creates_the_limit(server: PrefectServer) -> None:
    rate = RateLimit(100, burst=3, shared="shop by command")
    server.prefect(*shlex.split(rate.create_command)[1:])
    assert ask(rate) == 1


def test_a_limit_without_slot_decay_is_a_config_error(server: PrefectServer) -> None:
    server.client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="shop-undecaying", limit=1))
    with pytest.raises(ConfigError, match="'shop-undecaying' cannot be used as a rate"):
        ask(RateLimit(1, shared="shop-undecaying"))


def test_a_disabled_limit_lets_everything_through(server: PrefectServer) -> None:
    server.client.create_global_concurrency_limit(
        GlobalConcurrencyLimitCreate(name="shop-disabled", limit=1, active=False, slot_decay_per_second=0.01)
    )
    rate = RateLimit(100, shared="shop-disabled")
    assert [ask(rate) for _ in range(2)] == [1, 1]
