"""`Feed`: an extract that goes on from a position: a log of changes, a snapshot compared with the last one.

Its batches carry the columns of `tasks.change_columns`; without them every row is one that is there now.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

import pyarrow as pa
from sqlalchemy import Connection, Engine

from tasks.dialects.dialect import Dialect
from tasks.partitioned import Partitioned
from tasks.shrink import Shrink, ShrinkLimit
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class Home:
    """Where a feed belongs.

    Attributes:
        pipeline: whose feed it is.
        name: what its slot, publication or change log is called at the source; see `tasks.state.feeds`.
        engine: the target database, for what a feed has to remember beside its position.
        dialect: its dialect.
        attempt: token of the attempt that reads, unique.
        opened_at: target clock, UTC, before its first row is read; None where nothing is.
        contract: fingerprint of what judges the rows.
        limit: how much smaller than at the last run what is read may be.
    """

    pipeline: str
    name: str
    engine: Engine
    dialect: Dialect
    attempt: str
    opened_at: datetime | None = None
    contract: str = ""
    limit: ShrinkLimit = field(default_factory=ShrinkLimit)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell of the source.

    Attributes:
        event: `etl.…`, emitted for the pipeline.
        text: a sentence for the log, without the pipeline's name.
        payload: the event's body, plain JSON.
        alarming: somebody should look at it.
    """

    event: str
    text: str
    payload: Mapping[str, str | int | float | None]
    alarming: bool = False


class Chunk(Protocol):
    """As much of a feed as one commit takes. `position` and what follows hold once the batches are exhausted."""

    def batches(self) -> Iterator[pa.Table]:
        """The changes after the position the chunk was opened at, in order, in bounded batches.

        Raises:
            SourceUnavailable: the source did not answer, or broke off half way.
            SourceError: the source refused.
        """

    @property
    def position(self) -> str | None:
        """Where the next chunk goes on; committed with the rows."""

    @property
    def covered_until(self) -> datetime | None:
        """Source time (UTC) before which every committed change has been read; None where the source has no clock."""

    @property
    def source_clock(self) -> datetime | None:
        """The source's time (UTC) when the chunk was opened. A run ends where its first chunk's time is covered."""

    @property
    def more(self) -> bool:
        """Whether changes wait that this chunk was too small for."""

    def remember(self, connection: Connection) -> None:
        """Write what the feed keeps in the target beside its position; inside the commit."""

    def acknowledge(self) -> None:
        """Let the source forget what has been committed. When this never happens, the next chunk starts with it.

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused.
        """

    def notices(self) -> Sequence[Notice]:
        """What an operator wants to know of the source: the lag of a slot, for instance."""


@runtime_checkable
class Difference(Protocol):
    """A chunk that was found by comparing two snapshots; it tells, with its position, how much is gone."""

    @property
    def shrink(self) -> Shrink | None:
        """What the comparison says of the source's size; None where nothing was compared. The commit guards it."""


@runtime_checkable
class Dated(Protocol):
    """A chunk that knows the time of what comes without one, the rows of a snapshot for instance."""

    @property
    def dated_at(self) -> datetime | None:
        """Source time (UTC) at which they were so; no change that a later chunk brings happened before."""


@runtime_checkable
class Ordered(Protocol):
    """A chunk of rows that a cursor orders; it tells what the cursor leaves out, and what comes late by it."""

    @property
    def passed(self) -> datetime | int | str | None:
        """The cursor that earlier runs had come to; new rows below it are late. None: no row is."""

    def null_cursors(self) -> int:
        """How many rows of the source have no cursor, so that no run reads them."""


@runtime_checkable
class Part(Protocol):
    """A chunk of a window that may be read in several commits, or not at all where nothing has changed.

    The parts before the last leave the watermark where it is; the next run goes on behind the last committed one.
    """

    @property
    def highest(self) -> datetime | None:
        """The highest cursor of the window so far, UTC."""

    @property
    def began(self) -> datetime:
        """The target's clock (UTC) before the first row of the window was read."""

    @property
    def unchanged(self) -> bool:
        """The source says that it is what it was when the last run loaded it; there are no rows then."""


@runtime_checkable
class Requesting(Protocol):
    """A chunk that is read by HTTP requests."""

    def count_requests(self) -> int:
        """How many have been sent since it was last asked for: retries, redirects and logins included."""


