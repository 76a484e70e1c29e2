"""`DebeziumEvents`: Debezium's change events from files, or from whatever hands them out: a dump, a consumer."""

import contextlib
import glob
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, cast

import pyarrow as pa
from sqlalchemy import Connection

from tasks.change_columns import OPERATION
from tasks.errors import ConfigError, SourceError, one_of
from tasks.extract.debezium_log.envelope import UNAVAILABLE, EnvelopeDecoder, Event, parsed, read_at
from tasks.extract.feed import Chunk, Home, Notice

_BATCH_EVENTS = 10_000

Events = Iterable[bytes | str | Mapping[str, Any] | None]


@dataclass(frozen=True)
class DebeziumEvents:
    """Change events of one table, one a line in files, or one after another from an iterable.

    Of files the position is a name and a line: they are read in the order of their names, and a file may grow. Of an
    iterable it is the place in the source's log that the events themselves tell: each run reads it from its start, or
    from any transaction that has been loaded, and passes over what has been.

    Attributes:
        files: names, with wildcards; what ends in `.gz` is unpacked.
        events: an iterable that can be read again, or what makes one.
        table: `name` or `schema.name`, where there are events of others; MySQL's and MariaDB's schema is the database.
        key: columns that identify a row; needed where a delete tells no more than those.
        full_before: whether `before` is the whole row: PostgreSQL tells it under REPLICA IDENTITY FULL. The binlog of
            MySQL and MariaDB always does.
        unavailable: what stands for a value that was left out, if Debezium was configured otherwise.
        chunk: changes after which a commit ends, once the transaction they are in does.
        max_shrink: largest share of the target, 0 to 1, that a new snapshot may delete before it is refused.

    Raises:
        ConfigError: neither files nor events are given, or both; a limit makes no sense.
    """

    files: str | Sequence[str] = ()
    events: Events | Callable[[], Events] | None = field(default=None, repr=False)
    table: str | None = None
    key: Sequence[str] = ()
    full_before: bool = False
    unavailable: str = UNAVAILABLE
    chunk: int = 1_000_000
    max_shrink: float = 0.5

    cursor = None
    tells_times = True
    connection = "debezium"

    def __post_init__(self) -> None:
        for name in ("key", "files"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if bool(self.files) == (self.events is not None):
            raise ConfigError("DebeziumEvents reads files or an iterable of events: give one of the two.")
        if self.chunk < 1 or not 0 <= self.max_shrink <= 1:
            raise ConfigError(
                f"DebeziumEvents: chunk is at least 1 and max_shrink is a share from 0 to 1, got {self.chunk} and "
                f"{self.max_shrink}."
            )

    @property
    def dataset(self) -> str:
        """The table, or where its events are."""
        return self.table or ", ".join(self.files) or "events"

    @property
    def where(self) -> str:
        """As a message begins."""
        return f"The events in {one_of(self.files)}" if self.files else f"The events of {self.dataset}"

    @contextlib.contextmanager
    def open(self, home: Home, position: str | None) -> Iterator[Chunk]:
        """See `Feed.open`."""
        yield _EventChunk(self, None if position is None else json.loads(position))

    def remove(self, home: Home) -> None:
        """See `Feed.remove`: nothing of ours is there."""

    def _is_ours(self, event: Event, seen: str) -> bool:
        """Whether the event is of the table that is followed; without a name, of the only one."""
        source = event.source
        schema, table = source.get("schema") or source.get("db") or "", source.get("table") or ""
        full = f"{schema}.{table}"
        if self.table is not None:
            return self.table in (full, table)
        if seen and seen != full:
            raise SourceError(f"{self.where} are of {seen} and of {full}. Name the one to load as `table`.")
        return True


class _EventChunk:
    """The events after a place, up to the end, or to the first transaction that makes it `feed.chunk` changes."""

    source_clock: datetime | None = None
    covered_until: datetime | None = None
    dated_at: datetime | None = None

    def __init__(self, feed: DebeziumEvents, place: dict[str, Any] | None) -> None:
        self.more = False
        self._feed = feed
        self._decoder = EnvelopeDecoder(feed.key, feed.where, feed.full_before, feed.unavailable)
        self._place: dict[str, Any] = dict(place or {})

    @property
    def position(self) -> str | None:
        return json.dumps(self._place) if self._place else None

    def batches(self) -> Iterator[pa.Table]:
        waiting: list[Event] = []
        changes, table, transaction = 0, "", None
        in_snapshot = bool(self._place.get("snapshot"))
        for event, place in self._placed():
            if event is not None and self._feed._is_ours(event, table):
                if changes >= self._feed.chunk and (transaction is None or _transaction(event) != transaction):
                    self.more = True
                    break
                table = f"{event.source.get('schema') or event.source.get('db') or ''}.{event.source.get('table')}"
                if event.snapshot and self.dated_at is None:
                    self.dated_at = read_at(event)
                if event.snapshot and not in_snapshot:
                    yield from self._decoder.decode(waiting)
                    waiting = []
                    yield pa.table({OPERATION: ["snapshot"]})
                in_snapshot = event.snapshot
                waiting.append(event)
                changes, transaction = changes + 1, _transaction(event)
                if len(waiting) >= _BATCH_EVENTS:
                    yield from self._decoder.decode(waiting)
                    waiting = []
            self._place = {**place, "snapshot": in_snapshot}
        yield from self._decoder.decode(waiting)

    def remember(self, connection: Connection) -> None:
        pass

    def acknowledge(self) -> None:
        pass

    def notices(self) -> Sequence[Notice]:
        return ()

    def _placed(self) -> Iterator[tuple[Event | None, dict[str, Any]]]:
        """Every event that has not been loaded, None for what is none, and the place after it."""
        return self._from_files() if self._feed.files else self._from_events()

    def _from_events(self) -> Iterator[tuple[Event | None, dict[str, Any]]]:
        source = self._feed.events
        last = str(self._place.get("seen", ""))
        for item in source() if callable(source) else source or ():
            event = parsed(item, self._feed.where)
            if event is None:
                continue
            event.position = self._decoder.position(event)
            if event.position > last:
                yield event, {"seen": event.position}

    def _from_files(self) -> Iterator[tuple[Event | None, dict[str, Any]]]:
        names = sorted({name for pattern in self._feed.files for name in glob.glob(pattern, recursive=True)})
        last, done = str(self._place.get("file", "")), int(self._place.get("line", 0))
        if not names and not last:
            raise SourceError(f"{self._feed.where}: no file of that name is there.")
        for number, name in enumerate(names):
            if name < last:
                continue
            if name == last and number > int(self._place.get("before", number)):
                raise SourceError(
                    f"{self._feed.where}: a file has appeared that sorts before {last!r}, which has been read. Name "
                    "files so that later events are in later ones, or load everything anew with full_refresh."
                )
            for line, text in self._lines(name, done if name == last else 0):
                event = parsed(text, f"{self._feed.where}, {name}:{line}")
                if event is not None:
                    event.position = self._decoder.position(event)
                yield event, {"file": name, "line": line, "before": number}

    def _lines(self, name: str, done: int) -> Iterator[tuple[int, bytes]]:
        """Lines after the first `done` ones, with their numbers; not the last one, while it is still being written."""
        try:
            with _opened(name) as file:
                for number, line in enumerate(file, 1):
                    if number > done and (line.endswith(b"\n") or _is_whole(line)):
                        yield number, line
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{self._feed.where}: {name} cannot be read ({error}).") from error


def _opened(name: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(name, "rb")) if name.endswith(".gz") else open(name, "rb")


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _transaction(event: Event) -> Any:
    """What tells the event's transaction from others; None where nothing does."""
    source = event.source
    return source.get("txId") or source.get("gtid") or (event.payload.get("transaction") or {}).get("id")
