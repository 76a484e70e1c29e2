"""A deployed flights run, killed at random instants of its life: nothing is torn, and the next run makes it good."""

import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import psutil
import pytest
from adbc_driver_postgresql import dbapi
from sqlalchemy import Engine, NullPool, create_engine, inspect, select, update

from deployments import schedules
from deployments.demo import replay
from deployments.deployed_run import DeployedRun
from deployments.prefect_server import PrefectServer, Worker
from deployments.processes import leftovers
from flows import airports, planes
from tasks import connections
from tasks.embedded import EmbeddedPostgres
from tasks.pipeline import run_pipeline
from tasks.settings import url_variable
from tasks.state.tables import COUNTS, dead_letters, runs, watermarks, windows
from tests.crash.templates import ClusterHome
from tests.demo import expected
from tests.servers.cluster import remove_folder

FIRST = datetime(2013, 1, 15, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANTS = 20
SEED = 20130115
NOTHING = "nothing, it had ended:"

_SECONDS = 120.0


@dataclass(frozen=True)
class Deployed:
    """The flights flow on a Prefect server and worker, between the demo's source and a warehouse of its own.

    The warehouse has a server of its own, so that one of its backends can be killed and Prefect's stay up.
    """

    server: PrefectServer
    worker: Worker
    operations: Engine
    weather_file: Path
    warehouse_server: EmbeddedPostgres
    warehouse: Engine

    def replay_to(self, clock: datetime) -> None:
        """Let the source's time pass, and the lists that flights refer to be loaded in every night of it."""
        replay.replay_to(self.operations, self.weather_file, clock)
        loaded = update(watermarks).where(watermarks.c.pipeline.in_(("airports", "planes")))
        with self.warehouse.begin() as connection:
            connection.execute(loaded.values(covered_until=clock))

    def start(self) -> tuple[DeployedRun, psutil.Process]:
        """A run of the deployment, and the process the worker has just made for it."""
        deployment = self.server.client.read_deployment_by_name("flights/flights")
        flow_run = self.server.client.create_flow_run_from_deployment(deployment.id)
        run = DeployedRun(self.server, "flights/flights", flow_run.id)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            for process in psutil.Process(self.worker.pid).children():
                try:
                    if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
                        return run, process
                except psutil.Error:
                    continue
            time.sleep(0.01)
        raise AssertionError(f"the worker made no process for {run.id} in {_SECONDS} s")

    def sessions(self) -> list[psutil.Process]:
        """The warehouse's server backends."""
        processes = psutil.Process(self.warehouse_server.pid).children()
        return [process for process in processes if " warehouse " in _title(process)]

    def kill_backends(self) -> str:
        """Kill the warehouse's sessions with SIGKILL, or another process of its server where there is none."""
        # The server ends the others when it sees the first of them die.
        if killed := sum(_kill(process) for process in self.sessions()):
            return f"{killed} server backends killed"
        processes = psutil.Process(self.warehouse_server.pid).children()
        assert any(_kill(process) for process in processes if "walwriter" in _title(process))
        return "the server killed while it had no session"

    def wait_until_quiet(self) -> None:
        ClusterHome(self.warehouse_server).wait_until_quiet(self.warehouse.url.render_as_string(hide_password=False))

    def holds(self, clock: datetime) -> bool:
        """Whether target, dead letters and watermark are what a run at `clock` leaves; False for a mixture."""
        url = self.warehouse_server.url("warehouse", "postgresql")
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM fct_flights")
            rows: pd.DataFrame = cursor.fetch_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
        with self.warehouse.connect() as connection:
            open_letters = select(dead_letters.c.row_key).where(
                dead_letters.c.pipeline == "flights", dead_letters.c.status == "open"
            )
            letters = set(connection.execute(open_letters).scalars())
            mark = connection.execute(select(watermarks).where(watermarks.c.pipeline == "flights")).one()
        loaded = expected.fct_flights_at(clock)
        extracted = expected.flights_at(clock)
        if letters != set(extracted["flight_id"]) - set(loaded["flight_id"]):
            return False
        if (mark.watermark, mark.covered_until) != (expected.flights_watermark(clock).isoformat(), clock):
            return False
        try:
            expected.assert_same_rows(rows, loaded, ["flight_id"])
        except AssertionError:
            return False
        return True

    def ledger(self, run: DeployedRun) -> list[str]:
        """The statuses of a flow run's attempts, as the ledger and the windows both have them."""
        joined = runs.join(windows, runs.c.attempt == windows.c.attempt)
        statement = select(runs.c.status, windows.c.status).select_from(joined).order_by(runs.c.started_at)
        with self.warehouse.connect() as connection:
            found = connection.execute(statement.where(runs.c.flow_run_id == str(run.id))).all()
        assert all(entry == window for entry, window in found), found
        return [entry for entry, _ in found]

    def terms(self, run: DeployedRun) -> dict[str, int]:
        """The committed terms of a flow run."""
        statement = select(*(runs.c[name] for name in COUNTS)).where(
            runs.c.flow_run_id == str(run.id), runs.c.status == "committed"
        )
        with self.warehouse.connect() as connection:
            return dict(connection.execute(statement).one()._mapping)

    def staging(self) -> list[str]:
        names = inspect(self.warehouse).get_table_names()
        return [name for name in names if name.startswith(("etl_staged_", "etl_rejected_"))]


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """Everything started and deployed, the dimensions loaded; nothing of it left afterwards."""
    home = Path(tempfile.mkdtemp(prefix="tidegate-kills-"))
    warehouse_server = EmbeddedPostgres(home / "warehouse").use()
    warehouse_server.ensure_database("warehouse")
    with PrefectServer(home) as server:
        server.cluster.ensure_database("operations")
        urls = {
            url_variable("operations"): server.cluster.url("operations"),
            url_variable("warehouse"): warehouse_server.url("warehouse"),
        }
        with pytest.MonkeyPatch.context() as environment:
            for name, url in urls.items():
                environment.setenv(name, url)
            operations, file = connections.engine("operations"), home / "weather.db"
            replay.build(operations, file)
            replay.replay_to(operations, file, FIRST)
            run_pipeline(airports.PIPELINE)
            run_pipeline(planes.PIPELINE)
            connections.dispose()
        server.deploy()
        schedules.pause(server.client)
        with Worker(server, urls, query_seconds=0.5) as worker:
            source, target = (create_engine(url, poolclass=NullPool) for url in urls.values())
            yield Deployed(server, worker, source, file, warehouse_server, target)
    warehouse_server.release()
    assert leftovers(home) == []
    remove_folder(home)


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(1800)
def test_a_deployed_run_killed_at_any_instant_tears_nothing_and_the_next_run_makes_it_good(deployed: Deployed) -> None:
    chance = random.Random(SEED)
    _complete(deployed)  # the first run fills empty tables
    clock = FIRST + DAY
    deployed.replay_to(clock)
    lives = [_complete(deployed)[1:]]
    assert deployed.holds(clock)
    print(f"seed {SEED}")
    number = drawn = 0
    while number < INSTANTS:
        drawn += 1
        assert drawn <= 2 * INSTANTS, "half of the instants came after the process had ended"
        before, clock = clock, clock + DAY
        deployed.replay_to(clock)
        # Most of a process's life goes into imports, so every second instant is one of its work.
        at_work = number % 4 >= 2
        # Measured anew with every undisturbed run, for what else the machine does changes.
        seconds = statistics.median(work if at_work else life for life, work in lives)
        instant = chance.uniform(0, seconds)
        run, process = deployed.start()
        if at_work:
            _wait_for_work(deployed, process)
        hit = _strike(deployed, process, instant, kills_client=number % 2 == 0)
        state = run.wait(_SECONDS)
        process.wait(_SECONDS)
        deployed.wait_until_quiet()
        attempts = deployed.ledger(run)
        committed = "committed" in attempts
        span = f"{instant:.2f} of {seconds:.2f} s into its {'work' if at_work else 'life'}"
        where = f"{number + 1}: {hit} {span}; {state}, {attempts}"
        print(where)
        assert deployed.holds(clock if committed else before), f"torn: {where}"
        # A process may die after it has reported its end.
        assert state in ("Completed", "Crashed" if hit == "flow process killed" else "Failed"), where
        assert committed or state != "Completed", where
        done = run
        if state != "Completed":
            again, *lived = _complete(deployed)
            lives.append((lived[0], lived[1]))
            assert deployed.holds(clock), f"the rerun did not make it good: {where}"
            assert deployed.ledger(again) == ["committed"], where
            done = run if committed else again
            assert deployed.staging() == [], where
        dead = deployed.ledger(run)
        assert set(dead) <= {"crashed", "failed", "committed"}, f"the ledger says {dead}: {where}"
        assert dead.count("committed") == committed, f"the ledger says {dead}: {where}"
        assert deployed.terms(done) == expected.flights_run(before, expected.flights_watermark(before), clock), where
        number += hit != NOTHING


def _complete(deployed: Deployed) -> tuple[DeployedRun, float, float]:
    """A run that nobody disturbs, how long its process lived, and for how long of that it worked, in seconds."""
    run, process = deployed.start()
    began = time.monotonic()
    _wait_for_work(deployed, process)
    worked = time.monotonic()
    run.completed(_SECONDS)
    process.wait(_SECONDS)
    ended = time.monotonic()
    deployed.wait_until_quiet()
    return run, ended - began, ended - worked


def _wait_for_work(deployed: Deployed, process: psutil.Process) -> None:
    """Return when the process has a session at the target, or has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE and not deployed.sessions():
            time.sleep(0.02)


def _strike(deployed: Deployed, process: psutil.Process, instant: float, *, kills_client: bool) -> str:
    """Kill in `instant` seconds from now; what was hit."""
    try:
        process.wait(instant)
    except psutil.TimeoutExpired:
        if not kills_client:
            return deployed.kill_backends()
        return "flow process killed" if _kill(process) else NOTHING
    return NOTHING


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(process: psutil.Process) -> bool:
    """With SIGKILL; whether it was still there."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True
