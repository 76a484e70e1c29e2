"""`Keyboard`: where somebody who knows nothing but an alert's text runs the command in it."""

import contextlib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

import flows
from deployments.cli import app
from deployments.prefect_server import PrefectServer
from tests.deployments import alerts
from tests.deployments.alerts import Alert

_LOOK = re.compile(r"^Look with: tidegate (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """What a command showed.

    Attributes:
        command: as the alert has it, without `tidegate`.
        status: 0, or 1 where `doctor` finds something that fails.
        output: all of it.
    """

    command: str
    status: int
    output: str


@dataclass(frozen=True)
class Keyboard:
    """Where the pipelines' databases and the server are known, and `flows/` holds the pipelines of `alarming`.

    Attributes:
        server: whose alerts are read.
        folder: an empty one, to be `flows/`.
    """

    server: PrefectServer
    folder: Path

    def look(self, alert: Alert) -> Seen:
        """Run the command that an alert names."""
        [command] = _LOOK.findall(alert.body)
        with self._at_hand():
            done = CliRunner().invoke(app, shlex.split(command))
        print(f"{alert.subject} → tidegate {command} → {done.exit_code}\n{done.output}")
        return Seen(command, done.exit_code, done.output)

    def declare(self, mapping: str, names: Iterable[str]) -> None:
        """Make a file in `flows/` for each pipeline that `alarming` has in `mapping`."""
        for name in names:
            source = f"from tests.deployments.alarming import {mapping}\n\nPIPELINE = {mapping}[{name!r}]\n"
            (self.folder / f"{name}.py").write_text(source)

    @contextlib.contextmanager
    def _at_hand(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: self.server.api_url}):
            patch.setattr(flows, "__path__", [str(self.folder)])
            patch.setenv("PREFECT_API_URL", self.server.api_url)
            patch.setenv("COLUMNS", "160")
            for variable, url in alerts.databases(self.server).items():
                patch.setenv(variable, url)
            for module in [name for name in sys.modules if name.startswith("flows.")]:
                patch.delitem(sys.modules, module)
            yield
            for module in [name for name in sys.modules if name.startswith("flows.")]:
                del sys.modules[module]
