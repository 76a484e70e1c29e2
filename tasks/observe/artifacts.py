"""What a run did, and how far it has come, as artifacts in the Prefect UI."""

from typing import Any, cast
from uuid import UUID

from tasks.errors import redact
from tasks.observe.context import flow_run_id, logger


def show_report(pipeline: str, rows: list[dict[str, Any]], summary: str) -> None:
    """Show one row for each window under the key `etl-<pipeline>`; nothing outside of a flow run."""
    if flow_run_id() is not None:
        from prefect.artifacts import create_table_artifact

        create_table_artifact(rows, key=f"etl-{pipeline.replace('_', '-').lower()}", description=summary)


class Progress:
    """How far something has come, as an artifact under the key `etl-<name>-progress`; nothing outside of a flow run.

    Args:
        name: of what it is about.
    """

    def __init__(self, name: str) -> None:
        self._key = f"etl-{name.replace('_', '-').lower()}-progress"
        self._artifact: UUID | None = None
        self._shown: tuple[int, int, str] | None = None

    def show(self, done: int, of: int, said: str) -> None:
        """Show `done` of `of`; a server that does not take it costs the work nothing."""
        if flow_run_id() is None or self._shown == (done, of, said):
            return
        self._shown = done, of, said
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        percent = 100 * done / of if of else 100.0
        logger().info("%s", said)
        try:
            if self._artifact is None:
                self._artifact = cast(UUID, create_progress_artifact(percent, key=self._key, description=said))
            else:
                update_progress_artifact(self._artifact, percent, description=said)
        # Whatever it is: the next one tells more.
        except Exception as error:
            logger().warning("How far it has come could not be shown: %s", redact(repr(error)))
