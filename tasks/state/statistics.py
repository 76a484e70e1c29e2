"""`Statistics`: what the rows of a window look like as a whole; kept in the ledger, for later windows to compare."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, select

from tasks.state.attempts import Attempt
from tasks.state.staged import DELETED, OWN
from tasks.state.tables import runs
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class Statistics:
    """Rows that the contract let through, deletes left out.

    Attributes:
        rows: how many there were.
        nulls: by column, how many of them had none of it.
    """

    rows: int = 0
    nulls: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, valid: pa.Table) -> "Statistics":
        """Those of a judged batch; see `tasks.transform.contract.Judged`."""
        if DELETED in valid.column_names and pc.any(valid.column(DELETED)).as_py():
            valid = valid.filter(pc.invert(valid.column(DELETED)))
        names = [name for name in valid.column_names if name not in OWN]
        return cls(valid.num_rows, {name: valid.column(name).null_count for name in names})

    def __add__(self, other: "Statistics") -> "Statistics":
        names = {**self.nulls, **other.nulls}
        both = {name: self.nulls.get(name, 0) + other.nulls.get(name, 0) for name in names}
        return Statistics(self.rows + other.rows, both)

    def as_json(self) -> str:
        """As the ledger keeps them."""
        return json.dumps({"rows": self.rows, "nulls": self.nulls})

    @classmethod
    def parse(cls, text: str) -> "Statistics":
        """What `as_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Measured:
    """A window and what its rows looked like."""

    window: Window
    statistics: Statistics

    @property
    def seconds(self) -> float | None:
        """How long the window is; None where it has no start or no end."""
        start, end = self.window.start, self.window.end
        return None if start is None or end is None else (end - start).total_seconds()


def earlier_windows(connection: Connection, attempt: Attempt, last: int) -> Sequence[Measured]:
    """The last windows that the attempt's pipeline has committed in runs of its kind, the newest first.

    Only those that have a start and an end where the attempt's window has them, and none where it has not: the first
    window of an incremental pipeline holds all of the past, and is like no other.
    """
    bounds = zip((runs.c.window_start, runs.c.window_end), (attempt.window.start, attempt.window.end), strict=True)
    alike = [column.is_(None) if bound is None else column.is_not(None) for column, bound in bounds]
    rows = connection.execute(
        select(runs.c.window_start, runs.c.window_end, runs.c.statistics)
        .where(
            runs.c.pipeline == attempt.pipeline,
            runs.c.kind == attempt.kind,
            runs.c.status == "committed",
            runs.c.statistics.is_not(None),
            *alike,
        )
        .order_by(runs.c.started_at.desc())
        .limit(last)
    )
    return [Measured(Window(start, end), Statistics.parse(text)) for start, end, text in rows]
