"""Events on Prefect's bus, of rows after their commit and never before; automations and other pipelines listen."""

from collections.abc import Mapping
from typing import Any

from tasks.errors import redact
from tasks.observe.context import flow_run_id, logger


def emit(event: str, pipeline: str, payload: dict[str, Any], labels: Mapping[str, str] | None = None) -> None:
    """Emit `etl.…` for the resource `etl.pipeline.<name>`, related to the flow run; nothing outside of one.

    Args:
        event: see `tasks.observe.causes`, and what a feed notices of its source.
        pipeline: name of the pipeline.
        payload: plain JSON; no secrets, no rows.
        labels: what else the resource is told to be: an automation can match on that, and not on a payload.
    """
    run = flow_run_id()
    if run is None:
        return
    from prefect.events import emit_event

    try:
        emit_event(
            event,
            resource={
                "prefect.resource.id": f"etl.pipeline.{pipeline}",
                "prefect.resource.name": pipeline,
                **(labels or {}),
            },
            related=[{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
            payload=payload,
        )
    # Whatever it is: what an event tells has happened, and a run does not fail for want of a listener.
    except Exception as error:
        logger().warning("%s: the event %s could not be sent: %s", pipeline, event, redact(repr(error)))
