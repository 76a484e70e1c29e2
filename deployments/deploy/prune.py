"""What left prefect.yaml and is this project's own: deployments that bear its tag. Others' are never touched."""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prefect.exceptions import ObjectNotFound

from deployments.change import Change

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse


def changes(client: "SyncPrefectClient", left: Mapping[str, "DeploymentResponse"]) -> list[Change]:
    """What removes deployments, with the automations that their triggers made; `left` has them by name."""
    return [_change(client, name, one) for name, one in sorted(left.items())]


def _change(client: "SyncPrefectClient", name: str, there: "DeploymentResponse") -> Change:
    def delete() -> None:
        # The automations first: without the deployment nothing would lead to them any more.
        client.delete_resource_owned_automations(f"prefect.deployment.{there.id}")
        with contextlib.suppress(ObjectNotFound):
            client.delete_deployment(there.id)

    return Change("delete", "deployment", name, delete, "no longer in the file")
