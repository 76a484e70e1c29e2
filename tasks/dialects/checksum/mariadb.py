"""How MariaDB makes the checksums."""

from typing import Any

from sqlalchemy import ColumnElement, Integer, Numeric, String, Text, case, cast, func, literal_column

from tasks.dialects.checksum.canonical import HASH_DIGITS, Family
from tasks.dialects.checksum.checksums import Checksums

_MOMENT = "%Y-%m-%d %H:%i:%S.%f"


class MariadbChecksums(Checksums):
    """By its own functions; `SFORMAT` is there from 10.7 on."""

    def takes(self, column: ColumnElement[Any], family: Family) -> bool:
        """Also a number for a boolean, and a text of 32 digits for a UUID, which are none here."""
        also = {Family.BOOLEAN: Integer, Family.UUID: String}.get(family)
        return super().takes(column, family) or (also is not None and isinstance(column.type, also))

    def text(self, column: ColumnElement[Any], family: Family) -> ColumnElement[str]:
        """See `Checksums.text`."""
        match family:
            case Family.BOOLEAN:
                return case((column.is_(None), None), (cast(column, Integer) == 0, "0"), else_="1")
            case Family.DECIMAL:
                digits = cast(column, Text)
                short = func.regexp_replace(digits, r"\.?0+$", "", type_=Text)
                return case((func.instr(digits, ".") > 0, short), else_=digits)
            case Family.FLOAT:
                number: ColumnElement[Any] = literal_column("0e0") + column
                # Of NULL it would make a zero.
                return case((column.is_not(None), func.sformat("{:.16e}", number, type_=Text)))
            case Family.INSTANT | Family.TIMESTAMP:
                return func.date_format(column, _MOMENT, type_=Text)
            case Family.DATE:
                return func.date_format(column, "%Y-%m-%d", type_=Text)
            case Family.UUID:
                return func.lower(func.replace(cast(column, Text), "-", ""), type_=Text)
            case Family.BYTES:
                return func.concat("x", func.lower(func.hex(column)), type_=Text)
        return cast(column, Text)

    def digest(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """Of the text in UTF-8, whatever the column is in."""
        return func.md5(text, type_=Text)

    def total(self, digested: ColumnElement[str]) -> ColumnElement[Any]:
        """A decimal of 65 digits."""
        return func.sum(cast(func.conv(func.left(digested, HASH_DIGITS), 16, 10), Numeric(20, 0)))
