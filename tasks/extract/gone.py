"""`GoneExtract`: rows that somebody has found to be gone from a source, as deletes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from tasks.change_columns import OPERATION
from tasks.window import Window


@dataclass(frozen=True)
class GoneExtract:
    """Hand on deletes, each with the cursor of the row that is to go.

    A row that has become newer meanwhile has a later cursor, and stays.

    Attributes:
        rows: keys and cursors, in the contract's columns and types.
        dataset: what the pipeline itself reads.
        cursor: as the pipeline's own extract has it.
        connection: likewise.
    """

    rows: pa.Table
    dataset: str
    cursor: str
    connection: str

    lookback = timedelta(0)
    initial = None
    tells_deletes = True

    def bound(self) -> datetime | None:
        """None: they lie in no window."""
        return None

    def null_cursors(self) -> int:
        """0: no window leaves one out."""
        return 0

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """All of them, whatever the window."""
        yield self.rows.append_column(OPERATION, pa.array(["delete"] * self.rows.num_rows))
