"""Work queues of prefect.yaml: made and kept by a deploy, and used by the deployments that name them."""

from pathlib import Path
from typing import Any, cast

import pytest

from deployments.deploy.command import PROJECT
from deployments.deploy.project import Project
from deployments.deploy.validation import validate
from tasks.errors import ConfigError
from tests.deployments.trial.project import Trial

QUEUE = {"concurrency_limit": 3, "priority": 7, "description": "Slow things."}


def queued(trial: Trial) -> Trial:
    """Orders go to a queue of their own."""
    trial.written["definitions"]["queues"] = {"slow": dict(QUEUE)}
    trial.orders["work_pool"] = {**trial.orders["work_pool"], "work_queue_name": "slow"}
    return trial


def read(trial: Trial) -> Project:
    return Project.read(trial.write(), PROJECT)


def test_a_deployment_may_go_to_a_queue_that_the_file_describes_and_to_no_other(tmp_path: Path) -> None:
    trial = Trial(tmp_path, client=cast("Any", None))
    project = read(queued(trial))
    assert validate(project)[1] == []
    assert {one.name: one.queue for one in project.deployments} == {"orders": "slow", "sweep": "default"}
    trial.orders["work_pool"]["work_queue_name"] = "absent"
    assert "Queues of its own are 'slow'." in validate(read(trial))[1][0]


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ([], r"definitions\.queues is a mapping of names, got \[\]"),
        ({"slow": None}, "queue 'slow' is not a mapping"),
        ({"slow": {**QUEUE, "limit": 2}}, "queue 'slow': limit is not known"),
        ({"slow": {"priority": 2}}, "queue 'slow': concurrency_limit is a whole number of 1 or more, got None"),
        ({"slow": {**QUEUE, "priority": 0}}, "queue 'slow': priority is a whole number of 1 or more, got 0"),
    ],
)
def test_a_queue_that_cannot_be_used_is_refused(tmp_path: Path, described: object, expected: str) -> None:
    trial = Trial(tmp_path, client=cast("Any", None))
    trial.written["definitions"]["queues"] = described
    with pytest.raises(ConfigError, match=expected):
        read(trial)


@pytest.mark.prefect
def test_a_queue_is_made_and_what_a_person_changed_in_it_is_set_right(trial: Trial) -> None:
    created = queued(trial).deploy()
    assert "in trial, 3 at once, priority 7" in created
    assert trial.planned() == []
    there = trial.client.read_work_queue_by_name("slow", work_pool_name="trial")
    assert (there.concurrency_limit, there.priority) == (3, 7)
    trial.client.update_work_queue(there.id, concurrency_limit=9, is_paused=True)
    assert [one[:3] for one in trial.planned()] == [("update", "work queue", "slow")]
    assert "concurrency limit 9 → 3" in trial.deploy()
    there = trial.client.read_work_queue_by_name("slow", work_pool_name="trial")
    # Whoever paused it had a reason.
    assert (there.concurrency_limit, there.priority, there.is_paused) == (3, 7, True)
    assert trial.planned() == []
