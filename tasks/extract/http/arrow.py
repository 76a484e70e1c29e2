"""Records as Arrow tables, without changing a value."""

import json
from collections.abc import Sequence

import pyarrow as pa

from tasks.errors import SourceError

Record = dict[str, object]
"""One object of a source."""


def arrow_table(records: Sequence[Record]) -> pa.Table:
    """Records as a table: a column for each key, in order of first appearance, null where a record lacks it.

    Integers are int64, integers among floats float64, objects structs. A column that Arrow has no common type for (text
    among numbers, truth values among numbers, integers beyond 64 bits) becomes text: texts as they are, anything else
    as its JSON. So one odd record never costs the page. Types are those of this page; another page's may differ.

    Raises:
        SourceError: there are records, and none has a field.
    """
    names = dict.fromkeys(name for record in records for name in record)
    if records and not names:
        raise SourceError(
            f"All {len(records)} records of a page are empty objects. Check records=… and the parameters."
        )
    columns = [_column([record.get(name) for record in records]) for name in names]
    return pa.Table.from_arrays(columns, names=[_text(name) for name in names])


def _column(values: list[object]) -> pa.Array:
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        column = None
    if column is None or any(_truth_as_number(column.type, value) for value in values):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())
    return column


def _truth_as_number(kind: pa.DataType, value: object) -> bool:
    """Whether Arrow, which refuses to mix other types, has made a number of a truth value in here."""
    if pa.types.is_floating(kind):
        return isinstance(value, bool)
    if isinstance(value, list):
        return any(_truth_as_number(kind.value_type, item) for item in value)
    if isinstance(value, dict):
        return any(_truth_as_number(member.type, value.get(member.name)) for member in kind)
    return False


def _text(value: object) -> str:
    """A JSON value as text; half a surrogate pair, which UTF-8 cannot hold, as its escape."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
