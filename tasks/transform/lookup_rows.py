"""Where a lookup finds its rows: in a table of the target, key by key, or in what has been read whole."""

import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Column, ColumnElement, MetaData, Numeric, Select, Table, or_, select, tuple_

from tasks.column_types import UUID, UtcDateTime, sql_type
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.dialects.source import python_type
from tasks.errors import ConfigError, ContractError, TargetError, TargetUnavailable
from tasks.transform.lookup import Lookup
from tasks.transform.lookup_keys import Key, Versions, family_of_type
from tasks.version_columns import IS_CURRENT, VALID_FROM, VALID_TO
from tasks.window import Window

_VALUES = 1_000
"""How many a statement binds at most, about."""

_MOST = 2
"""Rows for each key, in the mean, above which it is clear without looking that it is none."""

Span = tuple[datetime, datetime] | None
"""The first and last time that a version is asked for, UTC."""


class Rows(Protocol):
    """The rows that a lookup may find."""

    def families(self, kinds: Sequence[pa.DataType]) -> Sequence[str | None]:
        """Of which family the key's columns are, see `lookup_keys`; None where that is not known.

        Args:
            kinds: of which type the values are that they are asked for.
        """

    def versions(self, keys: Collection[Key], span: Span) -> Versions:
        """What there is for `keys`, which hold no NULL, and maybe more."""


class WholeRows:
    """Rows of an extract, read when they are first asked for.

    Args:
        where: pipeline and lookup, as a message begins.
        lookup: which has an extract.
    """

    def __init__(self, where: str, lookup: Lookup) -> None:
        self.where = where
        self.lookup = lookup
        self._versions: Versions | None = None

    def families(self, kinds: Sequence[pa.DataType]) -> Sequence[str | None]:
        """See `Rows.families`."""
        return self._whole().families

    def versions(self, keys: Collection[Key], span: Span) -> Versions:
        """See `Rows.versions`: all there are."""
        return self._whole()

    def _whole(self) -> Versions:
        if self._versions is None:
            self._versions = Versions(self.where, self.lookup, self._read())
        return self._versions

    def _read(self) -> pa.Table:
        assert self.lookup.extract is not None
        held: list[pa.Table] = []
        for batch in self.lookup.extract.batches(Window()):
            missing = [name for name in self.lookup.columns if name not in batch.column_names]
            if missing:
                raise ConfigError(_no_column(self.where, missing[0], batch.column_names))
            rows = batch.select(list(self.lookup.columns))
            held.append(rows.filter(rows.column(IS_CURRENT)) if self.lookup.current else rows)
            if sum(each.num_rows for each in held) > self.lookup.max_rows:
                raise ConfigError(
                    f"{self.where} has more than max_rows={self.lookup.max_rows:,} rows, and is read whole. Read fewer "
                    "with a query; or raise max_rows as far as the memory goes; or load it into the target with a "
                    "pipeline of its own, and look up in that table."
                )
        if not held:
            return pa.table({name: pa.nulls(0) for name in self.lookup.columns})
        return pa.concat_tables(held, promote_options="permissive")


