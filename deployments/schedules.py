"""The schedules of the deployments on a server, switched off and on again as a whole."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def pause(client: "SyncPrefectClient") -> None:
    """Schedule nothing more, and drop what is scheduled already: only what somebody asks for runs."""
    _set(client, active=False)


def resume(client: "SyncPrefectClient") -> None:
    """Follow every schedule, also those that prefect.yaml has switched off."""
    _set(client, active=True)


def _set(client: "SyncPrefectClient", *, active: bool) -> None:
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            client.update_deployment_schedule(deployment.id, schedule.id, active=active)
