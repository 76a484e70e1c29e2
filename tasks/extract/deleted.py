"""`with_operations`: rows that a column marks as gone, in the form in which a feed tells of deletes."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.change_columns import OPERATION


def with_operations(rows: pa.Table, deleted: str, judged: pa.ChunkedArray | None = None) -> pa.Table:
    """`rows` as changes: those that `deleted` marks as gone are deletes, the others updates.

    Args:
        rows: raw rows; where they lack the column, none is gone.
        deleted: column that marks a row: true, a number but 0, a time, or another text but "", "0" and "false".
        judged: for each row whether it may be a delete; None: each may.
    """
    gone = np.zeros(rows.num_rows, dtype=bool)
    if deleted in rows.column_names:
        gone = _marked(rows.column(deleted))
    if judged is not None:
        gone &= judged.to_numpy()
    return rows.append_column(OPERATION, pa.array(np.where(gone, "delete", "update"), pa.string()))


def _marked(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    kind = column.type
    if pa.types.is_boolean(kind):
        marks = pc.fill_null(column, False)
    elif pa.types.is_temporal(kind):
        marks = pc.is_valid(column)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        marks = pc.fill_null(pc.not_equal(column, pa.scalar(0, kind)), False)
    else:
        return np.fromiter(map(_says_so, column.to_pylist()), bool, len(column))
    return np.asarray(marks.to_numpy(), dtype=bool)


def _says_so(value: object) -> bool:
    return value not in (None, False, 0, "", "0") and str(value).lower() != "false"
