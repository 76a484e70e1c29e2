"""`LogExtract`: every change of a table, from PostgreSQL's transaction log, in the order of the commits."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from tasks.change_columns import OPERATION
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.dialects.exported_snapshot import stream
from tasks.dialects.postgresql import Postgresql
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.feed import Chunk, Home, Notice
from tasks.extract.transaction_log import replication
from tasks.extract.transaction_log.pgoutput import Decoder, Relation, lsn_number, lsn_text
from tasks.extract.transaction_log.replication import Followed
from tasks.extract.transaction_log.slot_lag import slot_notices
from tasks.needs import FollowsLog, Need
from tasks.window import to_utc

_REREAD_ROWS = 5_000


@dataclass(frozen=True)
class LogExtract:
    """Follow a table of PostgreSQL through a logical replication slot, by SQL alone.

    The first run takes a snapshot that ends exactly where the slot begins. Later ones peek at the slot, and advance it
    only after their commit, so that what a crash interrupts is read again. Slot and publication are made for this
    pipeline and target alone, and bear their name.

    Attributes:
        connection: name of the source database; its role needs REPLICATION, and to own the table or a `publication`.
        table: `name` or `schema.name`.
        key: columns that identify a row; the primary key where none are given.
        publication: one that exists already, for a role that may not create its own.
        chunk: changes after which a commit ends, once the transaction they are in does.
        max_lag: bytes of log that the slot may keep at the source before an alert is raised.
        max_shrink: largest share of the target, 0 to 1, that a new snapshot may delete before it is refused.

    Raises:
        ConfigError: a limit makes no sense.
    """

    connection: str
    table: str
    key: Sequence[str] = ()
    publication: str | None = None
    chunk: int = 1_000_000
    max_lag: int = 1 << 30
    max_shrink: float = 0.5

    cursor = None
    tells_times = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.key,) if isinstance(self.key, str) else tuple(self.key))
        if self.chunk < 1 or self.max_lag < 1 or not 0 <= self.max_shrink <= 1:
            raise ConfigError(
                f"LogExtract({self.connection!r}, {self.table!r}): chunk and max_lag are at least 1 and max_shrink is "
                f"a share from 0 to 1, got {self.chunk}, {self.max_lag} and {self.max_shrink}."
            )

    @property
    def dataset(self) -> str:
        """The table."""
        return self.table

    @contextlib.contextmanager
    def open(self, home: Home, position: str | None) -> Iterator[Chunk]:
        """See `Feed.open`."""
        source = engine(self.connection)
        if source.dialect.name != "postgresql":
            raise ConfigError(
                f"LogExtract reads PostgreSQL's log, and {self.connection!r} is {source.dialect.name}. Use "
                "TriggerExtract or DebeziumExtract there."
            )
        with contextlib.ExitStack() as stack:
            with _source_errors(source, self.where), _autocommit(source) as connection:
                table = replication.followed(connection, self.table, self.key)
                if position is None:
                    chunk: Chunk = stack.enter_context(self._snapshot(connection, home, table))
                else:
                    chunk = self._changes(connection, home, table, lsn_number(position))
            yield chunk

    def needs(self) -> Sequence[Need]:
        """See `HasNeeds`: a slot and a publication."""
        return (FollowsLog(self.table, self.publication, "slot", f"to follow the log of {self.table}"),)

    def remove(self, home: Home) -> None:
        """See `Feed.remove`."""
        source = engine(self.connection)
        with _source_errors(source, self.where), _autocommit(source) as connection:
            replication.drop_slot(connection, home.name)
            if self.publication is None:
                replication.drop_publication(connection, home.name)

    def slot_notices(self, slot: str) -> Sequence[Notice]:
        """See `Slotted`."""
        return slot_notices(engine(self.connection), slot, self.connection, self.max_lag, self.where)

    @property
    def where(self) -> str:
        """As a message begins."""
        return f"The source {self.connection!r}, the log of {self.table}"

    @contextlib.contextmanager
    def _snapshot(self, connection: Connection, home: Home, table: Followed) -> Iterator[Chunk]:
        replication.expect_logical(connection)
        # Of an attempt that died before its commit, or of the position that a full refresh forgets.
        replication.drop_slot(connection, home.name)
        publication = self.publication or home.name
        if self.publication is None:
            replication.publish(connection, publication, table)
        columns = replication.published_columns(connection, publication, table)
        clock = _clock(connection)
        with replication.created(connection.engine, home.name) as (position, snapshot):
            yield _Snapshot(self, connection.engine, home.name, table, columns, snapshot, position, clock)

    def _changes(self, connection: Connection, home: Home, table: Followed, position: int) -> Chunk:
        replication.expect_after(connection, home.name, position, self.where)
        clock = _clock(connection)
        bound = replication.flushed(connection)
        return _Changes(self, connection.engine, home.name, table, position, max(bound, position), clock)


@dataclass
class _Snapshot:
    """The whole table as it was where the slot begins."""

    feed: LogExtract
    source: Engine
    slot: str
    table: Followed
    columns: list[str]
    snapshot: str
    start: int
    source_clock: datetime
    more: bool = True

    @property
    def covered_until(self) -> datetime | None:
        return None

    @property
    def dated_at(self) -> datetime:
        return self.source_clock

    @property
    def position(self) -> str:
        return lsn_text(self.start)

    def batches(self) -> Iterator[pa.Table]:
        yield pa.table({OPERATION: ["snapshot"]})
        with _source_errors(self.source, self.feed.where):
            dialect = dialect_of(self.source)
            assert isinstance(dialect, Postgresql)
            relation = dialect.relation(self.source, f"{self.table.schema}.{self.table.name}")
            yield from dialect.read_at(self.source, relation, self.columns, self.snapshot)

    def remember(self, connection: Connection) -> None:
        pass

    def acknowledge(self) -> None:
        pass

    def notices(self) -> Sequence[Notice]:
        return ()


@dataclass
class _Changes:
    """What was committed after `start`, up to the first transaction that makes it `feed.chunk` changes."""

    feed: LogExtract
    source: Engine
    slot: str
    table: Followed
    start: int
    bound: int
    source_clock: datetime
    more: bool = False
    covered_until: datetime | None = None
    _end: int = field(init=False)

    def __post_init__(self) -> None:
        self._end = self.start

    @property
    def position(self) -> str:
        return lsn_text(self._end)

    def batches(self) -> Iterator[pa.Table]:
        decoder = Decoder(self.table.schema, self.table.name, self.table.key, self._reread)
        peek = sql.SQL(
            "SELECT data FROM pg_logical_slot_peek_binary_changes("
            "{}, {}, {}, 'proto_version', '1', 'publication_names', {})"
        ).format(
            # A list of identifiers: without its quotes a name would be taken in small letters, and tell nothing.
            self.slot,
            lsn_text(self.bound),
            self.feed.chunk,
            sql.Identifier(self.feed.publication or self.slot).as_string(),
        )
        messages = 0
        with (
            _source_errors(self.source, self.feed.where),
            adbc.connect(replication.output_conninfo(self.source)) as connection,
            connection.cursor() as cursor,
        ):
            for batch in stream(cursor, peek.as_string()):
                messages += batch.num_rows
                yield from decoder.decode(batch.column(0).chunk(0))
        self.more = messages >= self.feed.chunk
        if self.more:
            self._end = decoder.position
            self.covered_until = datetime.fromtimestamp(decoder.committed_at / 1e6, UTC)
        else:
            self.covered_until = self.source_clock
            # The last transaction may end behind the bound; nothing of this table lies between the two.
            self._end = max(decoder.position, self.bound)

    def remember(self, connection: Connection) -> None:
        pass

    def acknowledge(self) -> None:
        with _source_errors(self.source, self.feed.where), _autocommit(self.source) as connection:
            replication.advance(connection, self.slot, self._end)

    def notices(self) -> Sequence[Notice]:
        return self.feed.slot_notices(self.slot)

    def _reread(self, relation: Relation, keys: pa.Table, wanted: list[str]) -> pa.Table:
        """See `Reread`; the values have the text of the log's own session."""
        names = [sql.Identifier(name) for name in [*keys.column_names, *wanted]]
        columns = sql.SQL(", ").join(sql.SQL("t.{}::text").format(name) for name in names)
        found: list[Any] = []
        with psycopg.connect(replication.output_conninfo(self.source)) as connection:
            kinds = dict(zip(relation.columns, relation.types, strict=True))
            types = [
                sql.SQL(str(row[0]) + "[]")
                for name in keys.column_names
                for row in connection.execute("SELECT format_type(%s, NULL)", [kinds[name][0]])
            ]
            asked = sql.SQL(", ").join(sql.SQL("%s::text[]::{}").format(kind) for kind in types)
            same = sql.SQL(" AND ").join(
                sql.SQL("t.{} = k.{}").format(name, sql.Identifier(f"k{place}"))
                for place, name in enumerate(names[: keys.num_columns])
            )
            statement = sql.SQL("SELECT {} FROM {} AS t JOIN unnest({}) AS k({}) ON {}").format(
                columns,
                sql.Identifier(relation.schema, relation.name),
                asked,
                sql.SQL(", ").join(sql.Identifier(f"k{place}") for place in range(keys.num_columns)),
                same,
            )
            for batch in keys.to_batches(max_chunksize=_REREAD_ROWS):
                found += connection.execute(statement, [column.to_pylist() for column in batch.columns]).fetchall()
        values = list(zip(*found, strict=True)) or [()] * len(names)
        return pa.table([pa.array(column, pa.string()) for column in values], names=[*keys.column_names, *wanted])


@contextlib.contextmanager
def _autocommit(source: Engine) -> Iterator[Connection]:
    """A session in which every statement is a transaction of its own, as slots want it."""
    with source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextlib.contextmanager
def _source_errors(source: Engine, where: str) -> Iterator[None]:
    with dialect_of(source).translated(where, SourceUnavailable, SourceError):
        yield


def _clock(connection: Connection) -> datetime:
    """The source's time, UTC, before anything that follows is read."""
    return to_utc(connection.execute(text("SELECT clock_timestamp()")).scalar_one())
