"""A raw record as JSON, exact enough to be replayed."""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa


def encode_records(raw: pa.Table, positions: Sequence[int]) -> tuple[list[str], list[str]]:
    """The rows at `positions` as JSON objects, and a hash of each that is equal for equal records.

    Decimals become text, times ISO 8601, bytes base64: the types of `record_types` tell how to read them back.
    """
    picked = raw.take(pa.array(positions, pa.int64())) if len(positions) else raw.slice(0, 0)
    records = [encode(row) for row in _rows(picked)]
    return records, [hashlib.sha256(record.encode()).hexdigest()[:32] for record in records]


def _rows(picked: pa.Table) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = picked.to_pylist()
    except (OverflowError, ValueError):
        # A date that Python does not have: all those of its column as texts.
        for place, field in enumerate(picked.schema):
            if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
                picked = picked.set_column(place, field.name, picked.column(place).cast(pa.string()))
        rows = picked.to_pylist()
    return rows


def record_types(raw: pa.Table) -> str:
    """The Arrow type of every column, as a JSON object."""
    return encode({field.name: str(field.type) for field in raw.schema})


def encode(value: Any) -> str:
    """`value` as JSON."""
    return json.dumps(value, default=_encode_other, ensure_ascii=False)


def _encode_other(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "item"):
        return value.item()
    return str(value)
