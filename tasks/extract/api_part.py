"""`ApiPart`: as much of an API's window as one commit takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from sqlalchemy import Connection

from tasks.extract.api_reading import ApiReading
from tasks.extract.feed import Notice


@dataclass
class ApiPart:
    """The next pages of a window. What it tells holds once its batches are exhausted.

    Attributes:
        reading: brings them.
        pages: how many; None takes all that are left.
        passed: cursor that earlier runs had come to; see `Ordered.passed`.
    """

    reading: ApiReading
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
    def unchanged(self) -> bool:
        """See `Part.unchanged`."""
        return self.reading.unchanged

    def null_cursors(self) -> int:
        """0: an API does not tell."""
        return 0

    def remember(self, connection: Connection) -> None:
        """Nothing."""

    def acknowledge(self) -> None:
        """Nothing."""

    def notices(self) -> Sequence[Notice]:
        """What happened on the way."""
        return self.reading.notices()
