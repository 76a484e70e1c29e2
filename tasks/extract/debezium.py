"""`DebeziumExtract`: every change of a table, as Debezium reads it from the log of PostgreSQL, MySQL or MariaDB."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection

from tasks.change_columns import COMMITTED_AT, OPERATION
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.errors import ConfigError, SourceError, SourceUnavailable, remember_secret
from tasks.extract.debezium_log.envelope import EnvelopeDecoder, Event
from tasks.extract.debezium_log.mysql import MysqlLog
from tasks.extract.debezium_log.postgresql import PostgresqlLog
from tasks.extract.debezium_log.process import EngineProcess
from tasks.extract.debezium_log.source import SourceLog, further_jars
from tasks.extract.feed import Chunk, Home, Notice
from tasks.extract.transaction_log import replication
from tasks.extract.transaction_log.slot_lag import slot_notices
from tasks.needs import FollowsLog, Need

_BATCH_EVENTS = 10_000
_SECRET = ("password", "secret", "token")

_PROPERTIES = {
    "name": "tidegate",
    "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
    "offset.storage.file.filename": "{folder}/offset",
    # Trying again is ours.
    "errors.max.retries": "0",
    "provide.transaction.metadata": "true",
    "notification.enabled.channels": "sink",
    "skipped.operations": "none",
    "tombstones.on.delete": "false",
    "heartbeat.interval.ms": "200",
    "poll.interval.ms": "50",
    "max.queue.size.in.bytes": str(64 << 20),
    "decimal.handling.mode": "precise",
    "binary.handling.mode": "bytes",
    "time.precision.mode": "adaptive_time_microseconds",
    "interval.handling.mode": "string",
}


@dataclass(frozen=True)
class DebeziumExtract:
    """Follow a table through Debezium's engine, which runs in a process of its own while a run reads.

    The first run takes Debezium's snapshot, and then what was committed meanwhile. Later ones go on from the offset
    that was committed with the rows; Debezium itself commits none. It takes `pip install 'tidegate[debezium]'` and
    Java 17.

    Attributes:
        connection: name of the source database, at a host and port; its role needs what Debezium's manual says, and on
            PostgreSQL to own the table, or a `publication`.
        table: `name` or `schema.name`.
        key: columns that identify a row; the primary key where none are given.
        publication: one of PostgreSQL's that exists already, for a role that may not create its own.
        chunk: changes after which a commit ends, once the transaction they are in does.
        max_lag: bytes of log that PostgreSQL's slot may keep at the source before an alert is raised.
        max_shrink: largest share of the target, 0 to 1, that a new snapshot may delete before it is refused.
        patience: seconds without anything new from Debezium after which a run gives up, to be tried again.
        memory: largest heap of the Java process, as its `-Xmx` takes it.
        jars: folder of further jars: Debezium's connector for MariaDB, for instance.
        properties: more of Debezium's configuration; what tidegate sets itself cannot be changed.

    Raises:
        ConfigError: a limit makes no sense, or a property is not free.
    """

    connection: str
    table: str
    key: Sequence[str] = ()
    publication: str | None = None
    chunk: int = 1_000_000
    max_lag: int = 1 << 30
    max_shrink: float = 0.5
    patience: float = 300.0
    memory: str = "512m"
    jars: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    cursor = None
    tells_times = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.key,) if isinstance(self.key, str) else tuple(self.key))
        what = f"DebeziumExtract({self.connection!r}, {self.table!r})"
        if self.chunk < 1 or self.max_lag < 1 or self.patience <= 0 or not 0 <= self.max_shrink <= 1:
            raise ConfigError(
                f"{what}: chunk and max_lag are at least 1, patience is more than 0 and max_shrink is a share from 0 "
                f"to 1; got {self.chunk}, {self.max_lag}, {self.patience} and {self.max_shrink}."
            )
        for name, value in self.properties.items():
            if any(word in name.lower() for word in _SECRET):
                remember_secret(value)
        taken = sorted(self.properties.keys() & _PROPERTIES.keys())
        if taken:
            raise ConfigError(f"{what}: {', '.join(taken)} cannot be set, since tidegate does that itself.")

    @property
    def dataset(self) -> str:
        """The table."""
        return self.table

    @property
    def where(self) -> str:
        """As a message begins."""
        return f"The source {self.connection!r}, Debezium on {self.table}"

    @contextlib.contextmanager
    def open(self, home: Home, position: str | None) -> Iterator[Chunk]:
        """See `Feed.open`."""
        log = self._log(home, position)
        properties = {
            **self.properties,
            **_PROPERTIES,
            **log.properties(),
            "topic.prefix": home.name,
            "notification.sink.topic.name": _notifications(home),
            "snapshot.mode": "initial" if position is None else "no_data",
            "unavailable.value.placeholder": _unavailable(home),
        }
        taken = sorted(self.properties.keys() & properties.keys() - {
            name for name, value in self.properties.items() if properties[name] == value})  # fmt: skip
        if taken:
            raise ConfigError(f"{self.where}: {', '.join(taken)} cannot be set, since tidegate does that itself.")
        dated_at = self._clock(log) if position is None else None
        process = EngineProcess(
            self.where,
            properties,
            (f"{home.name}.transaction", f"__debezium-heartbeat.{home.name}"),
            log.offset,
            log.files,
            further_jars(self.jars),
            self.memory,
            self.patience,
        )
        with process as running:
            yield _EngineChunk(self, home, log, running, position, dated_at)

    def needs(self) -> Sequence[Need]:
        """See `HasNeeds`: a slot and a publication, or a binlog."""
        return (FollowsLog(self.table, self.publication, "debezium", f"to follow the log of {self.table}"),)

    def remove(self, home: Home) -> None:
        """See `Feed.remove`: PostgreSQL's slot and publication; on MySQL and MariaDB the source has nothing of ours."""
        source = engine(self.connection)
        if source.dialect.name == "postgresql":
            with replication.autocommit(source, self.where) as connection:
                replication.await_idle(connection, home.name, self.where)
                replication.drop_slot(connection, home.name)
                if self.publication is None:
                    replication.drop_publication(connection, home.name)

    def slot_notices(self, slot: str) -> Sequence[Notice]:
        """See `Slotted`; on MySQL and MariaDB the source keeps nothing for us."""
        source = engine(self.connection)
        if source.dialect.name != "postgresql":
            return ()
        return slot_notices(source, slot, self.connection, self.max_lag, self.where)

    def _clock(self, log: SourceLog) -> datetime:
        """The source's time, UTC; of a binlog to the second, as its changes have theirs: none may seem older."""
        source = engine(self.connection)
        with dialect_of(source).translated(self.where, SourceUnavailable, SourceError), source.connect() as connection:
            clock = dialect_of(source).clock(connection)
        return clock.replace(microsecond=0) if isinstance(log, MysqlLog) else clock

    def _log(self, home: Home, position: str | None) -> SourceLog:
        source = engine(self.connection)
        if source.dialect.name == "postgresql":
            return PostgresqlLog(
                source,
                home,
                self.table,
                self.key,
                self.publication,
                self.connection,
                self.max_lag,
                self.where,
                position,
            )
        if source.dialect.name in ("mysql", "mariadb"):
            return MysqlLog(source, home, self.table, self.key, self.jars, self.where, position)
        raise ConfigError(
            f"DebeziumExtract reads PostgreSQL, MySQL and MariaDB, and {self.connection!r} is {source.dialect.name}. "
            "Use TriggerExtract or SnapshotDiff there."
        )


