"""`RowsExtract`: rows that are in memory already, as a source."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from tasks.change_columns import OPERATION
from tasks.window import Window

_BATCH_ROWS = 50_000


@dataclass(frozen=True)
class RowsExtract:
    """Hand on `rows`, for a flow that has made them itself, and for tests.

    Attributes:
        rows: what to load.
        dataset: what they are called in messages and lineage.
        cursor: column that orders changes in source time, or None.
        connection: where they come from, for messages.
    """

    rows: pa.Table
    dataset: str
    cursor: str | None = None
    connection: str = "memory"

    lookback = timedelta(0)
    initial = None

    @property
    def tells_deletes(self) -> bool:
        """See `Extract.tells_deletes`."""
        return OPERATION in self.rows.column_names

    def bound(self) -> datetime | None:
        """Rows in memory do not change any more: now."""
        return None if self.cursor is None else datetime.now(UTC)

    def null_cursors(self) -> int:
        """0: no window leaves a row out."""
        return 0

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """All rows, whatever the window: whoever made them chose it."""
        for start in range(0, self.rows.num_rows, _BATCH_ROWS):
            yield self.rows.slice(start, _BATCH_ROWS)
