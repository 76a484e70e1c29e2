"""`PrefectServer`: a real Prefect server on the embedded PostgreSQL, and `Worker`, which runs what it schedules.

The demo runs on them, and so may tests: nothing in here is a stand-in.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.alerts import heartbeat
from deployments.processes import Process, ProcessFailed, answers, free_port
from tasks.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL = "tidegate"
"""The work pool of the environment `dev` in prefect.yaml."""

PROJECT = Path(__file__).resolve().parents[1]
"""The checkout: where prefect.yaml and the flows are."""

_DATABASE = "prefect"
_START_SECONDS = 120.0


class PrefectServer(Process):
    """API, scheduler and UI on a free port of the loopback address.

    Args:
        home: folder for its files, its log and the cluster `postgres`, the one that `TIDEGATE_HOME=<home>` means.
        environment: further settings of Prefect's.
    """

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.cluster = EmbeddedPostgres(home / "postgres")
        self._clients = ExitStack()
        super().__init__(
            "prefect-server",
            [sys.executable, "-m", "deployments.prefect_server", str(self.cluster.folder), str(self.port)],
            home,
            {
                "PREFECT_HOME": str(home.absolute() / "prefect"),
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.cluster.url(_DATABASE, "postgresql+asyncpg"),
                "PREFECT_SERVER_UI_API_URL": self.api_url,
                # At the default they are in memory, and a restart of the server crashes every run that holds a slot of
                # its deployment's concurrency limit.
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
                # At the default it holds back what belongs to runs that were under way when it was restarted.
                "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "deployments.event_order",
                # What the links in alerts begin with.
                "PREFECT_UI_URL": self.ui_url,
                # After this time the server forgets what an automation waited for, in vain or not; at the default of a
                # minute, what became due while it was down would never be told.
                "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": "P1D",
                "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
                **(environment or {}),
            },
        )

    @property
    def ui_url(self) -> str:
        """Where a browser finds the UI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """What clients and workers need as `PREFECT_API_URL`."""
        return f"{self.ui_url}/api"

    @property
    def client_environment(self) -> dict[str, str]:
        """What makes a Prefect or tidegate program use this server, and the cluster it stands on."""
        return {
            "PREFECT_HOME": self.environment["PREFECT_HOME"],
            "PREFECT_API_URL": self.api_url,
            "TIDEGATE_HOME": str(self.home),
        }

    def start(self) -> "PrefectServer":
        """Start the cluster where it does not run, and the server on it; ready when this returns.

        Raises:
            ProcessFailed: the server did not answer within two minutes.
            TargetUnavailable: the cluster did not start.
        """
        self.cluster.use()
        self.cluster.ensure_database(_DATABASE)
        super().start()
        return self.wait_until(answers(f"{self.api_url}/health"), _START_SECONDS)

    def stop(self, grace: float = 15.0) -> None:
        """Stop the server, then leave the cluster, which stops with its last user."""
        self._clients.close()
        self.__dict__.pop("client", None)
        super().stop(grace)
        self.cluster.release()

    @cached_property
    def client(self) -> "SyncPrefectClient":
        """A client of its API, whatever server our own environment names."""
        from prefect.client.orchestration import SyncPrefectClient

        return self._clients.enter_context(SyncPrefectClient(self.api_url))

    def prefect(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run the `prefect` command against this server, in the checkout, and return what it printed.

        Raises:
            ProcessFailed: it ended with another status than 0.
        """
        return self._run(["-m", "prefect", "--no-prompt", *arguments], environment)

    def deploy(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run `tidegate deploy` against this server, and return what it printed.

        Raises:
            ProcessFailed: there was something to mend first, or a part of it failed.
        """
        return self._run(["-c", "from deployments.cli import app; app()", "deploy", *arguments], environment)

    def _run(self, command: Sequence[str], environment: Mapping[str, str] | None) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            env={**self.environment, **self.client_environment, **(environment or {})},
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ProcessFailed(f"`{' '.join(command)}` failed:\n{done.stdout[-4000:].strip()}")
        return done.stdout


class Worker(Process):
    """A worker of the process type, which runs flows as its own child processes.

    Args:
        server: whose work it does.
        environment: what flow runs find in theirs, `TIDEGATE_<NAME>_URL` for instance.
        query_seconds: how often it asks for work.
        name: of its log.
        queues: the work queues that it serves; none is all of them.
        limit: how many flow runs it has under way at once; None is as many as there are.
    """

    def __init__(
        self,
        server: PrefectServer,
        environment: Mapping[str, str] | None = None,
        query_seconds: float = 1.0,
        *,
        name: str = "worker",
        queues: Sequence[str] = (),
        limit: int | None = None,
    ) -> None:
        options = [argument for queue in queues for argument in ("--work-queue", queue)]
        options += [] if limit is None else ["--limit", str(limit)]
        super().__init__(
            name,
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", *options],
            server.home,
            {
                **server.client_environment,
                **heartbeat.ENVIRONMENT,
                "PREFECT_WORKER_QUERY_SECONDS": str(query_seconds),
                **(environment or {}),
            },
        )


def main() -> None:
    """Run `prefect server start` as a user of its cluster: `python -m deployments.prefect_server FOLDER PORT`.

    So the cluster stays up as long as the server does, whatever became of the process that started both, and
    stops with it. A plain SIGTERM would end the process without leaving the cluster.
    """
    folder, port = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    EmbeddedPostgres(Path(folder)).use()
    from prefect.cli import app

    sys.argv = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    app()


if __name__ == "__main__":
    main()
