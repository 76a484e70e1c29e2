"""What Prefect is told of dead letters: nothing that is masked, and of a replay no run that would count in a rate."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from sqlalchemy import text

from deployments.prefect_server import PrefectServer
from tasks.errors import ContractError, GuardRefused
from tasks.pipeline import Audit, run_pipeline
from tasks.recovery.letters.retention_run import retain_pipelines
from tasks.recovery.replay import replay_letters
from tests.conftest import Databases
from tests.deployments.test_no_secret_in_prefect import server, told
from tests.recovery.letters.persons import MASKED, PEOPLE, person, put
from tests.recovery.letters.test_masking import good

__all__ = ["server"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_neither_artifacts_nor_events_nor_logs_nor_states_hold_a_masked_value(
    server: PrefectServer, sqlite: Databases
) -> None:
    def broken(raw: pd.DataFrame) -> pd.DataFrame:
        raise ValueError(f"cannot take {raw.to_dict('records')}")

    pipeline = replace(MASKED, name="unseen-people")
    put(sqlite.source, [person(1), person(2, age=2), person(3, email="canary without")])
    with pytest.raises(ContractError):
        _in_a_flow(lambda: run_pipeline(replace(pipeline, transform=broken)))
    with pytest.raises(GuardRefused):
        _in_a_flow(lambda: run_pipeline(replace(pipeline, audits=[Audit("none", "SELECT * FROM staged")])))
    _in_a_flow(lambda: [run_pipeline(pipeline), replay_letters(pipeline), retain_pipelines("retention", [pipeline])])
    _arrived(server, "etl-unseen-people", "etl.run.committed", "ValueError in broken", "(id = 2, name = ***")
    assert re.findall("(?i)canary.{40}", told(server)) == []


def test_a_replay_tells_of_no_committed_run_and_of_no_error_rate(server: PrefectServer, sqlite: Databases) -> None:
    pipeline = replace(PEOPLE, name="replayed-people")
    put(sqlite.source, [person(1), person(2, id=2, email="no address")])
    run_pipeline(pipeline)
    [report] = _in_a_flow(lambda: replay_letters(replace(pipeline, transform=good)))
    assert (report.counts.inserted, report.counts.rejected) == (1, 1)
    with sqlite.target.connect() as connection:
        query = text("SELECT flow_run_id FROM etl_runs WHERE kind = 'replay'")
        flow_run = connection.execute(query).scalar_one()
    EventsWorker.drain_all()
    events = _events(flow_run)
    assert "etl.dataset.landed" in events
    assert not {"etl.run.committed", "etl.window.covered", "etl.run.error-rate-exceeded"} & set(events)


def _in_a_flow(work: Callable[[], Any]) -> Any:
    @flow(name="letters in prefect")
    def carried_out() -> Any:
        return work()

    return carried_out()


def _arrived(server: PrefectServer, *parts: str) -> None:
    """Wait until the server has written all that down."""
    deadline = time.monotonic() + 60
    while missing := [part for part in parts if part not in told(server)]:
        assert time.monotonic() < deadline, f"{missing} did not come"


def _events(flow_run: str) -> list[str]:
    wanted = {
        "event": {"prefix": ["etl."]},
        "related": {"id": [f"prefect.flow-run.{flow_run}"]},
        "occurred": {"since": "2000-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"},
    }
    deadline = time.monotonic() + 30
    found: list[str] = []
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            answer = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50}).json()
            found = [one["event"] for one in answer["events"]]
            # What is told last: that there are open letters, and how many.
            if "etl.dead-letters.kept" in found:
                return found
    raise AssertionError(f"only {found}")
