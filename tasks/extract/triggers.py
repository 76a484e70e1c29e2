"""`TriggerExtract`: every change of a table, as triggers in its own database write it down."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.change_columns import BEFORE, COMMITTED_AT, OPERATION, POSITION
from tasks.column_types import UTC_TIMESTAMP
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.dialects.reading import Reading
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.change_log import change_log
from tasks.extract.change_log.log import CHANGE, CHANGED_AT, ChangeLog
from tasks.extract.changes import cursor_values
from tasks.extract.feed import Chunk, Home, Notice
from tasks.needs import FollowsByTriggers, Need
from tasks.window import later, to_utc

_TRIES = 3


@dataclass(frozen=True)
class TriggerExtract:
    """Follow a table of PostgreSQL, MariaDB or SQLite by triggers that write to a change log beside it.

    The first run makes log and triggers, and takes a snapshot that ends exactly where the log goes on. Later ones read
    what the log holds and the target does not, and delete it after their commit. When the table's columns have changed,
    log and triggers are made anew and the run takes a new snapshot. It also does where a MariaDB table was emptied by
    TRUNCATE, which fires no trigger there. Foreign keys that cascade fire none either, and are refused.

    Attributes:
        connection: name of the source database; its role needs the rights to make a table and triggers.
        table: `name` or `schema.name`.
        key: columns that identify a row: the primary key, or another unique one.
        max_shrink: largest share of the target, 0 to 1, that a new snapshot may delete before it is refused.

    Raises:
        ConfigError: no key, or a limit makes no sense.
    """

    connection: str
    table: str
    key: Sequence[str]
    max_shrink: float = 0.5

    cursor = None
    tells_times = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.key,) if isinstance(self.key, str) else tuple(self.key))
        if not self.key or len(set(self.key)) != len(self.key) or not 0 <= self.max_shrink <= 1:
            raise ConfigError(
                f"TriggerExtract({self.connection!r}, {self.table!r}) needs a key of one or more different columns, "
                f"and a max_shrink from 0 to 1; got {self.key!r} and {self.max_shrink}."
            )

    @property
    def dataset(self) -> str:
        """The table."""
        return self.table

    @property
    def where(self) -> str:
        """As a message begins."""
        return f"The source {self.connection!r}, the change log of {self.table}"

    @contextlib.contextmanager
    def open(self, home: Home, position: str | None) -> Iterator[Chunk]:
        """See `Feed.open`."""
        place = _Place.of(home, position)
        with contextlib.ExitStack() as stack:
            with self._source_errors():
                chunk = self._chunk(stack, home, place)
            yield chunk

    def needs(self) -> Sequence[Need]:
        """See `HasNeeds`: a log and triggers."""
        return (FollowsByTriggers(self.table, f"to follow {self.table} by triggers"),)

    def remove(self, home: Home) -> None:
        """See `Feed.remove`."""
        with self._source_errors():
            self._log(home).remove()

    def _chunk(self, stack: contextlib.ExitStack, home: Home, place: "_Place | None") -> "_LogChunk":
        reshaped = False
        for _ in range(_TRIES):
            log = self._log(home)
            if place is None or reshaped:
                log.prepare()
            covered_until = log.clock()
            with contextlib.ExitStack() as opening:
                reading = opening.enter_context(log.reading())
                state = log.state(reading)
                after = None if reshaped else self._after(log, reading, state, place)
                if state.sound and (after or place is None or reshaped):
                    assert state.token is not None, "a sound log has one"
                    now = _Place.at(log, reading, state.token, after, home.attempt)
                    held = stack.enter_context(opening.pop_all())
                    begun = replace(now, time=later(None if place is None else place.time, covered_until))
                    since = place.time if place is not None and after is not None else None
                    return _LogChunk(self, log, reading, held, begun, after, covered_until, reshaped, since)
                reshaped = place is not None
        raise SourceUnavailable(f"{self.where}: the table's columns or triggers kept changing. Run the pipeline again.")

    def _after(self, log: ChangeLog, reading: Reading, state: Any, place: "_Place | None") -> str | None:
        """What has been seen of the log already; None where only a snapshot helps.

        Raises:
            SourceError: changes are lost, by somebody else's hand.
            SourceUnavailable: they are, or another run has read them.
        """
        if place is None:
            return None
        if state.token != place.token:
            raise self._lost(place, "is not there" if state.token is None else "is another than the one that was read")
        if log.broken_off(reading, place.seen):
            return None
        if state.missing:
            raise self._lost(place, f"has lost the trigger {state.missing[0]!r}, or it is switched off")
        forgotten = log.forgotten(reading)
        if forgotten not in (place.chunk, place.forgotten):
            # Another run of this pipeline may have committed since; then the next attempt begins where that has ended.
            what = "has changes behind it that the target does not know of; was either restored from a backup?"
            raise SourceUnavailable(str(self._lost(place, what)))
        held = forgotten == place.chunk or log.held(reading, place.seen) >= place.rows
        if not held or log.rewound(reading, place.seen):
            raise self._lost(place, "is older than what was read of it; was the source restored from a backup?")
        return None if state.outdated or log.untold(reading, place.seen) else place.seen

    def _lost(self, place: "_Place", what: str) -> SourceError:
        return SourceError(
            f"{self.where}, {place.name!r}, {what}. Changes are lost. Run the pipeline with full_refresh: it makes the "
            "log anew, takes a new snapshot, and deletes what is gone from the target."
        )

    def _log(self, home: Home) -> ChangeLog:
        return change_log(engine(self.connection), self.table, self.key, home.name, self.where)

    def _source_errors(self) -> contextlib.AbstractContextManager[None]:
        return dialect_of(engine(self.connection)).translated(self.where, SourceUnavailable, SourceError)


@dataclass(frozen=True)
class _Place:
    """Where a feed stands.

    Attributes:
        name: of the log.
        token: of the log.
        seen: which of its rows are in the target, in the database's terms.
        chunk: that read them; the log names it once it has deleted them.
        forgotten: the chunk that the log named then.
        rows: how many of its rows are seen, and will be deleted.
        time: of the source, UTC, that none of the changes that follow is dated before; None where an older release left
            off.
    """

    name: str
    token: str
    seen: str
    chunk: str
    forgotten: str
    rows: int
    time: datetime | None = None

    def __str__(self) -> str:
        time = None if self.time is None else self.time.isoformat()
        return json.dumps({"log": self.name, **{field: getattr(self, field) for field in _FIELDS}, "time": time})

    @classmethod
    def at(cls, log: ChangeLog, reading: Reading, token: str, after: str | None, chunk: str) -> "_Place":
        """Where `reading` ends, which goes on from `after`."""
        seen = log.seen(reading, after)
        return cls(log.name, token, seen, chunk, log.forgotten(reading), log.held(reading, seen))

    @classmethod
    def of(cls, home: Home, position: str | None) -> "_Place | None":
        """The place that `position` says; None to begin anew, also where the log it names has been removed."""
        if position is None:
            return None
        known = json.loads(position)
        if known["log"] != home.name:
            return None
        time = known.get("time")
        return replace(
            cls(known["log"], *(known[field] for field in _FIELDS)), time=None if time is None else to_utc(time)
        )


_FIELDS = ("token", "seen", "chunk", "forgotten", "rows")


@dataclass
class _LogChunk:
    """The changes that have not been seen, or the whole table.

    The source is let go of as soon as everything is read: on SQLite a reader keeps whoever writes from committing, this
    chunk's own `acknowledge` included, and elsewhere it keeps the table from being altered.
    """

    feed: TriggerExtract
    log: ChangeLog
    reading: Reading
    held: contextlib.ExitStack
    place: _Place
    after: str | None
    covered_until: datetime | None
    reshaped: bool
    since: datetime | None

    more = False

    @property
    def dated_at(self) -> datetime | None:
        return self.place.time

    @property
    def source_clock(self) -> datetime | None:
        return self.covered_until

    @property
    def position(self) -> str:
        return str(self.place)

    def batches(self) -> Iterator[pa.Table]:
        with self.feed._source_errors():
            yield from self._snapshot() if self.after is None else self._changes(self.after)
            self.held.close()

    def _snapshot(self) -> Iterator[pa.Table]:
        yield pa.table({OPERATION: ["snapshot"]})
        yield from self.reading.tables(self.log.rows())

    def _changes(self, after: str) -> Iterator[pa.Table]:
        for batch in self.reading.tables(self.log.changes(after)):
            mask = self.log.mask(after, np.asarray(batch.column(CHANGE), dtype=np.int64))
            unseen = batch if mask is None else batch.filter(pa.array(mask))
            if unseen.num_rows:
                times = self._times(unseen)
                self.place = replace(self.place, time=later(self.place.time, times[-1].as_py()))
                yield _as_changes(unseen, list(self.log.source.c.keys()), times)

    def _times(self, batch: pa.Table) -> pa.Array:
        """When each change was made, but not before the one that the log has before it.

        Who waits for a row may have taken the time before the one he waits for; and what an earlier reading did not
        show was not there then, whenever it was made.
        """
        made = cursor_values(batch, CHANGED_AT, self.feed.where)
        since = pa.chunked_array([pa.array([self.since or made[0].as_py()], UTC_TIMESTAMP)])
        counted = np.asarray(pa.chunked_array([*since.chunks, *made.chunks]).cast(pa.int64()))
        times = pa.array(np.maximum.accumulate(counted)[1:]).cast(UTC_TIMESTAMP)
        self.since = times[-1].as_py()
        return times

    def remember(self, connection: Any) -> None:
        pass

    def acknowledge(self) -> None:
        with self.feed._source_errors():
            self.log.forget(self.place.seen, self.place.chunk)

    def notices(self) -> Sequence[Notice]:
        table = self.feed.table
        with self.feed._source_errors():
            rows, age = self.log.waiting(self.place.seen)
        seconds = round(age.total_seconds(), 3)
        found = [
            Notice(
                "etl.log.waiting",
                f"{rows:,} changes of {table} wait in its change log, the oldest for {seconds:g} s.",
                {"table": table, "rows": rows, "seconds": seconds},
            )
        ]
        if self.reshaped:
            text = (
                f"{table} had changed in a way that triggers do not tell, its columns for instance; a new snapshot was "
                "taken."
            )
            found.append(Notice("etl.log.reshaped", text, {"table": table}))
        return found


def _as_changes(batch: pa.Table, columns: list[str], times: pa.Array) -> pa.Table:
    """Rows of a log in the form of `tasks.change_columns`."""
    batch = batch.combine_chunks()
    operations = batch.column(OPERATION)
    gone = pc.equal(operations, "delete")
    known = pc.is_in(operations, pa.array(["update", "delete"]))
    old = [_array(batch.column(f"old_{name}")) for name in columns]
    new = [_array(batch.column(f"new_{name}")) for name in columns]
    before = pa.StructArray.from_arrays(old, names=columns, mask=pc.invert(_array(known)))
    numbers = pc.utf8_lpad(pc.cast(batch.column(CHANGE), pa.string()), 20, "0")
    return pa.table(
        {
            OPERATION: pc.cast(operations, pa.string()),
            BEFORE: before,
            POSITION: numbers,
            COMMITTED_AT: times,
            **{name: _chosen(gone, b, a) for name, b, a in zip(columns, old, new, strict=True)},
        }
    )


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _chosen(gone: pa.ChunkedArray, old: pa.Array, new: pa.Array) -> pa.Array:
    """The value before where the row is gone, else the one after; both of one type, but for batches of NULL or text."""
    if old.type != new.type:
        kinds = [array.type for array in (old, new) if not pa.types.is_null(array.type)]
        kind = kinds[0] if len(kinds) == 1 else pa.string()
        old, new = pc.cast(old, kind), pc.cast(new, kind)
    places = np.arange(len(new)) + len(new) * np.asarray(gone).astype(np.int64)
    return pa.concat_arrays([new, old]).take(pa.array(places))