class KeyedRows:
    """Rows of a table of the target, asked for by their keys.

    Args:
        where: pipeline and lookup, as a message begins.
        lookup: which has a table.
        connection: name of the target database.
    """

    def __init__(self, where: str, lookup: Lookup, connection: str) -> None:
        self.where = where
        self.lookup = lookup
        self.connection = connection
        self._known: Table | None = None

    def families(self, kinds: Sequence[pa.DataType]) -> Sequence[str | None]:
        """See `Rows.families`. Where a database has no type for a UUID, what is asked for tells that a text is one."""
        found: list[str | None] = []
        for name, kind in zip(self.lookup.on.values(), kinds, strict=True):
            column = self._table().c[name]
            there = _arrow_type(column)
            if kind == UUID and there == pa.string():
                column.type = sql_type(UUID)
                there = UUID
            found.append(None if there is None else family_of_type(there))
        return found

    def versions(self, keys: Collection[Key], span: Span) -> Versions:
        """See `Rows.versions`.

        Raises:
            TargetUnavailable: the target did not answer.
            TargetError: it refused.
        """
        return Versions(self.where, self.lookup, self._read(sorted(keys, key=repr), span))

    def _read(self, keys: Sequence[Key], span: Span) -> pa.Table:
        table = self._table()
        target = engine(self.connection)
        dialect = dialect_of(target)
        found: list[Any] = []
        read = pa.table({name: pa.nulls(0) for name in self.lookup.columns})
        with dialect.translated(self.where, TargetUnavailable, TargetError), target.connect() as connection:
            for statement in self._statements(table, keys, span):
                result = connection.execute(statement)
                as_arrow = dialect.arrow_maker(result)
                found += result.all()
                if not self.lookup.as_of and len(found) > _MOST * len(keys):
                    raise ContractError(
                        f"{self.where} finds over {len(found) - 1:,} rows for {len(keys):,} keys, and rows must not "
                        "multiply. Look up by all columns of the key; of a table that keeps a history say "
                        "current=True, or as_of=..."
                    )
            if found:
                # All at once, so that a column has one type, whatever its values in one part are.
                read = as_arrow(found)
        return pa.table({name: _typed(read.column(name), table.c[name]) for name in self.lookup.columns})

    def _statements(self, table: Table, keys: Sequence[Key], span: Span) -> Iterator[Select[Any]]:
        columns = [table.c[name] for name in self.lookup.on.values()]
        statement = select(*dialect_of(engine(self.connection)).read_columns(table)).select_from(table)
        if self.lookup.current:
            statement = statement.where(table.c[IS_CURRENT].is_(True))
        if span is not None:
            begins, ends = (table.c[name] for name in (VALID_FROM, VALID_TO))
            statement = statement.where(or_(begins.is_(None), begins <= span[1]), or_(ends.is_(None), ends > span[0]))
        size = max(1, _VALUES // len(columns))
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            if not self.lookup.as_of:
                # Were the columns no key, the statement might bring the whole table.
                statement = statement.limit(_MOST * len(keys) + 1)
            if len(columns) == 1:
                yield statement.where(columns[0].in_([value for (value,) in part]))
            else:
                yield statement.where(tuple_(*columns).in_(part))

    def _table(self) -> Table:
        if self._known is None:
            assert self.lookup.table is not None
            target = engine(self.connection)
            dialect = dialect_of(target)
            with dialect.translated(self.where, TargetUnavailable, TargetError):
                found = dialect.relation(target, self.lookup.table)
            if missing := [name for name in self.lookup.columns if name not in found.c]:
                raise ConfigError(_no_column(self.where, missing[0], found.c.keys()))
            columns = [Column(name, found.c[name].type) for name in self.lookup.columns]
            for column in columns:
                if column.name in (VALID_FROM, VALID_TO) and _arrow_type(column) == pa.timestamp("us"):
                    column.type = UtcDateTime()
            self._known = Table(found.name, MetaData(), *columns, schema=found.schema)
        return self._known


def _no_column(where: str, name: str, names: Sequence[str]) -> str:
    return f"{where} has no column {name!r}; its columns are {', '.join(names)}."


def _arrow_type(column: ColumnElement[Any]) -> pa.DataType | None:
    """The Arrow type of a column's values; None where the column's type does not tell."""
    kind, python = column.type, python_type(column)
    if isinstance(kind, Numeric) and python is Decimal:
        known = kind.precision is not None and kind.scale is not None and kind.precision <= 38
        return pa.decimal128(kind.precision, kind.scale) if known else None
    if python is datetime:
        zoned = isinstance(kind, UtcDateTime) or getattr(kind, "timezone", False)
        return pa.timestamp("us", "UTC" if zoned else None)
    simple: dict[type, pa.DataType] = {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        bytes: pa.binary(),
        date: pa.date32(),
        uuid.UUID: UUID,
    }
    return None if python is None else simple.get(python)


def _typed(column: pa.ChunkedArray, table_column: ColumnElement[Any]) -> pa.ChunkedArray:
    """`column` in the type that the table declares, and not the one that its values suggest."""
    declared = _arrow_type(table_column)
    if declared is None or column.type == declared:
        return column
    if declared == UUID and pa.types.is_string(column.type):
        found = [None if value is None else uuid.UUID(value).bytes for value in column.to_pylist()]
        return pa.chunked_array([pa.ExtensionArray.from_storage(UUID, pa.array(found, UUID.storage_type))])
    try:
        return pc.cast(column, declared)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # SQLite keeps what it is given, whatever the column is declared as.
        return column
