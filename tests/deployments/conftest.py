"""A real Prefect server, the demo's sources and a worker, started once for these tests, and only when asked for."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from sqlalchemy import Engine, create_engine

from deployments import schedules
from deployments.demo import replay
from deployments.demo.weather_api import WeatherApi
from deployments.prefect_server import PrefectServer, Worker
from deployments.processes import leftovers
from tasks.settings import url_variable
from tests.deployments.trial.project import Trial

CANARY = "canary-0815-of-a-secret"
"""A secret that must not turn up anywhere."""

_SCHEDULE_OFTEN = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2"}
"""The scheduler looks for runs to create once a minute, unless it is told to."""


@dataclass(frozen=True)
class Sources:
    """The demo's two source systems, apart from the demo."""

    operations: Engine
    weather_file: Path
    weather_api: WeatherApi

    def replay_to(self, when: datetime) -> None:
        replay.replay_to(self.operations, self.weather_file, when)


@pytest.fixture(scope="package")
def prefect_server() -> Iterator[PrefectServer]:
    """A server with a cluster of its own, everything in prefect.yaml deployed, and no process left behind it."""
    home = Path(tempfile.mkdtemp(prefix="tidegate-server-"))
    with PrefectServer(home, _SCHEDULE_OFTEN) as server:
        server.deploy()
        yield server
    assert leftovers(home) == []
    shutil.rmtree(home)


@pytest.fixture(scope="package")
def sources(prefect_server: PrefectServer) -> Iterator[Sources]:
    """The sources at the beginning of 2013, in the server's cluster."""
    prefect_server.cluster.ensure_database("operations")
    operations = create_engine(prefect_server.cluster.url("operations"))
    file = prefect_server.home / "weather.db"
    replay.build(operations, file)
    with WeatherApi(prefect_server.home, file) as api:
        yield Sources(operations, file, api)
    operations.dispose()


@pytest.fixture(scope="package")
def warehouse(prefect_server: PrefectServer) -> Iterator[Engine]:
    """Where deployed flows load to."""
    prefect_server.cluster.ensure_database("warehouse")
    engine = create_engine(prefect_server.cluster.url("warehouse"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="package")
def worker(prefect_server: PrefectServer, sources: Sources) -> Iterator[Worker]:
    """A worker on the sources; schedules are off, so that nothing runs but what a test starts."""
    schedules.pause(prefect_server.client)
    with Worker(prefect_server, {url_variable("weather_api"): sources.weather_api.url}) as running:
        yield running


@pytest.fixture
def trial(prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A project of its own, deployed in this process; the server holds nothing of it before and after."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    monkeypatch.setenv("TIDEGATE_SECRET_TRIAL_KEY", CANARY)
    monkeypatch.setenv("TIDEGATE_TRIAL_WAREHOUSE_URL", f"postgresql+psycopg://loader:{CANARY}@db.example/warehouse")
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        made = Trial(tmp_path, prefect_server.client)
        yield made
        made.remove()
