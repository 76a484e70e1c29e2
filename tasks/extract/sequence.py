"""`SequenceExtract`: a table read by a number that only grows, or by a text that sorts as its rows are made."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import ColumnElement, Engine, select

from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.dialects.reading import only
from tasks.dialects.source import python_type
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.feed import Chunk, Home, Notice
from tasks.needs import LogsIn, Need, SeesTransactions
from tasks.window import to_utc

Value = int | str


@dataclass(frozen=True)
class SequenceExtract:
    """Read what has a higher cursor than the last run: a serial number, a row version, a ULID.

    Such a cursor tells no time, so there are no windows: a run goes on from the highest value below which nothing can
    come any more. A value is given out before its row is committed. So the highest one is noted with the time it was
    seen at, and is proven once every transaction of that time has ended; until then what lies above the last proven one
    is read again. The proven value itself is read again too, since another row may have it.

    Attributes:
        connection: name of the source database.
        table: `name` or `schema.name`; or give `query`.
        cursor: integer or text column that a new row, or a new version of a row, gets a higher value in.
        lookback: how far below the proven value a run starts, for integers that are given out in blocks (`CACHE`).
        lag: longest time from the making of a value to its commit, where the source cannot tell which transactions are
            open, or where clients make the values (a ULID): then also by how much their clocks differ.
        initial: lowest value of the first run; None is the beginning.
        query: SELECT statement read instead of a table.
        chunk: rows after which a commit ends, so that a crash loses at most as many; rows of one value stay together.

    Raises:
        ConfigError: neither a table nor a query is given, or both; no cursor, or a limit that makes no sense.
    """

    connection: str
    table: str | None = None
    cursor: str = ""
    lookback: int = 0
    lag: timedelta = timedelta(0)
    initial: Value | None = None
    query: str | None = None
    chunk: int = 1_000_000

    max_shrink = 0.0
    tells_times = False

    def __post_init__(self) -> None:
        what = f"SequenceExtract({self.connection!r})"
        if (self.table is None) == (self.query is None):
            raise ConfigError(f"{what} reads a table or a query: give one of the two.")
        if not self.cursor or self.lookback < 0 or self.chunk < 1 or self.lag < timedelta(0):
            raise ConfigError(
                f"{what} needs a cursor, a lookback and a lag that are not negative, and a chunk of at least 1; got "
                f"{self.cursor!r}, {self.lookback}, {self.lag} and {self.chunk}."
            )
        if isinstance(self.initial, str) and self.lookback:
            raise ConfigError(f"{what}: a lookback is a number, and no text lies a number below another. Leave it out.")

    @property
    def dataset(self) -> str:
        """The table, or the query's text."""
        return self.table or str(self.query)

    @contextlib.contextmanager
    def open(self, home: Home, position: str | None) -> Iterator[Chunk]:
        """See `Feed.open`."""
        source = engine(self.connection)
        place = _Place() if position is None else _Place.parse(position)
        with self._source_errors():
            relation = self._relation(source)
            planned = self._planned(source, relation, place) if place.reached is None else place
        yield _Rows(self, source, relation, planned, place.highest)

    def needs(self) -> Sequence[Need]:
        """See `HasNeeds`: what proves how far it may be read."""
        return LogsIn(), SeesTransactions(
            bool(self.lag), f"to prove how far {self.dataset!r} may be read by its cursor"
        )

    def remove(self, home: Home) -> None:
        """Nothing: neither side keeps anything but the position."""

    def _planned(self, source: Engine, relation: Any, place: "_Place") -> "_Place":
        """`place` with the highest value there is, and what will be proven when everything up to it is read.

        In this order: the highest value, the clock, which transactions are open, and then, in a snapshot, the rows.
        Whoever was given a value up to the highest began before the clock was read.
        """
        dialect = dialect_of(source)
        column = relation.c[self.cursor]
        known = select(column).where(~dialect.lacks_cursor(column)).order_by(column.desc()).limit(1)
        with source.connect() as connection:
            highest = connection.execute(known).scalar_one_or_none()
            seen_at = dialect.clock(connection)
        settled = dialect.settled(source, None, self.lag)
        return place.planned(highest, seen_at, settled)

    def _relation(self, source: Engine) -> Any:
        dialect = dialect_of(source)
        if self.query is not None:
            relation = dialect.query(source, self.query, [self.cursor])
        else:
            relation = dialect.relation(source, str(self.table))
            if self.cursor not in relation.c:
                raise SourceError(
                    f"{self._where}: there is no column {self.cursor!r} to be the cursor; the columns are "
                    f"{', '.join(relation.c.keys())}."
                )
        kind = python_type(relation.c[self.cursor])
        if kind not in (int, str):
            raise ConfigError(
                f"{self._where}: the cursor {self.cursor!r} is of type {relation.c[self.cursor].type}; here it is an "
                "integer or a text. For a time or a date there is TableExtract; cast anything else in a query."
            )
        if kind is str and self.lookback:
            raise ConfigError(f"{self._where}: {self.cursor!r} is a text, so no lookback can be subtracted from it.")
        if self.initial is not None and not isinstance(self.initial, kind):
            raise ConfigError(
                f"{self._where}: initial={self.initial!r} is no {kind.__name__}, as the cursor {self.cursor!r} is."
            )
        return relation

    @property
    def _where(self) -> str:
        return f"The source {self.connection!r}, {self.dataset}"

    def _source_errors(self) -> contextlib.AbstractContextManager[None]:
        return dialect_of(engine(self.connection)).translated(self._where, SourceUnavailable, SourceError)


