"""`Checksums`: SQL for the hash of a row, and the sum of many, that is the same in every database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Text,
    TypeDecorator,
    Uuid,
    func,
    literal_column,
)
from sqlalchemy.types import CHAR, TypeEngine

from tasks.dialects.checksum.canonical import Family

_HELD: dict[Family, tuple[type[TypeEngine[Any]], ...]] = {
    Family.INTEGER: (Integer,),
    Family.BOOLEAN: (Boolean,),
    Family.TEXT: (String,),
    Family.DECIMAL: (Numeric, Integer),
    Family.FLOAT: (Float,),
    Family.INSTANT: (DateTime,),
    Family.TIMESTAMP: (DateTime,),
    Family.DATE: (Date,),
    Family.UUID: (Uuid,),
    Family.BYTES: (LargeBinary,),
}


class Checksums:
    """What a dialect has to say; see `canonical` for the texts."""

    def prepare(self, connection: Connection) -> None:
        """Make ready a connection that is going to be asked."""

    def takes(self, column: ColumnElement[Any], family: Family) -> bool:
        """Whether the values of `column`, as it is declared, have the texts of `family`."""
        kind = column.type
        if isinstance(kind, TypeDecorator):
            kind = kind.impl_instance
        # Filled up with blanks, which some databases show and others do not.
        if isinstance(kind, CHAR) and family is Family.TEXT:
            return False
        if family is Family.DECIMAL and isinstance(kind, Float):
            return False
        return isinstance(kind, _HELD[family])

    def text(self, column: ColumnElement[Any], family: Family) -> ColumnElement[str]:
        """The canonical text of a value; NULL for NULL."""
        raise NotImplementedError

    def digest(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """The hash of a row's text, in hexadecimal digits."""
        raise NotImplementedError

    def total(self, digested: ColumnElement[str]) -> ColumnElement[Any]:
        """The sum of the hashes of many rows, without overflow; Python makes an `int` of it."""
        raise NotImplementedError

    def length(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """How many characters a text has, as a text."""
        return func.char_length(text).cast(Text)

    def joined(self, texts: Sequence[ColumnElement[str]], families: Sequence[Family]) -> ColumnElement[str]:
        """See `canonical.joined`. What is costly to make a text of is made once."""
        colon, end, null = (literal_column(f"'{sign}'", Text) for sign in ":;N")
        parts: list[ColumnElement[str]] = [
            func.coalesce(self.length(text).concat(colon).concat(text), null, type_=Text)
            if family is Family.TEXT
            else func.coalesce(text.concat(end), end, type_=Text)
            for text, family in zip(texts, families, strict=True)
        ]
        row: ColumnElement[str] = parts[0]
        for part in parts[1:]:
            row = row.concat(part)
        return row
