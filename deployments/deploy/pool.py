"""The work pool of an environment: made where it is absent, and never changed: what a person set in it stays."""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from deployments.change import Change
from deployments.deploy.environment import Environment
from tasks.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import WorkPool

KIND = "work pool"


def read(client: "SyncPrefectClient", environment: Environment) -> "WorkPool | None":
    """The pool as the server has it, or None."""
    try:
        return client.read_work_pool(environment.pool)
    except ObjectNotFound:
        return None


def template(client: "SyncPrefectClient", pool_type: str) -> dict[str, Any]:
    """The base job template that a new pool of `pool_type` gets, from what the server knows of the worker.

    Raises:
        ConfigError: the server knows no worker of that type.
    """
    for workers in client.read_worker_metadata().values():
        if pool_type in workers:
            return cast("dict[str, Any]", workers[pool_type]["default_base_job_configuration"])
    raise ConfigError(f"The Prefect server knows no worker of type {pool_type!r}, so no pool of it can be made.")


def variables(client: "SyncPrefectClient", environment: Environment) -> Mapping[str, Any]:
    """The JSON schema of the job variables that the environment's pool takes, or will take once it is made."""
    there = read(client, environment)
    base = template(client, environment.type) if there is None else there.base_job_template
    return cast("Mapping[str, Any]", base.get("variables") or {})


def changes(client: "SyncPrefectClient", environment: Environment) -> list[Change]:
    """What makes the environment's pool be there."""
    if read(client, environment) is not None:
        return []

    def create() -> None:
        from prefect.client.schemas.actions import WorkPoolCreate

        # A worker that starts at the same time makes it too.
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(
                WorkPoolCreate(
                    name=environment.pool,
                    type=environment.type,
                    base_job_template=template(client, environment.type),
                )
            )

    return [Change("create", KIND, environment.pool, create, f"type {environment.type}")]
