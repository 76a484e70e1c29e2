"""Which partitions some rows lie in, asked of the database without fetching a row."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Date, FromClause, func, select

from tasks.dialects import dialect_of
from tasks.errors import ConfigError
from tasks.partitioned import Partitioned
from tasks.window import Window

MOST_PARTS = 100_000
"""Partitions that one commit may touch: their names are held in memory."""

_TICK = timedelta(microseconds=1)
_PRECISIONS = {
    13: ("%Y-%m-%d %H", timedelta(hours=1)),
    16: ("%Y-%m-%d %H:%M", timedelta(minutes=1)),
    19: ("%Y-%m-%d %H:%M:%S", timedelta(seconds=1)),
}
"""How much of a time is read: characters, what they say, and how long that is."""


def parts_of(
    connection: Connection,
    by: Partitioned,
    column: ColumnElement[object],
    rows: FromClause,
    *where: ColumnElement[bool],
) -> set[str]:
    """The names of the partitions of `rows`; a row with NULL in the column is in none.

    Args:
        connection: to the target.
        by: the partitions.
        column: the column they are of, in `rows`.
        rows: a table or a join.
        where: which of its rows.

    Raises:
        ConfigError: more than `MOST_PARTS`.
    """
    if by.grain is None or isinstance(column.type, Date):
        return {by.part(value) for value in _distinct(connection, by, column, rows, column.is_not(None), *where)}
    shown = dialect_of(connection.engine).instant_text(column)
    for digits, (form, length) in _PRECISIONS.items():
        texts = _distinct(connection, by, func.substr(shown, 1, digits), rows, column.is_not(None), *where)
        starts = [datetime.strptime(str(text), form).replace(tzinfo=UTC) for text in texts]
        # Most calendars begin their partitions with a whole hour of UTC; those of some zones do not.
        if all(_inside(by.around(start), start + (length - _TICK)) for start in starts):
            break
    return {by.part(start) for start in starts}


def _distinct(
    connection: Connection,
    by: Partitioned,
    value: ColumnElement[object],
    rows: FromClause,
    *where: ColumnElement[bool],
) -> list[object]:
    statement = select(value).select_from(rows).where(*where).distinct().limit(MOST_PARTS + 1)
    found = list(connection.execute(statement).scalars())
    if len(found) > MOST_PARTS:
        raise ConfigError(
            f"One commit touches more than {MOST_PARTS:,} partitions by {by.column!r}. Declare a coarser grain, "
            "or read shorter windows."
        )
    return found


def _inside(partition: Window, instant: datetime) -> bool:
    return partition.end is None or instant < partition.end
