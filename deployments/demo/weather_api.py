"""`WeatherApi`: datasette, serving the demo's weather file as a JSON API."""

import sys
from pathlib import Path

from deployments.processes import Process, answers, free_port

_START_SECONDS = 60.0


class WeatherApi(Process):
    """A JSON API over a SQLite file, on a free port of the loopback address.

    Args:
        home: folder for its log.
        file: the SQLite file; its stem is the first part of every path.
    """

    def __init__(self, home: Path, file: Path) -> None:
        self.port = free_port()
        # fmt: off
        super().__init__(
            "weather-api",
            [sys.executable, "-m", "datasette", "serve", str(file), "--host", "127.0.0.1", "--port", str(self.port),
             "--setting", "suggest_facets", "off"],
            home,
        )
        # fmt: on

    @property
    def url(self) -> str:
        """Where the API begins."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "WeatherApi":
        """Start it; ready when this returns.

        Raises:
            ProcessFailed: it did not answer within a minute.
        """
        super().start()
        return self.wait_until(answers(f"{self.url}/-/versions.json"), _START_SECONDS)
