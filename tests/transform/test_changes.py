"""What staging learns of a change beside its row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pandera
import pyarrow as pa

from tasks.change_columns import COMMITTED_AT, OPERATION
from tasks.column_types import UTC_TIMESTAMP
from tasks.state.dead_letters import CHANGED_AT, DELETED
from tasks.transform.changes import judge_changes
from tasks.transform.contract import Contract

START = datetime(2026, 1, 1, tzinfo=UTC)
OPERATIONS = ["insert", "delete", "update", "delete", "insert"]
TIMES = [START + timedelta(hours=place) for place in range(len(OPERATIONS))]


class ItemSchema(pandera.DataFrameModel):
    """An item; a negative amount is bad."""

    id: int
    amount: int = pandera.Field(nullable=True, ge=0)


CONTRACT = Contract("items", ItemSchema, key=["id"])


def judged(first: int, **told: pa.Array) -> dict[str, list[Any]]:
    """The good rows of five changes, the last of which is bad."""
    raw = pa.table({"id": pa.array(range(5), pa.int64()), "amount": [1, None, 3, None, -1], **told})
    valid: dict[str, list[Any]] = judge_changes(CONTRACT, raw, first).valid.sort_by("id").to_pydict()
    return valid


def test_each_row_keeps_the_time_of_its_own_change() -> None:
    """Rows and deletes are judged apart, and the batch need not be the window's first."""
    told = {OPERATION: pa.array(OPERATIONS), COMMITTED_AT: pa.array(TIMES, UTC_TIMESTAMP)}
    for first in (0, 1_000):
        valid = judged(first, **told)
        assert valid["id"] == [0, 1, 2, 3]
        assert valid[DELETED] == [False, True, False, True]
        assert valid[CHANGED_AT] == TIMES[:4]


def test_a_change_without_a_time_has_none() -> None:
    assert judged(0, **{OPERATION: pa.array(OPERATIONS)})[CHANGED_AT] == [None] * 4


def test_a_batch_without_operations_has_neither_deletes_nor_times() -> None:
    valid = judged(0)
    assert (valid[DELETED], valid[CHANGED_AT]) == ([False] * 4, [None] * 4)
