"""`SqlTransform`: a SELECT over tables of the target, read again where they changed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, bindparam, text

from tasks.column_types import UtcDateTime
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.dialects.dialect import Dialect
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.feed import Chunk, Notice, Opening
from tasks.partitioned import Partitioned
from tasks.spool import Spool
from tasks.sql_text import declared_sql, fingerprint, for_binding, parameters, undeclared
from tasks.state.partitions import ChangedPartition, changed, mark_read
from tasks.state.upstream_tables import loaded_until, rewritten
from tasks.window import Window, joined_windows

_RANGE = frozenset({"start", "end"})
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


class Loaded(Protocol):
    """The load of another pipeline; some `track` the partitions of their table that change."""

    @property
    def table(self) -> str:
        """The table, `name` or `schema.name`."""


@dataclass(frozen=True)
class SqlTransform:
    """Read a SELECT over tables of the target itself: a mart.

    With `:start` and `:end` in it, instants in UTC, it is run for ranges of whole partitions: those in which an
    upstream changed since the last run, partitions that touch in one go; or those of the run's `start` and `end`,
    whatever has changed. All are read in one snapshot. Without them, everything is read whenever an upstream changed.

    Everything is read, too, in the first run, in a full refresh, when the SELECT or the partitions were declared anew,
    and when an upstream was written to whose partitions are not tracked. A table that no pipeline loads never counts as
    changed.

    Attributes:
        connection: name of the target database; the load goes into the same.
        file: path of a file with the SELECT, relative to the working directory or the checkout; or give `query`.
        upstreams: the tables it reads: the loads of the pipelines that fill them, which say what they `track`, or
            names. Every table in the text has to be among them; what stands behind a view may be.
        by: partitions of the result, by a column that the SELECT returns; needed with `:start` and `:end`.
        query: the SELECT itself.

    Raises:
        ConfigError: neither a file nor a query is given, or both; the file is not there; `by` has no grain.
    """

    connection: str
    file: str | None = None
    upstreams: Sequence[str | Loaded] = ()
    by: Partitioned | None = None
    query: str | None = None
    sql: str = field(init=False, repr=False)

    cursor = None
    lookback = timedelta(0)
    initial = None
    tells_deletes = False

    def __post_init__(self) -> None:
        if isinstance(self.upstreams, str):
            raise ConfigError(f"{self._what}: upstreams is a list of tables. Write [{self.upstreams!r}].")
        object.__setattr__(self, "upstreams", tuple(self.upstreams))
        object.__setattr__(self, "sql", declared_sql(self.query, self.file, self._what))
        if self.by is not None and self.by.grain is None:
            raise ConfigError(
                f"{self._what}: a range is one of time, and partitions by {self.by.column!r} are its values. Declare "
                "their grain: 'hour', 'day' or 'month'."
            )

    @property
    def dataset(self) -> str:
        """The file, or the query's text."""
        return self.file or str(self.query)

    @property
    def reads(self) -> frozenset[str]:
        """The tables that are declared as its upstreams."""
        return frozenset(table if isinstance(table, str) else table.table for table in self.upstreams)

    def check(self, pipeline: str, dialect: Dialect) -> None:
        """Refuse a text that is not what is declared.

        Raises:
            ConfigError: it is not one SELECT that only reads; it has another parameter, or one of the two alone; it
                reads a table that is not declared; it has a range and `by` is not declared, or the other way round.
        """
        what = f"{pipeline}: {self.dataset!r}"
        used = parameters(self.sql, dialect.syntax, what, _RANGE)
        undeclared(self.sql, dialect.syntax, self.reads, what)
        if used and used != _RANGE:
            raise ConfigError(f"{what} has :{min(used)} alone. A range has both, :start and :end.")
        if used and self.by is None:
            raise ConfigError(
                f"{what} is run for ranges, and nothing says what of. Declare the partitions of its result, such as "
                "by=Partitioned('day', 'day')."
            )
        if self.by is not None and not used:
            raise ConfigError(
                f"{what} is always run for everything, so that nothing of {self.by} is asked for. Compare with :start "
                "and :end in it, or leave out `by`."
            )

    def bound(self) -> None:
        """None: there is no cursor."""

    def null_cursors(self) -> int:
        """0: there is no cursor."""
        return 0

    def unfinished(self, position: str | None) -> None:
        """See `Resumable.unfinished`: a range is read in one part."""

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """See `Extract.batches`: what the SELECT returns for `window`."""
        return self.rows((window,))

    def open_window(self, asked: Opening) -> Chunk:
        """See `Resumable.open_window`."""
        home, source = asked.home, engine(self.connection)
        if source.url != home.engine.url:
            raise ConfigError(
                f"{home.pipeline}: {self.dataset!r} reads {self.connection!r}, and the load writes elsewhere, "
                "but what has been read is remembered with what was made of it. Give both the same connection."
            )
        position = self._declared(home.dialect)
        with self._errors(home.dialect), source.connect() as connection:
            until = loaded_until(connection, self.reads)
            parts = changed(connection, home.pipeline, sorted(self._tracked))
            tables = rewritten(connection, home.pipeline, self.reads - set(self._tracked))
        found = [*parts, *tables]
        if asked.explicit:
            return Recomputed(self, asked, (asked.window,), (), position, until)
        if asked.position != position or tables or (found and self.by is None):
            ranges: Sequence[Window] = (Window(),)
        else:
            ranges = joined_windows(self._range(part) for part in parts)
        return Recomputed(self, asked, tuple(ranges), tuple(found), position, until)

    def rows(self, ranges: Sequence[Window]) -> Iterator[pa.Table]:
        """What the SELECT returns for each of `ranges`, all from one snapshot, in bounded batches."""
        source = engine(self.connection)
        dialect = dialect_of(source)
        if not dialect.readers_block_writers:
            yield from self._read(ranges)
            return
        # The rows are staged in the database that they come from.
        with Spool() as spool:
            for batch in self._read(ranges):
                spool.append(batch, 0)
            yield from spool.batches()

    def _read(self, ranges: Sequence[Window]) -> Iterator[pa.Table]:
        source = engine(self.connection)
        dialect = dialect_of(source)
        names = _RANGE if self.by is not None else frozenset()
        with self._errors(dialect), dialect.reading(source) as reading:
            for window in ranges:
                values: dict[str, Any] = {"start": window.start or _FIRST, "end": window.end or _LAST}
                bound = [bindparam(name, values[name], UtcDateTime()) for name in sorted(names)]
                statement = text(for_binding(self.sql, dialect.syntax, names)).bindparams(*bound).columns()
                for batch in reading.tables(statement):
                    if batch.num_rows:
                        self._expect_inside(batch, window)
                        yield batch

    def _expect_inside(self, batch: pa.Table, window: Window) -> None:
        """Rows of a partition that was not asked for would be taken for all of it."""
        if self.by is None or self.by.column not in batch.column_names:
            return
        column = batch.column(self.by.column)
        if not pa.types.is_temporal(column.type) or column.null_count == len(column):
            return
        for value in pc.min_max(column).as_py().values():
            found = self.by.window(self.by.part(value))
            if not found.overlaps(window):
                raise SourceError(
                    f"{self._what} was run for {window} and returns {self.by.column} = {value}. Compare what it groups "
                    f"by with :start and :end, in the zone {self.by.zone}."
                )

    @property
    def _tracked(self) -> dict[str, Partitioned]:
        """The upstreams that tell which ranges of them changed."""
        loads = [table for table in self.upstreams if not isinstance(table, str)]
        tracks: dict[str, Partitioned | None] = {load.table: getattr(load, "track", None) for load in loads}
        return {table: track for table, track in tracks.items() if track is not None and track.grain is not None}

    def _declared(self, dialect: Dialect) -> str:
        """What tells this declaration from one with another SELECT, or with parts that are called otherwise."""
        declared = (fingerprint(self.sql, dialect.syntax), self.by, sorted(self._tracked.items()))
        return hashlib.sha256(repr(declared).encode()).hexdigest()

    def _range(self, part: ChangedPartition) -> Window:
        assert self.by is not None, "without ranges everything is read"
        return self.by.aligned(self._tracked[part.target].window(part.part))

    def _errors(self, dialect: Dialect) -> Any:
        return dialect.translated(f"The source {self.connection!r}, {self.dataset}", SourceUnavailable, SourceError)

    @property
    def _what(self) -> str:
        return f"SqlTransform({self.connection!r}, {self.file or self.query!r})"


