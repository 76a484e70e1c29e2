"""The run's report as an artifact in the Prefect UI."""

from typing import Any

from tasks.observe.context import flow_run_id


def show_report(pipeline: str, rows: list[dict[str, Any]], summary: str) -> None:
    """Show one row for each window under the key `etl-<pipeline>`; nothing outside of a flow run."""
    if flow_run_id() is not None:
        from prefect.artifacts import create_table_artifact

        create_table_artifact(rows, key=f"etl-{pipeline.replace('_', '-').lower()}", description=summary)
