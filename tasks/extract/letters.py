"""`LettersExtract`: the open dead letters of a pipeline as its source: what came once, judged anew."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

import pyarrow as pa
from sqlalchemy import Connection

from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.errors import SourceError, SourceUnavailable
from tasks.extract.feed import Home, Notice, Opening
from tasks.state.dead_letters import close_as_seen
from tasks.state.letters import Wanted, has_record, letter_pages
from tasks.state.record_reading import read_records
from tasks.window import Window


@dataclass(frozen=True)
class LettersExtract:
    """Read the raw records of dead letters, as the source gave them; one that has none any more is left out.

    Attributes:
        connection: the target database, which keeps the letters.
        wanted: which of them.
        cursor: as the pipeline's own extract has it.
        tells_deletes: as the pipeline's own extract does.
    """

    connection: str
    wanted: Wanted
    cursor: str | None
    tells_deletes: bool

    lookback = timedelta(0)
    initial = None

    @property
    def dataset(self) -> str:
        """For messages and lineage."""
        return f"the dead letters of {self.wanted.pipeline}"

    def bound(self) -> datetime | None:
        """None: they lie in no window."""
        return None

    def null_cursors(self) -> int:
        """0: no window leaves one out."""
        return 0

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """All that have their record, whatever the window; none is closed."""
        return LettersChunk(self, None).batches()

    def unfinished(self, position: str | None) -> Window | None:
        """None: all are read at once."""
        return None

    def open_window(self, asked: Opening) -> "LettersChunk":
        """See `Resumable.open_window`."""
        return LettersChunk(self, asked.home)


@dataclass
class LettersChunk:
    """What one commit takes, which is all of them; 16 bytes of memory for each.

    The commit closes what was read, and then files what is bad still, which opens its letter again. A letter that
    another run has seen meanwhile stays open, with the record that it has now.

    Attributes:
        extract: what is read.
        home: whose commit it is; None for a reading that nothing comes of.
    """

    extract: LettersExtract
    home: Home | None
    _numbers: "array[int]" = field(default_factory=lambda: array("q"))
    _times: "array[int]" = field(default_factory=lambda: array("q"))

    position = None
    covered_until = None
    source_clock = None
    more = False

    def batches(self) -> Iterator[pa.Table]:
        """In the order of their numbers, those that follow each other together where their columns are the same."""
        source = engine(self.extract.connection)
        with dialect_of(source).translated(self.extract.dataset, SourceUnavailable, SourceError):
            for letters in letter_pages(source.connect, self.extract.wanted):
                page = [row for row in letters if has_record(row)]
                self._numbers.extend(row.letter for row in page)
                self._times.extend(row.times_seen for row in page)
                for types, alike in groupby(page, lambda row: str(row.record_types)):
                    yield read_records([row.record for row in alike], types)

    def remember(self, connection: Connection) -> None:
        """Close what was read; inside the commit."""
        if self.home is not None:
            now = self.home.dialect.clock(connection)
            close_as_seen(connection, zip(self._numbers, self._times, strict=True), self.home.attempt, now)

    def acknowledge(self) -> None:
        """Nothing."""

    def notices(self) -> Sequence[Notice]:
        """None."""
        return ()
