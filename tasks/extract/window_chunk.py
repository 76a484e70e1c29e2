"""`WindowChunk`: one window of an `Extract`, in the form in which a feed hands out its changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from sqlalchemy import Connection

from tasks.extract.changes import Extract
from tasks.extract.feed import Notice
from tasks.window import Window


@dataclass(frozen=True)
class WindowChunk:
    """What lies in `window`; there is no position, and nothing to remember or to acknowledge.

    Attributes:
        extract: what is read.
        window: of its cursor, or unbounded.
        passed: source time (UTC) that earlier runs had covered; None for a run that does not move the watermark.
        counts_nulls: whether the source is asked how many of its rows are in no window.
    """

    extract: Extract
    window: Window
    passed: datetime | None = None
    counts_nulls: bool = False

    position = None
    source_clock = None
    more = False

    @property
    def covered_until(self) -> datetime | None:
        """Where the window ends."""
        return self.window.end

    def batches(self) -> Iterator[pa.Table]:
        """See `Extract.batches`."""
        return iter(()) if self.window.empty else self.extract.batches(self.window)

    def null_cursors(self) -> int:
        """See `Ordered.null_cursors`."""
        return self.extract.null_cursors() if self.counts_nulls else 0

    def remember(self, connection: Connection) -> None:
        """Nothing."""

    def acknowledge(self) -> None:
        """Nothing."""

    def notices(self) -> Sequence[Notice]:
        """None."""
        return ()
