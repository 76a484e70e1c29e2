"""How SQLite makes the checksums: by functions of this process, since it has none of its own."""

import sqlite3
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, func, type_coerce
from sqlalchemy.types import NullType

from tasks.dialects.checksum.canonical import Family, canonical, digest, number
from tasks.dialects.checksum.checksums import Checksums


class SqliteChecksums(Checksums):
    """By `canonical` itself, on the value as it is kept."""

    def prepare(self, connection: Connection) -> None:
        """Give the connection our functions."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.create_function("tidegate_text", 2, _text, deterministic=True)
        driver.create_function("tidegate_digest", 1, digest, deterministic=True)
        # The stubs want a window function's methods as well.
        driver.create_aggregate("tidegate_total", 1, _Total)  # type: ignore[arg-type]

    def takes(self, column: ColumnElement[Any], family: Family) -> bool:
        """Whatever it is declared as: the value tells."""
        return True

    def text(self, column: ColumnElement[Any], family: Family) -> ColumnElement[str]:
        """See `Checksums.text`."""
        return func.tidegate_text(type_coerce(column, NullType()), family.value, type_=Text)

    def digest(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """See `Checksums.digest`."""
        return func.tidegate_digest(text, type_=Text)

    def total(self, digested: ColumnElement[str]) -> ColumnElement[Any]:
        """A text: an integer has 64 bits."""
        return func.tidegate_total(digested, type_=Text)

    def length(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """See `Checksums.length`."""
        return func.length(text, type_=Text)


def _text(value: Any, family: str) -> str | None:
    return canonical(value, Family(family))


class _Total:
    def __init__(self) -> None:
        self._sum = 0

    def step(self, digested: str) -> None:
        self._sum += number(digested)

    def finalize(self) -> str:
        return str(self._sum)
