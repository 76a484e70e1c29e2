"""PostgreSQL: the fast path. Binary COPY both ways, advisory locks, and a bound proven from the open transactions."""

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Engine,
    Numeric,
    Select,
    Table,
    Text,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.types import NullType, TypeEngine

from tasks.column_types import JSON, UtcDateTime
from tasks.connections import READ_ONLY_NAME
from tasks.dialects.checksum.postgresql import PostgresqlChecksums
from tasks.dialects.exported_snapshot import ExportedSnapshot, stream
from tasks.dialects.postgresql_copy import binary_copy
from tasks.dialects.postgresql_reader import PostgresqlReader
from tasks.dialects.postgresql_reading import PostgresqlReading
from tasks.dialects.postgresql_roles import PostgresqlRoles
from tasks.dialects.reading import Reading
from tasks.dialects.row_keyset import RowKeyset
from tasks.dialects.snapshot_reader import SnapshotReader
from tasks.dialects.unheld import JULIAN_DAYS, Find, has_nul, is_no_jsonb, outside_of
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.local_time import LocalTime
from tasks.missing_right import remedy
from tasks.window import to_utc

_CHUNK_ROWS = 50_000
_LOCK_SPACE = 0x7469_6465
"""`tide`: the first half of our advisory lock keys."""

# Between reading the clock and the open transactions: a backend takes its start time a moment before it shows it.
_SETTLE_SECONDS = 0.05

_LOCK_SECONDS = 30

_READ_OPTIONS = (
    r"-c timezone=UTC -c default_transaction_read_only=on -c default_transaction_isolation=repeatable\ read "
    "-c idle_in_transaction_session_timeout=0"
)

_RETRIABLE_CODES = ("55006", "55P03")
"""SQLSTATEs: an object in use, a replication slot for instance; a lock that was not had in time."""

_RETRIABLE_CLASSES = ("08", "40", "53", "57", "58")
"""SQLSTATE classes: connection, rollback (deadlock, serialization), resources, operator intervention, system error."""

_DRIVER_ERRORS = (psycopg.Error, adbc_driver_manager.Error, OSError)

_TYPES: dict[int, TypeEngine[Any]] = {
    20: BigInteger(),
    21: BigInteger(),
    23: BigInteger(),
    25: Text(),
    700: Numeric(),
    701: Numeric(),
    1042: Text(),
    1043: Text(),
    1082: Date(),
    1114: DateTime(),
    1184: DateTime(timezone=True),
    1700: Numeric(),
}
"""What a cursor can be, and what people try, by the number PostgreSQL gives a type."""

_OPEN_TRANSACTIONS = text("""
    SELECT min(xact_start) AS oldest,
           count(*) FILTER (WHERE NOT (pg_has_role('pg_read_all_stats', 'USAGE') OR pg_has_role(usesysid, 'USAGE')))
               AS hidden
    FROM pg_stat_activity
    WHERE datname = current_database()
      AND pid <> pg_backend_pid()
      AND application_name <> :read_only
      AND (backend_type = 'client backend' OR backend_type IS NULL)
""")
_PREPARED_TRANSACTIONS = text("SELECT min(prepared) FROM pg_prepared_xacts WHERE database = current_database()")


