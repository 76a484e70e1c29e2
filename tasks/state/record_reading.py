"""Raw records read back from dead letters: the other half of `record.py`."""

import base64
import json
import re
from collections.abc import Sequence
from datetime import time
from typing import Any

import pyarrow as pa

_INSTANT = re.compile(r"timestamp\[(s|ms|us|ns), tz=(.+)\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)")
_FIXED = re.compile(r"fixed_size_binary\[(\d+)\]")
_DICTIONARY = re.compile(r"dictionary<values=(.+), indices=\w+, ordered=[01]>")
_DECIMALS = {"32": pa.decimal32, "64": pa.decimal64, "128": pa.decimal128, "256": pa.decimal256}


def read_records(records: Sequence[str], types: str) -> pa.Table:
    """The rows that `encode_records` wrote, a column for each of `types`.

    A value that its own type does not hold any more stays the text it was written as: the contract judges it. So does
    a value of a type that JSON says nothing of, an extension for instance; lists and structs are what their values are.

    Args:
        records: JSON objects of rows of the same types.
        types: what `record_types` wrote for them.
    """
    rows = [json.loads(record) for record in records]
    columns = {name: _column([row.get(name) for row in rows], kind) for name, kind in json.loads(types).items()}
    return pa.table(columns)


def _column(values: list[Any], named: str) -> pa.Array:
    kind = _arrow_type(named)
    if kind is None:
        return pa.array(values)
    try:
        return _typed(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _typed(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if value is None else base64.b64decode(value) for value in values], kind)
    if pa.types.is_time(kind):
        return pa.array([None if value is None else time.fromisoformat(value) for value in values], kind)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_decimal(kind):
        # By Arrow, not by Python: nanoseconds, and years that Python does not have.
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)


def _arrow_type(named: str) -> pa.DataType | None:
    """The type whose text is `named`; None where its values tell it as well, or nothing does."""
    if found := _INSTANT.fullmatch(named):
        return pa.timestamp(found[1], found[2])
    if found := _DECIMAL.fullmatch(named):
        return _DECIMALS[found[1]](int(found[2]), int(found[3]))
    if found := _FIXED.fullmatch(named):
        return pa.binary(int(found[1]))
    if found := _DICTIONARY.fullmatch(named):
        return _arrow_type(found[1])
    try:
        return pa.type_for_alias(named)
    except ValueError:
        return None
