"""Staged rows: their columns besides the contract's, and which of several versions of a row counts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, UniqueConstraint, case

ROW = "etl_row"
"""The number of a row in its window; unique there. See `Contract`."""

DELETED = "etl_deleted"
"""Whether a staged row is one that is gone from the source; only its key is filled then."""

CHANGED_AT = "etl_changed_at"
"""When a staged change happened, in source time (UTC); only where the load keeps histories."""

OWN = frozenset({ROW, DELETED, CHANGED_AT})
"""The columns of a staged row that are not the contract's."""


def alive(rows: FromClause) -> list[ColumnElement[bool]]:
    """Conditions that leave out the deletes; `rows` is a staging table, or something that has its columns."""
    return [~rows.c[DELETED]] if DELETED in rows.c else []


def best_first(rows: FromClause, cursor: str | None, *, newest: bool) -> list[ColumnElement[Any]]:
    """The order of several rows of one key: the one that counts is the first.

    Args:
        rows: a staging table, or something that has its columns.
        cursor: column that orders the versions of a row, or None: then they are in the order they were read in.
        newest: the newest counts, else the oldest.
    """
    order = [rows.c[name] for name in (*([cursor] if cursor else []), ROW)]
    if not newest:
        # A delete changes nothing there, so it may not stand for a row.
        return [*([case((rows.c[DELETED], 1), else_=0)] if DELETED in rows.c else []), *order]
    # A delete without a cursor is of the row it is about; where NULLs sort differs by database.
    untold = [case((rows.c[cursor].is_(None), 0), else_=1)] if cursor and DELETED in rows.c else []
    return [*untold, *(column.desc() for column in order)]


def join_index(table: str, key: Sequence[str]) -> list[UniqueConstraint]:
    """An index of a staging table by its key, on a database that joins by nothing else: row by row.

    The number of the row is in it, so that it may be declared, and made, with the table.
    """
    joins_by_index: Any = ("mysql", "mariadb")
    return [UniqueConstraint(*key, ROW, name=f"{table}_key").ddl_if(dialect=joins_by_index)] if key else []
