"""`WindowCheck`: the rules that a row alone cannot tell, judged set-wise inside the commit over all of a window's rows.

What breaks one moves from the staged rows to the dead letters; its raw record comes from the window's spool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, Row, Table, case, delete, func, insert, or_, select

from tasks.column_types import UTC_TIMESTAMP
from tasks.masking import NO_MASKING, Masking
from tasks.spool import Spool
from tasks.state.staged import ROW
from tasks.transform.contract import SIBLINGS
from tasks.transform.letters import letters
from tasks.transform.reasons import Reason, reason

_CHUNK = 1_000


@dataclass(frozen=True)
class StagedRows:
    """The staged rows of an attempt, as a rule sees them.

    Attributes:
        table: where they are; see `tasks.load.target.staged_table`.
        key: the key columns of the target.
        cursor: column that orders the versions of a row, or None: then they are in the order they were read in.
        newest: of several versions of a row the newest is loaded, else the oldest.
        cleared_at: rows whose `etl_row` is lower are gone already; see `tasks.change_columns`.
    """

    table: Table
    key: Sequence[str]
    cursor: str | None = None
    newest: bool = True
    cleared_at: int | None = None


class WindowRule(Protocol):
    """A rule over the rows of a window. Frozen, comparable."""

    @property
    def rule(self) -> str:
        """How a dead letter names it."""

    @property
    def columns(self) -> Sequence[str]:
        """Columns of the contract whose values a dead letter shows with it."""

    def broken(self, rows: StagedRows) -> ColumnElement[bool]:
        """Whether a row of `rows.table` breaks it."""


@dataclass(frozen=True)
class WindowCheck:
    """The window rules of one attempt, checked in the database.

    Attributes:
        rejecting: rules that make a row a dead letter.
        warning: rules that are only counted.
        rows: the staged rows.
        time_cursor: the cursor column of the target, where it is an instant; else None.
        rejected: the attempt's dead letters.
        spool: the raw rows of the window; None where no rule rejects.
        masking: columns whose values no dead letter may tell.
    """

    rejecting: Sequence[WindowRule]
    warning: Sequence[WindowRule]
    rows: StagedRows
    time_cursor: str | None
    rejected: Table
    spool: Spool | None
    masking: Masking = NO_MASKING

    def warn(self, connection: Connection) -> int:
        """How many staged rows break a rule that only warns."""
        broken = [rule.broken(self.rows) for rule in self.warning]
        if not broken:
            return 0
        return connection.execute(select(func.count()).select_from(self.rows.table).where(or_(*broken))).scalar_one()

    def reject(self, connection: Connection) -> int:
        """Move the staged rows that break a rule to the dead letters; how many they were.

        Every rule is judged on the rows as they were staged, so that a letter lists all that its row broke.
        """
        broken = [rule.broken(self.rows) for rule in self.rejecting]
        if not broken:
            return 0
        staged = self.rows.table
        row = staged.c[ROW]
        columns: list[ColumnElement[Any]] = [
            row,
            *(staged.c[name] for name in self.rows.key),
            *([staged.c[self.time_cursor]] if self.time_cursor else []),
        ]
        for rule, breaks in zip(self.rejecting, broken, strict=True):
            columns += [case((breaks, 1), else_=0), *(staged.c[name] for name in rule.columns)]
        labelled = [expression.label(f"c{place}") for place, expression in enumerate(columns)]
        statement = select(*labelled).where(or_(*broken)).order_by(row).limit(_CHUNK)
        found, last = 0, -1
        while rows := connection.execute(statement.where(row > last)).all():
            self._file(connection, rows)
            found, last = found + len(rows), rows[-1][0]
        if found:
            connection.execute(delete(staged).where(or_(*broken)))
        return found

    def _file(self, connection: Connection, rows: Sequence[Row[Any]]) -> None:
        """Write the dead letters of `rows`, given as number, key, cursor, and for each rule a flag and its values."""
        keys = len(self.rows.key)
        plain = 1 + keys + (self.time_cursor is not None)
        assert self.spool is not None, "a pipeline with window rules keeps its raw rows"
        remaining = iter(rows)
        for raw, first, passports in self.spool.take([found[0] >> SIBLINGS for found in rows]):
            here = [next(remaining) for _ in passports]
            judged = letters(
                raw,
                [passport - first for passport in passports],
                np.array([found[0] for found in here]),
                [pa.array([found[1 + place] for found in here]) for place in range(keys)],
                pa.array([found[plain - 1] if self.time_cursor else None for found in here], UTC_TIMESTAMP),
                [self._reasons(found[plain:]) for found in here],
                self.masking,
            )
            connection.execute(insert(self.rejected), judged.to_pylist())

    def _reasons(self, told: Sequence[Any]) -> list[Reason]:
        """What a letter says, given for each rule a flag and the values of its columns."""
        reasons, place = [], 0
        for rule in self.rejecting:
            flag, *values = told[place : place + 1 + len(rule.columns)]
            place += 1 + len(values)
            if flag:
                reasons.append(reason(rule.rule, rule.columns, values))
        return reasons
