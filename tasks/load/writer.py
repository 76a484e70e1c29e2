"""`Writer`: what a commit asks of a strategy; `Incoming`: what it hands over."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Table

from tasks.state.dead_letters import CHANGED_AT
from tasks.window import Window


@dataclass(frozen=True)
class Incoming:
    """What an attempt has staged, and how it relates to the target.

    Attributes:
        target: the target table.
        staged: good rows; see `tasks.load.target.staged_table`.
        rejected: dead letters.
        cursor: column that orders the versions of a row, or None.
        window: what was read; unbounded where it has no cursor.
        cleared_at: `etl_row` from which on the staged rows are all there is, or None; see `tasks.change_columns`.
        passed: rows with a lower cursor are late, if it is of the cursor's kind; None: no row is.
        ordered: the rows come in the order in which they changed, and no other run brings any between them: a feed's.
        everything: the staged rows are all that the source has.
    """

    target: Table
    staged: Table
    rejected: Table
    cursor: str | None
    window: Window
    cleared_at: int | None = None
    passed: datetime | int | str | None = None
    ordered: bool = False
    everything: bool = False

    @property
    def time(self) -> ColumnElement[datetime] | None:
        """When a staged row became what it is, in source time: its cursor, else its change's; None: nobody knows."""
        if self.cursor is not None:
            return self.staged.c[self.cursor]
        return self.staged.c.get(CHANGED_AT)


@dataclass(frozen=True, slots=True)
class Classes:
    """Staged rows by what will be done with them.

    Attributes:
        new: their key is not in the target.
        changed: they differ from the target, and may be written over it.
        deleted: they are gone from the source, and the target holds their key.
        unchanged: the target holds them, letter for letter, or a delete finds nothing that it may delete.
        stale: the target holds a newer version.
        repeated: they differ from the target, but the strategy never writes over a row.
        late: those of the new and changed ones that lie before what has been covered already.
    """

    new: int
    changed: int
    deleted: int
    unchanged: int
    stale: int
    repeated: int
    late: int


class Writer(Protocol):
    """Writes one attempt's rows. The methods are called in this order, inside the commit's transaction."""

    def deduplicate(self, connection: Connection) -> int:
        """Take from staging what need not be judged, since something else there counts instead; how many rows."""

    def absent(self, connection: Connection) -> tuple[int, int]:
        """How many rows that are there now would go for not having come in, and among how many that is said."""

    def classify(self, connection: Connection) -> Classes:
        """Count the staged rows by what will become of them."""

    def write(self, connection: Connection, classes: Classes, gone: int) -> int:
        """Write what `classify` and `absent` found.

        Returns:
            How many rows of the target were inserted, updated or deleted.

        Raises:
            ConservationError: the database wrote another number of rows.
        """
