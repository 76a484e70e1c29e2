"""`TableExtract`: a table or a query of any database SQLAlchemy reads, whole or by a cursor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import Engine, text

from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.clock_needs import clock_needs
from tasks.extract.deleted import with_operations
from tasks.extract.local_cursor import cursor_in_utc
from tasks.local_time import LocalTime
from tasks.needs import LogsIn, Need, SeesTransactions
from tasks.window import Window, to_utc


@dataclass(frozen=True)
class TableExtract:
    """Read a table, whole or by a cursor, in one snapshot.

    A row whose cursor is NULL lies in no window and is never read; `null_cursors` counts them.

    Attributes:
        connection: name of the source database.
        table: `name` or `schema.name`; or give `query`.
        cursor: timestamp, date or ISO 8601 text column that orders changes in source time; None reads everything each
            time.
        lookback: how far before the watermark the next window starts, for rows that appear late.
        lag: how long before the source clock a row may still appear. PostgreSQL proves its own bound. SQLite proves it
            for times that are taken with the write lock in hand. MariaDB needs a lag: longer than from NOW() to the
            first row of its transaction where the user has the PROCESS privilege, and than any transaction where not.
        initial: where the first incremental window starts (UTC); None is the beginning.
        clock: SQL expression for the source's time, UTC, where it is not the server's own.
        query: SELECT statement read instead of a table.
        zone: IANA name of the zone that a cursor without one is in; None is UTC. Of the hour that comes twice in autumn
            every time counts as the second. The rows are handed on with the cursor in UTC.
        key: columns, together unique and never NULL, by which a read without cursor goes chunk by chunk, all in one
            snapshot. On PostgreSQL a connection that breaks is replaced, and reading goes on behind the last key in the
            same snapshot; elsewhere a new attempt reads everything from the start, since a mixture of two moments would
            be worse.
        deleted: column that marks a row as gone: true, a number but 0, or a time. Such a row is deleted from the target
            (or marked there; see `Upsert`), and no older version of it comes back.

    Raises:
        ConfigError: neither a table nor a query is given, or both; a zone that does not exist, or without a cursor; a
            key with one.
    """

    connection: str
    table: str | None = None
    cursor: str | None = None
    lookback: timedelta = timedelta(0)
    lag: timedelta = timedelta(0)
    initial: datetime | None = None
    clock: str | None = None
    query: str | None = None
    zone: str | None = None
    key: Sequence[str] = ()
    deleted: str | None = None

    def __post_init__(self) -> None:
        what = f"TableExtract({self.connection!r})"
        if (self.table is None) == (self.query is None):
            raise ConfigError(f"{what} reads a table or a query: give one of the two.")
        if isinstance(self.key, str):
            raise ConfigError(f"{what}: a key is a list of columns, got {self.key!r}. Write [{self.key!r}].")
        if self.zone is not None:
            if self.cursor is None:
                raise ConfigError(f"{what}: zone={self.zone!r} is that of a cursor, and there is none. Leave it out.")
            LocalTime(self.zone)
        if self.key and self.cursor is not None:
            raise ConfigError(
                f"{what}: a key cuts a read of everything into chunks, and the cursor {self.cursor!r} reads windows. "
                "Leave out one of them; a long range of a cursor is cut by the pipeline's `split`."
            )

    @property
    def tells_deletes(self) -> bool:
        """See `Extract.tells_deletes`."""
        return self.deleted is not None

    @property
    def dataset(self) -> str:
        """The table, or the query's text."""
        return self.table or str(self.query)

    def bound(self) -> datetime | None:
        """See `Extract.bound`."""
        if self.cursor is None:
            return None
        source = engine(self.connection)
        dialect = dialect_of(source)
        with dialect.translated(self._where(), SourceUnavailable, SourceError):
            column = self._relation(source).c[self.cursor]
            bound = dialect.bound(source, self.clock, self.lag)
        # A time taken after the bound may be kept with fewer digits, and so lie before it.
        return bound - timedelta(microseconds=bound.microsecond % 10 ** (6 - dialect.digits(column)))

    def own_time(self) -> datetime | None:
        """See `Clocked`. Without a cursor nothing is covered by the source's time."""
        if self.clock is None or self.cursor is None:
            return None
        source = engine(self.connection)
        with (
            dialect_of(source).translated(self._where(), SourceUnavailable, SourceError),
            source.connect() as connection,
        ):
            return to_utc(connection.execute(text(f"SELECT {self.clock}")).scalar_one())

    def needs(self) -> Sequence[Need]:
        """See `HasNeeds`: what proves the bound, and what its clock reads."""
        if self.cursor is None:
            return (LogsIn(),)
        proof = SeesTransactions(bool(self.lag), f"to prove how far {self.dataset!r} may be read by its cursor")
        return LogsIn(), proof, *clock_needs(self.clock, self.dataset)

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """See `Extract.batches`."""
        source = engine(self.connection)
        dialect = dialect_of(source)
        zone = None if self.zone is None else LocalTime(self.zone)
        with dialect.translated(self._where(window), SourceUnavailable, SourceError):
            relation = self._relation(source)
            for batch in dialect.read(source, relation, self.cursor, window.start, window.end, zone=zone, key=self.key):
                rows = batch if zone is None else cursor_in_utc(batch, str(self.cursor), self._where(), zone)
                yield rows if self.deleted is None else with_operations(rows, self.deleted)

    def null_cursors(self) -> int:
        """How many rows of the source have no cursor now, so that no window reads them; 0 without a cursor.

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused.
        """
        if self.cursor is None:
            return 0
        source = engine(self.connection)
        dialect = dialect_of(source)
        with dialect.translated(self._where(), SourceUnavailable, SourceError):
            return dialect.null_cursors(source, self._relation(source), self.cursor)

    def _relation(self, source: Engine) -> Any:
        places = {self.cursor: "the cursor", self.deleted: "the mark of what is deleted"}
        named = [*(name for name in places if name is not None), *self.key]
        if self.query is not None:
            return dialect_of(source).query(source, self.query, named)
        assert self.table is not None
        relation = dialect_of(source).relation(source, self.table, self.key)
        for name in named:
            if name not in relation.c:
                place = places.get(name, "in the key")
                raise SourceError(
                    f"{self._where()}: there is no column {name!r} to be {place}; the columns are "
                    f"{', '.join(relation.c.keys())}."
                )
        return relation

    def _where(self, window: Window | None = None) -> str:
        return f"The source {self.connection!r}, {self.dataset}{f' {window}' if window and self.cursor else ''}"
