"""`Source`: how a database is read, in the form every database SQLAlchemy speaks can be.

`mariadb.py`, `postgresql.py` and `sqlite.py` override only what differs.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Date,
    DateTime,
    Engine,
    Integer,
    Numeric,
    Select,
    Table,
    Text,
    column,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.types import NullType, TypeEngine

from tasks.dialects.arrow_rows import arrow_table
from tasks.dialects.checksum.checksums import Checksums
from tasks.dialects.keyset import Keyset
from tasks.dialects.reading import Reading
from tasks.dialects.reflected import reflected
from tasks.dialects.snapshot_reader import RowReader, SnapshotReader
from tasks.errors import ConfigError, FatalError, RetriableError, SourceError
from tasks.local_time import LocalTime
from tasks.masking import repeated
from tasks.missing_right import remedy
from tasks.window import to_utc

_READ_ROWS = 20_000

_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
"""What SQLAlchemy's `text` would take for the beginning of one."""

_TYPES_OF_VALUES: dict[type, TypeEngine[Any]] = {
    date: Date(),
    str: Text(),
    int: Integer(),
    float: Numeric(),
    Decimal: Numeric(),
}


class Source:
    """The generic form.

    Attributes:
        syntax: what sqlglot calls the database's SQL; empty for what all have in common.
        readers_block_writers: nobody commits while somebody reads, in the same database.
        checksums: how it hashes rows, or None where it cannot.
    """

    syntax = ""
    readers_block_writers = False
    checksums: Checksums | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    # -- rows -------------------------------------------------------------------------------------------------------

    def read(
        self,
        engine: Engine,
        relation: Any,
        cursor: str | None,
        start: datetime | None,
        end: datetime | None,
        *,
        zone: LocalTime | None = None,
        key: Sequence[str] = (),
    ) -> Iterator[pa.Table]:
        """The rows of `relation` with `start <= cursor < end`, from one snapshot, in bounded batches.

        Args:
            engine: the source.
            relation: a table, or a query as a subquery, with its columns.
            cursor: column the bounds are for; None reads everything.
            start: first instant, UTC; None is unbounded.
            end: first instant that is left out, UTC; None is unbounded.
            zone: what the cursor's times are in, where they name no zone themselves; None is UTC.
            key: unique columns to read in the order of, a chunk a statement; else one statement reads everything.

        Raises:
            SourceError: the key did not lead through every row.
        """
        statement = self._between(relation, cursor, start, end, zone)
        with self.snapshot(engine) as connection:
            if key:
                yield from self._chunks(connection, statement, Keyset(relation, tuple(key)))
                return
            result = connection.execute(statement, execution_options={"stream_results": True, "yield_per": _READ_ROWS})
            as_arrow = self.arrow_maker(result)
            for rows in result.partitions():
                yield as_arrow(rows)

    def _chunks(self, connection: Connection, statement: Select[Any], keyset: Keyset) -> Iterator[pa.Table]:
        there = None if self.trusts(keyset) else connection.execute(keyset.count()).scalar_one()
        read, last = 0, None
        while True:
            result = connection.execute(keyset.chunk(statement, last, _READ_ROWS))
            as_arrow = self.arrow_maker(result)
            rows = result.all()
            read += len(rows)
            if rows:
                last = rows[-1][-len(keyset.key) :]
                batch = as_arrow(rows)
                yield batch.select(range(batch.num_columns - len(keyset.key)))
            if len(rows) < _READ_ROWS:
                break
        if there is not None:
            keyset.compare(read, there, connection.engine.url.render_as_string())

    @contextlib.contextmanager
    def snapshot(self, engine: Engine) -> Iterator[Connection]:
        """A connection whose statements all see the source as it was at the first."""
        with engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def reader(self, engine: Engine, relation: Any, key: Sequence[str]) -> Iterator[SnapshotReader]:
        """`relation` at this moment, to be read several times."""
        with self.snapshot(engine) as connection:
            yield RowReader(self, connection, relation, key)

    @contextlib.contextmanager
    def reading(self, engine: Engine, kept: Sequence[Table] = ()) -> Iterator[Reading]:
        """A snapshot for several statements; where that is known, the tables `kept` are not altered meanwhile."""
        with self.snapshot(engine) as connection:
            yield Reading(self, connection)

    def trusts(self, keyset: Keyset) -> bool:
        """Whether nothing needs to be counted to know that the key leads through every row."""
        return keyset.declared

    def arrow_maker(self, result: CursorResult[Any]) -> Callable[[Sequence[Sequence[Any]]], pa.Table]:
        """What makes Arrow of some of the rows of `result`."""
        return partial(arrow_table, list(result.keys()))

    def relation(self, engine: Engine, table: str, key: Sequence[str] = ()) -> Table:
        """`table`, `name` or `schema.name`, with the columns it has in the database.

        Its keys and options are only there where it is to be read by a `key`.

        Raises:
            SourceError: there is no such table.
        """
        schema, _, name = table.rpartition(".")
        try:
            return reflected(engine, name, schema or None, keyed=bool(key))
        except NoSuchTableError as error:
            raise SourceError(
                f"There is no table {table!r} in {engine.url.render_as_string()}, or none that its user may see. Check "
                f"the name and its schema. {remedy(SourceError)}"
            ) from error

    def query(self, engine: Engine, query: str, named: Sequence[str]) -> Any:
        """A SELECT statement as a relation, with the columns `named` of it, whose types the database tells."""
        # A colon is the query's own: it has no parameters.
        escaped = text(_PARAMETER.sub(r"\\:", query.rstrip().rstrip(";")))
        untyped = escaped.columns(*(column(name) for name in named)).subquery("extracted")
        types = self.column_types(engine, untyped) if named else []
        return escaped.columns(*map(column, named, types)).subquery("extracted")

    def column_types(self, engine: Engine, relation: Any) -> list[TypeEngine[Any]]:
        """The types of the named columns of a query; NullType where one cannot be told.

        Here from one value of each, since not every driver describes a result without rows.
        """
        types: list[TypeEngine[Any]] = []
        with self.snapshot(engine) as connection:
            for named in relation.c:
                value = connection.execute(select(named).where(named.is_not(None)).limit(1)).scalar()
                kind = DateTime(getattr(value, "tzinfo", None) is not None) if isinstance(value, datetime) else None
                types.append(kind or _TYPES_OF_VALUES.get(type(value), NullType()))
        return types

    def bound(self, engine: Engine, clock: str | None, lag: timedelta) -> datetime:
        """Source time below which no row can appear or change any more, UTC: see `settled`, whose errors it has."""
        return self.settled(engine, clock, lag)

    def settled(self, engine: Engine, clock: str | None, lag: timedelta) -> datetime:
        """Source time by which every transaction that began before it has ended: the source clock minus `lag`, UTC.

        A database that cannot tell which transactions are open can only be trusted as far as `lag`.

        Args:
            engine: the source.
            clock: SQL expression for its time; None is its own.
            lag: longest time from taking a time, or a number, to the commit.
        """
        with engine.connect() as connection:
            return to_utc(connection.execute(text(f"SELECT {clock or 'CURRENT_TIMESTAMP'}")).scalar_one()) - lag

    def digits(self, column: ColumnElement[Any]) -> int:
        """How many digits of a second `column` keeps of its times, at most six."""
        precision = getattr(column.type, "precision", None)
        return 6 if precision is None or python_type(column) is not datetime else min(precision, 6)

    def null_cursors(self, engine: Engine, relation: Any, cursor: str) -> int:
        """How many rows lie in no window, because they have no cursor."""
        statement = select(func.count()).select_from(relation).where(self.lacks_cursor(relation.c[cursor]))
        with self.snapshot(engine) as connection:
            return int(connection.execute(statement).scalar_one())

    def lacks_cursor(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """Whether a row has no time in `column`."""
        return or_(column.is_(None), column == "") if python_type(column) is str else column.is_(None)

    def _between(
        self, relation: Any, cursor: str | None, start: datetime | None, end: datetime | None, zone: LocalTime | None
    ) -> Select[Any]:
        statement = select(*self.read_columns(relation)).select_from(relation)
        if cursor is None:
            return statement
        column = relation.c[cursor]
        if zone is not None and self.names_zone(column):
            raise ConfigError(
                f"The cursor {column.name!r} is of type {column.type}, which holds instants, so it has no zone to be "
                f"declared. Leave out zone={zone.zone!r}."
            )
        compared = self.cursor_expression(column)
        if start is not None:
            statement = statement.where(compared >= self.cursor_literal(column, start, zone))
        if end is not None:
            statement = statement.where(compared < self.cursor_literal(column, end, zone))
        return statement

    def read_columns(self, relation: Any) -> list[Any]:
        """What is selected of `relation`; of a query only some columns are known by name."""
        return [relation] if isinstance(relation, Table) else [literal_column("*")]

    def logged_in_as(self, connection: Connection) -> str | None:
        """As whom the database knows this session; None where it knows nobody."""
        return str(connection.execute(select(func.current_user())).scalar_one())

    def names_zone(self, column: ColumnElement[Any]) -> bool:
        """Whether the values of `column` are instants, and not times of some zone."""
        return bool(getattr(column.type, "timezone", False))

    def cursor_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """What of `column` is compared with `cursor_literal`."""
        return column

    def cursor_literal(self, column: ColumnElement[Any], value: datetime, zone: LocalTime | None = None) -> Any:
        """`value`, UTC, in the form that compares with `column`.

        A zoned column takes it as it is, one without a zone as a naive time of `zone`, or UTC, a text as ISO 8601. A
        date column covers whole days, so a bound inside a day moves to the next midnight.

        Raises:
            ConfigError: the column holds neither times nor dates nor text.
        """
        kind = python_type(column)
        naive = value.replace(tzinfo=None) if zone is None else zone.first_at(value)
        if kind is date:
            return naive.date() if naive == datetime.combine(naive, time()) else naive.date() + timedelta(days=1)
        if kind is str:
            return value.isoformat() if zone is None else naive.isoformat()
        if kind not in (datetime, None):
            raise ConfigError(
                f"The cursor {column.name!r} is of type {column.type}; a cursor is a timestamp, a date or ISO 8601 "
                "text. Declare another, or none; for a number that only grows, or a ULID, there is SequenceExtract."
            )
        return value if self.names_zone(column) else naive

    # -- errors ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def translated(self, what: str, unavailable: type[RetriableError], refused: type[FatalError]) -> Iterator[None]:
        """Wrap what the database driver raises, once: as `unavailable` when another attempt can help, else `refused`.

        Args:
            what: pipeline, window and side, as the message begins.
            unavailable: raised for a lost connection, a deadlock, a server that is starting or out of resources.
            refused: raised for everything else.
        """
        try:
            yield
        except Exception as error:
            if not self.is_database_error(error):
                raise
            cause = getattr(error, "orig", None) or error
            if self.is_retriable(error):
                raise unavailable(
                    f"{what} is not available: {cause}. It is tried again while attempts last."
                ) from error
            if self.is_denied(error):
                cause = f"{str(cause).rstrip()}. A right is missing: {remedy(refused)}"
            elif self.is_unseen(error):
                cause = f"{str(cause).rstrip()}. It is not there, or a right is missing: {remedy(refused)}"
            else:
                cause = repeated(cause)
            raise refused(f"{what} refused: {cause}") from error

    def is_database_error(self, error: Exception) -> bool:
        """Whether a database driver raised `error`."""
        return isinstance(error, SQLAlchemyError)

    def is_denied(self, error: Exception) -> bool:
        """Whether the role lacks a right. Decided on codes."""
        return False

    def is_unseen(self, error: Exception) -> bool:
        """Whether there is no such table or schema, or none that the role may see. Decided on codes."""
        return False

    def is_retriable(self, error: Exception) -> bool:
        """Whether another attempt can succeed. Decided on types and codes."""
        if isinstance(error, DBAPIError):
            return error.connection_invalidated or isinstance(error, InterfaceError)
        return isinstance(error, DisconnectionError | PoolTimeout)


def python_type(column: ColumnElement[Any]) -> type | None:
    """The Python type of a column's values, or None where its type is not known."""
    try:
        return column.type.python_type
    except NotImplementedError:
        return None