class Postgresql(PostgresqlRoles):
    """PostgreSQL through psycopg, and ADBC for reading."""

    syntax = "postgres"
    checksums = PostgresqlChecksums()

    def serialize(self, connection: Connection, name: str) -> None:
        """An advisory lock until the transaction ends."""
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, _lock_number(name))))

    @contextlib.contextmanager
    def hold(self, engine: Engine, attempt: str) -> Iterator[str]:
        """A session's advisory lock: the server drops it when this process dies, however it dies."""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(select(func.pg_advisory_lock(_LOCK_SPACE, _lock_number(attempt))))
            with super().hold(engine, attempt) as owner:
                try:
                    yield owner
                finally:
                    # A broken session has given its lock back already.
                    with contextlib.suppress(SQLAlchemyError):
                        connection.execute(select(func.pg_advisory_unlock(_LOCK_SPACE, _lock_number(attempt))))

    def held(self, connection: Connection, attempt: str, owner: str) -> bool:
        """Whether the lock is taken; it is, for the length of this question, when nobody holds it."""
        number = _lock_number(attempt)
        if connection.execute(select(func.pg_try_advisory_lock(_LOCK_SPACE, number))).scalar_one():
            connection.execute(select(func.pg_advisory_unlock(_LOCK_SPACE, number)))
            return False
        return True

    def clock(self, connection: Connection) -> datetime:
        """The server's clock now, not at the start of the transaction."""
        return to_utc(connection.execute(select(func.clock_timestamp())).scalar_one())

    def instant_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """Whatever zone and style of dates the session has."""
        naive = func.timezone("UTC", column) if isinstance(column.type, UtcDateTime) else column
        return func.to_char(naive, "YYYY-MM-DD HH24:MI:SS", type_=Text)

    def _holds(self, key: Mapping[str, int], field: pa.Field) -> Iterator[tuple[str, Find]]:
        """Any Unicode text but NUL, and the days since 4714 BC."""
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_string(kind):
            yield "postgresql holds it: no NUL in a text", has_nul
        if kind == JSON:
            yield "postgresql holds it: no NUL in a text of JSON, no number of over 16,383 digits", is_no_jsonb
        if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
            yield "postgresql holds it: a day from 4714 BC to the year 5874897", outside_of(JULIAN_DAYS)

    def refuse(self, what: str, columns: pa.Schema, key: Sequence[str]) -> None:
        """Only keys of documents or arrays."""
        self.refuse_keys(what, columns, key)

    def write(self, engine: Engine, table: Table, rows: pa.Table) -> int:
        """One binary COPY, without waiting for the disk."""
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
        target = sql.Identifier(table.schema, table.name) if table.schema else sql.Identifier(table.name)
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, names)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                for part in binary_copy(rows):
                    copy.write(part)
        return int(rows.num_rows)

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
        """Binary COPY through ADBC, which makes Arrow of it without a Python object for each value.

        With a key, reading survives the loss of its connection; see `ExportedSnapshot`.
        """
        statement = self._between(relation, cursor, start, end, zone)
        columns = {column.name: column.type for column in relation.columns}
        if key:
            chunks = self._keyset_chunks(engine, statement, RowKeyset(relation, tuple(key)))
        else:
            chunks = self._whole(engine, statement)
        for batch in chunks:
            yield _plain_types(batch, columns)

    def _whole(self, engine: Engine, statement: Select[Any]) -> Iterator[pa.Table]:
        with adbc.connect(libpq_conninfo(engine, _READ_OPTIONS)) as connection, connection.cursor() as reader:
            yield from stream(reader, _rendered(engine, statement))

    def _keyset_chunks(self, engine: Engine, statement: Select[Any], keyset: RowKeyset) -> Iterator[pa.Table]:
        where = engine.url.render_as_string()
        read = 0

        def statements(last: pa.Table | None) -> Iterator[str]:
            begun = read
            while True:
                yield _rendered(engine, keyset.rows_behind(statement, last, _CHUNK_ROWS))
                if read - begun < _CHUNK_ROWS:
                    return
                begun, last = read, newest

        newest: pa.Table | None = None
        with ExportedSnapshot(libpq_conninfo(engine, _READ_OPTIONS), where) as snapshot:
            there = None if self.trusts(keyset) else snapshot.count(_rendered(engine, keyset.count()))
            for batch in snapshot.read(statements, self.is_retriable):
                read, newest = read + batch.num_rows, batch
                yield batch
        if there is not None:
            keyset.compare(read, there, where)

    @contextlib.contextmanager
    def reader(self, engine: Engine, relation: Any, key: Sequence[str]) -> Iterator[SnapshotReader]:
        """Over connections that import one snapshot."""
        where = engine.url.render_as_string()
        conninfo = libpq_conninfo(engine, _READ_OPTIONS)
        reader = PostgresqlReader(conninfo, relation, key, partial(_rendered, engine), _plain_types, where)
        with contextlib.closing(reader):
            yield reader

    def column_types(self, engine: Engine, relation: Any) -> list[TypeEngine[Any]]:
        """As the server describes them, without reading a row."""
        with self.snapshot(engine) as connection:
            result = connection.execute(select(*relation.c).limit(0))
            assert result.cursor is not None, "the result is open"
            described: list[Any] = [field[1] for field in result.cursor.description]
        return [_TYPES.get(kind, NullType()) for kind in described]

    @contextlib.contextmanager
    def reading(self, engine: Engine, kept: Sequence[Table] = ()) -> Iterator[Reading]:
        """One repeatable-read transaction through ADBC; the tables are locked before its snapshot is taken."""
        conninfo = libpq_conninfo(engine, f"{_READ_OPTIONS} -c lock_timeout={_LOCK_SECONDS}s")
        with adbc.connect(conninfo, autocommit=False) as connection:
            reading = PostgresqlReading(engine, connection, _plain_types)
            for table in kept:
                reading.lock(engine.dialect.identifier_preparer.format_table(table).replace("%%", "%"))
            yield reading

    def read_at(self, engine: Engine, relation: Table, columns: Sequence[str], snapshot: str) -> Iterator[pa.Table]:
        """Some columns of `relation` as a snapshot that another session exported, and keeps, shows them."""
        rendered = str(select(*(relation.c[name] for name in columns)).compile(engine))
        types = {name: relation.c[name].type for name in columns}
        with (
            adbc.connect(libpq_conninfo(engine, _READ_OPTIONS), autocommit=False) as connection,
            connection.cursor() as reader,
        ):
            reader.execute(f"SET TRANSACTION SNAPSHOT {sql.quote(snapshot)}")
            for batch in stream(reader, rendered):
                yield _plain_types(batch, types)

    def settled(self, engine: Engine, clock: str | None, lag: timedelta) -> datetime:
        """The source clock minus `lag`, or the start of the oldest transaction that may still write, if earlier.

        A transaction that has called `now()` and not yet written has no transaction id and no lock that tells; only its
        start time does. Sessions named as our read-only ones cannot write.

        Raises:
            SourceUnavailable: a prepared transaction is open, and no `lag` says how long one may take.
            ConfigError: this role may not see the other sessions, and no `lag` is declared to trust instead.
        """
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            now = to_utc(connection.execute(text(f"SELECT {clock or 'clock_timestamp()'}")).scalar_one())
            connection.execute(select(func.pg_sleep(_SETTLE_SECONDS)))
            sessions = connection.execute(_OPEN_TRANSACTIONS, {"read_only": READ_ONLY_NAME}).one()
            prepared = connection.execute(_PREPARED_TRANSACTIONS).scalar_one()
        if sessions.hidden and not lag:
            raise ConfigError(
                f"The role of {engine.url.render_as_string()} may not see the transactions of {sessions.hidden} other "
                "sessions, so no bound is safe: a row still being written would be lost. "
                "GRANT pg_read_all_stats to it, or declare a `lag` longer than any transaction of the source."
                f" {remedy(SourceError)}"
            )
        if prepared is not None and not lag:
            raise SourceUnavailable(
                f"In {engine.url.render_as_string()} a transaction prepared at {prepared.isoformat()} is not "
                "committed. When it began, and so which rows it hides, cannot be seen. COMMIT PREPARED or ROLLBACK "
                "PREPARED it, or declare a `lag` longer than any transaction of the source."
            )
        oldest = [] if sessions.oldest is None else [to_utc(sessions.oldest)]
        if prepared is not None:
            oldest.append(to_utc(prepared) - lag)
        return min([now - lag, *oldest])

    def is_database_error(self, error: Exception) -> bool:
        """Also what psycopg and ADBC raise when they are used directly; Arrow streams pass theirs on as OSError."""
        return super().is_database_error(error) or isinstance(error, _DRIVER_ERRORS)

    def is_retriable(self, error: Exception) -> bool:
        """By SQLSTATE; a lost connection has none."""
        if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
            return error.connection_invalidated or self.is_retriable(error.orig)
        if isinstance(error, psycopg.Error | adbc_driver_manager.Error):
            if error.sqlstate:
                return error.sqlstate in _RETRIABLE_CODES or error.sqlstate.startswith(_RETRIABLE_CLASSES)
            return isinstance(error, psycopg.OperationalError | adbc_driver_manager.OperationalError)
        if isinstance(error, OSError):
            return True
        return super().is_retriable(error)


