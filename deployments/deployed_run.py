"""`DeployedRun`: one run of a deployment, started as a person would, followed to its end."""

import re
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from uuid import UUID

from deployments.prefect_server import PrefectServer
from tasks.errors import TidegateError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_RUN_ID = re.compile(r"UUID: ([0-9a-f-]{36})")
_POLL_SECONDS = 0.3
_LOG_SECONDS = 3.0
"""A run sends its log every two seconds, so the last of it comes after the state."""


class RunFailed(TidegateError):
    """A deployed run ended in another state than Completed, or not in time. The message holds its log."""


@dataclass(frozen=True)
class DeployedRun:
    """A flow run that a worker executes.

    Attributes:
        server: where it runs.
        deployment: `flow/deployment`.
        id: Prefect's flow run id.
    """

    server: PrefectServer
    deployment: str
    id: UUID

    @classmethod
    def start(cls, server: PrefectServer, deployment: str, **parameters: str) -> Self:
        """Run `prefect deployment run <deployment> -p name=value …`.

        Raises:
            ProcessFailed: there is no such deployment, or it has no such parameter.
        """
        given = [argument for name, value in parameters.items() for argument in ("--param", f"{name}={value}")]
        printed = server.prefect("deployment", "run", deployment, *given)
        found = _RUN_ID.search(printed)
        if found is None:
            raise RunFailed(f"`prefect deployment run {deployment}` named no flow run:\n{printed}")
        return cls(server, deployment, UUID(found[1]))

    @classmethod
    def another(cls, server: PrefectServer, deployment: str, known: Set[UUID], seconds: float) -> Self:
        """The first run of `deployment` that is not among those `known`, whoever starts it; see `runs_of`.

        Raises:
            RunFailed: there was none after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            for id in runs_of(server, deployment).keys() - known:
                return cls(server, deployment, id)
            if time.monotonic() > deadline:
                raise RunFailed(f"Nothing started {deployment} within {seconds:g} s.")
            time.sleep(_POLL_SECONDS)

    @property
    def state(self) -> str:
        """The name of its present state, `Scheduled` or `Completed` for instance."""
        return self.server.client.read_flow_run(self.id).state_name or "unknown"

    def wait(self, seconds: float) -> str:
        """The name of the state it ended in.

        Raises:
            RunFailed: it had not ended after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            run = self.server.client.read_flow_run(self.id)
            if run.state is not None and run.state.is_final():
                return run.state.name or run.state.type.value
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"{self.deployment} was still {run.state_name} after {seconds:g} s (flow run {self.id}). "
                    f"The worker's log is {self.server.home / 'logs' / 'worker.log'}.\n{self.logs()}"
                )
            time.sleep(_POLL_SECONDS)

    def completed(self, seconds: float = 300) -> Self:
        """Wait for it to end well.

        Raises:
            RunFailed: it ended in another state, or had not ended after `seconds`.
        """
        state = self.wait(seconds)
        if state != "Completed":
            time.sleep(_LOG_SECONDS)
            raise RunFailed(f"{self.deployment} ended {state} (flow run {self.id}). Its log:\n{self.logs()}")
        return self

    def logs(self) -> str:
        """What it logged so far, a line each, oldest first."""
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
        from prefect.client.schemas.sorting import LogSort

        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.id]))
        lines = self.server.client.read_logs(wanted, sort=LogSort.TIMESTAMP_ASC)
        return "\n".join(f"{line.timestamp:%H:%M:%S} {line.name}: {line.message}" for line in lines)


def runs_of(server: PrefectServer, deployment: str) -> dict[UUID, "FlowRun"]:
    """The runs of `flow/deployment` that no schedule has made, the latest 200 of them."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    there = server.client.read_deployment_by_name(deployment)
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[there.id]))
    found = server.client.read_flow_runs(deployment_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    return {run.id: run for run in found if not run.auto_scheduled}


def all_completed(runs: Iterable[DeployedRun], seconds: float = 300) -> list[DeployedRun]:
    """Wait for each of `runs` to end well; see `DeployedRun.completed`."""
    return [run.completed(seconds) for run in runs]
