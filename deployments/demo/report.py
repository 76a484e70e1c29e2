"""`Report`: what the ledger says of the demo's runs, as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.demo.figures import RunFigures
from deployments.demo.inbox import Message
from deployments.demo.waiting import Recovery

_SHOWN = ("extracted", "inserted", "updated", "deleted", "unchanged", "rejected")
_WIDTHS = {"pipeline": 12, "ex-\ntracted": 7, "in-\nserted": 7, "updated": 7, "deleted": 7, "un-\nchanged": 7,
           "re-\njected": 7, "secs": 5, "rows/s": 6, "error rate": 6}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """The whole demo.

    Attributes:
        acts: what happened, each with its runs, in order.
        alerts: what came in, in order.
        seconds: from start to end, everything included.
        recovery: what became of the rows that waited, after the acts.
    """

    acts: Sequence[tuple[str, Sequence[RunFigures]]]
    alerts: Sequence[Message]
    seconds: float
    recovery: Recovery | None = None

    @property
    def _all_acts(self) -> Sequence[tuple[str, Sequence[RunFigures]]]:
        return [*self.acts, (self.recovery.title, self.recovery.runs)] if self.recovery else self.acts

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "runs": [run.as_dict() for _, figures in self._all_acts for run in figures],
            "replay": self.recovery and self.recovery.as_dict(),
            "alerts": [asdict(alert) for alert in self.alerts],
            "seconds": round(self.seconds, 1),
        }

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(self.as_dict(), indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print it as people read it, act by act, and the alerts as they came in."""
        console.print(_table(header=True))
        for title, figures in self._all_acts:
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
        for line in self.recovery.lines() if self.recovery else ():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for alert in self.alerts:
            console.print(f"\n[bold]{escape(alert.subject)}[/bold]", highlight=False)
            console.print(alert.body.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _table(*, header: bool) -> Table:
    """A table of fixed widths, so that several under each other read as one; it fits 80 columns."""
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, show_header=header)
    for name, width in _WIDTHS.items():
        table.add_column(name, justify="left" if name == "pipeline" else "right", width=width, vertical="bottom")
    return table
