"""`HashTables`: where a target keeps the keys and hashes of a source's rows.

| table | holds |
|---|---|
| `<feed>_hash` | the last committed snapshot; changed inside the commit, and only where it differs |
| `etl_hashed_<attempt>` | the snapshot that is being read |
| `etl_changed_<attempt>` | what differs between the two, deletes first |
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    inspect,
    text,
)

from tasks.change_columns import OPERATION
from tasks.column_types import TABLE_OPTIONS, key_type, sharing_a_key, storable
from tasks.dialects.snapshot_reader import HASH
from tasks.errors import ConfigError
from tasks.extract.feed import Home
from tasks.state.attempts import CHANGED, HASHED

NUMBER = "etl_number"


class HashTables:
    """The tables of one attempt, for keys of certain types.

    Args:
        home: the feed's.
        kinds: the key's columns, in the source's types.
        where: the source, for messages.

    Attributes:
        known: the last committed snapshot.
        staged: the snapshot that is being read.
        changed: what differs.

    Raises:
        ConfigError: no column can hold the key.
    """

    def __init__(self, home: Home, kinds: pa.Schema, where: str) -> None:
        self.kinds = kinds
        try:
            self.stored = sharing_a_key(pa.schema([pa.field(field.name, stored_type(field.type)) for field in kinds]))
        except ConfigError as error:
            raise ConfigError(
                f"{where}: a key of the types {type_names(kinds)} cannot be compared. Cast it to text in a query."
            ) from error
        self._home = home
        self.known = self._table(known_name(home), keyed=True)
        self.staged = self._table(HASHED + home.attempt)
        number = Column(NUMBER, BigInteger, primary_key=True, autoincrement=False)
        self.changed = self._table(CHANGED + home.attempt, number, Column(OPERATION, String(6), nullable=False))

    def create(self) -> None:
        """Make what is not there. The hashes of another key, or of one that was of other types, go: no row has them."""
        with self._home.dialect.transaction(self._home.engine) as connection:
            self._home.dialect.serialize(connection, f"etl_ddl {self.known.name}")
            for table in (self.staged, self.changed):
                table.create(connection, checkfirst=False)
            kept = _types(connection, self.known.name)
            # As the database calls those of the new table: what it makes of a type is its own affair.
            if kept and kept != _types(connection, self.staged.name):
                drop_known(connection, self._home)
                kept = {}
            if not kept:
                self.known.create(connection, checkfirst=False)

    def keys(self, table: Table) -> list[ColumnElement[Any]]:
        """The key's columns in one of the tables."""
        return [table.c[name] for name in self.kinds.names]

    def restored(self, columns: Sequence[Sequence[Any]]) -> list[pa.Array]:
        """Key columns as they were read from one of the tables, in the source's types."""
        return [_restored(values, kind) for values, kind in zip(columns, self.kinds.types, strict=True)]

    def _table(self, name: str, *first: Column[Any], keyed: bool = False) -> Table:
        keys = [
            Column(field.name, key_type(field), primary_key=keyed, autoincrement=False, nullable=False)
            for field in self.stored
        ]
        index = [] if keyed else [_by_key(name, self.stored.names)]
        return Table(
            name, MetaData(), *first, *keys, Column(HASH, LargeBinary, nullable=False), *index, **TABLE_OPTIONS
        )


def _by_key(table: str, key: Sequence[str]) -> Index:
    """An index by the key, for comparisons on a database that joins by nothing else; keys may be there twice."""
    joins_by_index: Any = ("mysql", "mariadb")
    return Index(f"{table}_key", *key).ddl_if(dialect=joins_by_index)


def _types(connection: Connection, table: str) -> dict[str, type]:
    """The Python types of a table's columns; none where there is no such table."""
    inspector = inspect(connection)
    if not inspector.has_table(table):
        return {}
    return {column["name"]: column["type"].python_type for column in inspector.get_columns(table)}


def known_name(home: Home) -> str:
    """What the table of the last committed snapshot is called."""
    return f"{home.name}_hash"


def count_known(connection: Connection, home: Home) -> int:
    """How many rows the last committed snapshot had; 0 without one."""
    if not inspect(connection).has_table(known_name(home)):
        return 0
    quoted = connection.dialect.identifier_preparer.quote(known_name(home))
    return int(connection.execute(text(f"SELECT count(*) FROM {quoted}")).scalar_one())


def empty_known(connection: Connection, home: Home) -> None:
    """Make the last committed snapshot one without a row; inside the commit."""
    if inspect(connection).has_table(known_name(home)):
        quoted = connection.dialect.identifier_preparer.quote(known_name(home))
        connection.execute(text(f"DELETE FROM {quoted}"))


def drop_known(connection: Connection, home: Home) -> None:
    """Forget the last committed snapshot."""
    quoted = connection.dialect.identifier_preparer.quote(known_name(home))
    connection.execute(text(f"DROP TABLE IF EXISTS {quoted}"))


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The widest type of the same family: a key column that grows wider keeps its hashes.

    Raises:
        ConfigError: there is none.
    """
    if pa.types.is_decimal(kind) or pa.types.is_uint64(kind):
        return pa.string()
    return pa.int64() if pa.types.is_integer(kind) else storable(kind)


def type_names(schema: pa.Schema) -> str:
    """The types of a schema, for messages."""
    return ", ".join(str(kind) for kind in schema.types)


def _restored(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return pa.array([Decimal(value) for value in values], kind)
    return pa.array([int(value) for value in values] if pa.types.is_uint64(kind) else values, kind)
