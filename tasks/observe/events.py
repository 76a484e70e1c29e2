"""Events on Prefect's bus, of rows after their commit and never before; automations and other pipelines listen."""

from typing import Any

from tasks.observe.context import flow_run_id


def emit(event: str, pipeline: str, payload: dict[str, Any]) -> None:
    """Emit `etl.…` for the resource `etl.pipeline.<name>`, related to the flow run; nothing outside of one.

    Args:
        event: `etl.run.committed`, `etl.run.skipped`, `etl.run.error-rate-exceeded`, `etl.window.covered`,
            `etl.dataset.landed`, `etl.target.changed` or `etl.target.drifted`, and what a feed notices of its source.
        pipeline: name of the pipeline.
        payload: plain JSON; no secrets, no rows.
    """
    run = flow_run_id()
    if run is None:
        return
    from prefect.events import emit_event

    emit_event(
        event,
        resource={"prefect.resource.id": f"etl.pipeline.{pipeline}", "prefect.resource.name": pipeline},
        related=[{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
        payload=payload,
    )
