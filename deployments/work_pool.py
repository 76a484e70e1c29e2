"""The work pool that every deployment of prefect.yaml goes to."""

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

NAME = "tidegate"


def ensure(client: "SyncPrefectClient") -> None:
    """Make the pool, of the process type, unless it is there; what a person changed in it stays."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(NAME)
    except ObjectNotFound:
        # A worker that starts at the same time makes it too.
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(
                WorkPoolCreate(
                    name=NAME,
                    type=ProcessWorker.type,
                    base_job_template=ProcessWorker.get_default_base_job_template(),
                )
            )
