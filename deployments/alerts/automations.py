"""The automations that alert on what a pipeline's `Sla` promises."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deployments.change import Change
from tasks.pipeline import Pipeline

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def changes(
    client: "SyncPrefectClient", pipelines: Sequence[Pipeline], operating: Sequence[str], pool: str
) -> list[Change]:
    """What makes the server's automations those that `pipelines` and the `operating` flows need: none so far."""
    return []
