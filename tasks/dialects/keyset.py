"""`Keyset`: a relation read in the order of its key, a chunk at a time, each behind the last key of the one before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    UniqueConstraint,
    and_,
    func,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from tasks.errors import SourceError


@dataclass(frozen=True)
class Keyset:
    """The order of a keyset read.

    Attributes:
        relation: what is read, with the key among its columns.
        key: columns that together are unique and never NULL.
    """

    relation: Any
    key: tuple[str, ...]

    @property
    def columns(self) -> list[ColumnElement[Any]]:
        """The key's columns."""
        return [self.relation.c[name] for name in self.key]

    @property
    def declared(self) -> bool:
        """Whether the database itself keeps the key unique and not NULL."""
        if not isinstance(self.relation, Table):
            return False
        uniques = [{column.name for column in self.relation.primary_key.columns}]
        uniques += [
            {column.name for column in constraint.columns}
            for constraint in self.relation.constraints
            if isinstance(constraint, UniqueConstraint)
        ]
        return any(unique and unique <= set(self.key) for unique in uniques) and not any(
            self.relation.c[name].nullable for name in self.key
        )

    def chunk(self, statement: Select[Any], last: Sequence[Any] | None, rows: int) -> Select[Any]:
        """The next `rows` of `statement` behind the key `last`, with the key as the driver gives it as last columns."""
        raw = [type_coerce(column, NullType()).label(f"tidegate_key_{n}") for n, column in enumerate(self.columns)]
        chunk = statement.add_columns(*raw).order_by(*self.columns).limit(rows)
        return chunk if last is None else chunk.where(self.behind([literal(value, NullType()) for value in last]))

    def behind(self, last: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
        """What sorts after `last`.

        Spelled out, with a bound on the first column alone: not every database compares rows of columns, and MariaDB
        finds no place in an index by such a comparison.
        """
        # Untyped, so that what the driver gave goes back to it as it came.
        raw = [type_coerce(column, NullType()) for column in self.columns]
        alternatives = []
        for position, column in enumerate(raw):
            equal = [known == value for known, value in zip(raw[:position], last, strict=False)]
            alternatives.append(and_(*equal, column > last[position]))
        return and_(raw[0] >= last[0], or_(*alternatives))

    def count(self) -> Select[tuple[int]]:
        """How many rows there are."""
        return select(func.count()).select_from(self.relation)

    def compare(self, read: int, there: int, where: str) -> None:
        """Refuse a read that has lost or doubled a row.

        Raises:
            SourceError: the key did not lead through every row.
        """
        if read != there:
            raise SourceError(
                f"{where}: reading by the key ({', '.join(self.key)}) gave {read:,} of {there:,} rows. A key is "
                "unique, never NULL, and compares as it sorts. Name another, or none: then one statement reads all."
            )
