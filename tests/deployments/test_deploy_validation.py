"""What a deploy finds wrong with a prefect.yaml before it touches anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from deployments.deploy.command import PROJECT
from deployments.deploy.project import Project
from deployments.deploy.validation import validate
from tasks.errors import ConfigError
from tests.deployments.trial.project import Trial

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def written(tmp_path: Path) -> Trial:
    """A project that is right; no server is asked."""
    return Trial(tmp_path, client=cast("Any", None))


def problems(trial: Trial, environment: str | None = None) -> list[str]:
    return validate(Project.read(trial.write(), PROJECT, environment))[1]


def test_the_projects_own_file_has_no_problem() -> None:
    for environment in ("dev", "staging", "prod"):
        flows, found = validate(Project.read(PROJECT / "prefect.yaml", PROJECT, environment))
        assert found == []
        assert {one.name for one in flows} >= {"flights/flights", "nightly/nightly"}


def test_a_file_that_is_right_has_no_problem(written: Trial) -> None:
    assert problems(written) == []


WRONG: dict[str, tuple[Edit, str]] = {
    "no such file": (lambda one: one.update(entrypoint="flows/absent.py:absent"), "there is no file flows/absent.py"),
    "no such function": (
        lambda one: one.update(entrypoint="tests/deployments/trial/orders.py:absent"),
        "entrypoint 'tests/deployments/trial/orders.py:absent' does not load",
    ),
    "no flow": (lambda one: one.update(entrypoint="tests/deployments/trial/project.py:Trial"), "does not load"),
    "no function": (lambda one: one.update(entrypoint="flows/flights.py"), "'flows/flights.py' names no function"),
    "unknown parameter": (
        lambda one: one["parameters"].update(att_once=3),
        "parameter 'att_once' is not one of its flow's. Known are 'day' or 'at_once'",
    ),
    "wrong type": (
        lambda one: one["parameters"].update(at_once="many"),
        "parameter at_once is 'many': Input should be",
    ),
    "no date": (
        lambda one: one["parameters"].update(day="2024-13-01"),
        "parameter day is '2024-13-01': Input should be",
    ),
    "parameter of a schedule": (
        lambda one: one["schedules"][0].update(parameters={"at_once": "few"}),
        "schedule 'daily': parameter at_once is 'few'",
    ),
    "cron": (
        lambda one: one["schedules"][0].update(cron="every day"),
        "schedule 'daily': {'cron': 'every day'} is not understood",
    ),
    "time zone": (
        lambda one: one["schedules"][0].update(timezone="Europe/Berlim"),
        "schedule 'daily': there is no time zone 'Europe/Berlim'",
    ),
    "two kinds of schedule": (lambda one: one["schedules"][0].update(interval=60), "exactly one of cron, interval"),
    "no slug": (lambda one: one["schedules"][0].pop("slug"), "has no slug"),
    "a slug twice": (lambda one: one["schedules"][1].update(slug="daily"), "2 schedules have the slug 'daily'"),
    "active as text": (lambda one: one["schedules"][0].update(active="no"), "schedule 'daily': active is 'no'"),
    "sla": (lambda one: one.update(sla=[{"name": "late", "duration": 60}]), "sla is known to Prefect Cloud alone"),
    "unknown key": (lambda one: one.update(tag=["x"]), "the key 'tag' is not known"),
    "tag": (lambda one: one.update(tags=["fact"]), "without 'trial', which marks it as this project's own"),
    "version as number": (lambda one: one.update(version=1.0), "version is 1.0, which is no text"),
    "another pool": (
        lambda one: one.update(work_pool={"name": "elsewhere", "work_queue_name": "default"}),
        "work_pool is {'name': 'elsewhere', 'work_queue_name': 'default'}, not that of the environment 'dev'",
    ),
    "no queue": (lambda one: one.update(work_pool={"name": "trial"}), "not that of the environment 'dev'"),
    "block in a parameter": (
        lambda one: one["parameters"].update(day="{{ prefect.blocks.secret.day }}"),
        "{{ prefect.blocks.secret.day }} would put what the block holds into the deployment",
    ),
    "variable that is not set": (
        lambda one: one.update(description="{{ $TRIAL_ABSENT }}"),
        "Set the environment variable TRIAL_ABSENT",
    ),
    "trigger": (
        lambda one: one["triggers"][0].update(posture="Sideways"),
        "trigger 'orders after shops' is no automation",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_problem_names_file_deployment_value_and_remedy(written: Trial, name: str) -> None:
    edit, expected = WRONG[name]
    edit(written.orders)
    found = [one for one in problems(written) if expected in one]
    assert len(found) == 1, problems(written)
    assert found[0].startswith("prefect.yaml: orders: ")


def test_all_problems_are_found_at_once(written: Trial) -> None:
    edits = [WRONG[name] for name in ("unknown parameter", "cron", "sla", "unknown key", "tag")]
    for edit, _ in edits:
        edit(written.orders)
    written.written["prefect-version"] = "3.0.0"
    found = problems(written)
    assert len(found) == len(edits) + 1
    for _, expected in edits:
        assert any(expected in one for one in found)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda file: file.update({"prefect-version": "3.0.0"}), "prefect-version is '3.0.0', and 3."),
        (lambda file: file["deployments"].append(file["deployments"][0]), "2 deployments are trial-orders/orders"),
        (lambda file: file["deployments"][0].pop("name"), "has no name"),
        (lambda file: file.pop("pull"), "there is no pull step"),
    ],
    ids=["version of Prefect", "a name twice", "no name", "no pull step"],
)
def test_a_problem_of_the_file(written: Trial, edit: Edit, expected: str) -> None:
    edit(written.written)
    assert any(expected in one for one in problems(written))


def test_a_file_without_deployments_or_that_is_no_yaml_is_refused(written: Trial) -> None:
    del written.written["deployments"]
    with pytest.raises(ConfigError, match="has no list `deployments`"):
        problems(written)
    written.file.write_text("deployments: [")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        Project.read(written.file, PROJECT)
