"""Keys of a lookup: when two are equal, and which row of those with a key is meant."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.column_types import UTC_TIMESTAMP, UUID
from tasks.errors import ContractError
from tasks.masking import shown
from tasks.transform.lookup import Lookup
from tasks.version_columns import VALID_FROM, VALID_TO

Key = tuple[Any, ...]


class Versions:
    """Rows of a lookup by their key; several of one key are its versions.

    Args:
        where: pipeline and lookup, as a message begins.
        lookup: the lookup.
        rows: with the columns that it reads.
    """

    def __init__(self, where: str, lookup: Lookup, rows: pa.Table) -> None:
        self.where = where
        self.lookup = lookup
        self.rows = rows
        columns = [rows.column(name) for name in lookup.on.values()]
        self.families = [family_of_type(column.type) for column in columns]
        self._places: dict[Key, list[int]] = defaultdict(list)
        for place, key in enumerate(zip(*map(key_values, columns), strict=True)):
            if None not in key:
                self._places[key].append(place)
        if lookup.as_of:
            self._begins, self._ends = (
                instants(rows.column(name), f"{where}: its column {name!r}") for name in (VALID_FROM, VALID_TO)
            )

    def place(self, key: Key, at: datetime | None) -> int | None:
        """The number of the row that is meant; None where there is none.

        Args:
            key: without a NULL.
            at: the time the version is valid at, for a lookup with `as_of`.

        Raises:
            ContractError: there are several.
        """
        found = self._places.get(key, [])
        if self.lookup.as_of:
            found = [place for place in found if self._valid(place, at)]
        if len(found) > 1:
            told = ", ".join(f"{name}={shown(value)}" for name, value in zip(self.lookup.on.values(), key, strict=True))
            remedy = (
                "Its versions overlap: mend the table."
                if self.lookup.as_of
                else "Look up by all columns of its key; of a table that keeps a history say current=True, or as_of=..."
            )
            raise ContractError(
                f"{self.where} finds {len(found)} rows for {told}, and rows must not multiply. {remedy}"
            )
        return found[0] if found else None

    def _valid(self, place: int, at: datetime | None) -> bool:
        begins, ends = self._begins[place], self._ends[place]
        return at is not None and (begins is None or begins <= at) and (ends is None or at < ends)


def family_of_type(kind: pa.DataType) -> str | None:
    """What values of `kind` can be equal to; None: to nothing, they are all NULL."""
    if pa.types.is_dictionary(kind):
        return family_of_type(kind.value_type)
    if pa.types.is_null(kind):
        return None
    if kind == UUID:
        return "a UUID"
    for family, types in {
        "a truth value": (pa.types.is_boolean,),
        "a number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "a time": (pa.types.is_timestamp,),
    }.items():
        if any(belongs(kind) for belongs in types):
            return family
    return str(kind)


def key_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Values of a key column that are equal in Python where they are in SQL; a NaN is none, a naive time is UTC."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return key_values(pc.cast(column, kind.value_type))
    if pa.types.is_timestamp(kind):
        column = _in_utc(column)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    values: list[Any] = column.to_pylist()
    return values


def instants(column: pa.Array | pa.ChunkedArray, what: str) -> list[datetime | None]:
    """The values of `column` as instants, UTC; a naive time counts as UTC, a date as its midnight.

    Raises:
        ContractError: they are neither times nor dates.
    """
    kind = column.type
    if pa.types.is_date(kind):
        column = pc.cast(column, pa.timestamp("us"))
    elif pa.types.is_null(kind):
        column = pc.cast(column, UTC_TIMESTAMP)
    elif not pa.types.is_timestamp(kind):
        raise ContractError(f"{what} is of type {kind}, and no time. Convert it before it is looked up by.")
    found: list[datetime | None] = _in_utc(column).to_pylist()
    return found


def _in_utc(column: Any) -> Any:
    if column.type.tz is None:
        return pc.assume_timezone(pc.cast(column, pa.timestamp("us"), safe=False), "UTC")
    return pc.cast(column, UTC_TIMESTAMP, safe=False)