class Recomputed:
    """Some ranges of a mart, or nothing where nothing changed.

    Args:
        declared: what is read.
        asked: where it belongs.
        scope: the ranges, UTC.
        seen: the versions of the upstreams that are read with them.
        position: fingerprint of what is declared.
        covered_until: how far the upstreams are loaded, UTC.
    """

    more = False
    source_clock = None
    highest = None

    def __init__(
        self,
        declared: SqlTransform,
        asked: Opening,
        scope: tuple[Window, ...],
        seen: tuple[ChangedPartition, ...],
        position: str,
        covered_until: datetime | None,
    ) -> None:
        assert asked.home.opened_at is not None, "a window is opened at a time"
        self.scope = scope
        self.position = position
        self.covered_until = covered_until
        self.began = asked.home.opened_at
        self._declared = declared
        self._pipeline = asked.home.pipeline
        self._seen = seen

    @property
    def unchanged(self) -> bool:
        """See `Part.unchanged`."""
        return not self.scope

    def batches(self) -> Iterator[pa.Table]:
        """See `Chunk.batches`."""
        return self._declared.rows(self.scope) if self.scope else iter(())

    def remember(self, connection: Connection) -> None:
        """See `Chunk.remember`: which versions of the upstreams are in the mart now."""
        mark_read(connection, self._pipeline, self._seen)

    def acknowledge(self) -> None:
        """Nothing: whoever loads the upstreams does not wait for us."""

    def notices(self) -> Sequence[Notice]:
        """Which ranges were read."""
        shown = ", ".join(map(str, self.scope[:3])) + (f" and {len(self.scope) - 3:,} more" if self.scope[3:] else "")
        said = f"read {shown} of {self._declared.dataset}" if self.scope else "nothing has changed upstream"
        return [Notice("etl.mart.recomputed", said, {"ranges": len(self.scope), "changes": len(self._seen)})]
