"""`Keyed`: relations compared by the key columns that all of them have."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table, and_, false, insert, or_


class Keyed:
    """What is said of relations by their key.

    Args:
        key: names of the key columns.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self.key = tuple(key)

    def of(self, relation: FromClause) -> list[ColumnElement[Any]]:
        """The key columns of `relation`."""
        return [relation.c[name] for name in self.key]

    def same(self, one: FromClause, other: FromClause) -> ColumnElement[bool]:
        """Whether two rows have the same key."""
        return and_(*(one.c[name] == other.c[name] for name in self.key))


def differ(one: FromClause, other: FromClause, names: Sequence[str]) -> ColumnElement[bool]:
    """Whether two rows differ in one of the columns `names`; NULL is a value like any other."""
    return or_(false(), *(one.c[name].is_distinct_from(other.c[name]) for name in names))


def insert_rows(connection: Connection, table: Table, names: Sequence[str], rows: Select[Any]) -> int:
    """Insert what `rows` selects into the columns `names`; how many they were."""
    statement = insert(table).from_select(list(names), rows).execution_options(preserve_rowcount=True)
    return connection.execute(statement).rowcount
