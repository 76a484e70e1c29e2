"""`canonical`: one text for each value of a type, whatever database keeps it; what rows are hashed by.

It says in Python what the dialects say in SQL: SQLite calls it, rows that a transform has made are compared by it, and
the tests hold the dialects against it.
"""

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any
from uuid import UUID as Uuid

import pyarrow as pa

from tasks.column_types import UTC_TIMESTAMP, UUID, decimal_text

HASH_DIGITS = 15
"""How many hexadecimal digits of a row's hash are summed: 60 bits, a positive integer everywhere."""


class Family(StrEnum):
    """Types whose values have one text each."""

    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"
    DECIMAL = "decimal"
    FLOAT = "float"
    INSTANT = "instant"
    TIMESTAMP = "timestamp"
    DATE = "date"
    UUID = "uuid"
    BYTES = "bytes"


def family_of(kind: pa.DataType) -> Family | None:
    """The family of a contract's type; None for documents, arrays and times of day, which are not hashed."""
    if pa.types.is_timestamp(kind):
        return Family.INSTANT if kind == UTC_TIMESTAMP else Family.TIMESTAMP
    if kind == UUID:
        return Family.UUID
    for found, family in (
        (pa.types.is_integer, Family.INTEGER),
        (pa.types.is_boolean, Family.BOOLEAN),
        (pa.types.is_string, Family.TEXT),
        (pa.types.is_decimal, Family.DECIMAL),
        (pa.types.is_floating, Family.FLOAT),
        (pa.types.is_date, Family.DATE),
        (pa.types.is_binary, Family.BYTES),
    ):
        if found(kind):
            return family
    return None


def canonical(value: Any, family: Family) -> str | None:
    """The text of `value`; None is NULL.

    Args:
        value: as Arrow or a driver gives it; SQLite's may be a text of anything else.
        family: what it is meant to be. A value that is none of it is its own text.
    """
    if value is None:
        return None
    try:
        return _text(value, family)
    except (ValueError, InvalidOperation, OverflowError):
        return str(value)


def _text(value: Any, family: Family) -> str:
    match family:
        case Family.INTEGER:
            return str(value if isinstance(value, int) and not isinstance(value, bool) else int(value))
        case Family.BOOLEAN:
            return "0" if value in (0, "0") or str(value).lower() == "false" else "1"
        case Family.DECIMAL:
            number = Decimal(str(value))
            return "0" if not number else decimal_text(number)
        case Family.FLOAT:
            return _float_text(float(value))
        case Family.INSTANT | Family.TIMESTAMP:
            return _moment(value).strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")
        case Family.DATE:
            found = date.fromisoformat(value[:10]) if isinstance(value, str) else value
            return f"{found.year:04}-{found.month:02}-{found.day:02}"
        case Family.UUID:
            return (value if isinstance(value, Uuid) else Uuid(str(value))).hex
        case Family.BYTES:
            # A letter first: no bytes are not NULL.
            return "x" + bytes(value).hex() if not isinstance(value, str) else "x" + value.encode().hex()
    return str(value)


def _float_text(number: float) -> str:
    """Seventeen digits, which tell every two floats apart; zero has no sign."""
    if not math.isfinite(number):
        return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"
    return f"{number + 0.0:.16e}"


def _moment(value: Any) -> datetime:
    """In UTC, without a zone."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    moment: datetime = value
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo is not None else moment


def value_of(text: str | None, family: Family) -> Any:
    """The value that `text` stands for, as it is bound."""
    if text is None:
        return None
    makers: dict[Family, Any] = {
        Family.INTEGER: int,
        Family.BOOLEAN: lambda text: text == "1",
        Family.DECIMAL: Decimal,
        Family.FLOAT: float,
        Family.INSTANT: lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC),
        Family.TIMESTAMP: datetime.fromisoformat,
        Family.DATE: date.fromisoformat,
        Family.UUID: Uuid,
        Family.BYTES: lambda text: bytes.fromhex(text[1:]),
    }
    return makers.get(family, str)(text)


def joined(texts: Sequence[str | None], families: Sequence[Family]) -> str:
    """The texts of a row as one, behind which no other row can hide: free ones each with its length."""
    return "".join(
        ("N" if text is None else f"{len(text)}:{text}") if family is Family.TEXT else f"{text or ''};"
        for text, family in zip(texts, families, strict=True)
    )


def digest(text: str) -> str:
    """The hash of a row's text, in hexadecimal digits."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def number(digested: str) -> int:
    """What of a hash is summed."""
    return int(digested[:HASH_DIGITS], 16)
