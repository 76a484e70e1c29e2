"""`Extract`: what every way of reading ranges of a source offers to the pipeline.

A batch is a `pyarrow.Table` of raw source rows, in the source's own column names and types. What goes on from a
position instead is a `Feed`; see `feed.py`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import ContractError
from tasks.window import Window

CURSOR_TYPE = pa.timestamp("us", "UTC")


class Extract(Protocol):
    """A declaration of what to read by ranges of a cursor, or whole. Frozen, comparable, without secrets."""

    @property
    def connection(self) -> str:
        """Name of the source; see `tasks.connections`."""

    @property
    def dataset(self) -> str:
        """What is read from it, for messages and lineage: a table, a query's name, a path."""

    @property
    def cursor(self) -> str | None:
        """Raw column that orders changes in source time, or None for an extract of the whole source."""

    @property
    def lookback(self) -> timedelta:
        """How far before the watermark the next incremental window starts."""

    @property
    def initial(self) -> datetime | None:
        """Where the first incremental window starts (UTC); None is the beginning."""

    @property
    def tells_deletes(self) -> bool:
        """Whether its batches carry `etl_operation`, and so may say that a row is gone; see `tasks.change_columns`."""

    def bound(self) -> datetime | None:
        """Source time (UTC) below which nothing can change any more; None without a cursor.

        Read it before the first batch is.

        Raises:
            SourceUnavailable: the source did not answer.
            SourceError: the source refused.
            ConfigError: the bound cannot be proven with the rights this connection has.
        """

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """The raw rows whose cursor lies in `window`, or all of them without a cursor, in bounded batches.

        Raises:
            SourceUnavailable: the source did not answer, or broke off half way.
            SourceError: the source refused.
        """

    def null_cursors(self) -> int:
        """How many source rows have no cursor and are therefore in no window; 0 where nobody can tell."""


def cursor_values(rows: pa.Table, cursor: str, source: str) -> pa.ChunkedArray:
    """The cursor of every raw row as `timestamp[us, UTC]`; naive values and dates count as UTC.

    A single text that is no time becomes NULL: the contract judges its row, and the others go on.

    Args:
        rows: raw rows.
        cursor: the name of the cursor column, of type timestamp, date or ISO 8601 text.
        source: what is read, for the message.

    Raises:
        ContractError: the column is missing, of another type, or not one of its values is a time.
    """
    if cursor not in rows.column_names:
        raise ContractError(
            f"{source}: the cursor {cursor!r} is not among the columns read ({', '.join(rows.column_names)}). "
            "Select it, or name another cursor."
        )
    values = rows.column(cursor)
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pc.cast(values, CURSOR_TYPE, safe=False)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pc.assume_timezone(pc.cast(values, pa.timestamp("us"), safe=False), "UTC")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        times = pd.to_datetime(values.to_pandas(), utc=True, format="ISO8601", errors="coerce")
        read = pa.chunked_array([pa.Array.from_pandas(times).cast(CURSOR_TYPE, safe=False)])
        if read.null_count < len(read) or values.null_count == len(values):
            return read
    elif pa.types.is_null(kind):
        return pc.cast(values, CURSOR_TYPE)
    example = next((value for value in values.to_pylist() if value is not None), None)
    raise ContractError(
        f"{source}: the cursor {cursor!r} is of type {kind} and holds {example!r}, which is no time. "
        "A cursor is a timestamp, a date or ISO 8601 text: convert it in the query, or name another. For a number that "
        "only grows, or a ULID, there is SequenceExtract."
    )
