"""`Dating`: when each change of a batch happened, in the source's time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.change_columns import COMMITTED_AT, OPERATION, Clearing
from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import ContractError
from tasks.state.staged import CHANGED_AT, ROW
from tasks.transform.changes import judge_changes
from tasks.transform.contract import SIBLINGS, Contract, Judged
from tasks.transform.letters import letters

_MARKERS = pa.array(["truncate", "snapshot"])


@dataclass(frozen=True)
class Dating:
    """Judges a batch of changes, and finds their times: the cursor's, else the change's own, else the chunk's.

    Attributes:
        contract: the judge of the rows.
        chunk_time: source time (UTC) of rows that come without one, asked for batch by batch; None where there is none.
    """

    contract: Contract
    chunk_time: Callable[[], datetime | None]

    def judge(self, raw: pa.Table, first: int) -> Judged:
        """What `judge_changes` does, with `etl_changed_at` behind the good rows; a row without a time is a dead letter.

        Raises:
            ContractError: see `Contract.judge`; or a marker without a time.
        """
        judged = judge_changes(self.contract, raw, first)
        clearings = self._clearings(raw, first) if judged.markers else ()
        if not judged.valid.num_rows:
            return replace(judged, clearings=clearings)
        places = (judged.valid.column(ROW).to_numpy() >> SIBLINGS) - first
        times = self._times(judged.valid, raw, pa.array(places))
        if times.null_count:
            judged = self._without(judged, raw, places, np.asarray(pc.is_null(times)))
            times = times.drop_null()
        return replace(judged, valid=judged.valid.append_column(CHANGED_AT, times), clearings=clearings)

    def _times(self, valid: pa.Table, raw: pa.Table, places: pa.Array) -> pa.ChunkedArray:
        told = []
        if self.contract.time_cursor is not None:
            told.append(valid.column(self.contract.time_cursor))
        if COMMITTED_AT in raw.column_names:
            told.append(raw.column(COMMITTED_AT).take(places))
        told.append(pa.chunked_array([pa.array([self.chunk_time()] * len(places), UTC_TIMESTAMP)]))
        return pc.coalesce(*told)

    def _without(self, judged: Judged, raw: pa.Table, places: "np.typing.NDArray[np.int64]",
                 undated: "np.typing.NDArray[np.bool_]") -> Judged:  # fmt: skip
        """`judged` with its rows that have no time among the rejected."""
        rows = judged.valid.filter(pa.array(undated))
        reason = [{"rule": "a change has its time", "column": self.contract.time_cursor, "value": None}]
        made = letters(
            raw,
            places[undated].tolist(),
            rows.column(ROW).to_numpy(),
            [rows.column(name) for name in self.contract.key],
            pa.nulls(rows.num_rows, UTC_TIMESTAMP),
            [reason] * rows.num_rows,
            self.contract.masking,
        )
        return replace(
            judged,
            valid=judged.valid.filter(pa.array(~undated)),
            rejected=pa.concat_tables([judged.rejected, made]),
        )

    def _clearings(self, raw: pa.Table, first: int) -> tuple[Clearing, ...]:
        operations = raw.column(OPERATION)
        found = []
        for place in np.flatnonzero(pc.is_in(operations, _MARKERS)).tolist():
            own = raw.column(COMMITTED_AT)[place].as_py() if COMMITTED_AT in raw.column_names else None
            at = own or self.chunk_time()
            if at is None:
                raise ContractError(
                    f"{self.contract.pipeline}: the source says that its table was emptied or read anew, and not when, "
                    "so no version can be closed. Load it with Upsert."
                )
            found.append(Clearing((first + place) << SIBLINGS, operations[place].as_py(), at))
        return tuple(found)
