"""Dead letters as a batch leaves them, before anything of them is written: what is masked is masked here."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.masking import Masking
from tasks.state.record import encode, encode_records, plain_rows, record_types
from tasks.state.staged import ROW
from tasks.transform.reasons import Reason


def letters(
    raw: pa.Table,
    positions: Sequence[int],
    numbers: npt.NDArray[np.int64],
    keys: Sequence[pa.Array | pa.ChunkedArray],
    cursors: pa.Array | pa.ChunkedArray,
    reasons: Sequence[Sequence[Reason]],
    masking: Masking,
) -> pa.Table:
    """A batch of dead letters, in the columns of `tasks.state.dead_letters.rejected_schema`.

    Args:
        raw: the batch they came in.
        positions: their rows in it.
        numbers: their `etl_row`.
        keys: their key columns.
        cursors: their cursors.
        reasons: for each, the rules it broke.
        masking: the columns whose values are left out of records and reasons.
    """
    records, hashes = encode_records(raw, positions, masking)
    if masking:
        rows = plain_rows(raw, positions)
        reasons = [masking.reasons(found, row) for found, row in zip(reasons, rows, strict=True)]
    return pa.table(
        {
            ROW: pa.array(numbers, pa.int64()),
            **{f"key_{place}": column for place, column in enumerate(keys)},
            "cursor_value": cursors,
            "record": pa.array(records, pa.string()),
            "record_types": pa.array([record_types(raw, masking)] * len(records), pa.string()),
            "record_hash": pa.array(hashes, pa.string()),
            "reasons": pa.array([encode(list(found)) for found in reasons], pa.string()),
        }
    )
