"""`tidegate deploy` on a real server: what it says, what it does, and that a second one does nothing."""

import json

import pytest
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from typer.testing import CliRunner

from deployments.cli import app
from tests.deployments.trial.project import Trial
from tests.deployments.trial.snapshot import held, stamps

pytestmark = pytest.mark.prefect

A_PERSONS = DeploymentScheduleCreate(schedule=CronSchedule(cron="1 1 1 1 *"))
"""A schedule made in the UI has no slug."""

FIRST = [
    ("create", "work pool", "trial", "type process"),
    ("create", "block", "sqlalchemy-connector/trial-warehouse", ""),
    ("create", "block", "secret/trial-key", ""),
    ("create", "limit", "trial-rate", "120 requests in 0:00:01"),
    ("create", "deployment", "trial-orders/orders", "on trial, schedule daily, schedule often"),
    ("create", "deployment", "trial-sweep/sweep", "on trial, schedule weekly"),
]


@pytest.mark.smoke
def test_a_dry_run_says_what_would_be_made_and_touches_nothing(trial: Trial) -> None:
    before = held(trial.client)
    assert trial.planned() == FIRST
    printed = trial.deploy(dry_run=True)
    assert "create  deployment  trial-orders/orders" in printed
    assert "6 to create." in printed and "A dry run: nothing was touched." in printed
    assert held(trial.client) == before == {kind: [] for kind in before}


def test_the_command_tells_programs_what_it_would_do_and_people_on_stderr(trial: Trial) -> None:
    shown = CliRunner().invoke(app, ["deploy", "--dry-run", "--json", "--file", str(trial.write())])
    told = json.loads(shown.stdout)
    assert [tuple(one.values()) for one in told["changes"]] == FIRST
    assert (told["environment"], told["applied"], told["unchanged"]) == ("dev", False, {})
    assert "A dry run: nothing was touched." in shown.stderr


def test_a_deploy_makes_everything_and_the_second_touches_nothing(trial: Trial) -> None:
    assert "Done: 6 created." in trial.deploy()
    found = held(trial.client)
    assert {kind: len(things) for kind, things in found.items()} == {
        "pools": 1,
        "blocks": 2,
        "limits": 1,
        "deployments": 2,
        "automations": 1,
    }
    assert [len(one["schedules"]) for one in found["deployments"]] == [2, 1]
    touched = stamps(trial.client)
    printed = trial.deploy()
    assert "No changes: 1 work pool, 2 blocks, 1 limit, 2 deployments, 3 schedules as wanted." in printed
    assert stamps(trial.client) == touched


@pytest.fixture
def deployed(trial: Trial) -> Trial:
    trial.deploy()
    return trial


IN_THE_UI = {
    "description": DeploymentUpdate(description="Edited."),
    "version": DeploymentUpdate(version="2"),
    "tags": DeploymentUpdate(tags=["trial"]),
    "entrypoint": DeploymentUpdate(entrypoint="elsewhere.py:orders"),
    "path": DeploymentUpdate(path="/elsewhere"),
    "pull steps": DeploymentUpdate(pull_steps=[]),
    "parameters": DeploymentUpdate(parameters={"at_once": 5}),
    "work queue": DeploymentUpdate(work_pool_name="trial", work_queue_name="express"),
    "job variables": DeploymentUpdate(job_variables={"stream_output": True}),
    "concurrency limit": DeploymentUpdate(concurrency_limit=7),
    "collision strategy": DeploymentUpdate(
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    ),
    "parameter schema is enforced": DeploymentUpdate(enforce_parameter_schema=False),
    "parameter schema": DeploymentUpdate(
        parameter_openapi_schema={"title": "Parameters", "type": "object", "properties": {}},
        enforce_parameter_schema=False,
    ),
}


def test_each_field_that_was_changed_in_the_ui_is_named_and_set_right(deployed: Trial) -> None:
    right = held(deployed.client)
    there = deployed.client.read_deployment_by_name("trial-orders/orders")
    for change in IN_THE_UI.values():
        deployed.client.update_deployment(there.id, change)
    [(action, kind, name, why)] = deployed.planned()
    assert (action, kind, name) == ("update", "deployment", "trial-orders/orders")
    assert sorted(why.split(", ")) == sorted(IN_THE_UI)
    deployed.deploy()
    assert held(deployed.client) == right
    assert deployed.planned() == []


@pytest.mark.slow
def test_a_deployment_that_was_paused_to_hold_it_stays_paused(deployed: Trial) -> None:
    there = deployed.client.read_deployment_by_name("trial-orders/orders")
    deployed.client.pause_deployment(there.id)
    assert deployed.planned() == []
    deployed.orders["description"] = "Orders, changed."
    deployed.deploy()
    now = deployed.client.read_deployment_by_name("trial-orders/orders")
    assert (now.paused, now.description) == (True, "Orders, changed.")


