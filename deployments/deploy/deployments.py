"""Deployments: compared with the server field by field, and applied by `prefect deploy --all`, as a person would."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.exceptions import ObjectNotFound

from deployments.change import Change
from deployments.deploy import fields
from deployments.deploy.failure import DeployFailed
from deployments.deploy.flows import DeployedFlow
from deployments.deploy.pages import everything
from deployments.deploy.project import Project

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

KIND = "deployment"


def read(client: "SyncPrefectClient", name: str) -> "DeploymentResponse | None":
    """The deployment called `flow/deployment`, or None."""
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def changes(
    client: "SyncPrefectClient",
    project: Project,
    deployed: Sequence[DeployedFlow],
    there: Mapping[str, "DeploymentResponse | None"],
) -> list[Change]:
    """What makes the server's deployments those of prefect.yaml, their schedules apart.

    Args:
        client: of the server.
        project: the file, for one environment.
        deployed: every flow of it.
        there: what the server has of them, by name.
    """
    differ = {one.name: found for one in deployed if (found := differences(client, project, one, there[one.name]))}
    differing = [one for one in deployed if one.name in differ]
    together = _PrefectDeploy(client, project, differing, there)
    return [
        Change("update", KIND, one.name, together, ", ".join(differ[one.name]))
        if there[one.name] is not None
        else Change("create", KIND, one.name, together, _place(one))
        for one in differing
    ]


def _place(deployed: DeployedFlow) -> str:
    slugs = [f", schedule {one['slug']}" for one in deployed.deployment.schedules]
    return f"on {deployed.deployment.environment.pool}{''.join(slugs)}"


def differences(
    client: "SyncPrefectClient", project: Project, deployed: DeployedFlow, there: "DeploymentResponse | None"
) -> list[str]:
    """Names of the fields in which a deployment differs from the file, its schedules apart."""
    if there is None:
        return ["absent"]
    found = fields.differing(fields.wanted(project, deployed), fields.held(there))
    automations = client.read_resource_related_automations(f"prefect.deployment.{there.id}")
    if fields.triggers_differ(deployed, there, automations):
        found.append("triggers")
    return found


def left_the_file(
    client: "SyncPrefectClient", project: Project, deployed: Sequence[DeployedFlow]
) -> dict[str, "DeploymentResponse"]:
    """Deployments with the project's tag that no entry of the file describes, by name."""
    wanted = {one.name for one in deployed}
    flows = {flow.id: flow.name for flow in everything(client.read_flows)}
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[project.tag]))
    found = {}
    for one in everything(client.read_deployments, deployment_filter=tagged):
        name = f"{flows.get(one.flow_id, one.flow_id)}/{one.name}"
        if name not in wanted:
            found[name] = one
    return found


class _PrefectDeploy:
    """One `prefect deploy --all` for all that differs, the first time that it is called."""

    def __init__(
        self,
        client: "SyncPrefectClient",
        project: Project,
        deployed: Sequence[DeployedFlow],
        there: Mapping[str, "DeploymentResponse | None"],
    ) -> None:
        self._client = client
        self._project = project
        self._deployed = deployed
        self._there = there
        self._done = False

    def __call__(self) -> None:
        if self._done:
            return
        there = {one.deployment.identity: self._there[one.name] for one in self._deployed}
        rendered = self._project.render(
            there,
            new=[one for one, known in there.items() if known is None],
            paused=[one for one, known in there.items() if known is not None and known.paused],
        )
        with tempfile.TemporaryDirectory(prefix="tidegate-deploy-") as folder:
            file = Path(folder) / "prefect.yaml"
            file.write_text(rendered)
            done = subprocess.run(
                [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
                cwd=self._project.folder,
                env={**os.environ, "PREFECT_API_URL": str(self._client.api_url).rstrip("/")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise DeployFailed(f"`prefect deploy --all` failed:\n{done.stdout[-3000:].strip()}")
        for one in self._deployed:
            self._complete(one, done.stdout)
        self._done = True

    def _complete(self, deployed: DeployedFlow, printed: str) -> None:
        """Set what `prefect deploy` leaves alone in an existing deployment, and see that nothing differs any more."""
        there = read(self._client, deployed.name)
        if there is not None:
            want = fields.wanted(self._project, deployed)
            own = {"path": None, "enforce_parameter_schema": want["parameter schema is enforced"]}
            if (there.path, there.enforce_parameter_schema) != tuple(own.values()):
                self._client.update_deployment(there.id, DeploymentUpdate(**own))
                there = read(self._client, deployed.name)
        # It ends well too when it has skipped a file that it cannot read.
        differs = differences(self._client, self._project, deployed, there)
        if differs:
            raise DeployFailed(
                f"`prefect deploy --all` ended well, and {deployed.name} still differs in {', '.join(differs)}. It "
                f"said:\n{printed[-3000:].strip()}"
            )
