"""`SnapshotDiff`: a source without timestamps, compared with its last snapshot row by row."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from sqlalchemy import Engine, text

from tasks.change_columns import BEFORE, COMMITTED_AT, OPERATION, POSITION
from tasks.column_types import UTC_TIMESTAMP
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.dialects.snapshot_reader import SnapshotReader
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.clock_needs import clock_needs
from tasks.extract.feed import Chunk, Home, Notice
from tasks.extract.row_hashes import Changes, RowHashes
from tasks.needs import LogsIn, Need
from tasks.shrink import Shrink
from tasks.window import later, to_utc

_LOOKUP_SHARE = 0.2
"""Above this share of changed rows, reading the whole source is quicker than looking each of them up."""


@dataclass(frozen=True)
class SnapshotDiff:
    """Follow a table by its rows' keys and hashes: what is new, different or gone since the last committed run.

    Of the last snapshot the target keeps the key and a hash of 128 bits for every row. A run reads one consistent
    snapshot: first every key and hash, computed by the source where it can, then the rows that differ. Changes between
    two runs are seen as one. A change of the key is a delete and an insert.

    Attributes:
        connection: name of the source database.
        table: `name` or `schema.name`; or give `query`.
        key: columns that together are unique and never NULL.
        max_shrink: largest share of the rows of the last snapshot, 0 to 1, that may be gone before a run is refused.
        clock: SQL expression for the source's time, UTC, where it is not the server's own.
        query: SELECT statement read instead of a table.

    Raises:
        ConfigError: neither a table nor a query is given, or both; no key; `max_shrink` is no share.
    """

    connection: str
    table: str | None = None
    key: Sequence[str] = ()
    max_shrink: float = 0.5
    clock: str | None = None
    query: str | None = None

    cursor = None
    tells_times = True

    def __post_init__(self) -> None:
        what = f"SnapshotDiff({self.connection!r})"
        if (self.table is None) == (self.query is None):
            raise ConfigError(f"{what} reads a table or a query: give one of the two.")
        if isinstance(self.key, str) or not self.key or len(set(self.key)) != len(self.key):
            raise ConfigError(
                f"{what} compares {self.dataset!r} by a key of one or more different columns, got {self.key!r}."
            )
        if not 0 <= self.max_shrink <= 1:
            raise ConfigError(f"{what}: max_shrink is a share from 0 to 1, got {self.max_shrink}.")
        object.__setattr__(self, "key", tuple(self.key))

    @property
    def dataset(self) -> str:
        """The table, or the query's text."""
        return self.table or str(self.query)

    @contextlib.contextmanager
    def open(self, home: Home, position: str | None) -> Iterator[Chunk]:
        """See `Feed.open`."""
        source = engine(self.connection)
        with contextlib.ExitStack() as stack:
            with self._source_errors():
                covered_until = self._clock(source)
                relation = self._relation(source)
                reader = stack.enter_context(dialect_of(source).reader(source, relation, self.key))
                at = self._clock(source)
            yield Comparison(self, home, position, reader, covered_until, at, self._source_errors, stack.close)

    def own_time(self) -> datetime | None:
        """See `Clocked`."""
        if self.clock is None:
            return None
        with self._source_errors():
            return self._clock(engine(self.connection))

    def needs(self) -> Sequence[Need]:
        """See `HasNeeds`: what its clock reads."""
        return LogsIn(), *clock_needs(self.clock, self.dataset)

    def remove(self, home: Home) -> None:
        """See `Feed.remove`: the hashes in the target; the source has nothing of ours."""
        RowHashes(home, self.key, self._where).drop()

    @property
    def _where(self) -> str:
        return f"The source {self.connection!r}, {self.dataset}"

    def _source_errors(self) -> contextlib.AbstractContextManager[None]:
        return dialect_of(engine(self.connection)).translated(self._where, SourceUnavailable, SourceError)

    def _clock(self, source: Engine) -> datetime:
        with source.connect() as connection:
            if self.clock is None:
                return dialect_of(source).clock(connection)
            return to_utc(connection.execute(text(f"SELECT {self.clock}")).scalar_one())

    def _relation(self, source: Engine) -> Any:
        dialect = dialect_of(source)
        if self.query is not None:
            return dialect.query(source, self.query, self.key)
        relation = dialect.relation(source, str(self.table), self.key)
        for name in self.key:
            if name not in relation.c:
                raise SourceError(
                    f"{self._where}: there is no column {name!r} to be in the key; the columns are "
                    f"{', '.join(relation.c.keys())}."
                )
        return relation


