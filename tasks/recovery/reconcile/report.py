"""`ReconcileReport`: what a comparison found, and what a repair left."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.recovery.reconcile.comparison import Compared
from tasks.recovery.reconcile.difference import KINDS, Difference
from tasks.report import RunReport
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """Source against target of one pipeline.

    Attributes:
        pipeline: its name.
        window: the slice of the cursor that was compared; unbounded where there is no cursor.
        source_rows: how many rows the source has in it.
        target_rows: how many the target has.
        levels: what was compared, from the coarsest on.
        blocks: blocks that were read row by row.
        unread: blocks that differ and were not read, since there were too many.
        rows_read: rows that were read one by one, on both sides.
        most_rows: how many rows those blocks have.
        differences: the rows that are not the same; after a repair, those that are left.
        found: how many there were of each kind before a repair; None where none was asked for.
        repairs: the runs that repaired.
        notes: what was not compared, or not repaired, a sentence each.
        open_letters: dead letters of the pipeline that are open, of rows that were not compared as well.
        seconds: of all of it.
    """

    pipeline: str
    window: Window
    source_rows: int
    target_rows: int
    levels: Sequence[Compared]
    blocks: int
    unread: int
    rows_read: int
    most_rows: int
    differences: Sequence[Difference]
    found: dict[str, int] | None = None
    repairs: Sequence[RunReport] = ()
    notes: Sequence[str] = field(default=())
    open_letters: int = 0
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are of each kind."""
        return counted(self.differences)

    @property
    def differing(self) -> int:
        """Rows that differ and are not accounted for; blocks that were not read count as one each."""
        return sum(not one.accounted for one in self.differences) + self.unread

    def clean(self, *, strict: bool = False) -> bool:
        """Whether the target is what it should be.

        Args:
            strict: an open dead letter is a difference too.
        """
        return self.differing + (self.open_letters if strict else 0) == 0

    def as_dict(self, *, values: bool = False) -> dict[str, Any]:
        """As plain JSON; no values of rows but keys and cursors, unless they are asked for."""
        return {
            "pipeline": self.pipeline,
            "start": self.window.start,
            "end": self.window.end,
            "source_rows": self.source_rows,
            "target_rows": self.target_rows,
            "clean": self.clean(),
            **self.payload,
            "levels": [
                {"level": one.level, "blocks": one.blocks, "differing": one.differing, "seconds": round(one.seconds, 3)}
                for one in self.levels
            ],
            "differences": [one.as_dict(values=values) for one in self.differences],
            "repairs": [one.as_dict() for one in self.repairs],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    @property
    def payload(self) -> dict[str, Any]:
        """What its event tells: counts, and no rows."""
        return {
            "differing": self.differing,
            "counts": self.counts,
            "found": self.found,
            "blocks": self.blocks,
            "unread": self.unread,
            "rows_read": self.rows_read,
            "open_letters": self.open_letters,
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """As a table shows it, a row for each difference, the first hundred."""
        return [
            {
                "pipeline": self.pipeline,
                "kind": one.kind,
                "key": ", ".join(f"{name}={text}" for name, text in one.key.items()),
                "source": one.source_cursor,
                "target": one.target_cursor,
                "what": one.rule or ", ".join(one.columns),
            }
            for one in self.differences[:100]
        ]

    def __str__(self) -> str:
        told = ", ".join(f"{number:,} {kind}" for kind, number in self.counts.items()) or "no difference"
        repaired = f"; {sum((self.found or {}).values()):,} before the repair" if self.found is not None else ""
        unread = f", and {self.unread:,} blocks that differ were not read" if self.unread else ""
        return (
            f"{self.pipeline}: {told}{unread}{repaired} ({self.source_rows:,} rows in the source, {self.target_rows:,} "
            f"in the target; {self.rows_read:,} read in {self.blocks:,} blocks)"
        )


def counted(differences: Sequence[Difference]) -> dict[str, int]:
    """How many there are of each kind, in the order of the kinds; those that are not there are left out."""
    numbers = Counter(one.kind for one in differences)
    return {kind: numbers[kind] for kind in KINDS if numbers[kind]}
