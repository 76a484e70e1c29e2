"""A cursor that names no zone, handed on as the instants it stands for."""

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import ContractError
from tasks.extract.changes import cursor_values
from tasks.local_time import LocalTime

_OFFSET = r"\d[T ].*(Z|[+-]\d\d(:?\d\d)?)\s*$"


def cursor_in_utc(rows: pa.Table, cursor: str, source: str, zone: LocalTime) -> pa.Table:
    """`rows` with their cursor, naive times, dates or texts of `zone`, as `timestamp[us, UTC]`.

    Where a text is no time, the column stays text, ISO 8601 with its offset, and that one as it came: the contract
    rejects its row, with what was in it.

    Raises:
        ContractError: the cursor is missing, holds no times, or already says which zone it is in.
    """
    shown = pc.cast(cursor_values(rows, cursor, source), pa.timestamp("us"))
    values = rows.column(cursor)
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if (pa.types.is_timestamp(values.type) and values.type.tz is not None) or (
        text and pc.any(pc.match_substring_regex(values, _OFFSET)).as_py()
    ):
        raise ContractError(
            f"{source}: the cursor {cursor!r} says itself which zone its times are in. Leave out zone={zone.zone!r}."
        )
    instants = zone.instants(shown)
    if text and instants.null_count > values.null_count:
        instants = pa.chunked_array([[
            came if instant is None else instant.isoformat()
            for came, instant in zip(values.to_pylist(), instants.to_pylist(), strict=True)
        ]], pa.string())  # fmt: skip
    return rows.set_column(rows.column_names.index(cursor), cursor, instants)