class Comparison:
    """What differs between the last committed snapshot and this one.

    Args:
        declared: what is compared.
        home: where it belongs.
        position: of the last committed snapshot, or None.
        reader: of this snapshot.
        covered_until: source clock before it was taken, UTC.
        at: source clock after that, UTC.
        source_errors: wraps what the source's driver raises.
        release: lets the snapshot go.
    """

    more = False

    def __init__(
        self,
        declared: SnapshotDiff,
        home: Home,
        position: str | None,
        reader: SnapshotReader,
        covered_until: datetime,
        at: datetime,
        source_errors: Callable[[], contextlib.AbstractContextManager[None]],
        release: Callable[[], None],
    ) -> None:
        self.source_clock: datetime | None = at
        self.covered_until: datetime | None = covered_until
        self.shrink: Shrink | None = None
        self._declared = declared
        self._limit = home.limit
        self._afresh = position is None
        self._reader = reader
        self._hashes = RowHashes(home, declared.key, declared._where)
        # A clock that was set back does not take the position with it.
        self._at = later(None if position is None else to_utc(position), at) or at
        self._source_errors = source_errors
        self._release = release

    @property
    def dated_at(self) -> datetime:
        """See `Dated`: the position, as an instant."""
        return self._at

    @property
    def position(self) -> str:
        """See `Chunk.position`: when the snapshot was taken, by the source's clock."""
        return self._at.isoformat()

    def batches(self) -> Iterator[pa.Table]:
        """See `Chunk.batches`: everything behind a marker the first time, later what differs, deletes first."""
        with self._source_errors():
            for batch in self._reader.hashes():
                self._hashes.stage(batch)
            found = self._hashes.compare()
            # Without a single hash there is nothing to compare with: they were lost, or the source was empty.
            if self._afresh or found.shrink.known == 0:
                yield from self._whole(marked=True)
            else:
                self.shrink = found.shrink
                if not found.shrink.exceeds(self._limit):
                    yield from self._differences(found)
            self._release()

    def _differences(self, found: Changes) -> Iterator[pa.Table]:
        if found.shrink.left == 0:
            yield from self._whole(marked=True)
            return
        yield from self._gone()
        if found.written > _LOOKUP_SHARE * found.shrink.left:
            yield from self._whole(marked=False)
        else:
            yield from self._looked_up()

    def remember(self, connection: Any) -> None:
        """See `Chunk.remember`."""
        self._hashes.remember(connection)

    def acknowledge(self) -> None:
        """Nothing: the source keeps nothing for us."""

    def notices(self) -> Sequence[Notice]:
        """None."""
        return ()

    def _whole(self, *, marked: bool) -> Iterator[pa.Table]:
        marker = marked
        for rows in self._reader.rows():
            batch = self._as_changes(rows, "insert" if marked else "update")
            yield pa.concat_tables([self._marker(batch.schema), batch]) if marker else batch
            marker = False
        if marker:
            yield self._marker(self._as_changes(self._reader.schema().empty_table(), "insert").schema)

    def _gone(self) -> Iterator[pa.Table]:
        schema = self._reader.schema()
        for keys in self._hashes.gone():
            columns = [
                keys.column(name) if name in self._declared.key else pa.nulls(keys.num_rows, kind)
                for name, kind in zip(schema.names, schema.types, strict=True)
            ]
            yield self._as_changes(pa.table(columns, names=schema.names), "delete")

    def _looked_up(self) -> Iterator[pa.Table]:
        key = self._declared.key
        for keys in self._hashes.written():
            wanted = dict(zip(_tuples(keys, key), keys.column(OPERATION).to_pylist(), strict=True))
            for rows in self._reader.rows_with(keys):
                # Where the source compares more loosely than we do, it finds rows that nobody asked for.
                yield self._as_changes(rows, [wanted.pop(row, "update") for row in _tuples(rows, key)])
            if wanted:
                raise SourceError(
                    f"{self._declared._where}: no row is found by the key ({', '.join(key)}) = "
                    f"{next(iter(wanted))!r}, which was just read there. The source keeps it otherwise than it gives "
                    "it out: cast it in a query, or name another key."
                )

    def _as_changes(self, rows: pa.Table, operation: str | list[str]) -> pa.Table:
        size = rows.num_rows
        operations = [operation] * size if isinstance(operation, str) else operation
        before = pa.struct(list(rows.schema.remove_metadata()))
        return (
            rows.append_column(OPERATION, pa.array(operations, pa.string()))
            .append_column(BEFORE, pa.nulls(size, before))
            .append_column(POSITION, pa.array([self.position] * size, pa.string()))
            .append_column(COMMITTED_AT, pa.array([self._at] * size, UTC_TIMESTAMP))
        )

    def _marker(self, schema: pa.Schema) -> pa.Table:
        row = [pa.array(["snapshot"]) if field.name == OPERATION else pa.nulls(1, field.type) for field in schema]
        return pa.Table.from_arrays(row, schema=schema)


def _tuples(rows: pa.Table, key: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(rows.column(name).to_pylist() for name in key), strict=True))
