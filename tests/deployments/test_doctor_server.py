"""What `tidegate doctor` and `tidegate status` ask a real server."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from prefect.automations import Automation
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolUpdate,
)
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect_sqlalchemy import SqlAlchemyConnector

from deployments import schedules
from deployments.doctor.finding import Finding
from deployments.doctor.named_things import examine_named
from deployments.doctor.server import examine_server
from deployments.pipelines import every
from deployments.prefect_server import POOL, PrefectServer, Worker
from deployments.standing import next_runs
from tests.deployments.test_prefect_yaml import DEPLOYMENTS
from tests.deployments.trial.orders import PIPELINE
from tests.deployments.trial.project import Trial

pytestmark = pytest.mark.prefect

OPERATING = [one["name"] for one in DEPLOYMENTS if one["name"] not in {pipeline.name for pipeline in every()}]
"""What is deployed and is no pipeline."""


@pytest.fixture
def server(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield prefect_server


def found() -> dict[str, Finding]:
    return {one.about: one for one in examine_server(every())}


@pytest.mark.smoke
def test_a_server_that_is_away_is_one_line_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        (only,) = examine_server(every())
        upcoming, away = next_runs(["flights"])
    assert (only.verdict, only.about) == ("fail", "server")
    assert "http://127.0.0.1:1/api" in only.text and "PREFECT_API_URL" in str(only.remedy)
    assert (upcoming, away is not None) == ({}, True)


def test_what_is_deployed_is_well_once_its_schedules_are_on(server: PrefectServer, worker: Worker) -> None:
    schedules.resume(server.client)
    try:
        deadline = time.monotonic() + 60
        while found()["workers of tidegate"].verdict != "ok" and time.monotonic() < deadline:
            time.sleep(0.3)
        seen = found()
    finally:
        schedules.pause(server.client)
    assert {about: one.verdict for about, one in seen.items() if about.startswith(("deployment", "work"))} == {
        "work pool tidegate": "ok",
        "workers of tidegate": "ok",
        **{f"deployment {name}": "ok" for name in (*(one.name for one in every()), *OPERATING) if name != "backfill"},
        # Two flows have a deployment of this name.
        "deployment backfill/backfill": "ok",
        "deployment window/backfill": "ok",
    }
    assert seen["clock of the server"].verdict == seen["trigger replay of what waited for a dataset"].verdict == "ok"
    assert seen["server"].verdict == "ok" and "1 alive, last heard of at" in seen["workers of tidegate"].text


@pytest.mark.slow
def test_a_deployment_that_is_not_there_is_told(server: PrefectServer) -> None:
    server.client.delete_deployment(server.client.read_deployment_by_name("airlines/airlines").id)
    try:
        seen = found()
    finally:
        server.prefect("deploy", "--name", "airlines")
        schedules.pause(server.client)
    assert seen["deployment airlines"].verdict == "fail"
    assert "tidegate deploy" in str(seen["deployment airlines"].remedy)


def test_a_schedule_that_is_off_and_a_paused_pool_are_told(server: PrefectServer) -> None:
    schedules.pause(server.client)
    server.client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    try:
        seen = found()
    finally:
        server.client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
    assert seen["deployment flights"].verdict == "warn"
    assert "hourly is not active" in seen["deployment flights"].text
    assert seen["work pool tidegate"].verdict == "fail"
    assert "prefect work-pool resume tidegate" in str(seen["work pool tidegate"].remedy)


def test_a_paused_queue_is_told(server: PrefectServer) -> None:
    queue = server.client.create_work_queue("held", work_pool_name=POOL)
    server.client.update_work_queue(queue.id, is_paused=True)
    try:
        seen = found()
    finally:
        server.client.delete_work_queue_by_id(queue.id)
    assert seen["work queue held of tidegate"].verdict == "warn"
    assert seen["work queue held of tidegate"].remedy == "prefect work-queue resume held --pool tidegate"
    assert not any(about.startswith("work queue") for about in found())


def test_blocks_that_are_missing_are_told_with_what_is_used_instead(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_OPERATIONS_URL", "sqlite://")
    SqlAlchemyConnector(connection_info="sqlite://").save("warehouse", overwrite=True, _sync=True)
    try:
        seen = found()
    finally:
        SqlAlchemyConnector.delete("warehouse", _sync=True)
    assert seen["block operations"].text.startswith("not needed here")
    assert seen["block warehouse"].verdict == "ok"
    assert seen["block tidegate-alerts"].verdict == "warn"
    assert "the embedded PostgreSQL serves for warehouse" in found()["block warehouse"].text


def test_automations_that_are_missing_or_switched_off_are_told(server: PrefectServer) -> None:
    assert "nothing alerts of airlines" in found()["automations"].text
    assert all(name in found()["automations"].text for name in OPERATING)
    trigger = EventTrigger(expect={"etl.never"}, posture=Posture.Reactive, threshold=1, within=timedelta(hours=1))
    names = [*(one.name for one in every()), *OPERATING]
    made = [
        Automation(name=f"tidegate: {name}: failed", trigger=trigger, actions=[DoNothing()], enabled=on)
        for name, on in zip(names, [False, *[True] * len(names)], strict=False)
    ]
    for automation in made:
        automation.create()
    try:
        seen = found()
        assert seen["automation tidegate: airlines: failed"].verdict == "warn"
        assert "automations" not in seen
        made[0].enable()
        assert found()["automations"].text == f"{len(made)} are there and enabled."
    finally:
        for automation in made:
            automation.delete()


def test_a_trigger_that_is_switched_off_or_gone_is_told(server: PrefectServer) -> None:
    name = "replay of what waited for a dataset"
    [automation] = server.client.read_automations_by_name(name)
    server.client.pause_automation(automation.id)
    try:
        off = found()[f"trigger {name}"]
        server.client.delete_automation(automation.id)
        gone = found()[f"trigger {name}"]
    finally:
        server.prefect("deploy", "--name", "replay")
        schedules.pause(server.client)
    assert (off.verdict, gone.verdict) == ("warn", "fail")
    assert "Switch it on" in str(off.remedy) and "tidegate deploy" in str(gone.remedy)
    # One that the file itself switches off is nobody's concern.
    assert "trigger flights after airports or planes" not in found()


def test_secrets_and_limits_that_are_missing_are_told(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(*blocks: str) -> dict[str, Finding]:
        return {one.about: one for one in examine_named(trial.client, [PIPELINE], set(blocks))}

    here = seen()
    assert here["secret trial_key"].verdict == "ok" and "TIDEGATE_SECRET_TRIAL_KEY" in here["secret trial_key"].text
    assert here["limit trial-rate"].verdict == "fail" and "tidegate deploy" in str(here["limit trial-rate"].remedy)
    monkeypatch.delenv("TIDEGATE_SECRET_TRIAL_KEY")
    nowhere = seen()["secret trial_key"]
    assert nowhere.verdict == "fail" and "Set TIDEGATE_SECRET_TRIAL_KEY" in str(nowhere.remedy)
    rate = GlobalConcurrencyLimitCreate(name="trial-rate", limit=3, slot_decay_per_second=2, active=False)
    trial.client.create_global_concurrency_limit(rate)
    held = seen("trial-key")
    assert (held["secret trial_key"].verdict, held["limit trial-rate"].verdict) == ("ok", "warn")
    trial.client.update_global_concurrency_limit("trial-rate", GlobalConcurrencyLimitUpdate(active=True))
    assert seen("trial-key")["limit trial-rate"].verdict == "ok"


def test_status_tells_when_the_next_run_is_scheduled(server: PrefectServer) -> None:
    schedules.resume(server.client)
    try:
        deadline = time.monotonic() + 60
        upcoming: dict[str, datetime] = {}
        while "flights" not in upcoming and time.monotonic() < deadline:
            upcoming, away = next_runs(["flights", "nothing_of_the_kind"])
            assert away is None
            time.sleep(0.3)
    finally:
        schedules.pause(server.client)
    assert list(upcoming) == ["flights"]
    assert upcoming["flights"].minute == 20
