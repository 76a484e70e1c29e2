"""MariaDB as a target: locks that end with their session, exact keys, and rows written many to a statement."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    String,
    Table,
    Text,
    case,
    collate,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from tasks.column_types import JSON, KEY_BYTES, UUID, key_bytes
from tasks.dialects.mariadb_roles import MariadbRoles
from tasks.dialects.unheld import YEARS_1_TO_9999, Find, is_not_finite, longer_than, outside_of
from tasks.errors import ContractError, TargetError

_ROWS = 2_000
_LOCKED = "tidegate_locked"
_PACKET = "tidegate_packet"

_LONG_SECONDS = 31_536_000
"""A year. Who waits for a commit waits until it is done, however long it takes; a deadlock is told at once."""

_EXACT_COLLATION = "utf8mb4_nopad_bin"

_KEY_TEXT = 512
_KEY_HEAD = 440
"""Of a key that is longer than its column in `etl_dead_letters`, the beginning; its hash follows."""

# Whatever the server's own mode: a value that does not fit is an error, and an empty text is not NULL.
_PREPARE = text(f"""
    SET SESSION sql_mode = CONCAT_WS(',', NULLIF(REPLACE(@@sql_mode, 'EMPTY_STRING_IS_NULL', ''), ''),
                                     'STRICT_ALL_TABLES'),
                innodb_lock_wait_timeout = {_LONG_SECONDS},
                collation_connection = {_EXACT_COLLATION}
