"""`Lookup`: columns of another table, added to each row by a key before the contract judges it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa

from tasks.errors import ConfigError
from tasks.version_columns import IS_CURRENT, VALID_FROM, VALID_TO
from tasks.window import Window


@runtime_checkable
class Readable(Protocol):
    """What can be read whole: an extract of `tasks.extract`, a feed apart."""

    @property
    def connection(self) -> str:
        """Name of the source."""

    @property
    def dataset(self) -> str:
        """What is read from it, for messages."""

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """The rows in `window`."""


@dataclass(frozen=True)
class Lookup:
    """Add columns of another table to each row, by a key that finds one row at most: rows never multiply.

    A `table` of the target's database is asked for the keys of a batch, so it may be of any size. An `extract` of
    another source is read whole, once for a run, and has to fit in memory. What is found is what is there while the
    batch is read: a row that is loaded does not follow later changes of the table.

    A key with a NULL in it finds nothing and is not missing: whether the columns may be NULL then is the contract's to
    say.

    Attributes:
        table: `name` or `schema.name` in the target's database; or give `extract`.
        on: by column of the row, the column of the table that it equals.
        take: by column of the table, what it is called in the row.
        extract: what to read instead of a table, for instance `TableExtract("other", "airports")`.
        on_missing: `null` leaves the columns empty where the key finds nothing; `reject` makes the row a dead letter.
        current: of a table that keeps a history, as `Scd2` does, only the current versions are looked at.
        as_of: column of the row with a time; of a table that keeps a history, the version valid then is found.
        after_transform: look up what the transform has made, and not the raw columns; then the transform does not see
            what is taken.
        max_rows: an `extract` with more rows is refused.

    Raises:
        ConfigError: neither a table nor an extract is given, or both; nothing to look up by, or to take; both `current`
            and `as_of`; a value that is none of these.
    """

    table: str | None = None
    on: Mapping[str, str] = field(default_factory=dict)
    take: Mapping[str, str] = field(default_factory=dict)
    extract: Readable | None = None
    on_missing: Literal["null", "reject"] = "null"
    current: bool = False
    as_of: str | None = None
    after_transform: bool = False
    max_rows: int = 200_000

    def __post_init__(self) -> None:
        if (self.table is None) == (self.extract is None):
            raise ConfigError("A Lookup asks a table of the target, or reads an extract: give one of the two.")
        if self.extract is not None and not isinstance(self.extract, Readable):
            raise ConfigError(
                f"Lookup: {type(self.extract).__name__} cannot be read whole. Give it a TableExtract or an ApiExtract."
            )
        if getattr(self.extract, "tells_deletes", False):
            raise ConfigError(
                "Lookup: its extract tells which rows are gone, and a lookup would find them all the same. Leave "
                "`deleted` out, and let a query of the extract select the rows that are there."
            )
        what = f"Lookup({self.name!r})"
        if not self.on or not self.take:
            raise ConfigError(f"{what} needs columns to look up by, and to take: on={{...}}, take={{...}}.")
        if len(set(self.take.values())) != len(self.take):
            raise ConfigError(f"{what} takes two columns under one name: {', '.join(self.take.values())}.")
        if self.on_missing not in ("null", "reject"):
            raise ConfigError(f"{what}: on_missing is 'null' or 'reject', got {self.on_missing!r}.")
        if self.current and self.as_of is not None:
            raise ConfigError(
                f"{what} finds the current version, or the one as of {self.as_of!r}: give one of the two."
            )
        if self.max_rows < 1:
            raise ConfigError(f"{what}: max_rows is how many rows fit in memory, got {self.max_rows}.")

    @property
    def name(self) -> str:
        """What is looked up in."""
        if self.table is not None:
            return self.table
        assert self.extract is not None
        return self.extract.dataset

    @property
    def rule(self) -> str:
        """How a dead letter names it."""
        pairs = ", ".join(f"{row} = {column}" for row, column in self.on.items())
        return f"lookup {self.name}: {pairs}{f' as of {self.as_of}' if self.as_of else ''}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read of the table, each once."""
        valid = (VALID_FROM, VALID_TO) if self.as_of else (IS_CURRENT,) if self.current else ()
        return tuple(dict.fromkeys((*self.on.values(), *self.take, *valid)))

    @property
    def described(self) -> str:
        """All that what comes of it depends on, but for the rows of the table."""
        taken = ", ".join(f"{column} {name}" for column, name in self.take.items())
        place = "after" if self.after_transform else "before"
        return f"{self.rule} take {taken} {self.on_missing} {self.current} {place}"
