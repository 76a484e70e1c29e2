"""`Progress`: what the demo is doing right now, and how long each step took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from rich.console import Console


class Progress:
    """Names of the running steps beside a spinner, and a line for each finished one; steps may overlap."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._status = console.status("")
        self._running: list[str] = []
        self._lock = Lock()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show `name` while the block runs, and its seconds when it ended well."""
        started = time.monotonic()
        self._show(add=name)
        try:
            yield
        except BaseException:
            self._show(remove=name)
            raise
        seconds = time.monotonic() - started
        self._show(remove=name, finished=f"[green]done[/green]  {seconds:5.1f} s  {name}")

    def _show(self, add: str | None = None, remove: str | None = None, finished: str | None = None) -> None:
        # A terminal that was closed must not keep anybody from stopping what runs.
        with self._lock, suppress(OSError):
            if add is not None:
                self._running.append(add)
            if remove is not None:
                self._running.remove(remove)
            if finished is not None:
                self.console.print(finished, highlight=False, soft_wrap=True)
            if self._running:
                self._status.update(", ".join(self._running))
                self._status.start()
            else:
                self._status.stop()
