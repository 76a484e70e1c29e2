"""How PostgreSQL makes the checksums."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, DateTime, Double, Text, case, cast, func, literal_column
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import BIT

from tasks.dialects.checksum.canonical import HASH_DIGITS, Family
from tasks.dialects.checksum.checksums import Checksums

_MOMENT = "YYYY-MM-DD HH24:MI:SS.US"
_SEVENTEEN_DIGITS = "9.9999999999999999EEEE"


class PostgresqlChecksums(Checksums):
    """By its own functions."""

    def prepare(self, connection: Connection) -> None:
        """The planner takes every text for a group of its own, and would sort the table; there are some thousands."""
        connection.execute(sql_text("SET LOCAL enable_sort = off"))

    def text(self, column: ColumnElement[Any], family: Family) -> ColumnElement[str]:
        """See `Checksums.text`."""
        match family:
            case Family.BOOLEAN:
                return case((column.is_(True), "1"), (column.is_(False), "0"))
            case Family.DECIMAL:
                return cast(func.trim_scale(column), Text)
            case Family.FLOAT:
                number = cast(column, Double)
                finite = func.ltrim(func.to_char(number + literal_column("0::float8"), _SEVENTEEN_DIGITS))
                special: dict[str, ColumnElement[Any]] = {name: literal_column(f"'{told}'::float8")
                           for name, told in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity"))}  # fmt: skip
                return case(*((number == value, name) for name, value in special.items()), else_=finite)
            case Family.INSTANT | Family.TIMESTAMP:
                # One without a zone is in UTC already.
                naive = isinstance(column.type, DateTime) and not column.type.timezone
                moment = column if naive else func.timezone("UTC", column)
                return case((func.isfinite(column), func.to_char(moment, _MOMENT)), else_=cast(column, Text))
            case Family.DATE:
                return case((func.isfinite(column), func.to_char(column, "YYYY-MM-DD")), else_=cast(column, Text))
            case Family.UUID:
                return func.replace(cast(column, Text), "-", "", type_=Text)
            case Family.BYTES:
                return literal_column("'x'", Text).concat(func.encode(column, "hex", type_=Text))
        return cast(column, Text)

    def digest(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """Of the text in UTF-8, whatever the database is in."""
        return func.md5(func.convert_to(text, "UTF8"), type_=Text)

    def total(self, digested: ColumnElement[str]) -> ColumnElement[Any]:
        """A numeric, which has no end."""
        bits = literal_column("'x0'", Text).concat(func.substr(digested, 1, HASH_DIGITS))
        return func.sum(cast(cast(bits, BIT(64)), BigInteger))
