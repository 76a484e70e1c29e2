"""Records as Arrow tables, without changing a value."""

import decimal
import json
from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate
from types import NoneType

import pyarrow as pa

from tasks.errors import SourceError

Record = dict[str, object]
"""One object of a source."""

_NUMBERS = frozenset({int, Decimal})
_MOST_DIGITS = 76
# Adds exactly, or not at all. What fits 76 digits does so a quadrillion times in these.
_SUM = decimal.Context(prec=_MOST_DIGITS + 15, traps=[decimal.Inexact, decimal.Rounded, decimal.InvalidOperation])


def arrow_table(records: Sequence[Record]) -> pa.Table:
    """Records as a table: a column for each key, in order of first appearance, null where a record lacks it.

    Integers are int64. Decimals, and integers among them, are decimal128, or decimal256 beyond 38 digits, of just the
    precision and scale that hold every digit. Floats, and integers among them, are float64; objects structs, lists
    lists. A column that Arrow has no common type for (text among numbers, truth values among numbers, integers alone
    beyond 64 bits, decimals beyond 76 digits) becomes text: texts as they are, anything else as its JSON. So one odd
    record never costs the page. Types are those of these records; another page's may differ.

    Raises:
        SourceError: there are records, and none has a field, or one is nested too deep.
    """
    names = dict.fromkeys(name for record in records for name in record)
    if records and not names:
        raise SourceError(
            f"All {len(records)} records of a page are empty objects. Check records=… and the parameters."
        )
    try:
        columns = [_column([record.get(name) for record in records]) for name in names]
    except RecursionError as error:
        raise SourceError("A record is nested too deep for a table. Name a list within it in records=….") from error
    return pa.Table.from_arrays(columns, names=[_text(name) for name in names])


class _Mixed(Exception):
    """There is no type that holds all values."""


def _column(values: list[object]) -> pa.Array:
    try:
        return _array(values)
    except (_Mixed, pa.ArrowException, OverflowError, UnicodeEncodeError, decimal.DecimalException):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _array(values: list[object]) -> pa.Array:
    """Values as an array of their common type, at every level of nesting."""
    kinds = set(map(type, values)) - {NoneType}
    if Decimal in kinds and kinds <= _NUMBERS:
        return _decimals([Decimal(value) if type(value) is int else value for value in values])  # type: ignore[misc]
    if kinds == {dict}:
        return _structs(values)  # type: ignore[arg-type]
    if kinds == {list}:
        return _lists(values)  # type: ignore[arg-type]
    # Arrow would make a number of a truth value among floats.
    if len(kinds) > 1 and kinds != {int, float}:
        raise _Mixed
    return pa.array(values)


def _decimals(values: list[Decimal | None]) -> pa.Array:
    """Told the type, as Arrow takes five times as long to find it, and never does where integers are among them."""
    there = [value for value in values if value is not None]
    with decimal.localcontext(_SUM):
        # The sum has as many places behind the point as any of them.
        exponent = sum(there, Decimal(0)).as_tuple().exponent
        largest = max(max(there), -min(there))
    assert isinstance(exponent, int), "no NaN comes here"
    scale = max(-exponent, 0)
    precision = max(max(largest.adjusted() + 1, 0) + scale, 1)
    if precision > _MOST_DIGITS:
        raise _Mixed
    return pa.array(values, pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale))


def _structs(values: list[Record | None]) -> pa.Array:
    names = dict.fromkeys(name for value in values if value is not None for name in value)
    if not names:
        return pa.array(values, pa.struct([]))
    children = [_array([None if value is None else value.get(name) for value in values]) for name in names]
    return pa.StructArray.from_arrays(children, list(names), mask=_absent(values))


def _lists(values: list[list[object] | None]) -> pa.Array:
    items = _array([item for value in values if value is not None for item in value])
    offsets = accumulate((0 if value is None else len(value) for value in values), initial=0)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=_absent(values))


def _absent(values: Sequence[object]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())


def _text(value: object) -> str:
    """A JSON value as text; half a surrogate pair, which UTF-8 cannot hold, as its escape."""
    text = value if isinstance(value, str) else _json(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json(value: object) -> str:
    """As `json.dumps` writes it, decimals included."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_json(name)}: {_json(member)}' for name, member in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    return json.dumps(value, ensure_ascii=False)
