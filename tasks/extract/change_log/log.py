"""`ChangeLog`: a table beside the one that is followed, in which triggers write down what changes in it.

| column | holds |
|---|---|
| `etl_change` | a number; of two changes of one row, the later has the greater |
| `etl_operation` | `insert`, `update`, `delete` or `truncate`, or one of the log's own marks |
| `etl_changed_at` | when, UTC |
| `etl_note` | of a mark: the log's token, or why it was made |
| `new_…`, `old_…` | the row after and before the change, in the types of the table |

A change of a row's key is two changes. The log's own marks: `log` is its first row, which stays, and whose token tells
this log from another of its name; `forgotten`, which stays too, names the chunk whose rows were deleted last; after
`reshaped` or `lost` the rows before cannot be relied on, and a snapshot has to be taken.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    MetaData,
    Select,
    Table,
    Text,
    func,
    inspect,
    not_,
    select,
)

from tasks.change_columns import BEFORE, COMMITTED_AT, OPERATION, POSITION
from tasks.dialects.dialect import Dialect
from tasks.dialects.reading import Reading, only
from tasks.errors import SourceError
from tasks.window import to_utc

CHANGE, CHANGED_AT, NOTE = "etl_change", "etl_changed_at", "etl_note"
CHANGES = ("insert", "update", "delete", "truncate")
LOG, FORGOTTEN, RESHAPED, LOST = "log", "forgotten", "reshaped", "lost"
LASTING = f"'{LOG}', '{FORGOTTEN}'"
"""The marks that stay, in SQL."""


@dataclass(frozen=True, slots=True)
class State:
    """What is found at the source.

    Attributes:
        token: the log's; None where there is no log.
        missing: triggers that are not there, or switched off.
        outdated: the triggers are not those that the table's columns ask for.
    """

    token: str | None
    missing: tuple[str, ...]
    outdated: bool

    @property
    def sound(self) -> bool:
        """Whether every change is written down whole."""
        return self.token is not None and not self.missing and not self.outdated


class ChangeLog(ABC):
    """The log of one table for one feed; the databases differ in what they override.

    Args:
        engine: the source.
        dialect: its dialect.
        table: `name` or `schema.name`.
        key: columns that identify a row.
        name: of the log, and what the triggers' names begin with.
        where: as a message begins.
    """

    def __init__(self, engine: Engine, dialect: Dialect, table: str, key: Sequence[str], name: str, where: str) -> None:
        self.engine = engine
        self.dialect = dialect
        self.key = tuple(key)
        self.name = name
        self.where = where
        self._table = table
        schema, _, _ = table.rpartition(".")
        self.schema = schema or None

    # -- what a database does in its own way ------------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> None:
        """Make log and triggers where they are not there, and make them anew where they are not sound.

        Raises:
            SourceError: a right is missing, or the table is none that triggers can follow.
        """

    @abstractmethod
    def remove(self) -> None:
        """Take log and triggers away, as far as they are there."""

    @abstractmethod
    def state(self, reading: Reading) -> State:
        """What is there now.

        Raises:
            SourceError: triggers cannot follow the table any more.
        """

    @abstractmethod
    def seen(self, reading: Reading, before: str | None) -> str:
        """Which rows of the log `reading` shows, in the database's own terms.

        Args:
            reading: shows the log.
            before: what an earlier reading showed; None is nothing.
        """

    @abstractmethod
    def unseen(self, seen: str) -> ColumnElement[bool]:
        """Rows that are not among those `seen`, and perhaps a few that are; see `mask`."""

    def mask(self, seen: str, changes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Which of `changes`, chosen by `unseen`, are really not among those `seen`; None: all."""
        return None

    def rewound(self, reading: Reading, seen: str) -> bool:
        """Whether the log is older than what was `seen` of it: restored from a backup."""
        return False

    def untold(self, reading: Reading, seen: str) -> bool:
        """Whether the table has changed since, in a way that no trigger is told of."""
        return False

    @abstractmethod
    def forget(self, seen: str, chunk: str) -> None:
        """Delete the rows `seen`, and note in the same transaction that the `chunk` has them."""

    def fits(self, column: str) -> bool:
        """Whether the database takes a name of this length."""
        return len(column.encode()) <= 63

    # -- what they have in common -----------------------------------------------------------------------------------

    @cached_property
    def source(self) -> Table:
        """The table that is followed.

        Raises:
            SourceError: it is not there, lacks the key, or has a column that cannot be followed.
        """
        source = self.dialect.relation(self.engine, self._table)
        names = list(source.c.keys())
        unknown = [name for name in self.key if name not in names]
        if unknown:
            raise SourceError(f"{self.where}: there is no column {unknown[0]!r}; the columns are {', '.join(names)}.")
        reserved = {OPERATION, BEFORE, POSITION, COMMITTED_AT}
        for name in names:
            if name in reserved or not self.fits(f"new_{name}"):
                raise SourceError(
                    f"{self.where}: the column {name!r} has a name that is reserved, or too long to be followed under "
                    f"the name 'new_{name}'. Rename it, or follow a table without it."
                )
        return source

    @cached_property
    def log(self) -> Table:
        """The log, with the columns it has when it is sound."""
        columns = [(name, column.type) for name, column in self.source.c.items()]
        return Table(
            self.name,
            MetaData(),
            Column(CHANGE, BigInteger),
            Column(OPERATION, Text),
            Column(CHANGED_AT, DateTime),
            Column(NOTE, Text),
            *(Column(f"new_{name}", kind) for name, kind in columns),
            *(Column(f"old_{name}", kind) for name, kind in columns),
            schema=self.schema,
        )

    def reading(self) -> AbstractContextManager[Reading]:
        """A snapshot that shows table and log."""
        return self.dialect.reading(self.engine, [self.source, self.log] if self.exists() else [self.source])

    def exists(self) -> bool:
        """Whether there is a table of the log's name."""
        return inspect(self.engine).has_table(self.name, self.schema)

    def broken_off(self, reading: Reading, seen: str) -> bool:
        """Whether the log has a mark among the rows not yet `seen` that asks for a snapshot."""
        marks = select(self.log.c[CHANGE]).where(self.log.c[OPERATION].in_([RESHAPED, LOST]), self.unseen(seen))
        changes = np.array([change for (change,) in reading.rows(marks)], dtype=np.int64)
        if not len(changes):
            return False
        mask = self.mask(seen, changes)
        return True if mask is None else bool(mask.any())

    def held(self, reading: Reading, seen: str) -> int:
        """How many of the rows `seen` are there, without the marks that stay; all of them, until they are deleted."""
        counted = select(func.count()).where(
            self.log.c[OPERATION].in_([*CHANGES, RESHAPED, LOST]), not_(self.unseen(seen))
        )
        return int(only(reading.rows(counted)))

    def changes(self, seen: str) -> Select[Any]:
        """The changes not yet `seen`, in order: number, operation, time, the row after, the row before."""
        columns = self.dialect.read_columns(self.log)
        chosen = [column for column in (self.log.c if columns == [self.log] else columns)
                  if column.name != NOTE]  # fmt: skip
        wanted = self.log.c[OPERATION].in_(CHANGES)
        return select(*chosen).where(wanted, self.unseen(seen)).order_by(self.log.c[CHANGE])

    def rows(self) -> Select[Any]:
        """The table itself."""
        return select(*self.dialect.read_columns(self.source))

    def waiting(self, seen: str) -> tuple[int, timedelta]:
        """How many changes are not yet `seen`, and how long ago the oldest was made."""
        counted = select(func.count(), func.min(self.log.c[CHANGED_AT])).where(
            self.log.c[OPERATION].in_(CHANGES), self.unseen(seen)
        )
        with self.engine.connect() as connection:
            rows, oldest = connection.execute(counted).one()
            now = self.dialect.clock(connection)
        return rows, timedelta(0) if oldest is None else max(now - to_utc(oldest), timedelta(0))

    def clock(self) -> datetime:
        """The source's time, UTC."""
        with self.engine.connect() as connection:
            return self.dialect.clock(connection)

    def token(self, reading: Reading) -> str | None:
        """The log's own, by its first row; None where that is gone."""
        found = only(reading.rows(select(self.log.c[NOTE]).where(self.log.c[OPERATION] == LOG)))
        return None if found is None else str(found)

    def forgotten(self, reading: Reading) -> str:
        """The chunk whose rows were deleted last; nothing where there has been none."""
        return only(reading.rows(select(self.log.c[NOTE]).where(self.log.c[OPERATION] == FORGOTTEN))) or ""

    # -- SQL --------------------------------------------------------------------------------------------------------

    def quoted(self, name: str) -> str:
        """An identifier. SQLAlchemy's own quotes are for statements with parameters, where a percent sign is two."""
        known = self.engine.dialect.identifier_preparer
        return f"{known.initial_quote}{name.replace(known.final_quote, known.escape_to_quote)}{known.final_quote}"

    def qualified(self, name: str) -> str:
        """An identifier in the schema of the table."""
        return self.quoted(name) if self.schema is None else f"{self.quoted(self.schema)}.{self.quoted(name)}"

    @property
    def table_sql(self) -> str:
        """The table's name."""
        return self.qualified(self._table.rpartition(".")[2])

    def names(self, prefix: str = "", columns: Sequence[str] | None = None) -> list[str]:
        """Quoted names of all columns or of some, each with `prefix`."""
        return [self.quoted(f"{prefix}{name}") for name in (self.source.c.keys() if columns is None else columns)]

    def fields(self, row: str) -> list[str]:
        """Every column of `row`: `OLD`, `NEW` or an alias."""
        return [f"{row}.{name}" for name in self.names()]

    def marks(self, token: str | None) -> list[tuple[str, str]]:
        """Operation and note of a new log's first rows; `token` is that of the log it replaces."""
        made_anew = [(RESHAPED, "made anew")] if token else []
        return [(LOG, token or uuid.uuid4().hex), (FORGOTTEN, ""), *made_anew]

    def delete(self, connection: Connection, condition: str, chunk: str) -> None:
        """Delete the rows that meet a condition in SQL, and note it where there were any."""
        log = self.qualified(self.name)
        gone = self.run(connection, f"DELETE FROM {log} WHERE etl_operation NOT IN ({LASTING}) AND {condition}")
        if gone:
            self.run(connection, f"UPDATE {log} SET {NOTE} = '{chunk}' WHERE etl_operation = '{FORGOTTEN}'")

    def run(self, connection: Connection, statement: str) -> int:
        """Execute a statement as it is written, a percent sign in a name is no parameter; how many rows it wrote."""
        return connection.exec_driver_sql(statement, execution_options={"no_parameters": True}).rowcount
