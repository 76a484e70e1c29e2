"""What staging learns of the time of a change: by the cursor, else by the change itself, else by the chunk."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pandera
import pyarrow as pa
import pytest

from tasks.change_columns import COMMITTED_AT, OPERATION, Clearing
from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import ContractError
from tasks.state.staged import CHANGED_AT, DELETED, ROW
from tasks.transform.contract import SIBLINGS, Contract, Judged, UtcTimestamp
from tasks.transform.dating import Dating

START = datetime(2026, 1, 1, tzinfo=UTC)
OPERATIONS = ["insert", "delete", "update", "delete", "insert"]
TIMES = [START + timedelta(hours=place) for place in range(len(OPERATIONS))]
LATER = START + timedelta(days=9)


class ItemSchema(pandera.DataFrameModel):
    """An item; a negative amount is bad."""

    id: int
    amount: int = pandera.Field(nullable=True, ge=0)


class DatedSchema(ItemSchema):
    """An item that tells when it was changed."""

    updated_at: UtcTimestamp


PLAIN = Contract("items", ItemSchema, key=["id"])
DATED = Contract("items", DatedSchema, key=["id"], cursor="updated_at")


def judged(contract: Contract, first: int, chunk_time: datetime | None = None, **told: pa.Array) -> Judged:
    """Five changes after the contract, the last of which is bad."""
    raw = pa.table({"id": pa.array(range(5), pa.int64()), "amount": [1, None, 3, None, -1], **told})
    return Dating(contract, lambda: chunk_time).judge(raw, first)


def times(found: Judged) -> list[Any]:
    """Of the good rows, in the order of their keys."""
    listed: list[Any] = found.valid.sort_by("id").column(CHANGED_AT).to_pylist()
    return listed


@pytest.mark.parametrize("first", [0, 1_000])
def test_each_row_has_the_time_of_its_own_change(first: int) -> None:
    """Rows and deletes are judged apart, and the batch need not be the window's first."""
    told = {OPERATION: pa.array(OPERATIONS), COMMITTED_AT: pa.array(TIMES, UTC_TIMESTAMP)}
    found = judged(PLAIN, first, LATER, **told)
    assert times(found) == TIMES[:4]
    assert found.valid.sort_by("id").column(DELETED).to_pylist() == [False, True, False, True]


def test_what_comes_without_a_time_has_the_chunks() -> None:
    assert times(judged(PLAIN, 0, LATER)) == [LATER] * 4
    told = {OPERATION: pa.array(OPERATIONS), COMMITTED_AT: pa.array([None, *TIMES[1:]], UTC_TIMESTAMP)}
    assert times(judged(PLAIN, 0, LATER, **told)) == [LATER, *TIMES[1:4]]


def test_a_cursor_that_is_an_instant_comes_first() -> None:
    """A delete whose cursor the source does not tell has its own time."""
    cursors = [START - timedelta(days=1), None, START - timedelta(days=2), START, START]
    told = {
        OPERATION: pa.array(OPERATIONS),
        COMMITTED_AT: pa.array(TIMES, UTC_TIMESTAMP),
        "updated_at": pa.array(cursors, UTC_TIMESTAMP),
    }
    assert times(judged(DATED, 0, LATER, **told)) == [cursors[0], TIMES[1], *cursors[2:4]]


def test_a_change_of_which_nobody_tells_the_time_is_a_dead_letter() -> None:
    cursors = pa.array([START, None, START, START, START], UTC_TIMESTAMP)
    found = judged(DATED, 1_000, **{OPERATION: pa.array(OPERATIONS), "updated_at": cursors})
    assert found.valid.num_rows == 3
    letters = {letter["key_0"]: letter for letter in found.rejected.to_pylist()}
    assert set(letters) == {1, 4}
    assert [reason["rule"] for reason in json.loads(letters[1]["reasons"])] == ["a change has its time"]
    assert (letters[1][ROW], json.loads(letters[1]["record"])["id"]) == (1_001 << SIBLINGS, 1)


def test_every_marker_is_told_with_its_time() -> None:
    told = {
        OPERATION: pa.array(["truncate", "insert", "truncate", "insert", "snapshot"]),
        COMMITTED_AT: pa.array([*TIMES[:4], None], UTC_TIMESTAMP),
    }
    assert judged(PLAIN, 10, LATER, **told).clearings == (
        Clearing(10 << SIBLINGS, "truncate", TIMES[0]),
        Clearing(12 << SIBLINGS, "truncate", TIMES[2]),
        Clearing(14 << SIBLINGS, "snapshot", LATER),
    )


def test_a_marker_without_a_time_stops_the_run() -> None:
    with pytest.raises(ContractError, match="emptied or read anew, and not when"):
        judged(PLAIN, 0, **{OPERATION: pa.array(["snapshot", *OPERATIONS[1:]])})
