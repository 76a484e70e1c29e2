"""`Writer`: what a commit asks of a strategy; `Incoming`: what it hands over."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from sqlalchemy import ColumnElement, Connection, Table, literal

from tasks.change_columns import Clearing
from tasks.window import Window


@dataclass(frozen=True)
class Incoming:
    """What an attempt has staged, and how it relates to the target.

    Attributes:
        target: the target table.
        staged: good rows; see `tasks.load.target.staged_table`.
        rejected: dead letters.
        cursor: column that orders the versions of a row, or None.
        now: target clock, UTC, of the commit.
        companions: the tables that the strategy keeps beside the target; see `Load.companions`.
        cleared_at: `etl_row` from which on the staged rows are all there is, or None; see `tasks.change_columns`.
        passed: rows with a lower cursor are late, if it is of the cursor's kind; None: no row is.
        scope: half-open ranges of the partition column, UTC, of which the staged rows are all there is; None: nobody
            has said so of any.
        complete: the rows are everything that the source has, so what did not come in is gone from it.
        clearings: every marker, in order, where the rows are dated; see `Load.dated`.
    """

    target: Table
    staged: Table
    rejected: Table
    cursor: str | None
    now: datetime
    companions: Sequence[Table] = ()
    cleared_at: int | None = None
    passed: datetime | int | str | None = None
    scope: tuple[Window, ...] | None = None
    complete: bool = False
    clearings: Sequence[Clearing] = ()


def before_passed(incoming: Incoming, at: ColumnElement[Any] | None) -> ColumnElement[bool] | None:
    """Whether `at`, by which staged rows are ordered, lies where earlier runs have read; None where nobody can tell."""
    # The contract may declare it as something else than the source has it in, which does not compare.
    if at is None or incoming.passed is None or at.type.python_type is not type(incoming.passed):
        return None
    return at < literal(incoming.passed, at.type)


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
        reread: rows that came in although an earlier run had loaded them, those taken from staging included: they lie
            before what has been covered already, and are neither new nor changed nor deleted. Where no time says what
            lies there, only the unchanged ones.
    """

    new: int
    changed: int
    deleted: int
    unchanged: int
    stale: int
    repeated: int
    late: int
    reread: int


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


@runtime_checkable
class ByPartition(Protocol):
    """A writer that deletes by partitions, of which none may be emptied unawares."""

    def emptied(self, connection: Connection) -> Sequence[str]:
        """The partitions of which rows would go and none came in, in order. Called after `absent`."""
