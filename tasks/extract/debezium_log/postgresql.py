"""`PostgresqlLog`: Debezium on a logical slot that is ours to move.

The position is a log sequence number, the end of the last transaction that has been loaded, as `LogExtract` keeps it.
Debezium never moves the slot (`lsn.flush.mode=manual`): that is done after the commit, or before the next run. A run
ends with a message that it writes into the source's log itself: whatever was committed before it has come before it.
"""

import base64
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, time
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from tasks.dialects import dialect_of
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.debezium_log.envelope import Row
from tasks.extract.debezium_log.process import EngineProcess, Record
from tasks.extract.debezium_log.source import address, pattern
from tasks.extract.debezium_log.types import DECIMAL, Schema
from tasks.extract.feed import Home, Notice
from tasks.extract.transaction_log import replication
from tasks.extract.transaction_log.pgoutput import lsn_number, lsn_text
from tasks.extract.transaction_log.slot_lag import slot_notices
from tasks.window import to_utc

_MESSAGES_SINCE = (14,)
_REREAD_ROWS = 5_000

_IDENTITY = text("SELECT relreplident FROM pg_class WHERE oid = to_regclass(:name)")
_MARK = text("SELECT pg_logical_emit_message(true, :prefix, :content)")


class PostgresqlLog:
    """The log of a PostgreSQL database, for one feed.

    Args:
        source: the database.
        home: whose feed it is; slot, publication and messages bear its name.
        table: the table that is followed.
        key: columns that identify a row; the primary key where none are given.
        publication: one that exists already.
        source_name: what declarations call it.
        max_lag: bytes of log that the slot may keep before an alert is raised.
        where: the source, as a message begins.
        position: what has been loaded, or None to begin with a snapshot.

    Raises:
        ConfigError: the table or the server cannot be followed.
        SourceError: the changes after `position` are not there any more.
    """

    files: Mapping[str, str] = {}

    def __init__(
        self,
        source: Engine,
        home: Home,
        table: str,
        key: Sequence[str],
        publication: str | None,
        source_name: str,
        max_lag: int,
        where: str,
        position: str | None,
    ) -> None:
        self.reached = False
        self.offset: Mapping[str, Any] | None = None
        self._source, self._slot, self._where = source, home.name, where
        self._publication, self._max_lag, self._source_name = publication or home.name, max_lag, source_name
        self._mark = base64.b64encode(home.attempt.encode()).decode()
        self._attempt = home.attempt
        self._marked = False
        self._end = 0 if position is None else lsn_number(position)
        self._address = address(source, where)
        with self._connected() as connection:
            if (connection.dialect.server_version_info or (0,)) < _MESSAGES_SINCE:
                raise ConfigError(f"{where}: PostgreSQL 14 or newer is needed, whose log can carry a message.")
            self._table = replication.followed(connection, table, key)
            self.key: Sequence[str] = self._table.key
            quote = connection.dialect.identifier_preparer.quote
            named = {"name": f"{quote(self._table.schema)}.{quote(self._table.name)}"}
            self.full_before = connection.execute(_IDENTITY, named).scalar_one() == "f"
            replication.await_idle(connection, self._slot, where)
            if position is None:
                self._begin(connection, create=publication is None)
            else:
                replication.expect_after(connection, self._slot, self._end, where)
                # Without more than this, Debezium does not look for a place by itself.
                self.offset = {"lsn": self._end, "lsn_commit": self._end, "ts_usec": 0}

    def properties(self) -> dict[str, str]:
        """See `SourceLog`."""
        return self._address | {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.dbname": self._source.url.database or "",
            "plugin.name": "pgoutput",
            "slot.name": self._slot,
            "publication.name": self._publication,
            "publication.autocreate.mode": "disabled",
            "table.include.list": pattern(self._table.schema, self._table.name),
            "lsn.flush.mode": "manual",
            "message.prefix.include.list": pattern(self._slot),
            "hstore.handling.mode": "json",
            "slot.max.retries": "0",
        } | {f"database.{name}": str(value) for name, value in self._source.url.query.items()
             if name in ("sslmode", "sslcert", "sslkey", "sslrootcert")}  # fmt: skip

    def set_end(self) -> datetime:
        """See `SourceLog`."""
        with self._connected() as connection:
            clock = to_utc(connection.execute(text("SELECT clock_timestamp()")).scalar_one())
            # Flushed with it is whatever was committed before and did not wait for the disk.
            connection.execute(text("SET synchronous_commit = on"))
            connection.execute(_MARK, {"prefix": self._slot, "content": self._attempt})
        return clock

    def boundary(self, record: Record) -> bool:
        """See `SourceLog`: the end of a transaction."""
        if record.topic == f"{self._slot}.message":
            self._marked = self._marked or record.value["message"]["content"] == self._mark
        elif record.topic == f"{self._slot}.transaction" and record.value["status"] == "END":
            self._end = int(record.offset["lsn_commit"])
            self.reached = self._marked
            return True
        return False

    def position(self, engine: EngineProcess) -> str:
        """See `SourceLog`."""
        return lsn_text(self._end)

    def acknowledge(self, position: str) -> None:
        """See `SourceLog`: moves the slot."""
        with self._connected() as connection:
            replication.await_idle(connection, self._slot, self._where)
            replication.advance(connection, self._slot, lsn_number(position))

    def notices(self) -> Sequence[Notice]:
        """See `SourceLog`: how much log the slot keeps."""
        return slot_notices(self._source, self._slot, self._source_name, self._max_lag, self._where)

    def reread(self, keys: list[Row], wanted: Mapping[str, Schema | None]) -> list[Row | None]:
        """See `Reread`; values as Debezium's JSON has them, or as Python's own."""
        names = [sql.Identifier(name) for name in self.key]
        columns = [_read(name, schema) for name, schema in wanted.items()]
        relation = sql.Identifier(self._table.schema, self._table.name)
        found: list[Row | None] = []
        with self._translated(), psycopg.connect(replication.output_conninfo(self._source)) as connection:
            types: dict[str, str] = dict(
                connection.execute(
                    "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
                    "WHERE attrelid = to_regclass(%s) AND attnum > 0",
                    [relation.as_string(connection)],
                ).fetchall()
            )
            statement = sql.SQL("SELECT k.n, {} FROM unnest({}) WITH ORDINALITY AS k({}, n) JOIN {} AS t ON {}").format(
                sql.SQL(", ").join(columns),
                sql.SQL(", ").join(sql.SQL("%s::text[]::{}[]").format(sql.SQL(types[name])) for name in self.key),
                sql.SQL(", ").join(sql.Identifier(f"k{place}") for place in range(len(names))),
                relation,
                sql.SQL(" AND ").join(
                    sql.SQL("t.{} = k.{}").format(name, sql.Identifier(f"k{place}")) for place, name in enumerate(names)
                ),
            )
            for start in range(0, len(keys), _REREAD_ROWS):
                part = keys[start : start + _REREAD_ROWS]
                asked = [[_key_text(row[name]) for row in part] for name in self.key]
                rows = {row[0]: dict(zip(wanted, row[1:], strict=True)) for row in connection.execute(statement, asked)}
                found += [rows.get(place) for place in range(1, len(part) + 1)]
        return found

    def _begin(self, connection: Connection, *, create: bool) -> None:
        replication.expect_logical(connection)
        # Of an attempt that died before its commit, or of the position that a full refresh forgets.
        replication.drop_slot(connection, self._slot)
        if create:
            replication.publish(connection, self._publication, self._table)
        replication.published_columns(connection, self._publication, self._table)

    def _connected(self) -> AbstractContextManager[Connection]:
        return replication.autocommit(self._source, self._where)

    def _translated(self) -> AbstractContextManager[None]:
        return dialect_of(self._source).translated(self._where, SourceUnavailable, SourceError)


def _read(name: str, schema: Schema | None) -> sql.Composed:
    """A column in the form in which Debezium would have told it."""
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    kind = (schema or {}).get("type")
    if kind == "bytes" or (schema or {}).get("name") == DECIMAL:
        return column
    return sql.SQL("to_json({})" if kind in ("array", "map", "struct") else "{}::text").format(column)


def _key_text(value: Any) -> str:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return value.isoformat() if isinstance(value, date | time) else str(value)
