"""`References`: a column whose values have to be in a key of another target table."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, and_, column, exists, table

from tasks.errors import ConfigError
from tasks.transform.window_rules import StagedRows


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

    @property
    def columns(self) -> tuple[str, ...]:
        """See `WindowRule.columns`."""
        return (self.column,)

    def broken(self, rows: StagedRows) -> ColumnElement[bool]:
        """See `WindowRule.broken`."""
        schema, _, name = self.table.rpartition(".")
        other = table(name, column(self.key), schema=schema or None).alias("referenced")
        value = rows.table.c[self.column]
        return and_(value.is_not(None), *rows.alive(rows.table), ~exists().where(other.c[self.key] == value))
