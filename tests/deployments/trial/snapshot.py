"""What a server holds of a trial's project: all of it, and when each thing was last touched."""

from typing import Any

from prefect.client.orchestration import SyncPrefectClient

from deployments.deploy.pages import everything
from tests.deployments.trial.project import BLOCKS, NAME

_IDS = {"id", "created", "updated", "flow_id", "deployment_id", "work_queue_id", "version_id", "labels"}
_LIVE = {"last_polled", "status", "active_slots", "block_type_id", "block_schema_id"}


def held(client: SyncPrefectClient) -> dict[str, Any]:
    """Everything of the project's, less ids and stamps: two servers that were deployed alike hold the same."""
    return {name: _bare(things) for name, things in _raw(client).items()}


def stamps(client: SyncPrefectClient) -> dict[str, Any]:
    """When each thing of the project was made and last changed."""
    return {name: _stamps(things) for name, things in _raw(client).items()}


def _raw(client: SyncPrefectClient) -> dict[str, Any]:
    deployments = [one for one in client.read_deployments() if NAME in one.tags]
    related = [client.read_resource_related_automations(f"prefect.deployment.{found.id}") for found in deployments]
    raw: dict[str, list[Any]] = {
        "pools": [one for one in client.read_work_pools() if one.name.startswith(NAME)],
        "blocks": [one for one in client.read_block_documents() if one.name in _BLOCK_NAMES],
        "limits": [one for one in everything(client.read_global_concurrency_limits) if one.name.startswith(NAME)],
        "deployments": deployments,
        "automations": [one for found in related for one in found],
    }
    found = {
        kind: sorted((one.model_dump(mode="json") for one in things), key=lambda one: str(one["name"]))
        for kind, things in raw.items()
    }
    for one in found["deployments"]:
        one["schedules"].sort(key=lambda schedule: str(schedule["slug"]))
        (one["global_concurrency_limit"] or {}).pop("name", None)
    return found


_BLOCK_NAMES = {name for _, name in BLOCKS}


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _bare(one)
            for key, one in value.items()
            if key not in _IDS | _LIVE and key not in ("block_schema", "block_type", "default_queue_id", "anchor_date")
        }
    return [_bare(one) for one in value] if isinstance(value, list) else value


def _stamps(value: Any) -> Any:
    if isinstance(value, dict):
        own = {key: value[key] for key in ("id", "name", "slug", "created", "updated") if key in value}
        return own | {key: _stamps(one) for key, one in value.items() if isinstance(one, dict | list) and _stamps(one)}
    return [found for one in value if (found := _stamps(one))] if isinstance(value, list) else None
