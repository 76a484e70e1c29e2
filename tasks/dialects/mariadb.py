"""MariaDB, and MySQL as a source: one consistent snapshot, streamed, and every value as exactly as it is kept."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    TIMESTAMP,
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Date,
    DateTime,
    Engine,
    Inspector,
    Table,
    func,
    literal_column,
    or_,
    select,
    text,
    type_coerce,
)
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import NullType, TypeEngine

from tasks.dialects.checksum.mariadb import MariadbChecksums
from tasks.dialects.column_kind import ColumnKind, written
from tasks.dialects.ddl_text import ddl_text
from tasks.dialects.keyset import Keyset
from tasks.dialects.mariadb_reader import MariadbReader
from tasks.dialects.mariadb_target import MariadbTarget
from tasks.dialects.mariadb_types import arrow_table, column_type, kind_by_name
from tasks.dialects.reading import Reading
from tasks.dialects.snapshot_reader import SnapshotReader
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.window import to_utc

_RETRIABLE = {
    1020,  # the row has changed since it was read
    1040,  # too many connections
    1047,  # a cluster's node is not ready
    1053,  # the server is shutting down
    1158, 1159, 1160, 1161,  # the network broke off, on the server's side
    1203, 1226,  # too many connections, or statements, of this user
    1205,  # a lock was not had in time
    1213,  # deadlock
    1317,  # the statement was killed
    1412,  # the table was altered after the snapshot
    1927,  # the connection was killed
    1969, 3024,  # the statement took too long
    2002, 2003, 2006, 2013, 2055, 4031,  # the connection was not had, or lost
}  # fmt: skip
_ACCESS_DENIED = 1227

_DENIED = {
    1044,  # no rights in the database
    1142, 1143,  # no such right on the table, or a column
    _ACCESS_DENIED,  # a privilege of the server
    1370,  # no right on a routine
}  # fmt: skip

# The server keeps its list of transactions for 0.1 s after anybody has read it.
_CACHED_SECONDS = 0.15
_FRESH_SECONDS = 10
_LOCK_SECONDS = 30

_OPEN_TRANSACTIONS = text("""
    SELECT trx_mysql_thread_id AS session, trx_started AS started, trx_is_read_only AS read_only
    FROM information_schema.innodb_trx
