"""The engine inside a real flow run: its task runs, its artifact, its events; and the steps composed by hand."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pandas as pd
import pandera.pandas as pa
import pyarrow.compute as pc
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner
from sqlalchemy import create_engine, text

from deployments.prefect_server import PrefectServer
from tasks.extract.api import ApiExtract
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import NullShare, run_pipeline
from tasks.report import RunReport
from tasks.steps import extract_api, extract_table, load, validate
from tests import pages
from tests.conftest import Databases
from tests.extract.shop import Serve
from tests.orders import ORDERS, OrderSchema, loaded, order, put
from tests.scripted_server import Reply

pytestmark = pytest.mark.prefect


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Flows called in this process report to the session's server."""
    here = {PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(here), get_client(sync_client=True) as connected:
        yield connected
        EventsWorker.drain_all()


def _this_run() -> UUID:
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    return context.flow_run.id


@pytest.mark.smoke
def test_a_pipeline_in_a_flow_run_is_four_task_runs_and_an_artifact(
    client: SyncPrefectClient, sqlite: Databases
) -> None:
    put(sqlite.source, [order(1), order(2, amount=-1)])

    @flow(name="orders-in-a-flow")
    def orders() -> tuple[UUID, RunReport]:
        return _this_run(), run_pipeline(ORDERS)

    run, report = orders()
    assert report.counts.inserted == 1
    task_runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    names = {task_run.name.rsplit("-", 1)[0]: task_run.state_name for task_run in task_runs}
    assert names == dict.fromkeys(["extract", "validate", "stage", "commit"], "Completed")
    artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    assert [artifact.key for artifact in artifacts] == ["etl-orders"]


def test_a_task_runner_with_one_worker_is_enough(client: SyncPrefectClient, sqlite: Databases) -> None:
    put(sqlite.source, [order(number) for number in range(100)])

    one: Any = ThreadPoolTaskRunner(max_workers=1)

    @flow(name="orders-with-one-worker", task_runner=one)
    def orders() -> RunReport:
        return run_pipeline(ORDERS)

    assert orders().counts.inserted == 100


def test_a_window_that_is_loaded_out_of_bounds_raises_the_event(
    client: SyncPrefectClient, prefect_server: PrefectServer, sqlite: Databases
) -> None:
    put(sqlite.source, [order(1, customer=None)])
    bounded = replace(ORDERS, name="out-of-bounds", bounds=[NullShare("customer", max=0.1, min_rows=1)])

    @flow(name="orders-out-of-bounds")
    def orders() -> RunReport:
        return run_pipeline(bounded)

    assert orders().counts.inserted == 1
    EventsWorker.drain_all()
    server = create_engine(prefect_server.cluster.url("prefect"))
    raised = text("SELECT event FROM events WHERE resource_id = 'etl.pipeline.out-of-bounds'")
    # The server writes down what it is told a little later; where it never does, the test times out.
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while "etl.bounds.exceeded" not in connection.execute(raised).scalars().all():
            connection.execute(text("SELECT pg_sleep(0.05)"))
    server.dispose()


def test_the_documented_flow_joins_a_database_and_an_api(
    client: SyncPrefectClient, sqlite: Databases, serve: Serve
) -> None:
    """It loads what the pipeline before it on the page loads, from the same tables."""
    flow_of_steps = pages.examples("transform.md", "flow")["invoices_by_hand"]
    pipeline = pages.examples("transform.md")["invoices"]
    invoices, rates = (pd.DataFrame(given.records) for given in pipeline.given)
    invoices.to_sql("invoices", sqlite.source, index=False)
    records = rates.rename(columns={"code": "currency"}).to_dict("records")
    serve(lambda _: Reply({"rows": records}))

    class InvoiceSchema(pa.DataFrameModel):
        id: int
        euro: float

    tools = (ApiExtract, InvoiceSchema, RunReport, TableExtract, Upsert)
    known: dict[str, Any] = {kind.__name__: kind for kind in tools}
    known |= {"extract_api": extract_api, "extract_table": extract_table, "flow": flow, "load": load, "pc": pc}
    exec(flow_of_steps.code, known)
    assert known["invoices_by_hand"]().counts.inserted == 2
    with sqlite.target.connect() as connection:
        rows = connection.execute(text("SELECT * FROM fct_invoices ORDER BY id")).all()
    assert [list(row) for row in rows] == pipeline.loaded[0].values


def test_a_flow_of_its_own_shape_composes_the_steps(client: SyncPrefectClient, sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=1), order(2, amount=-2), order(3, amount=3)])

    @flow(name="orders-by-hand")
    def orders() -> tuple[int, RunReport]:
        rows: Any = extract_table(TableExtract("source", "orders"))
        doubled = rows.set_column(rows.column_names.index("amount"), "amount", pc.multiply(rows["amount"], 2))
        judged = validate("orders_by_hand", doubled, OrderSchema, key=("id",))
        return judged.rejected.num_rows, load(
            "orders_by_hand", doubled, OrderSchema, Upsert("target", "fct_orders", key=["id"]), cursor="updated_at"
        )

    rejected, report = orders()
    assert (rejected, report.counts.inserted, report.counts.rejected) == (1, 2, 1)
    assert [row["amount"] for row in loaded(sqlite.target)] == [2, 6]
    assert report.counts.balanced
