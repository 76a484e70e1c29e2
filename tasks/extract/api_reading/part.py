"""`ApiPart`: as much of an API's window as one commit takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa
from sqlalchemy import Connection

from tasks.extract.feed import Notice
from tasks.window import Window


class Left(Protocol):
    """What a reading leaves for the next part or run; as text, its position."""

    @property
    def place(self) -> object | None:
        """Where the window was left; None where it was read to its end."""


class Reading(Protocol):
    """A window while it is read, page by page."""

    @property
    def window(self) -> Window:
        """What is read."""

    @property
    def began(self) -> datetime:
        """The target's clock (UTC) before the first row of the window was read."""

    @property
    def highest(self) -> datetime | None:
        """The highest cursor of the window so far, UTC."""

    @property
    def unchanged(self) -> bool:
        """The source says that it is what it was when the last run loaded it."""

    @property
    def kept(self) -> Left:
        """Where it stands, once the last batches are exhausted."""

    def batches(self, pages: int | None) -> Iterator[pa.Table]:
        """The rows of about so many further pages, or of all."""

    def remember(self, connection: Connection) -> None:
        """Write what is kept in the target of those rows; inside the commit."""

    def notices(self) -> Sequence[Notice]:
        """What happened since it was last asked for."""

    def count_requests(self) -> int:
        """How many HTTP requests have been sent since it was last asked for."""


@dataclass
class ApiPart:
    """The next pages of a window. What it tells holds once its batches are exhausted.

    Attributes:
        reading: brings them.
        pages: how many; None takes all that are left.
        passed: cursor that earlier runs had come to; see `Ordered.passed`.
    """

    reading: Reading
    pages: int | None
    passed: datetime | None

    source_clock = None

    def batches(self) -> Iterator[pa.Table]:
        """See `Chunk.batches`; one batch is at most one page."""
        return self.reading.batches(self.pages)

    @property
    def position(self) -> str:
        """Where the next part goes on, and by what the next run asks whether anything has changed."""
        return str(self.reading.kept)

    @property
    def more(self) -> bool:
        """Whether the window has more pages."""
        return self.reading.kept.place is not None

    @property
    def covered_until(self) -> datetime | None:
        """Where the window ends; of one without end, the target's clock before the first row of it was read."""
        return None if self.more else self.reading.window.end or self.reading.began

    @property
    def highest(self) -> datetime | None:
        """See `Part.highest`."""
        return self.reading.highest

    @property
    def began(self) -> datetime:
        """See `Part.began`."""
        return self.reading.began

    @property
    def unchanged(self) -> bool:
        """See `Part.unchanged`."""
        return self.reading.unchanged

    def count_requests(self) -> int:
        """See `Requesting.count_requests`."""
        return self.reading.count_requests()

    def null_cursors(self) -> int:
        """0: an API does not tell."""
        return 0

    def remember(self, connection: Connection) -> None:
        """See `Chunk.remember`."""
        self.reading.remember(connection)

    def acknowledge(self) -> None:
        """Nothing."""

    def notices(self) -> Sequence[Notice]:
        """What happened on the way."""
        return self.reading.notices()
