"""What a run and the flow `watch` tell a real server: which events, of which pipeline, with what in them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from sqlalchemy import Engine, text

from deployments.deployed_run import DeployedRun
from deployments.prefect_server import PrefectServer, Worker
from flows.watch import watch
from tasks.errors import GuardRefused, WatchFailed
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, order, put

pytestmark = pytest.mark.prefect

LOOKING_BACK = TableExtract("source", "orders", cursor="updated_at", lookback=99 * DAY)
PROMISED = Sla(max_freshness=DAY, max_open_letters=0, abort_error_rate=0.9)


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Flows called in this process report to the session's server."""
    here = {PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(here), get_client(sync_client=True) as connected:
        yield connected
        EventsWorker.drain_all()


def this_run() -> UUID:
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    return context.flow_run.id


def in_a_flow(pipeline: Pipeline) -> UUID:
    """Run it in a flow of its own; the flow run, however that ended."""
    seen: list[UUID] = []

    @flow(name=f"watched-{pipeline.name}")
    def run() -> None:
        seen.append(this_run())
        run_pipeline(pipeline)

    run(return_state=True)
    return seen[0]


def told(client: SyncPrefectClient, run: UUID, until: str) -> dict[str, dict[str, Any]]:
    """The payloads of what `run` told of pipelines, by event, once it has told `until`: the last there is."""
    wanted = {
        "event": {"prefix": ["etl."]},
        "related": {"id": [f"prefect.flow-run.{run}"]},
        "occurred": {"since": "2000-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"},
    }
    deadline = time.monotonic() + 30
    found: dict[str, dict[str, Any]] = {}
    EventsWorker.drain_all()
    while until not in found:
        assert time.monotonic() < deadline, f"{until} did not come, only {sorted(found)}"
        events = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50}).json()["events"]
        found = {one["event"]: one["payload"] | {"of": one["resource"]["prefect.resource.id"]} for one in events}
    return found


def test_a_committed_run_tells_every_promise_that_it_keeps_or_breaches(
    client: SyncPrefectClient, sqlite: Databases
) -> None:
    put(sqlite.source, [*(order(number) for number in range(9)), order(9, amount=-1)])
    pipeline = replace(ORDERS, name="promising", extract=LOOKING_BACK, sla=PROMISED)
    events = told(client, in_a_flow(pipeline), "etl.dead-letters.breached")
    assert set(events) == {
        "etl.target.changed",
        "etl.run.committed",
        "etl.window.covered",
        "etl.dataset.landed",
        "etl.run.error-rate-exceeded",
        "etl.freshness.kept",
        "etl.recent-error-rate.breached",
        "etl.dead-letters.breached",
    }
    run_id = events["etl.run.committed"]["run_id"]
    exceeded = events["etl.run.error-rate-exceeded"]
    assert exceeded["text"] == "1 of 10 rows were rejected, 10 %, more than the 5 % promised."
    assert exceeded["look"] == f"tidegate dead-letters list promising --run {run_id}"
    assert {one["of"] for one in events.values()} == {"etl.pipeline.promising"}
    assert {one["run_id"] for one in events.values() if "text" in one} == {run_id}

    again = told(client, in_a_flow(pipeline), "etl.dead-letters.breached")
    assert again["etl.run.error-rate-kept"]["text"] == "0 of 0 rows were rejected, 0 %, no more than the 5 % promised."
    assert "etl.run.error-rate-exceeded" not in again


def test_a_refused_run_tells_its_error_rate(client: SyncPrefectClient, sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1)])
    pipeline = replace(ORDERS, name="refused", sla=PROMISED)
    with pytest.raises(GuardRefused):
        run_pipeline(pipeline)
    events = told(client, in_a_flow(pipeline), "etl.run.error-rate-exceeded")
    assert events["etl.run.error-rate-exceeded"]["text"].startswith("1 of 1 rows were rejected, 100 %")
    assert "etl.run.committed" not in events


def test_a_run_that_has_committed_completes_although_its_health_cannot_be_measured(
    client: SyncPrefectClient, sqlite: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    put(sqlite.source, [order(1)])
    unsaid = TableExtract("source", "orders", cursor="updated_at")
    pipeline = replace(ORDERS, name="unmeasured", extract=_ClockThatStops(**vars(unsaid)), sla=PROMISED)
    seen: list[UUID] = []

    @flow(name="watched-unmeasured")
    def run() -> int:
        seen.append(this_run())
        return run_pipeline(pipeline).counts.inserted

    assert run() == 1
    assert "etl.run.error-rate-kept" in told(client, seen[0], "etl.run.error-rate-kept")
    assert "unmeasured: its health could not be measured: RuntimeError: the clock stopped" in caplog.text


class _ClockThatStops(TableExtract):
    def own_time(self) -> None:
        raise RuntimeError("the clock stopped")


def test_the_flow_watch_tells_how_pipelines_are_that_do_not_run(
    client: SyncPrefectClient, sqlite: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", sqlite.target_url)
    put(sqlite.source, [order(1), order(2, amount=-1)])
    run_pipeline(replace(ORDERS, name="airlines", load=Upsert("warehouse", "fct_orders", key=["id"])))
    with sqlite.target.begin() as connection:
        connection.execute(text("UPDATE etl_watermarks SET covered_until = '2020-01-01 00:00:00.000000'"))
    state: Any = watch(return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Completed")
    run = state.state_details.flow_run_id
    events = told(client, run, "etl.dead-letters.kept")
    assert set(events) == {"etl.freshness.breached", "etl.recent-error-rate.breached", "etl.dead-letters.kept"}
    assert {(one["of"], one["run_id"]) for one in events.values()} == {("etl.pipeline.airlines", None)}
    stale = events["etl.freshness.breached"]
    assert stale["text"].startswith("Everything up to 2020-01-01 00:00:00 UTC is loaded, ")
    assert stale["look"] == "tidegate status airlines"
    artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    assert [(artifact.key, artifact.description) for artifact in artifacts] == [
        ("etl-watch", "7 pipelines; breached: airlines (freshness, recent-error-rate)")
    ]


def test_the_flow_watch_fails_where_a_database_does_not_answer(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(WatchFailed, match="not measured: airlines, airports, bookings"):
        watch()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_deployed_watch_completes_on_a_worker(
    prefect_server: PrefectServer, worker: Worker, warehouse: Engine, client: SyncPrefectClient
) -> None:
    DeployedRun.start(prefect_server, "airlines/airlines").completed(120)
    watched = DeployedRun.start(prefect_server, "watch/watch").completed(120)
    assert "etl.recent-error-rate.kept" in told(client, watched.id, "etl.recent-error-rate.kept")