""")


class Mariadb(MariadbTarget):
    """MariaDB through PyMySQL."""

    syntax = "mysql"
    checksums = MariadbChecksums()

    @contextlib.contextmanager
    def snapshot(self, engine: Engine) -> Iterator[Connection]:
        """InnoDB's consistent snapshot, in a transaction that cannot write."""
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            driver: Any = connection.connection.driver_connection
            try:
                # Else the server hangs up on a reader that is a minute behind.
                connection.exec_driver_sql("SET net_write_timeout = 3600")
                connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
                yield connection
            except BaseException:
                # The driver would first read what is left of the result, which may be the whole table.
                if driver._result is not None:
                    driver._result.unbuffered_active = False
                connection.invalidate()
                raise

    @contextlib.contextmanager
    def reader(self, engine: Engine, relation: Any, key: Sequence[str]) -> Iterator[SnapshotReader]:
        """Over one connection, hashed by the server.

        Raises:
            SourceError: the table's engine has no snapshots.
        """
        self._refuse_without_snapshots(relation)
        with self.snapshot(engine) as connection:
            yield MariadbReader(self, connection, relation, key)

    @contextlib.contextmanager
    def reading(self, engine: Engine, kept: Sequence[Table] = ()) -> Iterator[Reading]:
        """One snapshot; who has looked at a table in it keeps it from being altered, or emptied by TRUNCATE."""
        with self.snapshot(engine) as connection:
            connection.exec_driver_sql(f"SET lock_wait_timeout = {_LOCK_SECONDS}")
            for table in kept:
                connection.execute(select(literal_column("1")).select_from(table).limit(0))
            yield Reading(self, connection)

    def clock(self, connection: Connection) -> datetime:
        """The server's clock now, to the microsecond."""
        return to_utc(connection.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one())

    def read_columns(self, relation: Any) -> list[Any]:
        """The columns as the driver gives them: SQLAlchemy's types cut a TIME to a day, and know no zero dates.

        A FLOAT is sent with six digits, which are not all it has, and a DOUBLE with every one.
        """
        if not isinstance(relation, Table):
            return super().read_columns(relation)
        return [
            type_coerce(literal_column("0e0") + column if isinstance(column.type, mysql.FLOAT) else column, NullType())
            .label(column.name)
            for column in relation.columns
        ]  # fmt: skip

    def arrow_maker(self, result: CursorResult[Any]) -> Callable[[Sequence[Sequence[Any]]], pa.Table]:
        """In the types the server names."""
        assert result.cursor is not None, "the result is open"
        return partial(arrow_table, list(result.keys()), _fields(result))

    def column_types(self, engine: Engine, relation: Any) -> list[TypeEngine[Any]]:
        """As the server describes them, without reading a row."""
        with self.snapshot(engine) as connection:
            result = connection.execute(select(*relation.c).limit(0))
            return [column_type(field) for field in _fields(result)]

    def names_zone(self, column: ColumnElement[Any]) -> bool:
        """A TIMESTAMP is an instant, and this session sees it in UTC; a DATETIME is whatever it was written as."""
        return isinstance(column.type, TIMESTAMP)

    def digits(self, column: ColumnElement[Any]) -> int:
        """None, unless the column says more."""
        return column.type.fsp or 0 if isinstance(column.type, mysql.DATETIME | mysql.TIMESTAMP) else 6

    def lacks_cursor(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """Also where a part of the date is zero, which makes it no day."""
        if not isinstance(column.type, Date | DateTime):
            return super().lacks_cursor(column)
        return or_(column.is_(None), func.month(column) == 0, func.dayofmonth(column) == 0)

    def trusts(self, keyset: Keyset) -> bool:
        """Unless a column sorts otherwise than it compares: an ENUM by its number, a FLOAT with digits nobody sees."""
        return keyset.declared and not any(
            isinstance(column.type, mysql.ENUM | mysql.SET | mysql.FLOAT) for column in keyset.columns
        )

    def _chunks(self, connection: Connection, statement: Any, keyset: Keyset) -> Iterator[pa.Table]:
        """Only where several statements can share a snapshot.

        Raises:
            SourceError: the table's engine has no snapshots.
        """
        self._refuse_without_snapshots(keyset.relation)
        yield from super()._chunks(connection, statement, keyset)

    def _refuse_without_snapshots(self, relation: Any) -> None:
        if not isinstance(relation, Table):
            return
        kept_by = relation.dialect_options[self.name].get("engine")
        if kept_by is not None and kept_by.lower() != "innodb":
            raise SourceError(
                f"The table {relation.fullname!r} is kept by {kept_by}, which has no snapshots, so what several "
                "statements read of it would be of different moments. Read it without a key, which takes one "
                "statement, or convert it to InnoDB."
            )

    def settled(self, engine: Engine, clock: str | None, lag: timedelta) -> datetime:
        """The source clock, or the start of InnoDB's oldest transaction that may write if earlier, minus `lag`.

        InnoDB knows a transaction from its first row on. One that called `NOW()` before, in an earlier statement or in
        one that waited for a lock on its table, has a time that is older than its start, and no catalogue shows it; nor
        are writers to tables of other engines seen. So `lag` is never left out: with the PROCESS privilege it covers
        that moment, and without it the longest transaction.

        Raises:
            ConfigError: no `lag` is declared.
            SourceUnavailable: a prepared transaction has lost its session, or the list of transactions stays old.
        """
        where = engine.url.render_as_string()
        if not lag:
            raise ConfigError(
                f"{where}: the server does not tell how long ago an open transaction took its time, so no bound is "
                "safe without a `lag`: a row still being written would be lost. Declare one that is longer than from "
                "NOW() to the transaction's first row, which a lock on a table can delay (with GRANT PROCESS), or than "
                "any transaction of the source (without)."
            )
        with engine.connect() as connection:
            # A new session is on no list made before it began.
            connection.invalidate()
            now = to_utc(connection.exec_driver_sql(f"SELECT {clock or 'UTC_TIMESTAMP(6)'}").scalar_one())
            try:
                oldest = self._oldest_start(connection, where)
            except DBAPIError as error:
                if error_code(error) != _ACCESS_DENIED:
                    raise
                oldest = None
            connection.rollback()
        return (now if oldest is None else min(now, oldest)) - lag

    def _oldest_start(self, connection: Connection, where: str) -> datetime | None:
        """When the oldest other transaction that may write began, to the second before."""
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        own = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
        deadline = time.monotonic() + _FRESH_SECONDS
        while True:
            listed = connection.execute(_OPEN_TRANSACTIONS).all()
            if any(row.session == own for row in listed):
                break
            if time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"{where}: information_schema.innodb_trx is still as old as before this session began. Something "
                    "reads it more than ten times a second; let it read less often."
                )
            time.sleep(_CACHED_SECONDS)
        writing = [row for row in listed if not row.read_only]
        # One whose session has gone is prepared, and after a restart its start is that of the server.
        if any(row.session == 0 for row in writing) and connection.exec_driver_sql("XA RECOVER").all():
            raise SourceUnavailable(
                f"{where}: a prepared transaction waits without a session. When it began, and so which rows it hides, "
                "cannot be trusted. XA COMMIT or XA ROLLBACK it; XA RECOVER lists it."
            )
        return min((to_utc(row.started) for row in writing), default=None)

    def column_kind(self, declared: TypeEngine[Any], on: SqlDialect) -> ColumnKind:
        """A text has a limit in bytes, and a time that names no digits has none."""
        return kind_by_name(written(declared, on))

    def table_collation(self, inspector: Inspector, table: Table) -> str | None:
        """That of the table, which its columns need not repeat."""
        return inspector.get_table_options(table.name, table.schema).get(f"{inspector.dialect.name}_collate")

    def altered(self, name: str, there: Column[Any], wanted: Column[Any], on: SqlDialect) -> Iterator[str]:
        """One clause, in which everything the column keeps has to be said again."""
        yield f"MODIFY COLUMN {ddl_text(CreateColumn(wanted), on)}"

    def is_denied(self, error: Exception) -> bool:
        """By the server's number."""
        return isinstance(error, DBAPIError) and error_code(error) in _DENIED

    def is_retriable(self, error: Exception) -> bool:
        """By the server's number, or the client's; a connection that is closed has none."""
        if isinstance(error, DBAPIError) and error_code(error) in _RETRIABLE:
            return True
        return super().is_retriable(error)


def error_code(error: DBAPIError) -> int | None:
    """The number of the server, or of the client; None where there is none."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def _fields(result: CursorResult[Any]) -> list[Any]:
    """The server's description of each column. PyMySQL's public one leaves out the sign and the character set."""
    assert result.cursor is not None, "the result is open"
    return list(result.cursor._result.fields)
