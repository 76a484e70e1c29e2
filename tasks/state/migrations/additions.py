"""What a migration adds, if it is not there yet.

Where the database commits every change of a table at once, a migration that died half way begins again: each of its
steps has to find out whether it is done already. So migrations use these, and none of Alembic's own operations.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from tasks.column_types import TABLE_OPTIONS


def create_table(name: str, *columns: sa.Column[Any] | sa.Constraint) -> None:
    """A table whose texts are compared exactly."""
    if not _inspector().has_table(name):
        op.create_table(name, *columns, **TABLE_OPTIONS)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """A nullable column."""
    if column.name not in {known["name"] for known in _inspector().get_columns(table)}:
        op.add_column(table, column)


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """An index that is not unique."""
    if name not in {known["name"] for known in _inspector().get_indexes(table)}:
        op.create_index(name, table, list(columns))


def _inspector() -> sa.Inspector:
    """A new one each time: what one has seen, it does not look for again."""
    return sa.inspect(op.get_bind())
