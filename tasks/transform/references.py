"""`References`: a column whose values have to be in a key of another target table."""

from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy import Boolean, ColumnElement, and_, column, exists, or_, table, true

from tasks.column_types import UTC_TIMESTAMP, UtcDateTime
from tasks.errors import ConfigError
from tasks.overrides import OnMissing
from tasks.state.staged import alive
from tasks.transform.window_rules import StagedRows
from tasks.version_columns import IS_CURRENT, VALID_FROM, VALID_TO


@dataclass(frozen=True)
class References:
    """Every value of `column` that is not NULL is expected in `target`, checked set-wise inside the commit.

    Attributes:
        column: a column of the contract.
        target: `table.column` or `schema.table.column` in the same database.
        on_missing: `reject` makes the row a dead letter; `warn` loads it and counts it in the ledger.
        current: of a table that keeps a history (`Scd2`), only the current versions count; else all there ever were.
        as_of: column of the contract with a time; of such a table, only the versions valid then count.

    Raises:
        ConfigError: `target` names no column; another `on_missing`; both `current` and `as_of`.
    """

    column: str
    target: str
    on_missing: OnMissing = "reject"
    current: bool = False
    as_of: str | None = None

    def __post_init__(self) -> None:
        if self.target.count(".") not in (1, 2) or not all(self.target.split(".")):
            raise ConfigError(
                f"References({self.column!r}): {self.target!r} is not `table.column` or `schema.table.column`."
            )
        if self.on_missing not in ("reject", "warn"):
            raise ConfigError(
                f"References({self.column!r}): on_missing is 'reject' or 'warn', got {self.on_missing!r}."
            )
        if self.current and self.as_of is not None:
            raise ConfigError(
                f"References({self.column!r}) is to the current version, or to the one as of {self.as_of!r}: give one "
                "of the two."
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
        version = " (current)" if self.current else f" (as of {self.as_of})" if self.as_of else ""
        return f"references {self.target}{version}"

    @property
    def of_versions(self) -> bool:
        """Whether the table has to keep a history."""
        return self.current or self.as_of is not None

    def expect_time(self, pipeline: str, columns: pa.Schema) -> None:
        """Make sure that the contract, whose `columns` these are, has the time that is asked for.

        Raises:
            ConfigError: there is no such column, or it is no instant.
        """
        if self.as_of is None or (self.as_of in columns.names and columns.field(self.as_of).type == UTC_TIMESTAMP):
            return
        raise ConfigError(
            f"{pipeline}: References({self.column!r}, {self.target!r}, as_of={self.as_of!r}) needs the time of each "
            f"row, and {self.as_of!r} is no instant of the contract. Declare it as UtcTimestamp, or name another."
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
            column(VALID_FROM, UtcDateTime),
            column(VALID_TO, UtcDateTime),
            column(IS_CURRENT, Boolean),
            schema=schema or None,
        ).alias("referenced")
        value = rows.table.c[self.column]
        found = exists().where(other.c[self.key] == value)
        if self.current:
            found = found.where(other.c[IS_CURRENT].is_(true()))
        elif self.as_of is not None:
            time = rows.table.c[self.as_of]
            found = found.where(other.c[VALID_FROM] <= time, or_(other.c[VALID_TO].is_(None), time < other.c[VALID_TO]))
        return and_(value.is_not(None), *alive(rows.table), ~found)
