"""`SnapshotReader`: one relation at one moment, read as often as it takes: its hashes, its rows, the rows of some keys.

A hash is 128 bits over the names and the exact values of all columns; equal hashes mean equal rows. A column that is
added, dropped or renamed changes every hash, and so does another recipe.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, Select, Table, literal_column, select, tuple_, type_coerce
from sqlalchemy.types import NullType

from tasks.errors import SourceError

if TYPE_CHECKING:
    from tasks.dialects.source import Source

HASH = "etl_hash"

_READ_ROWS = 20_000

_EXACT = {type(None), bool, int, float, str, bytes, Decimal, datetime, date, time, timedelta, UUID}
"""Types whose `ascii` tells every two values apart, and is the same in every process and on every version of Python."""


class SnapshotReader(Protocol):
    """A relation of a source, as it was when the reader was opened."""

    def schema(self) -> pa.Schema:
        """The columns of its rows; the types only where the source tells them without a row."""

    def hashes(self) -> Iterator[pa.Table]:
        """The key of every row, as `rows` has it, and `etl_hash`, in bounded batches."""

    def rows(self) -> Iterator[pa.Table]:
        """Every row, in bounded batches."""

    def rows_with(self, keys: pa.Table) -> Iterator[pa.Table]:
        """The rows of some keys, a few thousand at most; whoever compares more loosely than we do finds others too."""


class RowReader:
    """Reads over one connection, which is in a transaction that sees one moment; rows are hashed here.

    Args:
        source: the dialect.
        connection: see `Source.snapshot`.
        relation: a table, or a query as a subquery.
        key: its key.
    """

    recipe = "1 ascii blake2b"

    def __init__(self, source: "Source", connection: Connection, relation: Any, key: Sequence[str]) -> None:
        self.source = source
        self.connection = connection
        self.relation = relation
        self.key = tuple(key)

    def schema(self) -> pa.Schema:
        """See `SnapshotReader`."""
        result = self.connection.execute(self._all().limit(0))
        as_arrow = self.source.arrow_maker(result)
        result.close()
        return as_arrow([]).schema

    def hashes(self) -> Iterator[pa.Table]:
        """See `SnapshotReader`. The values are hashed as the driver gives them, before SQLAlchemy makes types of them.

        Raises:
            SourceError: a column holds values that have no exact text.
        """
        signed = signature(self.recipe, self.schema().names)
        width = len(self.key)
        statement = select(*self._keys(), *self._raw()).select_from(self.relation)
        for rows in self._partitions(statement):
            keys = list(zip(*(row[:width] for row in rows), strict=True))
            hashes = [_hash(signed, row[width:]) for row in _exact(rows, self._where())]
            arrays = [self._key_array(name, values) for name, values in zip(self.key, keys, strict=True)]
            yield pa.Table.from_arrays([*arrays, pa.array(hashes, pa.binary())], names=[*self.key, HASH])

    def rows(self) -> Iterator[pa.Table]:
        """See `SnapshotReader`."""
        return self._read(self._all())

    def rows_with(self, keys: pa.Table) -> Iterator[pa.Table]:
        """See `SnapshotReader`."""
        columns = [self.relation.c[name] for name in self.key]
        values = [keys.column(name).to_pylist() for name in self.key]
        if len(columns) == 1:
            return self._read(self._all().where(columns[0].in_(values[0])))
        return self._read(self._all().where(tuple_(*columns).in_(list(zip(*values, strict=True)))))

    def _read(self, statement: Select[Any]) -> Iterator[pa.Table]:
        result = self._execute(statement)
        as_arrow = self.source.arrow_maker(result)
        for rows in result.partitions():
            yield as_arrow(rows)

    def _partitions(self, statement: Select[Any]) -> Iterator[Sequence[Any]]:
        yield from self._execute(statement).partitions()

    def _execute(self, statement: Select[Any]) -> Any:
        return self.connection.execute(statement, execution_options={"stream_results": True, "yield_per": _READ_ROWS})

    def _all(self) -> Select[Any]:
        return select(*self.source.read_columns(self.relation)).select_from(self.relation)

    def _keys(self) -> list[ColumnElement[Any]]:
        """The key's columns as `rows` reads them: those of a query as the driver gives them."""
        columns = [self.relation.c[name] for name in self.key]
        if not isinstance(self.relation, Table):
            columns = [type_coerce(column, NullType()) for column in columns]
        return [column.label(f"{HASH}_key_{place}") for place, column in enumerate(columns)]

    def _raw(self) -> list[ColumnElement[Any]]:
        if not isinstance(self.relation, Table):
            return [literal_column("*")]
        return [
            type_coerce(column, NullType()).label(f"{HASH}_raw_{place}")
            for place, column in enumerate(self.relation.columns)
        ]

    def _key_array(self, name: str, values: Sequence[Any]) -> pa.Array:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise SourceError(
                f"{self._where()}: the key column {name!r} holds values of several types. Cast it to one in a query."
            ) from error

    def _where(self) -> str:
        return str(self.connection.engine.url.render_as_string())


def signature(recipe: str, columns: Sequence[str]) -> str:
    """What every hash of a relation begins with, in hexadecimal letters."""
    return hashlib.blake2b(ascii((recipe, *columns)).encode(), digest_size=16).hexdigest()


def _hash(signed: str, row: Sequence[Any]) -> bytes:
    return hashlib.blake2b(f"{signed}{tuple(row)!a}".encode(), digest_size=16).digest()


def _exact(rows: Sequence[Sequence[Any]], where: str) -> Sequence[Sequence[Any]]:
    """`rows` in types that have an exact text."""
    kinds: set[type] = set().union(*(map(type, row) for row in rows))
    if kinds <= _EXACT:
        return rows
    if foreign := kinds - _EXACT - {bytearray, memoryview}:
        raise SourceError(
            f"{where}: values of type {', '.join(sorted(kind.__name__ for kind in foreign))} have no exact text to be "
            "compared by. Cast their columns in a query."
        )
    return [[bytes(value) if isinstance(value, bytearray | memoryview) else value for value in row] for row in rows]
