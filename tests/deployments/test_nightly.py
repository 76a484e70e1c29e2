"""The graph on a real Prefect server: which runs it makes, in which state each ends, and that one slot is enough."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from sqlalchemy import Engine, select

from deployments.deployed_run import DeployedRun
from deployments.prefect_server import POOL, PrefectServer, Worker
from flows.nightly import GRAPH
from tasks.graph import Graph
from tasks.graph_run import GraphReport, run_graph
from tasks.pipeline import Pipeline, finished, run_pipeline
from tasks.report import RunReport
from tasks.state.tables import runs
from tests.conftest import Databases
from tests.deployments.conftest import Sources
from tests.orders import DAY, START, order, put
from tests.test_graph_run import clocked, ledger, loading

pytestmark = pytest.mark.prefect

FIRST_DAY = datetime(2013, 1, 2, tzinfo=UTC)


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Flows called in this process report to the session's server."""
    here = {PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(here), get_client(sync_client=True) as connected:
        yield connected
        EventsWorker.drain_all()


def subflow(pipeline: Pipeline) -> RunReport:
    @flow(name=f"night-of-{pipeline.name}")
    def run() -> RunReport:
        return finished(run_pipeline(pipeline))

    return run()


def states(client: SyncPrefectClient, parent: UUID) -> dict[str, str | None]:
    """Flow and state name of every subflow."""
    wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
    found = client.read_flow_runs(flow_run_filter=wanted)
    return {client.read_flow(run.flow_id).name.removeprefix("night-of-"): run.state_name for run in found}


def test_a_night_with_a_failure_in_the_middle_and_an_upstream_that_is_behind(
    client: SyncPrefectClient, sqlite: Databases
) -> None:
    put(sqlite.source, [order(number) for number in range(10)])
    late = replace(clocked("'2026-01-09 00:00:00+00:00'"), initial=START + 4 * DAY)
    graph = Graph(
        [
            loading("first"),
            loading("broken", "first", table="gone"),
            loading("last", "broken"),
            loading("apart", "first"),
            replace(loading("slow"), extract=clocked("'2026-01-03 00:00:00+00:00'")),
            replace(loading("ahead"), extract=late, depends_on=["slow"]),
        ]
    )
    nights: list[UUID] = []

    @flow(name="night")
    def night() -> GraphReport:
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        nights.append(context.flow_run.id)
        return run_graph("night", graph, subflow)

    state = night(return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "Failed")
    assert "night: broken failed" in str(state.message)
    assert states(client, nights[0]) == {
        "first": "Completed",
        "broken": "Failed",
        "apart": "Completed",
        "slow": "Completed",
        "ahead": "Skipped",
    }
    assert ledger(sqlite) == {
        ("first", "committed", 10),
        ("apart", "committed", 10),
        ("slow", "committed", 10),
        ("broken", "failed", None),
        ("last", "skipped", None),
        ("ahead", "skipped", None),
    }
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[nights[0]]))
    shown = {artifact.key: artifact.description for artifact in client.read_artifacts(artifact_filter=mine)}
    assert shown["etl-night"] == "3 completed (apart, first, slow); 2 skipped (ahead, last); 1 failed (broken)"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_deployed_night_needs_one_slot_and_catches_up_after_a_failure(
    prefect_server: PrefectServer, sources: Sources, worker: Worker, warehouse: Engine
) -> None:
    sources.replay_to(FIRST_DAY)
    # Whatever it asked others to run would wait for it to end, and it for them.
    prefect_server.client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=1))
    try:
        with sources.operations.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE planes RENAME TO planes_elsewhere")
        night = DeployedRun.start(prefect_server, "nightly/nightly")
        assert night.wait(300) == "Failed"
        others = dict.fromkeys(GRAPH.order, "committed")
        ended = statuses(warehouse, prefect_server.client, night)
        assert ended == others | {"planes": "failed"} | dict.fromkeys(downstreams("planes"), "skipped")
        with sources.operations.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE planes_elsewhere RENAME TO planes")
        night = DeployedRun.start(prefect_server, "nightly/nightly").completed(300)
        assert statuses(warehouse, prefect_server.client, night) == dict.fromkeys(GRAPH.order, "committed")
    finally:
        prefect_server.client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))


def downstreams(name: str) -> set[str]:
    """What depends on `name`, at whatever remove."""
    direct = {other for other in GRAPH.order if name in GRAPH.upstreams(other)}
    return direct.union(*map(downstreams, direct))


def statuses(warehouse: Engine, client: SyncPrefectClient, night: DeployedRun) -> dict[str, str]:
    """How every pipeline ended in the ledger, in this night and its subflows."""
    wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[night.id]))
    ids = [str(run.id) for run in client.read_flow_runs(flow_run_filter=wanted)] + [str(night.id)]
    with warehouse.connect() as connection:
        rows = connection.execute(select(runs.c.pipeline, runs.c.status).where(runs.c.flow_run_id.in_(ids))).all()
    return {row.pipeline: row.status for row in rows}
