"""`References`: a column whose values have to be in a key of another target table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    case,
    column,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    table,
)

from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import ConfigError
from tasks.spool import Spool
from tasks.state.dead_letters import DELETED, ROW
from tasks.transform.contract import SIBLINGS, letters
from tasks.transform.record import encode

_CHUNK = 1_000


@dataclass(frozen=True)
class References:
    """Every value of `column` that is not NULL is expected in `target`, checked set-wise inside the commit.

    Attributes:
        column: a column of the contract.
        target: `table.column` or `schema.table.column` in the same database.
        on_missing: `reject` makes the row a dead letter; `warn` loads it and counts it in the ledger.
    """

    column: str
    target: str
    on_missing: Literal["reject", "warn"] = "reject"

    def __post_init__(self) -> None:
        if self.target.count(".") not in (1, 2) or not all(self.target.split(".")):
            raise ConfigError(
                f"References({self.column!r}): {self.target!r} is not `table.column` or `schema.table.column`."
            )
        if self.on_missing not in ("reject", "warn"):
            raise ConfigError(
                f"References({self.column!r}): on_missing is 'reject' or 'warn', got {self.on_missing!r}."
            )

    @property
    def table(self) -> str:
        """The referenced table, `name` or `schema.name`."""
        return self.target.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The referenced column."""
        return self.target.rpartition(".")[2]

    @property
    def rule(self) -> str:
        """How a dead letter names this rule."""
        return f"references {self.target}"


@dataclass(frozen=True)
class ReferenceCheck:
    """The references of one attempt, checked in the database against what is committed there.

    Attributes:
        references: as the pipeline declares them.
        key: the key columns of the target.
        cursor: the cursor column of the target, or None.
        staged: the attempt's staged rows.
        rejected: the attempt's dead letters.
        spool: the raw rows of the window.
    """

    references: Sequence[References]
    key: Sequence[str]
    cursor: str | None
    staged: Table
    rejected: Table
    spool: Spool | None

    def warn(self, connection: Connection) -> int:
        """How many staged rows lack a reference that is declared `on_missing="warn"`."""
        missing = [self._missing(reference) for reference in self.references if reference.on_missing == "warn"]
        if not missing:
            return 0
        return connection.execute(select(func.count()).select_from(self.staged).where(or_(*missing))).scalar_one()

    def reject(self, connection: Connection) -> int:
        """Move the staged rows that lack a reference to the dead letters; how many they were."""
        rejecting = [reference for reference in self.references if reference.on_missing == "reject"]
        if not rejecting:
            return 0
        assert self.spool is not None, "a pipeline with references keeps its raw rows"
        missing = [self._missing(reference) for reference in rejecting]
        row = self.staged.c[ROW]
        columns = [
            row,
            *(self.staged.c[name] for name in self.key),
            *([self.staged.c[self.cursor]] if self.cursor else []),
        ]
        broken = [
            expression
            for reference, lacks in zip(rejecting, missing, strict=True)
            for expression in (case((lacks, 1), else_=0), self.staged.c[reference.column])
        ]
        labelled = [expression.label(f"c{place}") for place, expression in enumerate([*columns, *broken])]
        statement = select(*labelled).where(or_(*missing)).order_by(row).limit(_CHUNK)
        found, last = 0, -1
        while rows := connection.execute(statement.where(row > last)).all():
            self._file(connection, rejecting, rows)
            found, last = found + len(rows), rows[-1][0]
        if found:
            connection.execute(delete(self.staged).where(or_(*missing)))
        return found

    def _missing(self, reference: References) -> ColumnElement[bool]:
        schema, _, name = reference.table.rpartition(".")
        other = table(name, column(reference.key), schema=schema or None).alias("referenced")
        value = self.staged.c[reference.column]
        alive = [~self.staged.c[DELETED]] if DELETED in self.staged.c else []
        return and_(value.is_not(None), *alive, ~exists().where(other.c[reference.key] == value))

    def _file(self, connection: Connection, rejecting: Sequence[References], rows: Sequence[Row[Any]]) -> None:
        """Write the dead letters of `rows`, given as number, key, cursor, and a flag and value for each rule."""
        plain = 1 + len(self.key) + (self.cursor is not None)
        assert self.spool is not None
        remaining = iter(rows)
        for raw, first, passports in self.spool.take([found[0] >> SIBLINGS for found in rows]):
            here = [next(remaining) for _ in passports]
            reasons = [
                encode(
                    [
                        {"rule": reference.rule, "column": reference.column, "value": found[plain + 2 * place + 1]}
                        for place, reference in enumerate(rejecting)
                        if found[plain + 2 * place]
                    ]
                )
                for found in here
            ]
            judged = letters(
                raw,
                [passport - first for passport in passports],
                np.array([found[0] for found in here]),
                [pa.array([found[1 + place] for found in here]) for place in range(len(self.key))],
                pa.array([found[plain - 1] if self.cursor else None for found in here], UTC_TIMESTAMP),
                reasons,
            )
            connection.execute(insert(self.rejected), judged.to_pylist())
