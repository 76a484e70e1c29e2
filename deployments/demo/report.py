"""`Report`: what the ledger says of the demo's runs, as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine, select

from deployments.demo.inbox import Message
from tasks.counts import Counts
from tasks.errors import TidegateError
from tasks.state.tables import runs

_SHOWN = ("extracted", "inserted", "updated", "deleted", "unchanged", "rejected")
_WIDTHS = {"pipeline": 12, "ex-\ntracted": 7, "in-\nserted": 7, "updated": 7, "deleted": 7, "un-\nchanged": 7,
           "re-\njected": 7, "secs": 5, "rows/s": 6, "error rate": 6}  # fmt: skip


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


@dataclass(frozen=True)
class Report:
    """The whole demo.

    Attributes:
        acts: what happened, each with its runs, in order.
        alerts: what came in, in order.
        seconds: from start to end, everything included.
    """

    acts: Sequence[tuple[str, Sequence[RunFigures]]]
    alerts: Sequence[Message]
    seconds: float

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        content = {
            "runs": [run.as_dict() for _, figures in self.acts for run in figures],
            "alerts": [asdict(alert) for alert in self.alerts],
            "seconds": round(self.seconds, 1),
        }
        file.write_text(json.dumps(content, indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print it as people read it, act by act, and the alerts as they came in."""
        console.print(_table(header=True))
        for title, figures in self.acts:
            console.print(f"[bold]{title}[/bold]", highlight=False)
            table = _table(header=False)
            for run in figures:
                counts = run.counts.as_dict()
                table.add_row(
                    run.pipeline,
                    *(f"{counts[name]:,}" for name in _SHOWN),
                    f"{run.seconds:.2f}",
                    f"{run.rows_per_second:,.0f}",
                    f"{run.counts.error_rate:.2%}",
                )
            console.print(table)
        for alert in self.alerts:
            console.print(f"\n[bold]{escape(alert.subject)}[/bold]", highlight=False)
            console.print(alert.body.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _table(*, header: bool) -> Table:
    """A table of fixed widths, so that several under each other read as one; it fits 80 columns."""
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, show_header=header)
    for name, width in _WIDTHS.items():
        table.add_column(name, justify="left" if name == "pipeline" else "right", width=width, vertical="bottom")
    return table


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
