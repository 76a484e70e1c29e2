"""A year's flights between the demo's source and a warehouse, on a server whose workers tests start and kill."""

import contextlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pandas as pd
import psutil
from adbc_driver_postgresql import dbapi
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from sqlalchemy import Engine, func, select, update

from deployments.demo import replay
from deployments.deployed_run import DeployedRun
from deployments.prefect_server import PrefectServer
from deployments.processes import Process
from tasks.state.tables import backfills, runs, watermarks
from tasks.window import Window
from tests.demo import expected
from tests.deployments.until import until

FIRST = datetime(2013, 1, 1, tzinfo=UTC)
SECONDS = 120.0


@dataclass(frozen=True)
class Backfilling:
    """Flights on a server, and what the ledger and the server know of backfills of them.

    Attributes:
        server: the Prefect server.
        urls: what workers find in their environment.
        operations: the source.
        warehouse: the target.
        home: of the warehouse's cluster.
    """

    server: PrefectServer
    urls: dict[str, str]
    operations: Engine
    warehouse: Engine

    def replay_to(self, clock: datetime) -> None:
        """Let the source's time pass, and the lists that flights refer to be as fresh."""
        replay.replay_to(self.operations, self.server.home / "weather.db", clock)
        loaded = update(watermarks).where(watermarks.c.pipeline.in_(("airports", "planes")))
        with self.warehouse.begin() as connection:
            connection.execute(loaded.values(covered_until=clock))

    def start(self, deployment: str, **parameters: Any) -> DeployedRun:
        """Start a run as a person or a schedule would."""
        there = self.server.client.read_deployment_by_name(deployment)
        made = self.server.client.create_flow_run_from_deployment(there.id, parameters=parameters)
        return DeployedRun(self.server, deployment, made.id)

    def run(self, run: DeployedRun) -> FlowRun:
        """A flow run as the server has it now."""
        return self.server.client.read_flow_run(run.id)

    def windows_of(self, backfill_id: str) -> list[FlowRun]:
        """The flow runs of its windows, the oldest first."""
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"backfill:{backfill_id}"]))
        found: list[FlowRun] = []
        while page := self.server.client.read_flow_runs(flow_run_filter=wanted, limit=200, offset=len(found)):
            found += page
        return sorted(found, key=lambda one: one.created or FIRST)

    def backfill(self) -> Any:
        """The newest row of `etl_backfills`."""
        newest = select(backfills).order_by(backfills.c.started_at.desc()).limit(1)
        with self.warehouse.connect() as connection:
            return connection.execute(newest).one_or_none()

    def commits(self) -> Counter[Window]:
        """How often each explicit window was committed."""
        told = select(runs.c.window_start, runs.c.window_end, func.count()).where(
            runs.c.kind == "explicit", runs.c.status == "committed"
        )
        with self.warehouse.connect() as connection:
            found = connection.execute(told.group_by(runs.c.window_start, runs.c.window_end)).all()
        return Counter({Window(start, end): count for start, end, count in found})

    def has_loaded(self, windows: int) -> bool:
        """Whether so many explicit windows are committed."""
        return len(self.commits()) >= windows

    def attempts(self, status: str) -> list[Window]:
        """The explicit windows that have an attempt of that status, one for each."""
        told = select(runs.c.window_start, runs.c.window_end).where(runs.c.kind == "explicit", runs.c.status == status)
        with self.warehouse.connect() as connection:
            return [Window(start, end) for start, end in connection.execute(told)]

    def process_of(self, run: DeployedRun, worker: Process) -> psutil.Process:
        """The process that `worker` has made for a flow run."""
        found: list[psutil.Process] = []

        def there() -> bool:
            for process in psutil.Process(worker.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
                        found.append(process)
            return bool(found)

        until(f"a process of {run.id}", there, SECONDS)
        return found[-1]

    def equals_the_reference(self, clock: datetime) -> None:
        """The target holds what the source had at `clock`, computed by other means."""
        url = self.warehouse.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM fct_flights")
            rows: pd.DataFrame = cursor.fetch_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
        expected.assert_same_rows(rows, expected.fct_flights_at(clock), ["flight_id"])

    def no_run_is_left(self, backfill_id: str) -> list[UUID]:
        """Flow runs of its windows that have not ended."""
        return [one.id for one in self.windows_of(backfill_id) if one.state is None or not one.state.is_final()]


def kill(process: psutil.Process) -> None:
    """With SIGKILL, and everything it has started."""
    family = [process, *process.children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, 10)
