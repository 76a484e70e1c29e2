"""`Stack`: everything the demo runs on, under one folder: PostgreSQL, sources, Prefect server and worker."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from deployments import schedules
from deployments.demo import missing_airports, replay
from deployments.demo.inbox import Inbox
from deployments.demo.progress import Progress
from deployments.demo.weather_api import WeatherApi
from deployments.prefect_server import PrefectServer, Worker
from deployments.processes import sweep
from deployments.signals import uninterrupted
from tasks import connections
from tasks.settings import url_variable


class Stack:
    """The demo's processes, on free ports of the loopback address.

    Args:
        home: their folder; `TIDEGATE_HOME` of this process has to be the same.
        progress: where to say what happens.
    """

    def __init__(self, home: Path, progress: Progress) -> None:
        self.home = home
        self._progress = progress
        self._weather_file = home / "weather.db"
        self.server = PrefectServer(home)
        self.weather_api = WeatherApi(home, self._weather_file)
        self.inbox = Inbox(home)
        self._worker = Worker(self.server, {url_variable("weather_api"): self.weather_api.url})

    def start(self, clock: datetime) -> None:
        """Start everything, with the sources at `clock` and prefect.yaml deployed.

        Raises:
            TidegateError: a part of it did not start; the others may run.
        """
        with self._progress.step("PostgreSQL"):
            connections.embedded("operations")
            connections.embedded("warehouse")
        with ThreadPoolExecutor() as side:
            sources = side.submit(self._start_sources, clock)
            with self._progress.step("Prefect server"):
                self.inbox.start()
                self.server.start()
            self._worker.start()
            with self._progress.step("tidegate deploy: work pool, deployments, alerts"):
                self.server.deploy(environment={"TIDEGATE_ALERTS_URL": self.inbox.url})
                # A run that a schedule starts in between would take rows from those the demo tells about.
                schedules.pause(self.server.client)
            sources.result()

    def replay_to(self, clock: datetime) -> None:
        """Let the sources' time pass until `clock`."""
        with self._progress.step(f"the sources' clock moves to {clock:%Y-%m-%d}"):
            replay.replay_to(connections.engine("operations"), self._weather_file, clock)

    def add_missing_airports(self) -> None:
        """Add to the source the airports that its directory lacks."""
        title = "four airports are added to the operations database"
        with self._progress.step(title), connections.engine("operations").begin() as connection:
            missing_airports.add(connection)

    def keep(self) -> None:
        """Leave everything running, with the schedules of prefect.yaml in force."""
        schedules.resume(self.server.client)

    def stop(self) -> None:
        """Take everything down: a worker without its server, or a server without its database, would linger."""
        with uninterrupted(), self._progress.step("everything stopped"):
            self._worker.stop()
            self.server.stop()
            self.inbox.stop()
            self.weather_api.stop()
            sweep(self.home)
            connections.dispose()

    def _start_sources(self, clock: datetime) -> None:
        with self._progress.step("source systems: a year of flights, and the weather API"):
            engine = connections.engine("operations")
            replay.build(engine, self._weather_file)
            replay.replay_to(engine, self._weather_file, clock)
            self.weather_api.start()