@pytest.mark.slow
def test_schedules_are_set_right_one_by_one_and_a_persons_own_stays(deployed: Trial) -> None:
    """A person's has no slug; Prefect itself would replace all of them."""
    client = deployed.client
    there = client.read_deployment_by_name("trial-orders/orders")
    daily, often = sorted(there.schedules, key=lambda schedule: str(schedule.slug))
    client.update_deployment_schedule(there.id, daily.id, schedule=CronSchedule(cron="0 7 * * *", timezone="UTC"))
    client.update_deployment_schedule(there.id, often.id, active=True)
    [mine] = client.create_deployment_schedules(there.id, [A_PERSONS])
    deployed.orders["description"] = "Orders, changed."
    deployed.orders["schedules"].append({"slug": "yearly", "rrule": "FREQ=YEARLY", "parameters": {"at_once": 3}})
    assert deployed.planned() == [
        ("update", "deployment", "trial-orders/orders", "description"),
        ("update", "schedule", "trial-orders/orders daily", "when"),
        ("update", "schedule", "trial-orders/orders often", "active"),
        ("create", "schedule", "trial-orders/orders yearly", "rrule FREQ=YEARLY UTC"),
    ]
    deployed.deploy()
    assert deployed.planned() == []
    now = {one.slug: one for one in client.read_deployment_by_name("trial-orders/orders").schedules}
    assert now.keys() == {None, "daily", "often", "yearly"}
    assert (now[None].id, now[None].schedule, now[None].active) == (mine.id, mine.schedule, True)
    assert now["daily"].schedule == CronSchedule(cron="0 5 * * *", timezone="Europe/Berlin")
    assert (now["daily"].id, now["often"].active) == (daily.id, False)


def test_what_left_the_file_is_deleted_and_strangers_stay(deployed: Trial) -> None:
    client = deployed.client
    flow = client.read_flow_by_name("trial-sweep")
    strange = client.create_deployment(flow.id, "strange", tags=["other"], schedules=[])
    orders = client.read_deployment_by_name("trial-orders/orders")
    [mine] = client.create_deployment_schedules(orders.id, [A_PERSONS])
    kept = [*client.read_automations(), *client.read_automations_by_name("orders after shops")]
    deployed.written["deployments"] = [deployed.orders]
    deployed.orders["schedules"].pop()
    assert deployed.planned() == [
        ("delete", "schedule", "trial-orders/orders often", "its slug is not in the file"),
        ("delete", "deployment", "trial-sweep/sweep", "no longer in the file"),
    ]
    deployed.deploy()
    now = client.read_deployment_by_name("trial-orders/orders")
    assert {one.slug for one in now.schedules} == {"daily", None}
    assert mine.id in {one.id for one in now.schedules}
    assert {one.name for one in client.read_deployments() if one.flow_id == flow.id} == {"strange"}
    assert [*client.read_automations(), *client.read_automations_by_name("orders after shops")] == kept
    client.delete_deployment(strange)


@pytest.mark.slow
def test_a_trigger_that_changed_or_left_the_file_is_followed_and_a_persons_automation_stays(deployed: Trial) -> None:
    client = deployed.client
    there = client.read_deployment_by_name("trial-orders/orders")
    mine = AutomationCore(
        name="by hand",
        trigger=EventTrigger(expect={"shop.opened"}),
        actions=[RunDeployment(source="selected", deployment_id=there.id, parameters=None, job_variables=None)],
    )
    by_hand = client.create_automation(mine)
    deployed.orders["triggers"][0]["enabled"] = True
    assert deployed.planned() == [("update", "deployment", "trial-orders/orders", "triggers")]
    deployed.deploy()
    assert deployed.planned() == []
    [pushed] = client.read_automations_by_name("orders after shops")
    assert pushed.enabled
    del deployed.orders["triggers"]
    assert deployed.planned() == [("update", "deployment", "trial-orders/orders", "triggers")]
    deployed.deploy()
    assert deployed.planned() == []
    assert client.read_automations_by_name("orders after shops") == []
    assert [one.id for one in client.read_automations_by_name("by hand")] == [by_hand]
    client.delete_automation(by_hand)


@pytest.mark.slow
def test_a_limit_that_differs_is_set_right_and_a_disabled_one_stays_disabled(deployed: Trial) -> None:
    client = deployed.client
    client.update_global_concurrency_limit(
        "trial-rate", GlobalConcurrencyLimitUpdate(limit=9, slot_decay_per_second=1.5, active=False)
    )
    assert deployed.planned() == [
        ("update", "limit", "trial-rate", "limit 9 → 3, slot decay per second 1.5 → 120"),
    ]
    deployed.deploy()
    now = client.read_global_concurrency_limit_by_name("trial-rate")
    assert (now.limit, now.slot_decay_per_second, now.active) == (3, 120, False)
    assert deployed.planned() == []


@pytest.mark.slow
def test_what_a_person_changed_in_the_pool_stays(deployed: Trial) -> None:
    client = deployed.client
    template = client.read_work_pool("trial").base_job_template
    template["variables"]["properties"]["working_dir"]["default"] = "/srv"
    client.update_work_pool("trial", WorkPoolUpdate(base_job_template=template, concurrency_limit=4))
    assert deployed.planned() == []
    deployed.orders["description"] = "Orders, changed."
    deployed.deploy()
    now = client.read_work_pool("trial")
    assert (now.base_job_template, now.concurrency_limit) == (template, 4)
