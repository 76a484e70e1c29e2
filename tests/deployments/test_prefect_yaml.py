"""What prefect.yaml promises, on paper and on a real server."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateName as StateName
from prefect.flows import load_flow_from_entrypoint
from sqlalchemy import Engine, text

from deployments import schedules
from deployments.deploy.project import Project
from deployments.deployed_run import DeployedRun
from deployments.prefect_server import PROJECT, PrefectServer, Worker

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
NAMES = [f"{deployment['entrypoint'].rpartition(':')[2]}/{deployment['name']}" for deployment in DEPLOYMENTS]
PART = "window/backfill"
"""What nothing starts but another flow."""
SCHEDULED = [deployment for deployment, name in zip(DEPLOYMENTS, NAMES, strict=True) if name != PART]
SCHEDULED_NAMES = [name for name in NAMES if name != PART]

each_scheduled = pytest.mark.parametrize("deployment", SCHEDULED, ids=SCHEDULED_NAMES)


def flows_in_files() -> set[str]:
    """`file:function` of every flow in `flows/`."""
    found = set()
    for file in Path(PROJECT / "flows").glob("[!_]*.py"):
        module = import_module(f"flows.{file.stem}")
        found |= {
            f"flows/{file.name}:{name}"
            for name, value in vars(module).items()
            if isinstance(value, Flow) and value.fn.__module__ == module.__name__
        }
    return found


def test_every_flow_is_deployed_and_nothing_else_is() -> None:
    assert {deployment["entrypoint"] for deployment in DEPLOYMENTS} == flows_in_files()


def test_deployment_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


@each_scheduled
def test_entrypoint_loads_and_flow_and_deployment_share_their_name(deployment: dict[str, Any]) -> None:
    flow = cast("Flow[..., Any]", load_flow_from_entrypoint(str(PROJECT / deployment["entrypoint"])))
    assert flow.name == deployment["name"]


@each_scheduled
def test_deployment_leaves_nothing_to_defaults(deployment: dict[str, Any]) -> None:
    assert deployment["description"]
    assert deployment["version"]
    assert "tidegate" in deployment["tags"]
    follows = {"full_refresh": False}
    operating: dict[str, dict[str, Any]] = {
        "nightly": {"at_once": 4},
        "replay": dict.fromkeys(("pipeline", "rule", "start", "end", "landed")),
        "retention": {},
        "watch": {},
        "reconcile": {"pipeline": None, "start": None, "end": None, "deep": False, "repair": False},
        "backfill": {
            "pipeline": None, "start": None, "end": None, "by": "day", "jobs": 4, "only": "missing", "dry_run": False,
            "afresh": False,
        },
    }  # fmt: skip
    others = {"airports": follows, "bookings": follows, "planes": follows} | operating
    window = {"start": None, "end": None, "full_refresh": False}
    assert deployment["parameters"] == others.get(deployment["name"], window)
    assert deployment["work_pool"]["name"] == "tidegate"
    # What a second watch would see, the next one sees.
    second = "CANCEL_NEW" if deployment["name"] == "watch" else "ENQUEUE"
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": second}


@each_scheduled
def test_deployment_knows_every_parameter_of_its_flow_but_the_guards_to_set_aside(deployment: dict[str, Any]) -> None:
    flow = cast("Flow[..., Any]", load_flow_from_entrypoint(str(PROJECT / deployment["entrypoint"])))
    known = set(flow.parameters.properties) - {"overrides"}
    assert set(deployment["parameters"]) == known


def test_windows_of_backfills_have_a_queue_of_their_own_with_a_limit_behind_what_is_scheduled() -> None:
    project = Project.read(PROJECT / "prefect.yaml", PROJECT)
    queues = {one.identity: one.queue for one in project.deployments}
    assert queues.pop(("flows/window.py:window", "backfill")) == "backfill"
    assert set(queues.values()) == {"default"}
    queue = project.queues["backfill"]
    assert queue.concurrency_limit == 4
    # That of `default` is 1.
    assert queue.priority > 1
    [window] = [one for one, name in zip(DEPLOYMENTS, NAMES, strict=True) if name == PART]
    assert window["concurrency_limit"]["limit"] >= queue.concurrency_limit
    assert window["schedules"] == []


@each_scheduled
def test_deployment_has_a_cron_in_a_time_zone(deployment: dict[str, Any]) -> None:
    [schedule] = deployment["schedules"]
    assert len(schedule["cron"].split()) == 5
    assert ZoneInfo(schedule["timezone"])


def test_no_two_deployments_start_in_the_same_minute() -> None:
    started = [minute for deployment in SCHEDULED for minute in minutes(deployment["schedules"][0]["cron"])]
    assert len(set(started)) == len(started)


def minutes(cron: str) -> range:
    """At which minutes of an hour it starts: of `20`, or `2-59/10`."""
    first, _, rest = cron.split()[0].partition("-")
    if not rest:
        return range(int(first), int(first) + 1)
    last, _, step = rest.partition("/")
    return range(int(first), int(last) + 1, int(step))


@pytest.mark.smoke
@pytest.mark.prefect
def test_the_server_creates_the_scheduled_runs(prefect_server: PrefectServer) -> None:
    # On SQLAlchemy 2.1 the server answers as healthy as ever, and schedules nothing.
    schedules.resume(prefect_server.client)
    try:
        waiting = set(SCHEDULED_NAMES)
        deadline = time.monotonic() + 60
        while waiting and time.monotonic() < deadline:
            waiting = {name for name in waiting if not scheduled_runs(prefect_server, name)}
            time.sleep(0.5)
        assert waiting == set()
    finally:
        schedules.pause(prefect_server.client)


@pytest.mark.smoke
@pytest.mark.prefect
def test_a_deployed_flow_runs_on_a_worker(prefect_server: PrefectServer, worker: Worker, warehouse: Engine) -> None:
    DeployedRun.start(prefect_server, "airlines/airlines").completed(120)
    with warehouse.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM dim_airlines")).scalar_one() == 16


@pytest.mark.prefect
def test_redeploying_with_the_command_changes_nothing(prefect_server: PrefectServer) -> None:
    schedules.resume(prefect_server.client)
    try:
        before, automated = deployed(prefect_server), automations(prefect_server)
        assert automated["flights after airports or planes"] == [False]
        assert (
            f"No changes: 1 work pool, 1 work queue, {len(NAMES)} deployments, {len(SCHEDULED)} schedules as wanted."
            in prefect_server.deploy()
        )
        assert deployed(prefect_server) == before
        assert automations(prefect_server) == automated
    finally:
        schedules.pause(prefect_server.client)


@pytest.mark.prefect
@pytest.mark.slow
def test_what_plain_prefect_deploy_does_is_no_change_either(prefect_server: PrefectServer) -> None:
    schedules.resume(prefect_server.client)
    try:
        prefect_server.prefect("deploy", "--all")
        assert "No changes" in prefect_server.deploy()
    finally:
        schedules.pause(prefect_server.client)


def scheduled_runs(server: PrefectServer, name: str) -> int:
    """How many runs of a deployment wait for their time because of its schedule."""
    deployment = server.client.read_deployment_by_name(name)
    runs = server.client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(name=StateName(any_=["Scheduled"]))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
    )
    return sum(run.auto_scheduled for run in runs)


def deployed(server: PrefectServer) -> list[dict[str, Any]]:
    """What the server holds of every deployment, when it was touched included."""
    changing: dict[str, Any] = dict.fromkeys(("status", "last_polled"), True)
    # What its limit holds changes with its runs, and a run of an earlier test may end only now.
    changing["global_concurrency_limit"] = {"updated", "active_slots"}
    return sorted(
        (deployment.model_dump(mode="json", exclude=changing) for deployment in server.client.read_deployments()),
        key=lambda deployment: str(deployment["entrypoint"]),
    )


def automations(server: PrefectServer) -> dict[str, list[bool]]:
    """Whether each automation is enabled, by name."""
    found: dict[str, list[bool]] = {}
    for automation in server.client.read_automations():
        found.setdefault(automation.name, []).append(automation.enabled)
    return found
