"""`RunFigures`: what the ledger says of one run of the demo."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select

from tasks.counts import Counts
from tasks.errors import TidegateError
from tasks.state.tables import runs


@dataclass(frozen=True)
class RunFigures:
    """One pipeline run, its windows added up.

    Attributes:
        pipeline: its name.
        run_id: the ledger's.
        start: beginning of the first window, UTC; None is the beginning of the source.
        end: end of the last window, UTC; None where the source has no cursor.
        counts: what became of every change.
        seconds: from opening the first window to committing the last.
    """

    pipeline: str
    run_id: str
    start: datetime | None
    end: datetime | None
    counts: Counts
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Changes extracted in a second."""
        return self.counts.extracted / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The run as the JSON report has it."""
        return {
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "window": {"start": _iso(self.start), "end": _iso(self.end)},
            **self.counts.as_dict(),
            "error_rate": self.counts.error_rate,
            "seconds": round(self.seconds, 3),
        }


def read_figures(warehouse: Engine, flow_run_id: UUID) -> RunFigures:
    """What the ledger in `warehouse` says of a Prefect flow run.

    Raises:
        TidegateError: the ledger holds no committed window of that flow run.
    """
    committed = (
        select(runs)
        .where(runs.c.flow_run_id == str(flow_run_id), runs.c.status.in_(("committed", "partial")))
        .order_by(runs.c.started_at)
    )
    with warehouse.connect() as connection:
        windows = connection.execute(committed).mappings().all()
    if not windows:
        raise TidegateError(f"The ledger holds no committed window of flow run {flow_run_id}.")
    counts = [Counts(**{name: window[name] for name in Counts().as_dict()}) for window in windows]
    return RunFigures(
        pipeline=windows[0]["pipeline"],
        run_id=windows[0]["run_id"],
        start=windows[0]["window_start"],
        end=windows[-1]["window_end"],
        counts=sum(counts, Counts()),
        seconds=sum(window["seconds"] for window in windows),
    )


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
