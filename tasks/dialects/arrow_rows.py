"""`arrow_table`: rows as a driver hands them out, made columns of Arrow."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa


def arrow_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Rows of Python values as Arrow; naive datetimes stay naive, a column of mixed types becomes text."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pa.table({name: _arrow_array(values) for name, values in zip(names, columns, strict=True)})


def _arrow_array(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])
