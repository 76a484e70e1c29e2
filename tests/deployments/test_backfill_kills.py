"""A backfill on a real Prefect server, killed, cancelled and beside its pipeline's own schedule."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling
from sqlalchemy import NullPool, create_engine

from deployments import schedules
from deployments.demo import replay
from deployments.prefect_server import POOL, PrefectServer, Worker
from deployments.processes import leftovers
from flows import airports, flights, planes
from tasks import connections
from tasks.pipeline import run_pipeline
from tasks.recovery.backfill.ledger import find_backfill
from tasks.recovery.backfill.report import report_backfill
from tasks.recovery.watermark_change import change_watermark
from tasks.settings import url_variable
from tasks.window import Window
from tests.deployments.backfilling import FIRST, SECONDS, Backfilling, kill
from tests.deployments.until import until
from tests.servers.cluster import remove_folder

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

DAY = timedelta(days=1)
DAYS = 90
NOW = FIRST + DAYS * DAY
JOBS = 3


@pytest.fixture
def deployed() -> Iterator[Backfilling]:
    """Everything deployed, the dimensions loaded, flights followed only since `NOW`; no worker yet."""
    home = Path(tempfile.mkdtemp(prefix="tidegate-backfill-"))
    with PrefectServer(home) as server:
        urls = {}
        for name in ("operations", "warehouse"):
            server.cluster.ensure_database(name)
            urls[url_variable(name)] = server.cluster.url(name)
        with pytest.MonkeyPatch.context() as environment:
            for name, url in urls.items():
                environment.setenv(name, url)
            operations = connections.engine("operations")
            replay.build(operations, home / "weather.db")
            replay.replay_to(operations, home / "weather.db", NOW)
            run_pipeline(airports.PIPELINE)
            run_pipeline(planes.PIPELINE)
            change_watermark(flights.PIPELINE, NOW, "the test")
            server.deploy()
            schedules.pause(server.client)
            source, target = (create_engine(url, poolclass=NullPool) for url in urls.values())
            yield Backfilling(server, urls, source, target)
            connections.dispose()
    assert leftovers(home) == []
    remove_folder(home)


@pytest.mark.timeout(1800)
def test_ninety_windows_with_the_parent_killed_twice_and_a_worker_killed_while_the_schedule_goes_on(
    deployed: Backfilling,
) -> None:
    asked = {"pipeline": "flights", "start": FIRST.isoformat(), "end": NOW.isoformat(), "jobs": JOBS}
    began, clock = time.monotonic(), NOW
    scheduled, parents = [], []
    with (
        Worker(deployed.server, deployed.urls, name="scheduled", queues=["default"]) as first,
        Worker(deployed.server, deployed.urls, name="windows", queues=["backfill"]) as second,
    ):
        third = Worker(deployed.server, deployed.urls, name="windows-again", queues=["backfill"])
        parents.append(deployed.start("backfill/backfill", **asked))
        told: list[str] = []
        try:
            for number in (20, 45, 70, DAYS):
                until(f"{number} windows", partial(deployed.has_loaded, number), 600)
                told.append(f"{time.monotonic() - began:.0f} s: {number} windows")
                if number != DAYS:
                    clock += timedelta(hours=6)
                    deployed.replay_to(clock)
                    scheduled.append(deployed.start("flights/flights"))
                if number == 45:
                    # Not before some are at work, so that there is something to lose.
                    until("an open window", lambda: len(deployed.attempts("running")) >= 1, SECONDS)
                    kill(psutil.Process(second.pid))
                    third.start()
                elif number != DAYS:
                    deployed.process_of(parents[-1], first).kill()
                    assert parents[-1].wait(60) == "Crashed"
                    parents.append(deployed.start("backfill/backfill", **asked))
            parents[-1].completed(300)
            for run in scheduled:
                run.completed(120)
        finally:
            third.stop()
    seconds = time.monotonic() - began
    deployed.equals_the_reference(clock)
    row = deployed.backfill()
    assert (row.status, deployed.no_run_is_left(row.backfill_id)) == ("done", [])
    sent = deployed.windows_of(row.backfill_id)
    commits, crashed = deployed.commits(), set(deployed.attempts("crashed"))
    repeated = {str(window): count for window, count in commits.items() if count > 1}
    tried = {one.name: one.state_name for one in sent if one.state_name != "Completed"}
    print("\n".join(told), f"\n{seconds:.0f} s, {len(sent)} flow runs of {len(commits)} windows; repeated: {repeated}")
    print(f"did not complete: {tried}; crashed attempts: {sorted(map(str, crashed))}")
    assert len(commits) == DAYS
    # A window is sent again only if its flow run crashed, and read again only if that had not committed.
    assert len(sent) == DAYS + sum(one.state is not None and one.state.type == StateType.CRASHED for one in sent)
    assert repeated == {}
    assert 1 <= len(tried) <= JOBS
    # Whoever scheduled it had not to wait for the windows.
    for run in scheduled:
        flow_run = deployed.run(run)
        assert flow_run.start_time is not None and flow_run.created is not None
        print(f"a scheduled run began {(flow_run.start_time - flow_run.created).total_seconds():.1f} s after its time")
    backfill = find_backfill(flights.PIPELINE, row.backfill_id)
    assert backfill is not None
    report = report_backfill(flights.PIPELINE, backfill)
    print(report)
    assert (len(report.done), report.left, report.status) == (DAYS, (), "done")
    assert report.attempts == DAYS + len(crashed)


@pytest.mark.timeout(900)
def test_beside_many_windows_a_scheduled_run_begins_at_once_and_cancelling_leaves_nothing_behind(
    deployed: Backfilling,
) -> None:
    client = deployed.server.client
    queue = client.read_work_queue_by_name("backfill", work_pool_name=POOL)
    client.update_work_queue(queue.id, concurrency_limit=2)
    asked = {"pipeline": "flights", "start": FIRST.isoformat(), "end": (FIRST + 12 * DAY).isoformat(), "jobs": 8}
    # One for the backfill, two for its windows, and one to spare.
    with Worker(deployed.server, deployed.urls, limit=4):
        parent = deployed.start("backfill/backfill", **asked)
        until("a loaded window", partial(deployed.has_loaded, 1), 300)
        backfill_id = deployed.backfill().backfill_id
        waiting = [one.id for one in deployed.windows_of(backfill_id) if one.state_name in ("Scheduled", "Late")]
        assert waiting, "there has to be a crowd"
        scheduled = deployed.start("flights/flights").completed(300)
        begun, windows = deployed.run(scheduled), deployed.windows_of(backfill_id)
        still = [one for one in windows if one.id in waiting and _began(one) > _began(begun)]
        delay = (_began(begun) - (begun.created or NOW)).total_seconds()
        print(f"begun after {delay:.1f} s, before {len(still)} of {len(waiting)} that waited")
        # Those two that had a slot before may be among them.
        assert len(still) >= len(waiting) - 2
        client.set_flow_run_state(parent.id, Cancelling())
        assert parent.wait(120) == "Cancelled"
        until("no window is scheduled", lambda: deployed.no_run_is_left(backfill_id) == [], 60)
        assert deployed.backfill().status == "cancelled"
        done = deployed.commits()
        print(f"cancelled with {len(done)} of 12 windows loaded")
        again = deployed.start("backfill/backfill", **asked | {"jobs": 2}).completed(300)
    row = deployed.backfill()
    assert (row.backfill_id, row.status) == (backfill_id, "done"), again.logs()
    assert deployed.commits() == Counter(Window(FIRST + day * DAY, FIRST + (day + 1) * DAY) for day in range(12))


def _began(run: FlowRun) -> datetime:
    """When it began; one that has not, at the end of time."""
    return run.start_time or NOW.replace(year=9999)
