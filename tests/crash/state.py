"""`State`: everything of a target that a crash could tear, as values that two runs of the same have in common."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, inspect, select, text

from tasks.state.tables import COUNTS, dead_letters, partitions, runs, watermarks, windows

Rows = list[tuple[Any, ...]]

_LETTER = (
    "pipeline", "row_key", "status", "window_start", "window_end", "cursor_value", "record", "record_types", "reasons",
    "contract", "times_seen",
)  # fmt: skip
_RUN = ("attempt", "status", *COUNTS, "warned", "error_rate", "watermark")


@dataclass(frozen=True)
class State:
    """A target's contents, without the clock times and ids that differ from run to run.

    Attributes:
        rows: the target table, and what is remembered beside it: its tombstones, or the events of a history.
        letters: the dead letters.
        watermarks: of every pipeline: watermark, `covered_until` and version.
        parts: the versions of the target's partitions.
        committed: of every committed window its ledger entry.
        ledger: the status of every attempt, oldest first.
        window_statuses: the same, as `etl_windows` has it.
        staging: staging tables.
    """

    rows: Rows
    letters: Rows
    watermarks: Rows
    parts: Rows
    committed: Rows
    ledger: list[str]
    window_statuses: list[str]
    staging: list[str]

    @property
    def business(self) -> tuple[Rows, Rows]:
        """Target and dead letters."""
        return self.rows, self.letters

    @property
    def contents(self) -> tuple[Rows, Rows, Rows, Rows, Rows]:
        """What one commit writes: target, dead letters, watermark, partitions and the ledger's committed windows."""
        return self.rows, self.letters, self.watermarks, self.parts, self.committed


def read_state(url: str, table: str = "fct_changes") -> State:
    """Read the state of a target nobody works on."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        read = _read(connection, table)
    engine.dispose()
    return read


def _read(connection: Connection, table: str) -> State:
    quote = connection.dialect.identifier_preparer.quote
    present = set(inspect(connection).get_table_names())
    beside = {table, f"etl_tombstones_{table}", f"etl_events_{table}"} & present
    rows = [(name, *row) for name in beside for row in connection.execute(text(f"SELECT * FROM {quote(name)}"))]
    letter_columns = [dead_letters.c[name] for name in _LETTER]
    letters = connection.execute(select(*letter_columns, dead_letters.c.closed_at, dead_letters.c.closed_run_id))
    # A run without a cursor covers until the moment it was opened, which is another each time.
    full = set(connection.execute(select(windows.c.pipeline).where(windows.c.kind == "full")).scalars())
    marks = [
        (mark.pipeline, mark.watermark, mark.pipeline in full or mark.covered_until, mark.version)
        for mark in connection.execute(select(watermarks))
    ]
    ledger = connection.execute(select(*(runs.c[name] for name in _RUN)).order_by(runs.c.started_at)).all()
    opened = connection.execute(select(windows.c.attempt, windows.c.status).order_by(windows.c.opened_at)).all()
    committed = {attempt for attempt, status in opened if status == "committed"}
    known = {row.attempt: tuple(row)[1:] for row in ledger}
    return State(
        rows=_in_order(rows),
        letters=_in_order([(*row[:-2], row[-2] is not None, row[-1] is not None) for row in map(tuple, letters)]),
        watermarks=_in_order(marks),
        parts=_in_order([tuple(row) for row in connection.execute(select(partitions))]),
        # By the window and by its ledger row: one without the other is a tear.
        committed=_in_order(
            [
                (attempt in committed, *known[attempt])
                for attempt in known
                if attempt in committed or known[attempt][0] == "committed"
            ]
        ),
        ledger=[row.status for row in ledger],
        window_statuses=[status for _, status in opened],
        staging=[
            name for name in inspect(connection).get_table_names() if name.startswith(("etl_staged_", "etl_rejected_"))
        ],
    )


def _in_order(rows: Sequence[tuple[Any, ...]]) -> Rows:
    return sorted(rows, key=lambda row: tuple(itertools.chain.from_iterable(_sortable(value) for value in row)))


def _sortable(value: Any) -> tuple[bool, str]:
    return value is not None, str(value)