class _EngineChunk:
    """What comes until the end of the log as it was at the beginning, or `feed.chunk` changes."""

    def __init__(
        self,
        feed: DebeziumExtract,
        home: Home,
        log: SourceLog,
        process: EngineProcess,
        position: str | None,
        dated_at: datetime | None,
    ) -> None:
        self.dated_at = dated_at
        self.more = False
        self.covered_until: datetime | None = None
        self.position = position
        self._feed, self._home, self._log, self._process = feed, home, log, process
        # A snapshot is as long as the table: only when it is there can the end be set.
        self.source_clock: datetime | None = None if position is None else log.set_end()

    def batches(self) -> Iterator[pa.Table]:
        log, home = self._log, self._home
        decoder = EnvelopeDecoder(log.key, self._feed.where, log.full_before, _unavailable(home), log.reread)
        if self.position is None:
            yield pa.table({OPERATION: ["snapshot"]})
        events: list[Event] = []
        changes, last = 0, None
        for record in self._process.records():
            if record.fields is not None:
                if record.value["op"] != "r":
                    changes += 1
                events.append(Event(record.value, record.fields))
            elif record.topic == _notifications(home):
                if _ends_snapshot(record.value) and self.source_clock is None:
                    self.source_clock = log.set_end()
            elif log.boundary(record) and self.source_clock is not None:
                if log.reached:
                    break
                if changes >= self._feed.chunk:
                    self.more = True
                    break
            if len(events) >= _BATCH_EVENTS:
                for batch in decoder.decode(events):
                    last = batch.column(COMMITTED_AT)[-1].as_py()
                    yield batch
                events = []
        self.position = log.position(self._process)
        # It has told what was asked for, and holds the slot as long as it lives.
        self._process.end()
        for batch in decoder.decode(events):
            last = batch.column(COMMITTED_AT)[-1].as_py()
            yield batch
        self.covered_until = last if self.more else self.source_clock

    def remember(self, connection: Connection) -> None:
        pass

    def acknowledge(self) -> None:
        if self.position is not None:
            self._log.acknowledge(self.position)

    def notices(self) -> Sequence[Notice]:
        return self._log.notices()


def _notifications(home: Home) -> str:
    return f"{home.name}.notification"


def _unavailable(home: Home) -> str:
    """Nothing that a row could hold."""
    return f"tidegate-unavailable-{home.attempt}"


def _ends_snapshot(notification: Mapping[str, Any]) -> bool:
    return (notification["aggregate_type"], notification["type"]) == ("Initial Snapshot", "COMPLETED")
