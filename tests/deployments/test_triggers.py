"""The push alternative to a schedule: a dataset has landed, so what depends on it runs."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from sqlalchemy import text

from deployments.deployed_run import DeployedRun, runs_of
from deployments.prefect_server import PROJECT, PrefectServer, Worker
from tests.deployments.conftest import Sources

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "flights after airports or planes"


@pytest.fixture
def pushed(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[PrefectServer]:
    """The deployment of flights as its comment in prefect.yaml says to change it: pushed instead of scheduled."""
    declared = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    declared["deployments"] = [one for one in declared["deployments"] if one["name"] == "flights"]
    [flights] = declared["deployments"]
    flights["triggers"][0]["enabled"] = True
    flights["schedules"][0]["active"] = False
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(declared))
    prefect_server.prefect("deploy", "--all", "--prefect-file", str(file))
    yield prefect_server
    prefect_server.prefect("deploy", "--name", "flights")


def flights_runs(server: PrefectServer) -> dict[UUID, FlowRun]:
    return runs_of(server, "flights/flights")


def test_flights_run_once_planes_have_landed_and_not_when_nothing_has(
    pushed: PrefectServer, worker: Worker, sources: Sources
) -> None:
    [automation] = pushed.client.read_automations_by_name(NAME)
    assert automation.enabled
    before = flights_runs(pushed).keys()
    # On the first of January no plane has flown yet.
    sources.replay_to(datetime(2013, 1, 2, tzinfo=UTC))
    with sources.operations.begin() as connection:
        connection.execute(text("UPDATE planes SET seats = seats + 1"))
    DeployedRun.start(pushed, "planes/planes").completed()
    first = DeployedRun.another(pushed, "flights/flights", before, 90)
    pushed_run = flights_runs(pushed)[first.id]
    assert pushed_run.created_by is not None and pushed_run.created_by.display_value == NAME
    first.wait(120)

    known = flights_runs(pushed).keys()
    DeployedRun.start(pushed, "planes/planes").completed()
    # What the server has been told by then it has acted on once it has acted on what it was told later.
    with sources.operations.begin() as connection:
        connection.execute(text("UPDATE planes SET seats = seats - 1"))
    DeployedRun.start(pushed, "planes/planes").completed()
    last = DeployedRun.another(pushed, "flights/flights", known, 90)
    last.wait(120)
    assert flights_runs(pushed).keys() - known == {last.id}
