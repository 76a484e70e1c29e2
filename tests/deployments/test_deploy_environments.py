"""Environments of prefect.yaml: what differs between them is written once, and the deployments are written once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.deploy.command import PROJECT
from deployments.deploy.late import references
from deployments.deploy.project import Project
from tasks.errors import ConfigError
from tests.deployments.trial.project import Trial

FILE = PROJECT / "prefect.yaml"


def rendered(environment: str) -> dict[str, Any]:
    project = Project.read(FILE, PROJECT, environment)
    every = [one.identity for one in project.deployments]
    file: dict[str, Any] = yaml.safe_load(project.render(every, new=every))
    return file


def entries(file: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "work_pool"} for one in file["deployments"]]


def test_no_deployment_is_written_twice() -> None:
    entrypoints = [one["entrypoint"] for one in yaml.safe_load(FILE.read_text())["deployments"]]
    assert len(entrypoints) == len(set(entrypoints))
    assert FILE.read_text().count("entrypoint:") == len(entrypoints)


def test_the_file_as_it_stands_is_dev() -> None:
    written = yaml.safe_load(FILE.read_text())
    assert rendered("dev")["deployments"] == [
        {**one, "triggers": rendered("dev")["deployments"][number]["triggers"]} if "triggers" in one else one
        for number, one in enumerate(written["deployments"])
    ]
    assert rendered("dev")["pull"] == written["pull"]


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_only_the_work_pool_and_where_the_code_is_differ(environment: str) -> None:
    dev, other = rendered("dev"), rendered(environment)
    assert entries(other) == entries(dev)
    assert {one["work_pool"]["name"] for one in other["deployments"]} == {f"tidegate-{environment}"}
    assert other["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "/app"}}]


def test_a_deployment_may_have_job_variables_of_its_own() -> None:
    pools = {one["name"]: one["work_pool"] for one in rendered("prod")["deployments"]}
    assert pools["flights"]["job_variables"]["memory_limit"] == "1Gi"
    assert pools["nightly"]["job_variables"]["memory_limit"] == "4Gi"
    assert pools["nightly"]["job_variables"]["image"] == pools["flights"]["job_variables"]["image"]


def test_an_unknown_environment_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"describes no environment 'production'\. Choose 'dev', 'staging' or 'prod'"):
        Project.read(FILE, PROJECT, "production")


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({"type": "ecs", "work_pool": {"name": "x"}}, "type is 'process', 'docker' or 'kubernetes', got 'ecs'"),
        ({"type": "docker"}, "has no work_pool.name"),
        ({"type": "docker", "work_pool": {"name": "x", "queue": "y"}}, "work_pool.queue is not known"),
        ({"type": "docker", "work_pool": {"name": "x"}, "images": []}, "images is not known"),
        ({"type": "docker", "work_pool": {"name": "x", "job_variables": ["a"]}}, "job_variables is a mapping"),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused(
    tmp_path: Path, described: dict[str, Any], expected: str
) -> None:
    trial = Trial(tmp_path, client=None)  # type: ignore[arg-type]
    trial.written["definitions"]["environments"]["prod"] = described
    with pytest.raises(ConfigError, match=f"environment 'prod'.*{expected}"):
        Project.read(trial.write(), PROJECT)


def test_a_file_without_dev_is_refused(tmp_path: Path) -> None:
    trial = Trial(tmp_path, client=None)  # type: ignore[arg-type]
    trial.written["definitions"]["environments"] = {}
    with pytest.raises(ConfigError, match=r"definitions\.environments has no 'dev'"):
        Project.read(trial.write(), PROJECT)


def test_a_reference_to_a_block_reaches_the_worker_as_it_is() -> None:
    assert references(["prefect.blocks.secret.a-key"]) == {"r0": "{{ prefect.blocks.secret.a-key }}"}


IN_CONTAINERS: dict[str, dict[str, Any]] = {
    "staging": {
        "type": "docker",
        "work_pool": {
            "name": "trial-staging",
            "job_variables": {
                "image": "shop:{{ $TRIAL_TAG }}",
                "networks": ["shop"],
                "volumes": ["shop:/data"],
                "env": {
                    "TIDEGATE_TRIAL_SHOP_URL": "https://shop.example",
                    "KEY": "{{ prefect.blocks.secret.trial-key }}",
                },
            },
        },
    },
    "prod": {
        "type": "kubernetes",
        "work_pool": {
            "name": "trial-prod",
            "job_variables": {
                "image": "shop:1",
                "namespace": "shop",
                "cpu_request": "500m",
                "memory_limit": "1Gi",
                "service_account_name": "shop",
                "env": {"KEY": "Bearer {{ prefect.blocks.secret.trial-key }}"},
            },
        },
        "deployments": {"orders": {"memory_limit": "2Gi", "env": {"BATCH": "7"}}},
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "/app"}}],
    },
}


@pytest.mark.prefect
@pytest.mark.parametrize("environment", [pytest.param("staging", marks=pytest.mark.slow), "prod"])
def test_the_server_takes_an_environment_and_never_the_value_of_a_secret(
    trial: Trial, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIAL_TAG", "2")
    trial.written["definitions"]["environments"] |= IN_CONTAINERS
    trial.deploy(environment=environment)
    assert trial.client.read_work_pool(f"trial-{environment}").type == IN_CONTAINERS[environment]["type"]
    orders = trial.client.read_deployment_by_name("trial-orders/orders")
    variables = IN_CONTAINERS[environment]["work_pool"]["job_variables"]
    if environment == "staging":
        assert orders.job_variables == {**variables, "image": "shop:2"}
    else:
        env = {**variables["env"], "BATCH": "7"}
        assert orders.job_variables == {**variables, "memory_limit": "2Gi", "env": env}
        assert orders.pull_steps == IN_CONTAINERS["prod"]["pull"]
    assert trial.plan(environment).changes == []


@pytest.mark.prefect
def test_a_job_variable_that_the_pool_does_not_know_or_take_is_refused(trial: Trial) -> None:
    variables = {
        "imagee": "x",
        "networks": "shop",
        "env": {"SHOP_TOKEN": "abcdef", "URL": "https://ann:pw@shop.example"},
    }
    staging = {"type": "docker", "work_pool": {"name": "trial-staging", "job_variables": variables}}
    trial.written["definitions"]["environments"]["staging"] = staging
    with pytest.raises(ConfigError) as caught:
        trial.plan("staging")
    told = str(caught.value)
    assert "environment 'staging': 'imagee' is no job variable of the work pool 'trial-staging' (docker)" in told
    assert "job variable networks: 'shop' is not of type 'array'" in told
    assert "job variable env.SHOP_TOKEN holds a secret for everybody to read" in told
    assert "job variable env.URL holds a secret for everybody to read" in told
    assert "abcdef" not in told and "ann:pw" not in told


@pytest.mark.prefect
def test_a_pool_of_another_type_on_the_server_is_refused(trial: Trial) -> None:
    trial.written["definitions"]["environments"]["prod"] = {"type": "kubernetes", "work_pool": {"name": "tidegate"}}
    with pytest.raises(ConfigError, match="'tidegate' is of type 'process' on the server, not 'kubernetes'"):
        trial.plan("prod")
