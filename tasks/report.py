"""`RunReport`: what a run did, as a flow returns it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.counts import Counted, Counts
from tasks.state.attempts import Attempt
from tasks.state.ledger import Entry
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One committed window.

    Attributes:
        attempt: what was committed.
        entry: its ledger entry.
        more: its feed has more to give.
        source_clock: the source's time when a feed's chunk was opened, UTC.
        covered_until: source time before which everything has been read, UTC.
    """

    attempt: Attempt
    entry: Entry
    more: bool = False
    source_clock: datetime | None = None
    covered_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """A finished run; durations in seconds, times in UTC.

    Attributes:
        pipeline: name of the pipeline.
        run_id: the ledger's id of the run.
        windows: its committed windows, in order.
        seconds: wall time of the run.
        watermark: highest cursor ever extracted.
        covered_until: source time below which everything is in the target.
        position: how far a feed has come, in the source's own terms, or what an API left for the next run; else None.
        skipped: why the run read nothing, or no more than these windows; None where it read all it could.
    """

    pipeline: str
    run_id: str
    windows: tuple[WindowReport, ...]
    seconds: float
    watermark: datetime | None
    covered_until: datetime | None
    position: str | None = None
    skipped: str | None = None

    @property
    def late(self) -> int:
        """Rows that only the lookback caught."""
        return sum(window.entry.late for window in self.windows)

    @property
    def null_cursors(self) -> int:
        """Source rows that are in no window, having no cursor."""
        return max((window.entry.null_cursors for window in self.windows), default=0)

    @property
    def counts(self) -> Counts:
        """The sum over all windows."""
        return sum((window.entry.counts for window in self.windows), Counts())

    @property
    def counted(self) -> Counted:
        """The sum over all windows, without what only a lookback brought again."""
        return sum((window.entry.counted for window in self.windows), Counted())

    @property
    def warned(self) -> int:
        """Rows loaded although a reference declared `on_missing="warn"` is missing."""
        return sum(window.entry.warned for window in self.windows)

    @property
    def replays(self) -> bool:
        """Whether dead letters were judged anew, and nothing was read from the source."""
        return any(window.attempt.kind == "replay" for window in self.windows)

    @property
    def window(self) -> Window:
        """From the first window's start to the last one's end."""
        if not self.windows:
            return Window()
        return Window(self.windows[0].attempt.window.start, self.windows[-1].attempt.window.end)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "window": {
                "start": self.window.start and self.window.start.isoformat(),
                "end": self.window.end and self.window.end.isoformat(),
            },
            **self.counts.as_dict(),
            "warned": self.warned,
            "late": self.late,
            "null_cursors": self.null_cursors,
            "position": self.position,
            "error_rate": self.counts.error_rate,
            "seconds": self.seconds,
            "skipped": self.skipped,
        }

    def __str__(self) -> str:
        if self.skipped is not None and not self.windows:
            return self.skipped
        rate = f"error rate {self.counts.error_rate:.2%}"
        of = (
            str(self.windows[0].attempt)
            if {window.attempt.kind for window in self.windows} & {"changes", "replay"}
            else f"{self.pipeline} {self.window}"
        )
        return f"{of}: {self.counts}, {rate}, {self.seconds:.1f} s"
