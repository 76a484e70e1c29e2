"""`ColumnKind`: what a column can hold, in terms by which two columns are compared."""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, Numeric
from sqlalchemy.exc import CompileError
from sqlalchemy.types import TypeEngine

INTEGER, DECIMAL, FLOAT, TEXT, BYTES = "integer", "decimal", "float", "text", "bytes"

_WRITTEN = re.compile(r"([A-Z]+(?: PRECISION)?)(?:\((\d+)(?:, ?(-?\d+))?\))?(.*)")
_COLLATION = re.compile(r"\bCOLLATE (\w+)")

_NAMES: dict[str, tuple[str, int | None]] = {
    "SMALLINT": (INTEGER, 16),
    "INTEGER": (INTEGER, 32),
    "INT": (INTEGER, 32),
    "BIGINT": (INTEGER, 64),
    "REAL": (FLOAT, 24),
    "FLOAT": (FLOAT, 24),
    "DOUBLE": (FLOAT, 53),
    "DOUBLE PRECISION": (FLOAT, 53),
    "TEXT": (TEXT, None),
    "BYTEA": (BYTES, None),
    "BLOB": (BYTES, None),
    "BOOLEAN": ("boolean", None),
    "DATE": ("date", None),
}
_MICROSECONDS = 6


@dataclass(frozen=True, slots=True)
class ColumnKind:
    """What a column can hold.

    Attributes:
        family: those of one family differ in their sizes only; of a type not told apart here, its own name.
        size: bits of an integer or of a float's mantissa, digits of a decimal before its point, characters of a text,
            digits of a second of a time; None is without limit.
        scale: digits of a decimal behind its point; None is without limit.
        collation: by which texts compare, where it was named.
    """

    family: str
    size: int | None = None
    scale: int | None = None
    collation: str | None = None

    def holds(self, other: "ColumnKind") -> bool:
        """Whether every value of `other` can be written here, and is then what it was."""
        if (self.family, other.family) == (DECIMAL, INTEGER):
            assert other.size is not None, "an integer has so many bits"
            return _reaches(self.size, len(str(1 << other.size - 1)))
        return self._compares_as(other) and _reaches(self.size, other.size) and _reaches(self.scale, other.scale)

    def joined(self, other: "ColumnKind") -> "ColumnKind | None":
        """The smallest of the family that holds both; None where none does."""
        if not self._compares_as(other):
            return None
        return ColumnKind(self.family, _larger(self.size, other.size), _larger(self.scale, other.scale), self.collation)

    def alters(self, other: "ColumnKind") -> bool:
        """Whether the database may round or cut a value of `other` to fit it in here, where it does not refuse it."""
        return self.family != INTEGER and not (self.family == DECIMAL and _reaches(self.scale, other.scale))

    def type_for(self, declared: TypeEngine[Any]) -> TypeEngine[Any]:
        """The type of a column of this kind, which is as large as `declared`, or larger where a table has been so."""
        if self.family == DECIMAL and self.size is not None and self.scale is not None:
            return Numeric(self.size + self.scale, self.scale)
        return declared

    def _compares_as(self, other: "ColumnKind") -> bool:
        return self.family == other.family and other.collation in (None, self.collation)


def written(declared: TypeEngine[Any], on: Dialect) -> str:
    """The name of a type in `on`'s own SQL; `unknown` where SQLAlchemy does not know it."""
    try:
        return str(declared.compile(dialect=on)).upper()
    except CompileError:
        return "unknown"


def column_kind(name: str) -> ColumnKind:
    """The kind of a type by its name in SQL, as far as databases agree about it."""
    found = _WRITTEN.fullmatch(name)
    if found is None:
        return ColumnKind(name)
    word, rest = found[1], found[4]
    size, scale = (None if number is None else int(number) for number in (found[2], found[3]))
    if word in ("TIME", "TIMESTAMP"):
        zone = " WITH TIME ZONE" if rest == " WITH TIME ZONE" else ""
        return ColumnKind(word + zone, _MICROSECONDS if size is None else size)
    if rest and not rest.startswith((" COLLATE ", " CHARACTER SET ")):
        return ColumnKind(name)
    collation = _COLLATION.search(rest)
    named = None if collation is None else collation[1].lower()
    if word == "VARCHAR":
        return ColumnKind(TEXT, size, collation=named)
    if word in ("NUMERIC", "DECIMAL"):
        return ColumnKind(DECIMAL) if size is None else ColumnKind(DECIMAL, size - (scale or 0), scale or 0)
    if word in _NAMES:
        return ColumnKind(*_NAMES[word], collation=named)
    return ColumnKind(name)


def _reaches(limit: int | None, needed: int | None) -> bool:
    return limit is None or (needed is not None and needed <= limit)


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
