"""`Unheld`: values of a batch that a target cannot hold, and how they are found.

A batch that has none costs a look through its buffers, and no object for a value.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.json_documents import fits_jsonb

_DAY = 86_400_000_000
"""A day in microseconds."""

YEARS_1_TO_9999 = (-719_162, 2_932_896)
"""The first and the last day, counted from 1970, that Python has, and every database whose years have four digits."""

JULIAN_DAYS = (-2_440_588, 2_145_042_906)
"""Those that PostgreSQL has: 24 November 4714 BC to the end of 5874897."""

Find = Callable[[pa.ChunkedArray], pa.ChunkedArray | None]
"""The rows of a column that have such a value, as booleans, never NULL; None where there are none."""


@dataclass(frozen=True)
class Unheld:
    """Values of one column that the target cannot hold.

    Attributes:
        column: its name.
        rule: what the target holds, as a dead letter names it.
        rows: which rows have such a value; never NULL.
    """

    column: str
    rule: str
    rows: pa.ChunkedArray


def in_columns(rows: pa.Table, holds: Callable[[pa.Field], Iterator[tuple[str, Find]]]) -> list[Unheld]:
    """What of `rows` is not held, by what `holds` asks of each of its columns."""
    return [
        Unheld(field.name, rule, found)
        for field in rows.schema
        for rule, find in holds(field)
        if rows.num_rows and (found := find(rows.column(field.name))) is not None
    ]


def has_nul(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A text, or a list of texts, with a NUL character in it."""
    if not any(_has_zero_byte(chunk) for chunk in column.chunks):
        return None
    if pa.types.is_list(column.type):
        values = [any("\0" in text for text in row or () if text is not None) for row in column.to_pylist()]
        return _some(pa.chunked_array([pa.array(values, pa.bool_())]))
    return _some(pc.match_substring(column, "\0"))


def is_no_jsonb(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A JSON document that `jsonb` cannot hold."""
    return _some(
        pa.chunked_array([pa.array([text is not None and not fits_jsonb(text) for text in column.to_pylist()])])
    )


def is_nan(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A floating-point number that is none."""
    return _some(pc.is_nan(column))


def is_not_finite(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A floating-point number that is none, or infinite."""
    return _some(pc.invert(pc.is_finite(column)))


def longer_than(length: int) -> Find:
    """A text of more characters, or bytes of which there are more."""

    def find(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
        size = pc.utf8_length(column) if pa.types.is_string(column.type) else pc.binary_length(column)
        return _some(pc.greater(size, length))

    return find


def outside_of(days: tuple[int, int]) -> Find:
    """A date or a timestamp before the first of `days`, or after the last."""

    def find(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
        first, last = days
        kind, numbers = (pa.int32(), days) if pa.types.is_date(column.type) else (
            pa.int64(), (max(first * _DAY, -(2**63)), min((last + 1) * _DAY - 1, 2**63 - 1)))  # fmt: skip
        counted = pa.chunked_array([chunk.view(kind) for chunk in column.chunks], kind)
        bounds = pc.min_max(counted).as_py()
        if bounds["min"] is None or (numbers[0] <= bounds["min"] and bounds["max"] <= numbers[1]):
            return None
        return _some(pc.or_(pc.less(counted, numbers[0]), pc.greater(counted, numbers[1])))

    return find


def _some(found: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return pc.fill_null(found, False) if pc.any(found).as_py() else None


def _has_zero_byte(array: pa.Array) -> bool:
    """Whether there is one among the bytes of its texts; one between them does no harm but to cost a second look."""
    texts = array.flatten() if pa.types.is_list(array.type) else array
    values = texts.buffers()[2]
    if values is None or not len(texts):
        return False
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return not np.frombuffer(values, np.uint8)[offsets[0] : offsets[-1]].all()