@runtime_checkable
class Scoped(Protocol):
    """A chunk that brings some ranges of the target's partition column, and all that there is of them.

    `ReplacePartition` deletes of these ranges what did not come in; see `tasks.load.partition`.
    """

    @property
    def scope(self) -> tuple[Window, ...]:
        """Half-open ranges of the partition column, UTC. None at all: nothing is deleted for not having come in."""


@runtime_checkable
class Derived(Protocol):
    """An extract that is made of tables of the target: where they changed, or of a range that somebody asks for."""

    @property
    def reads(self) -> frozenset[str]:
        """The tables it is made of."""

    @property
    def by(self) -> Partitioned | None:
        """The partitions of what it brings, of which a range holds whole ones; None: it is always read whole."""

    def check(self, pipeline: str, dialect: Dialect) -> None:
        """Refuse what cannot be read as it is declared.

        Raises:
            ConfigError: it is refused.
        """


@runtime_checkable
class Clocked(Protocol):
    """An extract whose source may have a time of its own, a replica's or a replay's for instance."""

    def own_time(self) -> datetime | None:
        """What time it is there (UTC); None where it is the time of day.

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused.
        """


@runtime_checkable
class Slotted(Protocol):
    """A feed for which the source keeps log, which somebody has to fetch before its disk is full."""

    def slot_notices(self, slot: str) -> Sequence[Notice]:
        """How much log the source keeps now for the feed of that name; nothing where it keeps none.

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused.
        """


class Held:
    """What an extract keeps open from one commit of a window to the next. Close it when the window is done."""

    def __init__(self) -> None:
        self._reading: Closeable | None = None

    def going_on(self, position: str | None) -> "Closeable | None":
        """What is open, provided that everything it brought has been committed."""
        reading = self._reading
        return reading if reading is not None and position is not None and reading.position == position else None

    def keep(self, reading: "Closeable") -> None:
        """Hold `reading` instead of what was held."""
        self.close()
        self._reading = reading

    def close(self) -> None:
        """Let go of what is held."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None


class Closeable(Protocol):
    """Something that goes on where it is."""

    @property
    def position(self) -> str | None:
        """Where that is; None where it cannot go on."""

    def close(self) -> None:
        """Stop, and let go of everything."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What is asked of an extract that is read in parts.

    Attributes:
        window: what is read, unbounded where there is no cursor.
        position: what the last part or run left; one in another window is passed over. None in a run that is the first,
            or that reads everything anew.
        home: where it belongs.
        held: what may be kept open until the next part.
        whole: the load takes all of the window in one commit.
        passed: source time (UTC) that earlier runs had covered; None for a run that does not move the watermark.
        explicit: the run is over a range that somebody asked for, and leaves the watermark as it is.
    """

    window: Window
    position: str | None
    home: Home
    held: Held
    whole: bool
    passed: datetime | None
    explicit: bool


@runtime_checkable
class Resumable(Protocol):
    """An extract by windows that is read in parts; what it leaves for the next run is committed with them."""

    def unfinished(self, position: str | None) -> Window | None:
        """The window that `position` is a place in, or None where none was left."""

    def open_window(self, asked: Opening) -> Chunk:
        """The next part of a window.

        Raises:
            ConfigError: the source is not known.
        """


@runtime_checkable
class Feed(Protocol):
    """A declaration of what to follow. It has no readable past: no `start`, no `end`, but a new snapshot any time."""

    @property
    def connection(self) -> str:
        """Name of the source; see `tasks.connections`."""

    @property
    def dataset(self) -> str:
        """What is followed, for messages and lineage."""

    @property
    def cursor(self) -> str | None:
        """Raw column that orders the versions of a row, or None: then the order of the changes does."""

    @property
    def max_shrink(self) -> float:
        """Largest share of what was known, 0 to 1, that a snapshot may delete before it is refused."""

    @property
    def tells_times(self) -> bool:
        """Whether its changes have their source time, and its chunks one for rows that come without: see `Dated`."""

    def open(self, home: Home, position: str | None) -> AbstractContextManager[Chunk]:
        """The next chunk after the committed `position`; None starts anew, with a snapshot.

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused, or does not hold the changes after `position` any more.
        """

    def remove(self, home: Home) -> None:
        """Take away what the feed has made at the source and in the target. It may be there in part, or not at all.

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused.
        """
