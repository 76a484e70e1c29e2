"""The demo's own folder: one demo at a time, and nothing left of the one before."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from deployments.processes import sweep
from deployments.signals import uninterrupted
from tasks.embedded import EmbeddedPostgres
from tasks.errors import Refusal


@contextlib.contextmanager
def sole_user(home: Path) -> Iterator[None]:
    """Hold `home` for one demo at a time; the kernel lets go when its process dies.

    Raises:
        Refusal: another demo runs there.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refusal(
                f"Another demo is running in {home}. Wait for it, stop it with Ctrl-C, or work in another checkout."
            ) from error
        yield


def take_down(home: Path) -> int:
    """End what an earlier demo of `home` left running, its PostgreSQL last, and say how many programs that were.

    Raises:
        Refusal: another program uses that PostgreSQL.
    """
    with uninterrupted():
        ended = sweep(home)
        if not _cluster_runs(home):
            return ended
        EmbeddedPostgres(home / "postgres").use().release()
        if _cluster_runs(home):
            raise Refusal(f"Another program uses the PostgreSQL in {home / 'postgres'}. Stop it first.")
    return ended + 1


def clear(home: Path) -> None:
    """Remove what an earlier demo left in `home`; see `take_down`."""
    take_down(home)
    if home.exists():
        shutil.rmtree(home)


def _cluster_runs(home: Path) -> bool:
    cluster = EmbeddedPostgres(home / "postgres")
    return (cluster.folder / "data").exists() and cluster.running
