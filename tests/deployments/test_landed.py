"""What lands is told, and what waited for it is judged anew, although nobody asks for it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pandas as pd
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from sqlalchemy import Engine, func, insert, select, text

from deployments.demo import missing_airports
from deployments.deployed_run import DeployedRun, runs_of
from deployments.prefect_server import PrefectServer, Worker
from flows import airports, flights, planes
from tasks.extract.table import TableExtract
from tasks.pipeline import Sla, run_pipeline
from tasks.recovery.replay import replay_letters
from tasks.state.tables import dead_letters
from tests.conftest import Databases
from tests.deployments.conftest import Sources
from tests.deployments.test_watch import client, in_a_flow, this_run, told
from tests.orders import DAY, ORDERS, START, order, put
from tests.recovery.test_waiting import letter
from tests.test_graph_run import clocked

__all__ = ["client"]

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]

TRIGGER = "replay of what waited for a dataset"
LANDED, AWAITED = "etl.dataset.landed", "etl.dataset.awaited"


def labels(client: SyncPrefectClient, run: UUID) -> dict[str, str]:
    """What the resource of the landing that `run` told was said to be."""
    wanted = {
        "event": {"name": [LANDED]},
        "related": {"id": [f"prefect.flow-run.{run}"]},
        "occurred": {"since": "2000-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"},
    }
    [event] = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 5}).json()["events"]
    found: dict[str, str] = event["resource"]
    return found


def test_a_landing_is_told_only_where_rows_have_changed_and_says_whether_letters_wait_for_them(
    client: SyncPrefectClient, sqlite: Databases
) -> None:
    pipeline = replace(ORDERS, name="landing", extract=replace(_by_time(), lookback=99 * DAY))
    put(sqlite.source, [order(1)])
    first = in_a_flow(pipeline)
    told(client, first, LANDED)
    assert labels(client, first)[AWAITED] == "false"
    assert LANDED not in told(client, in_a_flow(pipeline), "etl.window.covered")
    with sqlite.target.begin() as connection:
        connection.execute(insert(dead_letters).values(**letter(1, "references fct_orders.id", "open")))
    put(sqlite.source, [order(1, day=1, amount=2.0)])
    again = in_a_flow(pipeline)
    assert told(client, again, LANDED)[LANDED]["updated"] == 1
    assert labels(client, again)[AWAITED] == "true"


def test_a_run_that_breaks_off_has_landed_what_it_committed(client: SyncPrefectClient, sqlite: Databases) -> None:
    put(sqlite.source, [order(1, day=0.5), order(2, day=1.5, customer="late")])

    def fails(raw: pd.DataFrame) -> pd.DataFrame:
        if "late" in set(raw["customer"]):
            raise SystemError("no memory left")
        return raw

    pipeline = replace(
        ORDERS, name="breaking", transform=fails, split=timedelta(days=1), max_attempts=1,
        extract=replace(_by_time(), initial=START),
    )  # fmt: skip
    pipeline = replace(pipeline, sla=replace(pipeline.sla, abort_error_rate=0.5))
    events = told(client, in_a_flow(pipeline), LANDED)
    assert events[LANDED]["inserted"] == 1
    assert "etl.run.committed" not in events


def _by_time() -> TableExtract:
    return TableExtract("source", "orders", cursor="updated_at")


def test_after_a_replay_the_health_of_the_pipeline_is_told_by_the_clock_of_its_source(
    client: SyncPrefectClient, sqlite: Databases
) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2)])
    sla = Sla(max_freshness=DAY, max_open_letters=0, abort_error_rate=1)
    pipeline = replace(ORDERS, name="mended", extract=clocked("'2026-01-02 00:00:00+00:00'"), sla=sla)
    run_pipeline(pipeline)
    mended = replace(pipeline, transform=lambda raw: raw.assign(amount=raw["amount"].abs()))
    seen: list[UUID] = []

    @flow(name="replay-of-mended")
    def run() -> None:
        seen.append(this_run())
        replay_letters(mended)

    run()
    events = told(client, seen[0], "etl.dead-letters.kept")
    assert {LANDED, "etl.freshness.kept", "etl.recent-error-rate.breached"} == events.keys() - {"etl.dead-letters.kept"}


@pytest.mark.slow
def test_letters_of_unknown_airports_are_replayed_once_these_land_and_nobody_asks_for_it(
    prefect_server: PrefectServer, worker: Worker, sources: Sources, warehouse: Engine, here: None
) -> None:
    sources.replay_to(datetime(2013, 1, 4, tzinfo=UTC))
    for pipeline in (airports.PIPELINE, planes.PIPELINE, flights.PIPELINE):
        run_pipeline(pipeline)
    waiting = letters(warehouse, "open")
    assert waiting > 0
    known = replays(prefect_server).keys()
    # Letters wait for airports, and none for planes: what lands there starts nothing.
    with sources.operations.begin() as connection:
        connection.execute(text("UPDATE planes SET seats = seats + 1"))
    DeployedRun.start(prefect_server, "planes/planes").completed()
    with sources.operations.begin() as connection:
        missing_airports.add(connection)
    DeployedRun.start(prefect_server, "airports/airports").completed()

    replayed = DeployedRun.another(prefect_server, "replay/replay", known, 90).completed(120)
    run = replays(prefect_server)[replayed.id]
    assert run.created_by is not None and run.created_by.display_value == TRIGGER
    assert run.parameters["landed"] == "airports"
    assert (letters(warehouse, "open"), letters(warehouse, "closed")) == (0, waiting)

    # It has landed flights, for which nobody waits. What the server was told of that it has acted on, once it has acted
    # on what it is told later.
    with warehouse.begin() as connection:
        connection.execute(insert(dead_letters).values(**letter(1, "references fct_flights.flight_id", "open")))
    sources.replay_to(datetime(2013, 1, 5, tzinfo=UTC))
    DeployedRun.start(prefect_server, "flights/flights").completed()
    last = DeployedRun.another(prefect_server, "replay/replay", {*known, run.id}, 90).completed(120)
    assert replays(prefect_server)[last.id].parameters["landed"] == "flights"
    assert replays(prefect_server).keys() - known == {run.id, last.id}
    with warehouse.begin() as connection:
        connection.execute(dead_letters.delete().where(dead_letters.c.row_key == "1"))


@pytest.fixture
def here(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pipelines run in this process load from and into the server's databases."""
    from tasks import connections

    connections.dispose()
    monkeypatch.setenv("TIDEGATE_HOME", str(prefect_server.home))
    for name in ("operations", "warehouse"):
        monkeypatch.setenv(f"TIDEGATE_{name.upper()}_URL", prefect_server.cluster.url(name))
    yield
    connections.dispose()


def letters(warehouse: Engine, status: str) -> int:
    counted = select(func.count()).where(dead_letters.c.pipeline == "flights", dead_letters.c.status == status)
    with warehouse.connect() as connection:
        return int(connection.execute(counted).scalar_one())


def replays(server: PrefectServer) -> dict[UUID, FlowRun]:
    return runs_of(server, "replay/replay")
