"""`Join`: a lookup at work: the columns it takes, beside each row of a frame."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import ContractError
from tasks.transform.columns import as_arrow
from tasks.transform.lookup import Lookup
from tasks.transform.lookup_keys import family_of_type, instants, key_values
from tasks.transform.lookup_rows import KeyedRows, Rows, WholeRows
from tasks.transform.reasons import Reason, reason


class Join:
    """A lookup of one run. What is read whole is kept as long as this is.

    Args:
        pipeline: its name, for messages.
        lookup: the declaration.
        connection: name of the target database.
    """

    def __init__(self, pipeline: str, lookup: Lookup, connection: str) -> None:
        self.lookup = lookup
        self.where = f"{pipeline}: the lookup {lookup.name!r}"
        self._rows: Rows = (
            WholeRows(self.where, lookup) if lookup.table is None else KeyedRows(self.where, lookup, connection)
        )

    def join(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[int, Reason]]:
        """`frame` with the columns taken, and by position what is wrong with rows whose key finds nothing.

        Raises:
            ContractError: a column is missing, or there already; a key finds several rows, or could never find one.
            ConfigError: the table lacks a column, or an extract has more rows than declared.
            RetriableError: the table, or the source of an extract, is not available.
        """
        lookup = self.lookup
        keys = [self._column(frame, name) for name in lookup.on]
        for name in lookup.take.values():
            if name in frame.columns:
                raise ContractError(
                    f"{self.where} takes {name!r}, and the row has a column of that name. Take it under another."
                )
        self._expect_equal_families(keys)
        values = list(zip(*map(key_values, keys), strict=True))
        times = instants(self._column(frame, lookup.as_of), f"{self.where}: {lookup.as_of!r}") if lookup.as_of else None
        asks = [
            None not in key and (times is None or times[position] is not None) for position, key in enumerate(values)
        ]
        wanted = {key for key, asked in zip(values, asks, strict=True) if asked}
        known = [time for time in times or () if time is not None]
        versions = self._rows.versions(wanted, (min(known), max(known)) if known else None)
        places = [
            versions.place(key, times[position] if times else None) if asks[position] else None
            for position, key in enumerate(values)
        ]
        joined = frame.copy(deep=False)
        for column, name in lookup.take.items():
            taken = pc.take(versions.rows.column(column).combine_chunks(), pa.array(places, pa.int64()))
            joined[name] = pd.arrays.ArrowExtensionArray(taken)
        if lookup.on_missing == "null":
            return joined, {}
        missing = {
            position: reason(lookup.rule, list(lookup.on), values[position])
            for position, place in enumerate(places)
            if asks[position] and place is None
        }
        return joined, missing

    def _column(self, frame: pd.DataFrame, name: str) -> pa.Array:
        if name not in frame.columns:
            raise ContractError(
                f"{self.where} needs the column {name!r}; the columns are "
                f"{', '.join(map(str, frame.columns)) or 'none'}. Select it in the source; or say "
                "after_transform=True, if the transform makes it."
            )
        column = as_arrow(frame[name])
        if column is None:
            raise ContractError(f"{self.where}: the column {name!r} holds values of several types. Convert it before.")
        return column

    def _expect_equal_families(self, keys: Sequence[pa.Array]) -> None:
        """A number and a text are never equal: on some databases an error, on others every key would be missing."""
        families = self._rows.families([key.type for key in keys])
        for (name, column), key, there in zip(self.lookup.on.items(), keys, families, strict=True):
            here = family_of_type(key.type)
            if None not in (here, there) and here != there:
                raise ContractError(
                    f"{self.where} compares {name!r}, {here}, with its column {column!r}, {there}: they are never "
                    "equal. Convert one of them: in the source's query, or in the transform with after_transform=True."
                )


def joined(joins: Sequence[Join], frame: pd.DataFrame, *, made: bool) -> tuple[pd.DataFrame, dict[int, list[Reason]]]:
    """`frame` with what the lookups take, one after the other, and by position the rules that rows broke.

    Args:
        joins: all lookups of a pipeline.
        frame: rows.
        made: they are what the transform made, not what came in; which lookups are meant.
    """
    missing: dict[int, list[Reason]] = {}
    for join in joins:
        if join.lookup.after_transform == made:
            frame, lacking = join.join(frame)
            for position, broken in lacking.items():
                missing.setdefault(position, []).append(broken)
    return frame, missing
