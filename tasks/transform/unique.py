"""`Unique`: columns whose values no two rows of a window may share."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, func, select

from tasks.errors import ConfigError
from tasks.state.staged import ROW, alive, best_first
from tasks.transform.window_rules import StagedRows


@dataclass(frozen=True, init=False)
class Unique:
    """No two rows of a window agree in all of `columns`; checked over the whole window inside the commit.

    A NULL equals nothing, so a row with one in these columns breaks no such rule. Of several versions of a row that a
    window brings only the one that would be loaded is judged, since a row is no duplicate of itself, unless the
    columns contain the load's key: then every repetition of the key is one. What is in the target already is not looked
    at; nor is another window.

    Attributes:
        columns: of the contract.
        keep: `first` leaves the row that comes first by the cursor and then by the load's key, whatever order they were
            read in, and makes dead letters of the others; `none` makes dead letters of them all.

    Raises:
        ConfigError: no column, one twice, or another `keep`.
    """

    columns: tuple[str, ...]
    keep: Literal["first", "none"]

    def __init__(self, *columns: str, keep: Literal["first", "none"] = "first") -> None:
        if not columns or len(set(columns)) != len(columns):
            raise ConfigError(f"Unique{columns!r} needs one or more different columns.")
        if keep not in ("first", "none"):
            raise ConfigError(f"Unique{columns!r}: keep is 'first' or 'none', got {keep!r}.")
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "keep", keep)

    @property
    def rule(self) -> str:
        """How a dead letter names it."""
        return f"unique over the window: {', '.join(self.columns)}"

    def judges_versions(self, key: tuple[str, ...]) -> bool:
        """Whether two versions of one row, which agree in its `key`, count as duplicates."""
        return set(key) <= set(self.columns)

    def broken(self, rows: StagedRows) -> ColumnElement[bool]:
        """See `WindowRule.broken`."""
        staged = rows.table
        ordered = [rows.cursor] if rows.cursor else []
        competing = select(staged)
        if not self.judges_versions(tuple(rows.key)):
            version = func.row_number().over(
                partition_by=[staged.c[name] for name in rows.key],
                order_by=best_first(staged, rows.cursor, newest=rows.newest),
            )
            competing = competing.add_columns(version.label("etl_version"))
        if rows.cleared_at is not None:
            competing = competing.where(staged.c[ROW] >= rows.cleared_at)
        there = competing.subquery("competing")
        known = [there.c[name].is_not(None) for name in self.columns]
        loaded = [there.c["etl_version"] == 1] if "etl_version" in there.c else []
        same = [there.c[name] for name in self.columns]
        order = [there.c[name] for name in (*ordered, *rows.key, ROW)]
        place = func.row_number().over(partition_by=same, order_by=order)
        counted = func.count().over(partition_by=same)
        ranked = (
            select(there.c[ROW], (place if self.keep == "first" else counted).label("etl_place"))
            .where(*known, *loaded, *alive(there))
            .subquery("ranked")
        )
        return staged.c[ROW].in_(select(ranked.c[ROW]).where(ranked.c["etl_place"] > 1))
