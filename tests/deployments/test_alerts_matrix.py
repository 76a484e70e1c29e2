"""Each cause of an alert: raised in time, not raised just below, resolved, no storm, and all of it over a restart.

One story on a server of its own, since each waits for something: its chapters overlap, and each test reads one of them.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.events.filters import EventFilter, EventNameFilter
from sqlalchemy import create_engine

from deployments.alerts.heartbeat import LOST_AFTER
from deployments.deployed_run import DeployedRun
from deployments.prefect_server import POOL, PrefectServer, Worker
from deployments.processes import leftovers
from tasks.observe import causes
from tasks.settings import url_variable
from tests.deployments import alerts
from tests.deployments.alarming import OPERATING, PIPELINES
from tests.deployments.alerts import Alert, Sink
from tests.orders import order, put

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

MEASURED = (causes.ERROR_RATE, causes.RECENT_ERROR_RATE, causes.FRESHNESS, causes.DEAD_LETTERS, causes.SLOT_LAG)
CLOSED = ("tardy", "patient")
"""Flows whose queue is closed, so that no worker takes up their runs."""

OPEN = [name for name in (*PIPELINES, OPERATING.name) if name not in (*CLOSED, "never")]

AT_ONCE = 20
"""Seconds in which is told what is told at once; one run alone is in 5 (`test_alerts`), and here six end together."""

_SETTINGS = {
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "2",
}
_WORKER_HEARTBEAT = {"PREFECT_WORKER_HEARTBEAT_SECONDS": "5"}


@dataclass
class Story:
    """What happened when, and what the sink received.

    Attributes:
        server: with the automations.
        sink: with every alert.
        moments: of what an alert is measured from.
        runs: the flow runs that alerts are about.
    """

    server: PrefectServer
    sink: Sink
    moments: dict[str, datetime] = field(default_factory=dict)
    runs: dict[str, DeployedRun] = field(default_factory=dict)

    def worker(self, name: str) -> Worker:
        named = Worker(self.server, _WORKER_HEARTBEAT)
        named.command += ["--name", name]
        return named

    def start(self, name: str, **parameters: object) -> DeployedRun:
        self.runs[name] = alerts.start(self.server, name, **parameters)
        return self.runs[name]

    def delay(self, alert: Alert, moment: str, stated: float, least: float = 0.0) -> None:
        """Print how long after a moment an alert came, and hold it to what is stated."""
        seconds = alert.after(self.moments[moment])
        print(f"{alert.subject}: {seconds:.1f} s after {moment}, {stated:g} s stated\n{alert.body}\n")
        assert least <= seconds <= stated


def until(what: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def entered(run: DeployedRun, state: str) -> datetime:
    """When a run got into a state, once it has."""
    found: list[datetime] = []

    def look() -> bool:
        states = run.server.client.read_flow_run_states(run.id)
        found[:] = [each.timestamp for each in states if each.name == state]
        return bool(found)

    until(f"{run.deployment} is {state}", look)
    return found[0]


def heartbeats(run: DeployedRun) -> list[datetime]:
    wanted = EventFilter(event=EventNameFilter(name=["prefect.flow-run.heartbeat"]))
    seen = run.server.client.read_events(wanted, limit=50).events
    return sorted(each.occurred for each in seen if each.resource.id == f"prefect.flow-run.{run.id}")


def kill(worker: Worker) -> None:
    """The machine is gone: nobody is left to say so."""
    family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    for process in family:
        os.kill(process.pid, signal.SIGKILL)
    worker.stop()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    home = Path(tempfile.mkdtemp(prefix="tidegate-alerts-"))
    with Sink() as sink, PrefectServer(home, _SETTINGS) as server:
        story = Story(server, sink)
        set_up(story)
        with story.worker("the first"):
            alerts.deploy(server, tmp_path_factory.mktemp("open"), OPEN)
            alerts.deploy(server, tmp_path_factory.mktemp("closed"), CLOSED, queue="closed")
        story.moments["the worker's end"] = datetime.now(UTC)
        sink.wait("[critical] tidegate: workers", 60)
        with story.worker("the lost") as doomed:
            begin(story)
            with story.worker("the last"):
                lose_a_machine(story, doomed)
                break_promises(story)
                # Between the cause and the alert of what is missing, and between alerts and what resolves them.
                server.stop()
                server.start()
                hear_of_what_is_missing(story)
                recover(story)
        yield story
    assert leftovers(home) == []
    shutil.rmtree(home)


def set_up(story: Story) -> None:
    server = story.server
    server.prefect("work-pool", "create", POOL, "--type", "process")
    source = create_engine(alerts.databases(server)[url_variable("source")])
    put(source, [order(number) for number in range(10)])
    source.dispose()
    server.client.create_work_queue("closed", work_pool_name=POOL)
    server.client.update_work_queue(queue(server), is_paused=True)
    alerts.send_to(server, story.sink)
    # It is missed from the moment that its automations are there.
    apply(story, but="quiet")
    story.moments["the deploy"] = datetime.now(UTC)


def apply(story: Story, but: str = "") -> None:
    declared = [each for each in PIPELINES.values() if each.name != but]
    alerts.apply(story.server, declared, [OPERATING.name])


def queue(server: PrefectServer) -> UUID:
    return server.client.read_work_queue_by_name("closed", work_pool_name=POOL).id


def begin(story: Story) -> None:
    """A run that nobody will take up for long, and one on a worker that will be lost."""
    story.start("patient")
    run = story.start("lost", behaviour="wait")
    until("a heartbeat", lambda: heartbeats(run) != [])


def lose_a_machine(story: Story, doomed: Worker) -> None:
    """A worker is killed, with the run that it has, while another is alive."""
    read = story.server.client.read_workers_for_work_pool
    until("another worker", lambda: "the last" in {each.name for each in read(POOL)})
    kill(doomed)
    story.moments["the last heartbeat"] = heartbeats(story.runs["lost"])[-1]


def break_promises(story: Story) -> None:
    apply(story)
    story.start("quiet")
    story.start("alive", behaviour="wait")
    breached = [one.breached for one in MEASURED]
    # Each of them twice, as two runs within the interval would tell it.
    story.start("telling", behaviour="tell", events=breached + breached)
    story.start("telling_often", behaviour="tell", events=[causes.ERROR_RATE.breached])
    story.start("failing", behaviour="fail")
    story.start("dying", behaviour="die")
    story.start("keeper", behaviour="fail")
    for name in ("quiet", "telling", "telling_often", "failing", "dying", "keeper"):
        story.runs[name].wait(120)
        story.moments[f"the end of {name}"] = alerts.ended(story.runs[name])
    # What the server has not dealt with when it is stopped is lost.
    for subject in ("[critical] failing: failed", "[critical] dying: failed", "[critical] keeper: failed"):
        story.sink.wait(subject, 30)
    run = story.start("overrun", behaviour="wait")
    story.moments["the limit of the runtime"] = entered(run, "Running") + timedelta(minutes=1)
    late = entered(story.start("tardy"), "Late")
    story.moments["the limit of the start"] = late + timedelta(seconds=20)
    until("a heartbeat", lambda: heartbeats(run) != [])


def hear_of_what_is_missing(story: Story) -> None:
    story.sink.wait("[warning] tardy: late-start", 60)
    story.sink.wait("[warning] overrun: runtime", 90)
    story.sink.wait("[critical] quiet: silence", 180)
    story.sink.wait("[critical] lost: zombie", LOST_AFTER.total_seconds() + 60)


def recover(story: Story) -> None:
    server = story.server
    alerts.release(server, "overrun")
    story.runs["overrun"].completed(60)
    server.client.update_work_queue(queue(server), is_paused=False)
    again = [story.start(name) for name in ("quiet", "lost", "failing")]
    again.append(story.start("telling", behaviour="tell", events=[one.kept for one in MEASURED]))
    again.append(story.start("telling_often", behaviour="tell", events=[causes.ERROR_RATE.breached]))
    for run in [*again, story.runs["patient"], story.runs["tardy"]]:
        run.completed(120)
    story.moments["the last heartbeat of what is alive"] = heartbeats(story.runs["alive"])[-1]
    alerts.release(server, "alive")
    story.runs["alive"].completed(60)


def test_what_a_run_measures_is_told_at_once_and_once(story: Story) -> None:
    for one in MEASURED:
        severity = "critical" if one is causes.SLOT_LAG else "warning"
        alert = story.sink.wait(f"[{severity}] telling: {one.cause}", 5)
        story.delay(alert, "the end of telling", AT_ONCE, least=-5)
        assert alert.body.startswith(f"telling has told {one.breached}.\n\nLook with: tidegate status telling\n")
        assert story.sink.subjects.count(alert.subject) == 1


def test_it_is_resolved_over_a_restart_of_the_server(story: Story) -> None:
    for one in MEASURED:
        resolved = story.sink.wait(f"[resolved] telling: {one.cause}", AT_ONCE)
        assert resolved.body.startswith(f"telling has told {one.kept}.\n")
        assert f"Dedup key: tidegate/telling/{one.cause}" in resolved.body
        assert story.sink.subjects.count(resolved.subject) == 1


def test_the_same_is_told_again_once_the_interval_has_passed(story: Story) -> None:
    subject = "[warning] telling_often: error-rate"
    first, second = story.sink.wait(subject, AT_ONCE), story.sink.wait(subject, AT_ONCE, number=2)
    assert story.sink.subjects.count(subject) == 2
    assert second.after(first.at) >= 10
    assert "What to do: https://wiki.example/alerts#error-rate" in first.body


def test_a_failed_run_is_told_with_its_reason_and_resolved_by_one_that_completes(story: Story) -> None:
    alert = story.sink.wait("[critical] failing: failed", 5)
    story.delay(alert, "the end of failing", AT_ONCE)
    assert "failed: " in alert.body and "failing: the source is being repaired." in alert.body
    assert "Look with: tidegate runs failing --failed\n" in alert.body
    assert f"Flow run: {story.server.ui_url}/runs/flow-run/" in alert.body
    resolved = story.sink.wait("[resolved] failing: failed", AT_ONCE)
    assert story.sink.of("failing") == [alert, resolved]


def test_a_killed_run_is_told(story: Story) -> None:
    alert = story.sink.wait("[critical] dying: failed", 5)
    story.delay(alert, "the end of dying", AT_ONCE)
    assert " crashed: " in alert.body
    assert story.sink.of("dying") == [alert]


def test_a_flow_without_a_pipeline_is_told_of_too(story: Story) -> None:
    alert = story.sink.wait("[critical] keeper: failed", 5)
    story.delay(alert, "the end of keeper", AT_ONCE)
    assert "\nFlow: keeper\n" in alert.body
    assert story.sink.of("keeper") == [alert]


def test_a_run_that_takes_too_long_is_told_while_it_runs(story: Story) -> None:
    alert = story.sink.wait("[warning] overrun: runtime", 5)
    story.delay(alert, "the limit of the runtime", 20)
    assert "has been running for more than the 1 minute promised, and still is." in alert.body
    assert alert.at < alerts.ended(story.runs["overrun"])
    resolved = story.sink.wait("[resolved] overrun: runtime", AT_ONCE)
    assert story.sink.of("overrun") == [alert, resolved]


def test_a_run_that_is_not_taken_up_is_told(story: Story) -> None:
    alert = story.sink.wait("[warning] tardy: late-start", 5)
    story.delay(alert, "the limit of the start", 20)
    assert "is late: 20 seconds after its time no worker has taken it up." in alert.body
    resolved = story.sink.wait("[resolved] tardy: late-start", AT_ONCE)
    assert story.sink.of("tardy") == [alert, resolved]


def test_a_pipeline_that_covers_nothing_is_told(story: Story) -> None:
    alert = story.sink.wait("[critical] quiet: silence", 5)
    story.delay(alert, "the end of quiet", 120 + 20, least=110)
    assert "No run of quiet has covered anything for 2 minutes, not since 20" in alert.body
    # Its runs take less than is promised, and have nothing else to tell.
    resolved = story.sink.wait("[resolved] quiet: silence", AT_ONCE)
    assert story.sink.of("quiet") == [alert, resolved]


def test_so_is_one_that_has_never_run(story: Story) -> None:
    alert = story.sink.wait("[critical] never: silence", 5)
    story.delay(alert, "the deploy", 10 + 20)
    assert "for 10 seconds, and none before as far as the server knows." in alert.body
    assert story.sink.of("never") == [alert]


def test_a_run_whose_machine_is_gone_is_told_and_marked_crashed_and_makes_room_for_the_next(story: Story) -> None:
    alert = story.sink.wait("[critical] lost: zombie", 5)
    story.delay(alert, "the last heartbeat", LOST_AFTER.total_seconds() + 20, least=LOST_AFTER.total_seconds())
    gone = alert.body.split("/runs/flow-run/")[1][:36]
    assert "Look with: tidegate runs lost\n" in alert.body
    state = story.server.client.read_flow_run(UUID(gone)).state
    assert state is not None and state.name == "Crashed"
    # Its state is no failure of its own, and there is one run at a time: the next has completed.
    resolved = story.sink.wait("[resolved] lost: zombie", AT_ONCE)
    assert story.sink.of("lost") == [alert, resolved]


@pytest.mark.parametrize("name", ["patient", "alive"])
def test_what_keeps_its_promise_is_not_told_of(story: Story, name: str) -> None:
    assert story.sink.of(name) == []


def test_a_run_that_lives_longer_than_a_lost_one_is_believed_to_live_is_none(story: Story) -> None:
    began = entered(story.runs["alive"], "Running")
    assert story.moments["the last heartbeat of what is alive"] - began > 2 / 3 * LOST_AFTER
    assert alerts.ended(story.runs["alive"]) - began > LOST_AFTER


def test_no_worker_is_told_and_one_of_several_is_not_missed(story: Story) -> None:
    alert = story.sink.wait("[critical] tidegate: workers", 5)
    story.delay(alert, "the worker's end", 30)
    assert "No worker of the work pool tidegate is alive, so nothing runs." in alert.body
    # The machine that was lost had one of two.
    resolved = story.sink.wait("[resolved] tidegate: workers", AT_ONCE)
    assert story.sink.of("tidegate") == [alert, resolved]
