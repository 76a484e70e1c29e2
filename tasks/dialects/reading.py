"""`Reading`: several statements that see a source as it was at one moment."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlalchemy import Connection, Executable, Select, TextualSelect

if TYPE_CHECKING:
    from tasks.dialects.source import Source

_ROWS = 20_000


class Reading:
    """A transaction that only reads.

    Args:
        source: the dialect.
        connection: in the transaction.
    """

    def __init__(self, source: "Source", connection: Connection) -> None:
        self._source = source
        self._connection = connection

    def rows(self, statement: Executable) -> list[tuple[Any, ...]]:
        """The few rows of `statement`, as Python values."""
        return [tuple(row) for row in self._connection.execute(statement)]

    def tables(self, statement: Select[Any] | TextualSelect) -> Iterator[pa.Table]:
        """The rows of `statement`, streamed in bounded batches."""
        streamed = {"stream_results": True, "yield_per": _ROWS}
        result = self._connection.execute(statement, execution_options=streamed)
        as_arrow = self._source.arrow_maker(result)
        for rows in result.partitions():
            yield as_arrow(rows)


def only(rows: Sequence[tuple[Any, ...]]) -> Any:
    """The value of the one row with one column; None where there is no row."""
    return rows[0][0] if rows else None
