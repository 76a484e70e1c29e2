"""`References`: a column whose values have to be in a key of another target table."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from sqlalchemy import Boolean, ColumnElement, and_, column, exists, or_, table, true

from tasks.column_types import UTC_TIMESTAMP, UtcDateTime
from tasks.errors import ConfigError
from tasks.transform.window_rules import StagedRows


@dataclass(frozen=True)
class References:
    """Every value of `column` that is not NULL is expected in `target`, checked set-wise inside the commit.

    Attributes:
        column: a column of the contract.
        target: `table.column` or `schema.table.column` in the same database.
        on_missing: `reject` makes the row a dead letter; `warn` loads it and counts it in the ledger.
        at: which versions count where the target is a history (`Scd2`): `current`, those that are valid now; `as_of`,
            those that were valid at the row's own time; None, all there ever were.
        by: column of the contract that tells the row's own time (UTC); where None is given, the cursor.
    """

    column: str
    target: str
    on_missing: Literal["reject", "warn"] = "reject"
    at: Literal["current", "as_of"] | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        if self.target.count(".") not in (1, 2) or not all(self.target.split(".")):
            raise ConfigError(
                f"References({self.column!r}): {self.target!r} is not `table.column` or `schema.table.column`."
            )
        if self.on_missing not in ("reject", "warn"):
            raise ConfigError(
                f"References({self.column!r}): on_missing is 'reject' or 'warn', got {self.on_missing!r}."
            )

        if self.at not in (None, "current", "as_of"):
            raise ConfigError(f"References({self.column!r}): at is 'current', 'as_of' or None, got {self.at!r}.")
        if self.by is not None and self.at != "as_of":
            raise ConfigError(
                f"References({self.column!r}): by={self.by!r} tells the time of a row, which only at='as_of' asks for."
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
        how = "" if self.at is None else f" ({self.at.replace('_', ' ')})"
        return f"references {self.target}{how}"

    def expect_time(self, pipeline: str, columns: pa.Schema, cursor: str | None) -> None:
        """Make sure that rows have the time this asks for.

        Args:
            pipeline: its name, for the message.
            columns: of the contract.
            cursor: the extract's, or None.

        Raises:
            ConfigError: there is no such column, or it is no instant.
        """
        if self.at != "as_of":
            return
        name = self.by or cursor
        if name is None or name not in columns.names or columns.field(name).type != UTC_TIMESTAMP:
            raise ConfigError(
                f"{pipeline}: References({self.column!r}, {self.target!r}, at='as_of') needs the time of each row, and "
                f"{'there is no cursor' if name is None else f'{name!r} is no instant of the contract'}. Name a column "
                "of type UtcTimestamp in `by`."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """See `WindowRule.columns`."""
        return (self.column,)

    def broken(self, rows: StagedRows) -> ColumnElement[bool]:
        """See `WindowRule.broken`."""
        schema, _, name = self.table.rpartition(".")
        other = table(
            name,
            column(self.key),
            column("valid_from", UtcDateTime),
            column("valid_to", UtcDateTime),
            column("is_current", Boolean),
            schema=schema or None,
        ).alias("referenced")
        value = rows.table.c[self.column]
        found = exists().where(other.c[self.key] == value)
        if self.at == "current":
            found = found.where(other.c.is_current.is_(true()))
        elif self.at == "as_of":
            time = rows.table.c[self.by or str(rows.cursor)]
            found = found.where(other.c.valid_from <= time, or_(other.c.valid_to.is_(None), time < other.c.valid_to))
        return and_(value.is_not(None), *rows.alive(rows.table), ~found)
