"""A raw record as JSON, exact enough to be replayed."""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from tasks.masking import NO_MASKING, Masking

ALIKE = "masked-"
"""Before the hash of a masked record: several rows may have the same."""


def encode_records(
    raw: pa.Table, positions: Sequence[int], masking: Masking = NO_MASKING
) -> tuple[list[str], list[str]]:
    """The rows at `positions` as JSON objects, masked, and a hash of each that is equal for equal records.

    Decimals become text, times ISO 8601, bytes base64: the types of `record_types` tell how to read them back.
    """
    records = [encode(masking.record(row)) for row in plain_rows(raw, positions)]
    return records, [record_hash(record, masking) for record in records]


def record_hash(record: str, masking: Masking) -> str:
    """What tells a record, given as JSON and masked, from others.

    It is made of what may be seen. Of the values that may not, a hash would be as good as the value: there are only so
    many birthdays, and whoever reads the letter has the other fields to try them with.
    """
    digest = hashlib.sha256(record.encode()).hexdigest()[:32]
    return f"{ALIKE}{digest}" if masking else digest


def plain_rows(raw: pa.Table, positions: Sequence[int]) -> list[dict[str, Any]]:
    """The rows at `positions`, whatever they hold."""
    picked = raw.take(pa.array(positions, pa.int64())) if len(positions) else raw.slice(0, 0)
    try:
        rows: list[dict[str, Any]] = picked.to_pylist()
    except (OverflowError, ValueError):
        # A date that Python does not have: all those of its column as texts.
        for place, field in enumerate(picked.schema):
            if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
                picked = picked.set_column(place, field.name, picked.column(place).cast(pa.string()))
        rows = picked.to_pylist()
    return rows


def record_types(raw: pa.Table, masking: Masking = NO_MASKING) -> str:
    """The Arrow type of every column, as a JSON object; a masked one has none."""
    return encode(masking.types({field.name: str(field.type) for field in raw.schema}))


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
