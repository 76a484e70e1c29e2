"""A real Prefect server, the demo's sources and a worker, started once for these tests, and only when asked for."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from deployments import schedules
from deployments.demo import replay
from deployments.demo.weather_api import WeatherApi
from deployments.prefect_server import PrefectServer, Worker
from deployments.processes import leftovers
from tasks.settings import url_variable

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