""")


_LONGEST_STATEMENT = text("SELECT @@max_allowed_packet")


class MariadbTarget(MariadbRoles):
    """What MariaDB does otherwise as a target."""

    # -- transactions and locks --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, engine: Engine) -> Iterator[Connection]:
        """READ COMMITTED: a statement after a wait sees what was committed meanwhile, and locks no gaps."""
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            try:
                with connection.begin():
                    if _PACKET not in connection.info:
                        connection.execute(_PREPARE)
                        connection.info[_PACKET] = connection.execute(_LONGEST_STATEMENT).scalar_one()
                    yield connection
            finally:
                _unlock(connection)

    def serialize(self, connection: Connection, name: str) -> None:
        """A lock of the session, which `transaction` gives back when it has ended."""
        _lock(connection, name)

    @contextlib.contextmanager
    def hold(self, engine: Engine, attempt: str) -> Iterator[str]:
        """A lock of a session that does nothing else: the server drops it when this process dies."""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Else the server hangs up on whoever has been silent for hours.
            connection.execute(text(f"SET SESSION wait_timeout = {_LONG_SECONDS}"))
            _lock(connection, attempt)
            with super().hold(engine, attempt) as owner:
                try:
                    yield owner
                finally:
                    _unlock(connection)

    def held(self, connection: Connection, attempt: str, owner: str) -> bool:
        """Whether any session has the lock."""
        return connection.execute(select(func.is_used_lock(_lock_name(attempt)))).scalar_one() is not None

    # -- expressions -------------------------------------------------------------------------------------------

    def key_text(self, columns: Sequence[ColumnElement[Any]]) -> ColumnElement[str]:
        """A key as one text of 512 characters at most: of a longer one the beginning and a hash of all of it."""
        whole = collate(super().key_text(columns), _EXACT_COLLATION)
        hashed = func.concat(func.left(whole, _KEY_HEAD), ":sha256:", func.sha2(whole, 256), type_=Text)
        # No key is mistaken for the short form of another: that one is longer than any key that is left as it is.
        return case((func.char_length(whole) <= _KEY_HEAD, whole), else_=collate(hashed, _EXACT_COLLATION))

    def value_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """Bytes, which need not be text, as their hexadecimal digits."""
        if isinstance(column.type, LargeBinary):
            return func.hex(column, type_=Text)
        return super().value_text(column)

    # -- what it can hold --------------------------------------------------------------------------------------

    def _holds(self, key: Mapping[str, int], field: pa.Field) -> Iterator[tuple[str, Find]]:
        """Any text, finite numbers, years of four digits; and a key has a longest length."""
        if pa.types.is_floating(field.type):
            yield "mariadb holds it: no NaN and no infinity", is_not_finite
        if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
            yield "mariadb holds it: a day of the years 1 to 9999", outside_of(YEARS_1_TO_9999)
        if field.name in key and pa.types.is_string(field.type):
            yield f"mariadb holds it: at most {key[field.name]} characters in a key", longer_than(key[field.name])
        if field.name in key and pa.types.is_binary(field.type):
            yield f"mariadb holds it: at most {key[field.name]} bytes in a key", longer_than(key[field.name])

    def refuse(self, what: str, columns: pa.Schema, key: Sequence[str]) -> None:
        """Arrays, and a key that may become longer than a key can be.

        Raises:
            ContractError: there is such a column.
        """
        super().refuse(what, columns, key)
        longest = sum(key_bytes(columns.field(name)) for name in key)
        if longest > KEY_BYTES:
            raise ContractError(
                f"{what}: the key ({', '.join(key)}) may take {longest:,} bytes, four for a character, and mariadb has "
                f"room for {KEY_BYTES:,} in a key. Say how long its texts are, for instance with "
                "`pa.Field(str_length={'max_value': 50})`; without it one has 255 characters."
            )

    # -- bulk writing ------------------------------------------------------------------------------------------

    def write(self, engine: Engine, table: Table, rows: pa.Table) -> int:
        """Many rows to a statement; the driver writes their values out.

        Raises:
            TargetError: a row is longer than a statement may be; the server would hang up, as if it were not available.
        """
        quote = engine.dialect.identifier_preparer
        names = ", ".join(quote.quote(column.name) for column in table.columns)
        places = ", ".join(["%s"] * len(table.columns))
        statement = f"INSERT INTO {quote.format_table(table)} ({names}) VALUES ({places})"
        with self.transaction(engine) as connection:
            _refuse_long_rows(rows, connection.info[_PACKET])
            for part in rows.to_batches(max_chunksize=_ROWS):
                values = list(zip(*(_values(column) for column in part.columns), strict=True))
                if values:
                    connection.exec_driver_sql(statement, values)
        return int(rows.num_rows)


def _refuse_long_rows(rows: pa.Table, packet: int) -> None:
    """Refuse a row whose texts and bytes, each letter written as two, are longer than a statement may be."""
    texts = [pc.cast(column, pa.string()) if column.type == JSON else column for column in rows.columns]
    long = [column for column in texts if pa.types.is_string(column.type) or pa.types.is_binary(column.type)]
    if sum(2 * (pc.max(pc.binary_length(column)).as_py() or 0) for column in long) < packet:
        return
    lengths = sum(pc.fill_null(pc.binary_length(column), 0).to_numpy().astype("int64") for column in long)
    longest = int(lengths.max())
    if 2 * longest >= packet:
        raise TargetError(
            f"A row of {longest:,} bytes is longer than MariaDB takes in a statement, where it may need twice as much: "
            f"max_allowed_packet is {packet:,}. Raise it there, or leave the long column out."
        )


def _values(column: pa.Array) -> list[Any]:
    """The values of a column as the driver writes them: an instant in UTC, as it is kept."""
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("us"))
    values: list[Any] = column.to_pylist()
    if column.type == UUID:
        return [None if value is None else value.hex for value in values]
    return values


def _lock_name(name: str) -> ColumnElement[str]:
    """The lock `name` of this database: a server has one set of locks for all of its databases."""
    return func.concat("tidegate_", func.md5(func.concat(func.database(), "/", literal(name, String))), type_=String)


def _lock(connection: Connection, name: str) -> None:
    while connection.execute(select(func.get_lock(_lock_name(name), _LONG_SECONDS))).scalar_one() != 1:
        pass
    connection.info.setdefault(_LOCKED, []).append(name)


def _unlock(connection: Connection) -> None:
    """Give back what the session has locked; if that cannot be said to it, end it, which gives it back too."""
    if connection.invalidated:
        return
    names = connection.info.pop(_LOCKED, [])
    try:
        for name in names:
            connection.execute(select(func.release_lock(_lock_name(name))))
    except SQLAlchemyError:
        connection.invalidate()
