"""`tidegate deploy`: make a Prefect server hold what prefect.yaml says, and nothing of ours besides."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from rich.console import Console

from deployments.alerts import automations
from deployments.alerts.names import EVERYTHING
from deployments.alerts.recipients import Recipients
from deployments.change import Change
from deployments.deploy import blocks, deployments, ground, limits, pool, prune, queues, schedules
from deployments.deploy.failure import DeployFailed
from deployments.deploy.flows import DeployedFlow
from deployments.deploy.needs import Needs
from deployments.deploy.plan import Plan
from deployments.deploy.project import Project
from deployments.deploy.validation import validate
from tasks.errors import ConfigError
from tasks.pipeline import Pipeline

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout, where prefect.yaml is."""


def run(console: Console, *, environment: str | None = None, dry_run: bool = False, file: Path | None = None) -> Plan:
    """Validate prefect.yaml, print what it changes on the server that Prefect's settings name, and apply that.

    Args:
        console: where to print.
        environment: one of the file's; None is `dev`.
        dry_run: only print.
        file: another prefect.yaml; its entrypoints are relative to the checkout too.

    Returns:
        What was printed.

    Raises:
        ConfigError: something has to be mended first, and nothing was touched; the message has all of it.
        DeployFailed: the server refused or did not answer; what was done before stands.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise ConfigError("No Prefect server is named. Set PREFECT_API_URL, http://127.0.0.1:4200/api for instance.")
    project = Project.read(file or PROJECT / "prefect.yaml", PROJECT, environment)
    with get_client(sync_client=True) as client:
        try:
            plan = make_plan(client, project)
        except (httpx.HTTPError, PrefectException) as error:
            raise DeployFailed(
                f"The Prefect server {_address(client)} did not say what it holds ({type(error).__name__}: {error}). "
                "Nothing was touched. Check that it is up, and that PREFECT_API_URL and PREFECT_API_KEY are right."
            ) from None
        console.print(
            f"{project.file.name}, environment {project.environment.name}, to {_address(client)}\n", highlight=False
        )
        plan.show(console)
        if dry_run:
            console.print("A dry run: nothing was touched.", highlight=False)
        elif plan.changes:
            plan.apply(console)
            console.print(f"Done: {plan.counts(done=True)}.", style="green", highlight=False)
    return plan


def _address(client: "SyncPrefectClient") -> str:
    return str(client.api_url).rstrip("/")


def make_plan(client: "SyncPrefectClient", project: Project) -> Plan:
    """What differs between `project` and the server; nothing is touched.

    Raises:
        ConfigError: something has to be mended first; the message has all of it.
    """
    flows, problems = validate(project)
    pipelines = [one.pipeline for one in flows if one.pipeline is not None]
    without = [one for one in flows if one.pipeline is None]
    operating = [one.flow.name for one in without if one.deployment.schedules]
    # Nothing starts them but another flow, which sees to them and tells what became of them.
    parts = [one.flow.name for one in without if not one.deployment.schedules]
    needs, found, alerts = Needs(), ground.Ground(), list[Change]()
    try:
        needs = Needs.of(pipelines)
        found = ground.inspect(client, project, needs)
    except ConfigError as error:
        problems.append(str(error))
    try:
        alerts = _alerts(client, pipelines, operating, parts, project.environment.pool, found.notes)
    except ConfigError as error:
        problems.append(str(error))
    problems += found.problems
    if problems:
        listed = "\n".join(f"- {one}" for one in problems)
        raise ConfigError(f"{len(problems)} thing{'s' * (len(problems) > 1)} to mend; nothing was touched.\n{listed}")
    return _plan(client, project, flows, needs, alerts, found.notes)


def _plan(
    client: "SyncPrefectClient",
    project: Project,
    flows: Sequence[DeployedFlow],
    needs: Needs,
    alerts: Sequence[Change],
    notes: Sequence[str],
) -> Plan:
    wanted = blocks.wanted(needs)
    there = {one.name: deployments.read(client, one.name) for one in flows}
    scheduled = [
        change
        for one in flows
        if (known := there[one.name]) is not None
        for change in schedules.changes(client, one.name, known, one.deployment.schedules)
    ]
    changes = [
        *pool.changes(client, project.environment),
        *queues.changes(client, project.environment, project.queues),
        *blocks.changes(client, wanted),
        *limits.changes(client, needs.rates),
        *deployments.changes(client, project, flows, there),
        *scheduled,
        *alerts,
        *prune.changes(client, deployments.left_the_file(client, project, flows)),
    ]
    counts = {
        pool.KIND: 1,
        queues.KIND: len(project.queues),
        blocks.KIND: len(wanted),
        limits.KIND: len(needs.rates),
        deployments.KIND: len(flows),
        # Those of a new deployment come with it.
        schedules.KIND: sum(len(one.deployment.schedules) for one in flows if there[one.name] is not None),
    }
    # What is deleted goes last; the rest keeps its order.
    return Plan(sorted(changes, key=lambda change: change.action == "delete"), counts, notes)


def _alerts(
    client: "SyncPrefectClient",
    pipelines: Sequence[Pipeline],
    operating: Sequence[str],
    parts: Sequence[str],
    pool: str,
    notes: list[str],
) -> list[Change]:
    """The automations that alert; without a block to send to, none is made that could not be delivered."""
    if not Recipients(client).expected:
        notes.append(
            f"No alert can be delivered: there is no notification block {EVERYTHING!r}. Set TIDEGATE_ALERTS_URL to a "
            "webhook, or save a block of that name in the UI (Slack, e-mail, PagerDuty …), and deploy again."
        )
    return automations.changes(client, pipelines, operating, pool, parts)
