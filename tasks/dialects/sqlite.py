"""SQLite: one writer at a time, no server, no zones."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, Engine, LargeBinary, Text, func, select, tuple_, type_coerce
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from tasks.dialects.checksum.sqlite import SqliteChecksums
from tasks.dialects.column_kind import DECIMAL, FLOAT, INTEGER, TEXT, ColumnKind
from tasks.dialects.dialect import Dialect, utc_now
from tasks.dialects.keyset import Keyset
from tasks.dialects.source import python_type
from tasks.dialects.unheld import YEARS_1_TO_9999, Find, is_nan, outside_of
from tasks.errors import ConfigError
from tasks.local_time import LocalTime

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_NO_WRITING = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}


_AFFINITIES = {
    INTEGER: ColumnKind(INTEGER, 64),
    FLOAT: ColumnKind(FLOAT, 53),
    DECIMAL: ColumnKind(DECIMAL),
    **dict.fromkeys((TEXT, "CHAR", "NCHAR", "NVARCHAR", "CLOB"), ColumnKind(TEXT)),
    **dict.fromkeys(("TIMESTAMP", "DATETIME"), ColumnKind("DATETIME")),
}
"""By the families that all databases know, and names that SQLite takes for the same."""


class Sqlite(Dialect):
    """SQLite, as a source and as a target in one file."""

    syntax = "sqlite"
    checksums = SqliteChecksums()
    readers_block_writers = True  # unless the file has a write-ahead log

    @contextlib.contextmanager
    def transaction(self, engine: Engine) -> Iterator[Connection]:
        """A transaction that takes the write lock at BEGIN, so that it never fails half way for want of it."""
        with engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
            yield connection

    def value_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """Bytes, which need not be text, as their hexadecimal digits."""
        return func.hex(column, type_=Text) if isinstance(column.type, LargeBinary) else super().value_text(column)

    def _holds(self, key: Mapping[str, int], field: pa.Field) -> Iterator[tuple[str, Find]]:
        """Infinity, but not NaN, which it makes NULL; a date is a text with a year of four digits."""
        if pa.types.is_floating(field.type):
            yield "sqlite holds it: no NaN", is_nan
        if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
            yield "sqlite holds it: a day of the years 1 to 9999", outside_of(YEARS_1_TO_9999)

    drops_not_null = False

    def column_kind(self, declared: TypeEngine[Any], on: SqlDialect) -> ColumnKind:
        """By affinity: an integer has 64 bits here, a float 53, and no text, decimal or time a length it may have."""
        kind = super().column_kind(declared, on)
        return _AFFINITIES.get(kind.family.partition("(")[0], kind)

    def alter_table(self, table: str, clauses: Sequence[str]) -> list[str]:
        """One statement each."""
        return [f"ALTER TABLE {table} {clause}" for clause in clauses]

    def clock(self, connection: Connection) -> datetime:
        """This machine's time: the file has no other, and SQLite's is cut to the second."""
        return utc_now()

    def among(
        self, key: Sequence[ColumnElement[Any]], others: Sequence[ColumnElement[Any]], *where: ColumnElement[bool]
    ) -> ColumnElement[bool]:
        """By a list that is made and sorted once; for EXISTS it would look through all of `others` for every row."""
        known = select(*others).where(*(other.is_not(None) for other in others), *where)
        return tuple_(*key).in_(known)

    def cursor_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """The text that SQLite keeps of a time, in one form: no zone letter, a blank before the hours."""
        if python_type(column) is date:
            return column
        return func.replace(func.rtrim(type_coerce(column, Text), "Z"), "T", " ", type_=Text)

    def cursor_literal(self, column: ColumnElement[Any], value: datetime, zone: LocalTime | None = None) -> Any:
        """The shortest text of the time: it sorts before every longer text of the same instant."""
        literal = super().cursor_literal(column, value, zone)
        if isinstance(literal, datetime) or python_type(column) is str:
            naive = value.replace(tzinfo=None) if zone is None else zone.first_at(value)
            text = naive.isoformat(" ")
            return text.rstrip("0") if "." in text else text
        return literal

    def bound(self, engine: Engine, clock: str | None, lag: timedelta) -> datetime:
        """To the second, as `CURRENT_TIMESTAMP` is kept: a row of this second may still come."""
        settled = self.settled(engine, clock, lag)
        return settled if clock else settled.replace(microsecond=0)

    def settled(self, engine: Engine, clock: str | None, lag: timedelta) -> datetime:
        """The source clock minus `lag`, once every writer of that moment has ended.

        Who has taken a time may still be writing. There is one writer at a time, so to have had the write lock after
        reading the clock proves that the writer of then is done. A time that was taken before its writer had the lock
        is beyond proof: for such sources declare a `lag`.

        Raises:
            ConfigError: this process may not lock the file, and no `lag` is declared to trust instead.
        """
        settled = utc_now() - lag if clock is None else super().settled(engine, clock, lag)
        try:
            with (
                engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection,
                connection.begin() as transaction,
            ):
                # On a file it may only read, SQLite begins without the lock, and says so no sooner than at a write.
                version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
                connection.exec_driver_sql(f"PRAGMA user_version = {version}")
                transaction.rollback()
        except DBAPIError as error:
            if _code(error) not in _NO_WRITING:
                raise
            if not lag:
                raise ConfigError(
                    f"{engine.url.render_as_string()} cannot be locked, so nobody can tell whether a row is being "
                    "written, and no bound is safe. Let this process write to the file and its folder, or declare a "
                    "`lag` longer than any transaction of the source."
                ) from error
        return settled

    def logged_in_as(self, connection: Connection) -> str | None:
        """None: whoever opens the file."""
        return None

    def trusts(self, keyset: Keyset) -> bool:
        """Never: a primary key may hold NULLs, and a column values of several types. Counting is quick here."""
        return False

    def is_retriable(self, error: Exception) -> bool:
        """Also a lock that was not had within the time-out."""
        if isinstance(error, DBAPIError):
            return _code(error) in _BUSY
        return super().is_retriable(error)


def _code(error: DBAPIError) -> int | None:
    """SQLite's primary result code."""
    extended = getattr(error.orig, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF
