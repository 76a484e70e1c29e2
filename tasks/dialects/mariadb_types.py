"""The types of MariaDB's wire protocol, as Arrow's and as SQLAlchemy's."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
from pymysql.constants import FIELD_TYPE, FLAG
from sqlalchemy import BigInteger, Date, Numeric, Text, Time
from sqlalchemy.dialects import mysql
from sqlalchemy.types import NullType, TypeEngine

from tasks.dialects.column_kind import BYTES, INTEGER, TEXT, ColumnKind, column_kind

_BINARY = 63
"""The character set of bytes."""

_INTEGERS: dict[int, tuple[pa.DataType, pa.DataType]] = {
    FIELD_TYPE.TINY: (pa.int8(), pa.uint8()),
    FIELD_TYPE.SHORT: (pa.int16(), pa.uint16()),
    FIELD_TYPE.YEAR: (pa.int16(), pa.int16()),
    FIELD_TYPE.INT24: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONG: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONGLONG: (pa.int64(), pa.uint64()),
}
_SIMPLE: dict[int, pa.DataType] = {
    FIELD_TYPE.NULL: pa.null(),
    FIELD_TYPE.FLOAT: pa.float64(),
    FIELD_TYPE.DOUBLE: pa.float64(),
    FIELD_TYPE.TIMESTAMP: pa.timestamp("us", "UTC"),
    FIELD_TYPE.DATETIME: pa.timestamp("us"),
    FIELD_TYPE.DATE: pa.date32(),
    FIELD_TYPE.NEWDATE: pa.date32(),
    FIELD_TYPE.TIME: pa.time64("us"),
}
_DECIMALS = (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL)


_KINDS: dict[str, ColumnKind] = {
    "BOOL": ColumnKind("boolean"),
    "TINYINT(1)": ColumnKind("boolean"),
    "TINYINT": ColumnKind(INTEGER, 8),
    "MEDIUMINT": ColumnKind(INTEGER, 24),
    # Their limits are bytes, of which a character has up to four.
    "TINYTEXT": ColumnKind(TEXT, 63),
    "TEXT": ColumnKind(TEXT, 16_383),
    "MEDIUMTEXT": ColumnKind(TEXT, 4_194_303),
    "LONGTEXT": ColumnKind(TEXT),
    "TINYBLOB": ColumnKind(BYTES, 255),
    "BLOB": ColumnKind(BYTES, 65_535),
    "MEDIUMBLOB": ColumnKind(BYTES, 16_777_215),
    "LONGBLOB": ColumnKind(BYTES),
}
_SIZED = re.compile(r"(VARBINARY|DATETIME|TIMESTAMP|TIME|TINYINT|MEDIUMINT)(?:\((\d+)\))?")


class Field(Protocol):
    """A column as the server describes it.

    Attributes:
        type_code: one of PyMySQL's `FIELD_TYPE`.
        flags: of PyMySQL's `FLAG`.
        charsetnr: character set.
        length: longest text of a value, in bytes; of a BIT, its bits.
        scale: digits behind the point.
    """

    type_code: int
    flags: int
    charsetnr: int
    length: int
    scale: int


def arrow_type(field: Field) -> pa.DataType:
    """What holds every value of the column, but a zero date, and a TIME that is none of a day."""
    code = field.type_code
    unsigned = bool(field.flags & FLAG.UNSIGNED)
    if code in _INTEGERS:
        return _INTEGERS[code][unsigned]
    if code in _SIMPLE:
        return _SIMPLE[code]
    if code in _DECIMALS:
        # Its longest text has a sign and a point.
        digits = field.length - (not unsigned) - (field.scale > 0)
        return (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, field.scale)
    if code == FIELD_TYPE.BIT:
        return pa.bool_() if field.length == 1 else pa.uint64()
    return pa.binary() if field.charsetnr == _BINARY or code == FIELD_TYPE.GEOMETRY else pa.string()


def kind_by_name(name: str) -> ColumnKind:
    """The kind of a type by its name in MariaDB's SQL."""
    word, _, rest = name.partition(" ")
    if name in _KINDS or word.endswith(("TEXT", "BLOB")):
        kind = _KINDS.get(word, ColumnKind(name))
        return replace(kind, collation=column_kind(f"TEXT {rest}".strip()).collation)
    sized = _SIZED.fullmatch(name)
    if sized is None:
        return column_kind(name)
    if sized[1] in _KINDS:
        return _KINDS[sized[1]]
    if sized[1] == "VARBINARY":
        return ColumnKind(BYTES, int(sized[2]))
    # Without a number a time is kept to the second.
    return ColumnKind(sized[1], int(sized[2] or 0))


def column_type(field: Field) -> TypeEngine[Any]:
    """The SQLAlchemy type of a query's column; NullType where tidegate does not mind."""
    kind = arrow_type(field)
    if field.type_code == FIELD_TYPE.TIMESTAMP:
        return mysql.TIMESTAMP(fsp=field.scale)
    families: tuple[tuple[Callable[[pa.DataType], bool], TypeEngine[Any]], ...] = (
        (pa.types.is_timestamp, mysql.DATETIME(fsp=field.scale)),
        (pa.types.is_date, Date()),
        (pa.types.is_time, Time()),
        (pa.types.is_string, Text()),
        (pa.types.is_integer, BigInteger()),
        (pa.types.is_decimal, Numeric()),
        (pa.types.is_floating, Numeric()),
    )
    for family, chosen in families:
        if family(kind):
            return chosen
    return NullType()


def arrow_table(names: Sequence[str], fields: Sequence[Field], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Rows as the driver gives them, in the columns' own types.

    A column is text, as MariaDB writes it, in a batch with a value its type cannot hold: a date with zeros in it, a
    TIME before midnight or beyond a day. The contract then rejects that value alone, with what it was.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    arrays = [_array(values, field) for values, field in zip(columns, fields, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(names))


def _array(values: Sequence[Any], field: Field) -> pa.Array:
    kind = arrow_type(field)
    convert = _CONVERSIONS.get(field.type_code)
    try:
        return pa.array(values if convert is None else [convert(value, kind) for value in values], kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else _text(value, kind) for value in values], pa.string())


def _bits(value: bytes | None, kind: pa.DataType) -> int | bool | None:
    number = None if value is None else int.from_bytes(value)
    return bool(number) if number is not None and pa.types.is_boolean(kind) else number


def _time_of_day(value: timedelta | str | None, _kind: pa.DataType) -> Any:
    if isinstance(value, timedelta):
        if not timedelta(0) <= value < timedelta(days=1):
            raise OverflowError
        return (datetime.min + value).time()
    return value


_CONVERSIONS: dict[int, Callable[[Any, pa.DataType], Any]] = {
    FIELD_TYPE.BIT: _bits,
    FIELD_TYPE.TIME: _time_of_day,
}


def _text(value: Any, kind: pa.DataType) -> str:
    if isinstance(value, datetime) and pa.types.is_timestamp(kind) and kind.tz:
        return f"{value}+00:00"
    if not isinstance(value, timedelta):
        return str(value)
    seconds, sign = abs(value), "-" if value < timedelta(0) else ""
    hours, rest = divmod(seconds, timedelta(hours=1))
    minutes, rest = divmod(rest, timedelta(minutes=1))
    fraction = f".{rest.microseconds:06}" if rest.microseconds else ""
    return f"{sign}{hours:02}:{minutes:02}:{rest.seconds:02}{fraction}"
