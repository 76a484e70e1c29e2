"""`Story`: what goes wrong on a server of its own, chapter by chapter, until `test_alerts_matrix` reads what was told.

The chapters overlap, since each waits for something, and the server is stopped and started between most causes and
their alerts, and between alerts and what resolves them.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import psutil
from prefect.client.schemas.objects import State, StateType
from prefect.events.filters import EventFilter, EventNameFilter
from sqlalchemy import create_engine

from deployments.alerts.heartbeat import LOST_AFTER
from deployments.deployed_run import DeployedRun
from deployments.prefect_server import POOL, PrefectServer, Worker
from tasks.observe import causes
from tasks.settings import url_variable
from tests.deployments import alerts
from tests.deployments.alarming import MARKER, OPERATING, PIPELINES
from tests.deployments.alerts import Alert, Sink
from tests.deployments.looking import Keyboard, Seen
from tests.deployments.until import until
from tests.orders import order, put

MEASURED = (causes.ERROR_RATE, causes.RECENT_ERROR_RATE, causes.FRESHNESS, causes.DEAD_LETTERS, causes.SLOT_LAG)

CLOSED = {"closed": ["tardy", "patient"], "ajar": ["punctual"]}
"""Queues that are paused, so that no worker takes up the runs of these flows."""

OPEN = [name for name in (*PIPELINES, OPERATING.name) if not any(name in flows for flows in CLOSED.values())]

_WORKER_HEARTBEAT = {"PREFECT_WORKER_HEARTBEAT_SECONDS": "5"}


@dataclass
class Story:
    """What happened when, and what the sink received.

    Attributes:
        server: with the automations.
        sink: with every alert.
        keyboard: where the commands in the alerts are run.
        folder: for what is deployed.
        moments: of what an alert is measured from.
        runs: the flow runs that alerts are about.
        seen: what the commands showed, by the alert's subject.
    """

    server: PrefectServer
    sink: Sink
    keyboard: Keyboard
    folder: Path
    moments: dict[str, datetime] = field(default_factory=dict)
    runs: dict[str, DeployedRun] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)

    def tell(self) -> None:
        """All of it."""
        set_up(self)
        change_workers(self)
        with self.worker("the lost") as doomed:
            begin(self)
            with self.worker("the last"):
                lose_a_machine(self, doomed)
                break_promises(self)
                come_to_the_limits(self)
                self.restart()
                hear_of_what_is_missing(self)
                recover(self)
                break_them_again(self)

    def worker(self, name: str) -> Worker:
        named = Worker(self.server, _WORKER_HEARTBEAT)
        named.command += ["--name", name]
        return named

    def start(self, name: str, **parameters: object) -> DeployedRun:
        self.runs[name] = alerts.start(self.server, name, **parameters)
        return self.runs[name]

    def restart(self) -> None:
        self.server.stop()
        self.server.start()
        self.moments["the server's return"] = datetime.now(UTC)

    def look(self, subject: str, seconds: float = 60) -> None:
        """Wait for an alert, and run the command in it while it is as the alert says."""
        self.seen[subject] = self.keyboard.look(self.sink.wait(subject, seconds))

    def delay(self, alert: Alert, moment: str, stated: float, least: float = 0.0) -> None:
        """Print how long after a moment an alert came, and hold it to what is stated."""
        seconds = alert.after(self.moments[moment])
        print(f"{alert.subject}: {seconds:.1f} s after {moment}, {stated:g} s stated\n{alert.body}\n")
        assert least <= seconds <= stated


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


def queue(server: PrefectServer, name: str) -> UUID:
    return server.client.read_work_queue_by_name(name, work_pool_name=POOL).id


def apply(story: Story, but: str = "") -> None:
    declared = [each for each in PIPELINES.values() if each.name != but]
    alerts.apply(story.server, [*declared, MARKER], [OPERATING.name])


def set_up(story: Story) -> None:
    server = story.server
    server.prefect("work-pool", "create", POOL, "--type", "process")
    source = create_engine(alerts.databases(server)[url_variable("source")])
    put(source, [order(number) for number in range(10)])
    source.dispose()
    for name in CLOSED:
        server.client.create_work_queue(name, work_pool_name=POOL)
        server.client.update_work_queue(queue(server, name), is_paused=True)
    alerts.send_to(server, story.sink)
    # It is missed from the moment that its automations are there.
    apply(story, but="quiet")
    story.moments["the deploy"] = datetime.now(UTC)


def change_workers(story: Story) -> None:
    """One worker follows another, and then none does."""
    with story.worker("the first"):
        alerts.deploy(story.server, story.folder, OPEN)
    with story.worker("the second"):
        for name, flows in CLOSED.items():
            alerts.deploy(story.server, story.folder, flows, queue=name)
    story.moments["the worker's end"] = datetime.now(UTC)
    story.restart()
    story.look("[critical] tidegate: workers")
    story.look("[critical] never: silence")
    story.restart()


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
    """What is told at once."""
    story.start("alive", behaviour="wait")
    breached = [one.breached for one in MEASURED]
    # Each of them twice, as two runs within the interval would tell it.
    story.start("telling", behaviour="tell", events=breached + breached)
    story.start("telling_often", behaviour="tell", events=[causes.ERROR_RATE.breached])
    story.start("failing", behaviour="fail")
    story.start("dying", behaviour="die")
    story.start("keeper", behaviour="fail")
    story.start("tired", behaviour="wait")
    entered(story.runs["tired"], "Running")
    cancelling = State(type=StateType.CANCELLING, name="Cancelling")
    story.server.client.set_flow_run_state(story.runs["tired"].id, cancelling)
    for name in ("telling", "telling_often", "failing", "dying", "keeper", "tired"):
        story.runs[name].wait(120)
        story.moments[f"the end of {name}"] = alerts.ended(story.runs[name])
    # What the server has not dealt with when it is stopped is lost.
    for name in ("failing", "dying", "keeper"):
        story.look(f"[critical] {name}: failed", 30)


def come_to_the_limits(story: Story) -> None:
    """Some just before they are reached, while time goes on for others."""
    server = story.server
    apply(story)
    story.start("quiet").completed(60)
    first = alerts.ended(story.runs["quiet"])
    started = {name: story.start(name, behaviour="wait") for name in ("overrun", "brisk")}
    began = {name: entered(run, "Running") for name, run in started.items()}
    late = {name: entered(story.start(name), "Late") for name in ("punctual", "tardy")}
    story.moments["the limit of the runtime"] = began["overrun"] + timedelta(seconds=90)
    story.moments["the limit of the start"] = late["tardy"] + timedelta(seconds=20)
    due: dict[Callable[[], object], datetime] = {
        partial(resume, server, "ajar"): late["punctual"] + timedelta(seconds=12),
        partial(story.start, "quiet"): first + timedelta(seconds=30),
        partial(alerts.release, server, "brisk"): began["brisk"] + timedelta(seconds=30),
    }
    for act, moment in sorted(due.items(), key=lambda each: each[1]):
        until("its moment", partial(_is_past, moment))
        act()
    for name in ("quiet", "brisk", "punctual"):
        story.runs[name].completed(60)
    story.moments["the end of quiet"] = alerts.ended(story.runs["quiet"])
    assert story.moments["the end of quiet"] - first > timedelta(seconds=30)
    until("a heartbeat", lambda: heartbeats(started["overrun"]) != [])


def _is_past(moment: datetime) -> bool:
    return datetime.now(UTC) >= moment


def resume(server: PrefectServer, name: str) -> None:
    server.client.update_work_queue(queue(server, name), is_paused=False)


def hear_of_what_is_missing(story: Story) -> None:
    story.look("[warning] tardy: late-start")
    story.look("[warning] overrun: runtime", 90)
    story.look("[critical] quiet: silence", 90)
    story.look("[critical] lost: zombie", LOST_AFTER.total_seconds() + 60)


def recover(story: Story) -> None:
    server = story.server
    alerts.release(server, "overrun")
    story.runs["overrun"].completed(60)
    resume(server, "closed")
    again = [story.start(name) for name in ("quiet", "never", "lost", "failing", "dying", "keeper")]
    again.append(story.start("telling", behaviour="tell", events=[one.kept for one in MEASURED]))
    again.append(story.start("telling_often", behaviour="tell", events=[causes.ERROR_RATE.breached]))
    for run in [*again, story.runs["patient"], story.runs["tardy"]]:
        run.completed(120)
    story.moments["the last heartbeat of what is alive"] = heartbeats(story.runs["alive"])[-1]
    alerts.release(server, "alive")
    story.runs["alive"].completed(60)


def break_them_again(story: Story) -> None:
    """Within the interval in which they were told."""
    for one in MEASURED:
        story.sink.wait(f"[resolved] telling: {one.cause}", 60)
    story.start("telling", behaviour="tell", events=[one.breached for one in MEASURED]).completed(60)
    until(
        "the last is told again",
        lambda: len(alerts.told(story.server, "telling", MEASURED[-1].breached)) == 3,
    )
    alerts.mark(story.server, story.sink, "Everything is breached again.")