def _lock_number(name: str) -> int:
    """A signed 32-bit number for `name`, the second half of an advisory lock key."""
    return zlib.crc32(name.encode()) - (1 << 31)


def libpq_conninfo(engine: Engine, options: str) -> str:
    """`engine`'s URL as libpq reads it, for a session that never writes a row and says so by its name."""
    url = engine.url
    return make_conninfo(
        **url.translate_connect_args(username="user", database="dbname"),
        **{name: value for name, value in url.query.items() if isinstance(value, str)},
        application_name=READ_ONLY_NAME,
        options=options,
    )


def _rendered(engine: Engine, statement: Select[Any]) -> str:
    """`statement` with its values as quoted literals, since COPY takes no parameters."""
    compiled = statement.compile(engine, compile_kwargs={"literal_binds": True})
    # SQLAlchemy doubles every percent sign for a driver that formats; ADBC does not.
    return str(compiled).replace("%%", "%")


def _plain_types(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """`table` without ADBC's opaque types: numerics become decimals of the column's own scale, the rest text."""
    for position, field in enumerate(table.schema):
        if not isinstance(field.type, pa.BaseExtensionType):
            continue
        values = pa.chunked_array([chunk.storage for chunk in table.column(position).chunks], field.type.storage_type)
        declared = columns.get(field.name)
        if isinstance(declared, Numeric) and declared.precision is not None and declared.precision <= 38:
            values = pc.cast(values, pa.decimal128(declared.precision, declared.scale or 0))
        table = table.set_column(position, field.name, values)
    return table