@dataclass(frozen=True)
class _Seen:
    """A value that was the highest at some time of the source, UTC."""

    value: Value
    at: datetime

    def proven(self, settled: datetime) -> bool:
        return settled >= self.at


@dataclass(frozen=True)
class _Place:
    """How far a sequence has been read.

    Attributes:
        proven: nothing comes below it any more, and all of it is in the target; None is the beginning.
        pending: what comes next to be proven.
        highest: of what was there when the rows were last looked at; they are read up to here.
        reached: how far that has come; None when it is done.
        then: `proven` when it is.
        settled: source time of which everything has been read then, UTC.
    """

    proven: Value | None = None
    pending: _Seen | None = None
    highest: Value | None = None
    reached: Value | None = None
    then: Value | None = None
    settled: datetime | None = None

    @classmethod
    def parse(cls, position: str) -> "_Place":
        known = json.loads(position)
        pending = known["pending"]
        return cls(**{
            **known,
            "pending": pending and _Seen(pending["value"], to_utc(pending["at"])),
            "settled": known["settled"] and to_utc(known["settled"]),
        })  # fmt: skip

    def planned(self, highest: Value | None, seen_at: datetime, settled: datetime) -> "_Place":
        """A new look at the source. An older value waits for its proof, so that one comes even where runs are dense."""
        if highest is None:
            return replace(self, settled=settled)
        newest = _Seen(highest, seen_at)
        waiting = self.pending or newest
        then: Value | None = highest
        pending: _Seen | None = None
        if not newest.proven(settled):
            pending, then = (newest, waiting.value) if waiting.proven(settled) else (waiting, self.proven)
        return replace(self, pending=pending, highest=highest, then=then, settled=settled)

    def advanced(self, reached: Value) -> "_Place":
        """After everything up to `reached` has been read. Where somebody resets the values, the proof falls too."""
        if reached != self.highest:
            return replace(self, reached=reached)
        return replace(self, proven=self.then, reached=None)

    def __str__(self) -> str:
        return json.dumps(vars(self), default=lambda kept: vars(kept) if isinstance(kept, _Seen) else kept.isoformat())


@dataclass
class _Rows:
    """The rows above a place, up to the highest there was, or as many of them as one commit takes."""

    feed: SequenceExtract
    source: Engine
    relation: Any
    place: _Place
    passed: Value | None
    _done: _Place = field(init=False)

    def __post_init__(self) -> None:
        self._done = self.place

    def batches(self) -> Iterator[pa.Table]:
        if self.place.highest is None:
            return
        dialect = dialect_of(self.source)
        with self.feed._source_errors(), dialect.reading(self.source) as reading:
            wanted = [~dialect.lacks_cursor(self._column), *self._above(), self._column <= self.place.highest]
            # The last of a full chunk; what has the same value comes along.
            last = select(self._column).where(*wanted).order_by(self._column).offset(self.feed.chunk - 1).limit(1)
            full = only(reading.rows(last))
            end = self.place.highest if full is None else full
            rows = select(*dialect.read_columns(self.relation)).select_from(self.relation)
            yield from reading.tables(rows.where(*wanted, self._column <= end))
            self._done = self.place.advanced(end)

    def _above(self) -> list[ColumnElement[bool]]:
        if self.place.reached is not None:
            return [self._column > self.place.reached]
        start = self.feed.initial if self.place.proven is None else self.place.proven
        if start is None:
            return []
        return [self._column >= (start - self.feed.lookback if isinstance(start, int) else start)]

    @property
    def _column(self) -> ColumnElement[Any]:
        column: ColumnElement[Any] = self.relation.c[self.feed.cursor]
        return column

    @property
    def position(self) -> str:
        return str(self._done)

    @property
    def more(self) -> bool:
        return self._done.reached is not None

    @property
    def covered_until(self) -> datetime | None:
        return None if self.more else self._done.settled

    @property
    def source_clock(self) -> datetime | None:
        return self.place.settled

    def null_cursors(self) -> int:
        with self.feed._source_errors():
            return dialect_of(self.source).null_cursors(self.source, self.relation, self.feed.cursor)

    def remember(self, connection: Any) -> None:
        pass

    def acknowledge(self) -> None:
        pass

    def notices(self) -> Sequence[Notice]:
        return ()
