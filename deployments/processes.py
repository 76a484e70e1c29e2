"""`Process`: a program we start, wait for and take down again, with everything it started itself."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from tasks.errors import TidegateError

_MARK = "TIDEGATE_STARTED_IN"
_POLL_SECONDS = 0.1


class ProcessFailed(TidegateError):
    """A program ended by itself, or was not ready in time. The message holds the end of its log."""


class Process:
    """A program in a session of its own, so that a Ctrl-C in the terminal reaches us alone; we decide the order.

    Args:
        name: what messages and the log file call it.
        command: the program and its arguments.
        home: folder it belongs to; the log goes to `logs/<name>.log` in it, and `sweep(home)` finds it again.
        environment: added to our environment, less what would lead it elsewhere (see `clean_environment`).
        directory: where it runs; the root folder by default, which nobody deletes under it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        home: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path = Path("/"),
    ) -> None:
        self.name = name
        self.command = list(command)
        self.home = home.absolute()
        self.environment = {**clean_environment(), **(environment or {}), _MARK: str(self.home)}
        self.directory = directory
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Its output, of this and earlier starts."""
        return self.home / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            ProcessFailed: it was never started.
        """
        if self._popen is None:
            raise ProcessFailed(f"{self.name} was not started.")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> Self:
        """Start it; see `wait_until` for its being ready."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.directory,
                start_new_session=True,
            )
        return self

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> Self:
        """Poll `ready` until it is true.

        Raises:
            ProcessFailed: the program ended first, or `seconds` passed.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise ProcessFailed(f"{self.name} ended before it was ready. {self._log_end()}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} was not ready within {seconds:g} s. {self._log_end()}")
            time.sleep(_POLL_SECONDS)
        return self

    def stop(self, grace: float = 10.0) -> None:
        """Ask it to end, and kill it and what it started when it has not after `grace` seconds."""
        if self._popen is None:
            return
        family = _family(self._popen.pid)
        if self.running:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace)
        _kill(family)
        self._popen.wait()

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _log_end(self) -> str:
        end = self.log.read_text(errors="replace")[-2000:].strip()
        return f"The end of {self.log}:\n{end}"


def clean_environment() -> dict[str, str]:
    """Our environment without what names another Prefect server, another database or another process's place."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "TIDEGATE_")) and name != "VIRTUAL_ENV"
    }
    bin_folder = str(Path(sys.executable).parent)
    return {
        **kept,
        "PATH": os.pathsep.join([bin_folder, kept.get("PATH", os.defpath)]),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def answers(url: str) -> Callable[[], bool]:
    """A check for `Process.wait_until`: whether `url` answers a GET with success."""

    def check() -> bool:
        try:
            return httpx.get(url, timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    return check


def leftovers(home: Path) -> list[psutil.Process]:
    """Live processes that a `Process` of `home` started, at whatever remove.

    A flow run is in a session of its own, and an orphan once its worker is gone; what it inherits and keeps
    is the environment, so that is where the mark is.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == str(home.absolute()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sweep(home: Path, grace: float = 5.0) -> int:
    """End every process of `home` that is left, the youngest first, and say how many there were.

    What started later stands on what started before: a worker without its server would linger.
    """
    found = sorted(leftovers(home), key=psutil.Process.create_time, reverse=True)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
        _, alive = psutil.wait_procs([process], grace)
        _kill(alive)
    return len(found)


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(list(processes), 5)
