"""The raw record of a dead letter: JSON from which the row can be made again."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pyarrow as pa
from hypothesis import strategies as st

from tasks.state.record import encode_records, record_types
from tests.properties.effort import Prove, effort


def test_every_value_keeps_all_its_digits() -> None:
    raw = pa.table(
        {
            "decimal": pa.array([Decimal("12345678901234567890.0100")]),
            "integer": pa.array([2**63 - 1]),
            "float": pa.array([0.1 + 0.2]),
            "instant": pa.array([datetime(2026, 1, 1, 5, 0, 0, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            "naive": pa.array([datetime(2026, 1, 1, 5)], pa.timestamp("us")),
            "day": pa.array([date(2026, 1, 1)]),
            "hour": pa.array([time(23, 59, 59, 999_999)]),
            "bytes": pa.array([b"\x00\xff"]),
            "text": pa.array(['quote " newline \n zero-width \u200b 🌊']),
            "nothing": pa.array([None], pa.string()),
            "nested": pa.array([{"days": [date(2026, 1, 1)]}]),
        }
    )
    ((record,), _) = encode_records(raw, [0])
    assert json.loads(record) == {
        "decimal": "12345678901234567890.0100",
        "integer": 2**63 - 1,
        "float": 0.1 + 0.2,
        "instant": "2026-01-01T05:00:00.000001+00:00",
        "naive": "2026-01-01T05:00:00",
        "day": "2026-01-01",
        "hour": "23:59:59.999999",
        "bytes": "AP8=",
        "text": 'quote " newline \n zero-width \u200b 🌊',
        "nothing": None,
        "nested": {"days": ["2026-01-01"]},
    }


def test_the_types_say_how_to_read_the_record_back() -> None:
    raw = pa.table({"at": pa.array([], pa.timestamp("us", "UTC")), "amount": pa.array([], pa.decimal128(5, 2))})
    assert json.loads(record_types(raw)) == {"at": "timestamp[us, tz=UTC]", "amount": "decimal128(5, 2)"}


def test_only_the_rows_asked_for_are_encoded_in_their_order() -> None:
    records, hashes = encode_records(pa.table({"id": [1, 2, 3]}), [2, 0])
    assert [json.loads(record)["id"] for record in records] == [3, 1]
    assert len(set(hashes)) == 2
    assert encode_records(pa.table({"id": [1]}), []) == ([], [])


@effort(few=50, many=1_000)
def test_equal_records_have_equal_hashes_and_no_others(prove: Prove) -> None:
    def claim(rows: list[tuple[int | None, str | None]]) -> None:
        table = pa.table({"id": pa.array([row[0] for row in rows], pa.int64()),
                          "name": pa.array([row[1] for row in rows], pa.string())})  # fmt: skip
        _, hashes = encode_records(table, range(len(rows)))
        assert {(one, other) for one in range(len(rows)) for other in range(len(rows)) if rows[one] == rows[other]} == {
            (one, other) for one in range(len(rows)) for other in range(len(rows)) if hashes[one] == hashes[other]
        }

    few_values = st.tuples(st.none() | st.integers(0, 2), st.none() | st.text('ab,"\\', max_size=3))
    prove(st.lists(few_values, max_size=8), claim)
