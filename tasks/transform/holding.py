"""What of a batch the target's database cannot hold, set apart from what it can."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.dialects.unheld import Unheld

FindUnheld = Callable[[pa.Table], Sequence[Unheld]]
"""The values of a batch that a database cannot hold."""


def holds_everything(_rows: pa.Table) -> Sequence[Unheld]:
    """As if no database were in the way."""
    return ()


def set_apart(rows: pa.Table, find: FindUnheld) -> tuple[pa.Table, list[tuple[int, dict[str, Any]]]]:
    """`rows` with NULL where the target cannot hold the value, and a reason for each, by the row's position."""
    reasons = []
    for unheld in find(rows):
        values = rows.column(unheld.column)
        positions = np.flatnonzero(unheld.rows.to_numpy(zero_copy_only=False))
        reasons += [
            (int(place), {"rule": unheld.rule, "column": unheld.column, "value": readable(values[int(place)])})
            for place in positions
        ]
        where = rows.schema.get_field_index(unheld.column)
        rows = rows.set_column(where, rows.schema.field(where), _without(values, positions))
    return rows, reasons


def readable(value: pa.Scalar) -> Any:
    """A value as a dead letter names it; a date that Python does not have as a text."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return value.cast(pa.string()).as_py()


def _without(values: pa.ChunkedArray, positions: Any) -> pa.ChunkedArray:
    """`values` with NULL at `positions`; of any type, which `if_else` is not."""
    places = np.arange(len(values))
    places[positions] = -1
    return values.take(pa.array(places, mask=places < 0))
