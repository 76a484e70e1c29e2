"""`ServerBackfill`: the flow `backfill`, started on the Prefect server and followed in a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tasks import settings
from tasks.declaration import Pipeline
from tasks.errors import ConfigError, SourceUnavailable, redact
from tasks.recovery.backfill.ledger import find_backfill
from tasks.recovery.backfill.report import BackfillReport, report_backfill
from tasks.running.assembly import Assembly
from tasks.state.backfills import last_backfills

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

DEPLOYMENT: Final = "backfill/backfill"

_POLL_SECONDS: Final = 2.0
_LAST: Final = 20


@dataclass(frozen=True)
class ServerBackfill:
    """A flow run of the backfill.

    Attributes:
        client: of the server.
        id: of the flow run.
    """

    client: "SyncPrefectClient"
    id: UUID

    def followed(self, show: Callable[[str], None]) -> "FlowRun":
        """The flow run once it has ended; `show` is called with what it says of its progress, whenever that changes."""
        shown: str | None = None
        while True:
            run = self.client.read_flow_run(self.id)
            ended = run.state is not None and run.state.is_final()
            said = self._progress() or (None if ended else f"flow run {run.name}: {run.state_name}")
            if said is not None and said != shown:
                show(said)
                shown = said
            if ended:
                return run
            time.sleep(_POLL_SECONDS)

    def _progress(self) -> str | None:
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

        mine = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[self.id]), type=ArtifactFilterType(any_=["progress"])
        )
        found = self.client.read_artifacts(artifact_filter=mine)
        return found[0].description if found else None


@contextmanager
def started(pipeline: str, parameters: dict[str, Any]) -> Iterator[ServerBackfill]:
    """The backfill of a pipeline, started on the server that `PREFECT_API_URL` names.

    Args:
        pipeline: its name, for messages.
        parameters: of the flow.

    Raises:
        ConfigError: there is no server, no deployment or no worker; the message names what to do.
        SourceUnavailable: the server broke off; what it has begun goes on.
    """
    here = "or add --here, and this process loads the windows."
    if not settings.api_server_known():
        raise ConfigError(f"{pipeline}: no Prefect server is named. Set PREFECT_API_URL, {here}")
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            away = client.api_healthcheck()
            if away is not None:
                raise ConfigError(
                    f"{pipeline}: the Prefect server {redact(str(client.api_url))} does not answer "
                    f"({type(away).__name__}). Check PREFECT_API_URL, {here}"
                )
            try:
                there = client.read_deployment_by_name(DEPLOYMENT)
            except ObjectNotFound:
                raise ConfigError(
                    f"{pipeline}: the server has no deployment {DEPLOYMENT!r}. Run `tidegate deploy`, {here}"
                ) from None
            if not _has_worker(client, there.work_pool_name):
                raise ConfigError(
                    f"{pipeline}: no worker of the work pool {there.work_pool_name!r} is alive. Start one with "
                    f"`prefect worker start --pool {there.work_pool_name}`, {here}"
                )
            made = client.create_flow_run_from_deployment(there.id, parameters=parameters)
            yield ServerBackfill(client, made.id)
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        raise SourceUnavailable(
            f"{pipeline}: the Prefect server broke off ({redact(repr(error))}). What it has begun goes on; "
            "`tidegate runs` shows it."
        ) from error


def last_report(pipeline: Pipeline, since: datetime | None, by: str, only: str) -> BackfillReport | None:
    """What the ledger says of the last backfill of a pipeline that asked this, or None.

    Args:
        pipeline: whose.
        since: the start that was asked for.
        by: what a window is.
        only: which were chosen.
    """
    parts = Assembly(pipeline)
    with parts.target_errors(pipeline.name), parts.engine.connect() as connection:
        last = last_backfills(connection, pipeline.name, _LAST)
    for one in last:
        if (one.asked.range.start, one.asked.by, one.asked.only) == (since, by, only):
            backfill = find_backfill(pipeline, one.backfill_id)
            return None if backfill is None else report_backfill(pipeline, backfill)
    return None


def _has_worker(client: "SyncPrefectClient", pool: str | None) -> bool:
    workers = [] if pool is None else client.read_workers_for_work_pool(pool)
    return any(str(getattr(one.status, "value", one.status)).upper() == "ONLINE" for one in workers)
