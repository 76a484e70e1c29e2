"""`Dialect`: what a database can do for tidegate, in the form every database SQLAlchemy speaks can do it.

`postgresql.py` and `sqlite.py` override only what differs. Nothing else in tidegate asks which database it is on.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psutil
import pyarrow as pa
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Inspector,
    String,
    Table,
    Text,
    cast,
    exists,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy.types import TypeEngine

from tasks.column_types import JSON
from tasks.dialects.column_kind import ColumnKind, column_kind, written
from tasks.dialects.ddl_text import name_text
from tasks.dialects.source import Source
from tasks.dialects.unheld import Find, Unheld, in_columns
from tasks.errors import ConfigError, ContractError
from tasks.needs import Grant, Need
from tasks.window import to_utc

_INSERT_ROWS = 5_000

_SEPARATOR = literal_column("'\x1f'", Text)
_ESCAPE = literal_column("'\x1e'", Text)

AGAIN = "run this again once the table is there"
"""What is said, in any database, of rights on a table that need not be there yet."""


class Dialect(Source):
    """The generic form."""

    # -- transactions and locks --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, engine: Engine) -> Iterator[Connection]:
        """A read-write transaction that commits at the end of the block, or rolls back."""
        with engine.begin() as connection:
            yield connection

    def serialize(self, connection: Connection, name: str) -> None:
        """Let one transaction at a time pass this point for `name`, until it ends."""

    @contextlib.contextmanager
    def hold(self, engine: Engine, attempt: str) -> Iterator[str]:
        """Own `attempt` for the length of the block; yields what `held` needs to see that from elsewhere."""
        yield f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"

    def held(self, connection: Connection, attempt: str, owner: str) -> bool:
        """Whether the process that owns `attempt` still lives. One on another host counts as living."""
        host, pid, born = owner.rsplit("/", 2)
        if host != socket.gethostname():
            return True
        try:
            process = psutil.Process(int(pid))
            return f"{process.create_time():.2f}" == born and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def clock(self, connection: Connection) -> datetime:
        """The target's own time, UTC."""
        return to_utc(connection.execute(select(func.current_timestamp())).scalar_one())

    # -- columns -----------------------------------------------------------------------------------------------

    drops_not_null = True
    """Whether a column that is NOT NULL can be made to take NULL."""

    def column_kind(self, declared: TypeEngine[Any], on: SqlDialect) -> ColumnKind:
        """What a column of this type can hold, in this database."""
        return column_kind(written(declared, on))

    def table_collation(self, inspector: Inspector, table: Table) -> str | None:
        """How texts of a table compare whose columns do not say it; None where that makes no difference."""
        return None

    def altered(self, name: str, there: Column[Any], wanted: Column[Any], on: SqlDialect) -> Iterator[str]:
        """The clauses of ALTER TABLE that make of the column that is `there` the one that is `wanted`.

        Args:
            name: of the column, quoted.
            there: as the database describes it.
            wanted: the same, of a wider type, or taking NULL, or both.
            on: SQLAlchemy's side of this database.
        """
        if wanted.type is not there.type:
            yield f"ALTER COLUMN {name} TYPE {wanted.type.compile(dialect=on)}"
        if wanted.nullable and not there.nullable:
            yield f"ALTER COLUMN {name} DROP NOT NULL"

    def alter_table(self, table: str, clauses: Sequence[str]) -> list[str]:
        """The statements that carry out `clauses` on a table, whose name is quoted: one, which writes it anew once."""
        return [f"ALTER TABLE {table} {', '.join(clauses)}"] if clauses else []

    # -- expressions -------------------------------------------------------------------------------------------

    def key_text(self, columns: Sequence[ColumnElement[Any]]) -> ColumnElement[str]:
        """A key as one text; equal for equal keys of equally typed columns."""
        if len(columns) == 1:
            return self.value_text(columns[0])
        first, *others = (_without_separator(column, self.value_text(column)) for column in columns)
        joined: ColumnElement[str] = first
        for value in others:
            joined = joined + _SEPARATOR + value
        return joined

    def value_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """A value of a key as a text; equal for equal values, another for others."""
        return cast(column, Text)

    def among(
        self, key: Sequence[ColumnElement[Any]], others: Sequence[ColumnElement[Any]], *where: ColumnElement[bool]
    ) -> ColumnElement[bool]:
        """Whether the key of the row at hand, never NULL, is one of `others` in those rows of their table `where`."""
        return exists().where(*(column == other for column, other in zip(key, others, strict=True)), *where)

    def instant_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """A timestamp as text that begins `YYYY-MM-DD HH:MM:SS`, in UTC where it is an instant."""
        return cast(column, Text)

    # -- what it can hold --------------------------------------------------------------------------------------

    def unheld(self, rows: pa.Table, key: Mapping[str, int]) -> list[Unheld]:
        """The values of `rows` that the database cannot hold, each of which makes its row a dead letter.

        Args:
            rows: a batch in the contract's types.
            key: the names of key columns among them, and how long their texts may be where a key has a longest length.
        """
        return in_columns(rows, partial(self._holds, key))

    def _holds(self, key: Mapping[str, int], field: pa.Field) -> Iterator[tuple[str, Find]]:
        """For a column, what its values must not be: the rule that a dead letter names, and how they are found."""
        yield from ()

    def refuse(self, what: str, columns: pa.Schema, key: Sequence[str]) -> None:
        """Refuse columns of which the database can hold no value at all, or no key.

        Args:
            what: the pipeline, as the message begins.
            columns: the contract's columns.
            key: names of key columns.

        Raises:
            ContractError: there is such a column.
        """
        self.refuse_keys(what, columns, key)
        for field in columns:
            if pa.types.is_list(field.type):
                raise ContractError(
                    f"{what}: column {field.name!r} is declared as {field.type}, and {self.name} has no arrays. "
                    "Declare it as Json and make JSON of it in the transform, or load a row for each element."
                )

    def refuse_keys(self, what: str, columns: pa.Schema, key: Sequence[str]) -> None:
        """Refuse a key that no database compares in an index.

        Raises:
            ContractError: there is such a column in it.
        """
        for field in (columns.field(name) for name in key):
            if field.type == JSON or pa.types.is_list(field.type):
                raise ContractError(
                    f"{what}: the key column {field.name!r} is declared as {field.type}, by which no row is found. "
                    "Name another key, or make a text of it in the transform."
                )

    # -- rights ------------------------------------------------------------------------------------------------

    has_roles = False
    """Whether it has roles, or users, who are granted rights."""

    state_rights_reach_all_tables = False
    """Whether who may make state and staging tables may read and write every table of that database."""

    def role(self, on: SqlDialect, name: str, *, login: bool = True) -> str:
        """A role's name as statements have it: one that logs in, or one that people are members of."""
        return name_text(name, on)

    def role_creation(self, on: SqlDialect, name: str, *, login: bool) -> str:
        """The statement that makes a role, with a place for the password; or one that people are members of."""
        raise ConfigError(f"{self.name} has no roles: whoever may write the file may do everything.")

    def grants(self, on: SqlDialect, role: str, database: str, need: Need) -> Iterator[Grant]:
        """What an administrator has to run so that `role` may do what is needed; each can be run again.

        Args:
            on: SQLAlchemy's side of this database.
            role: its name, see `role`.
            database: the name of the database.
            need: what is needed.
        """
        yield from ()

    # -- bulk writing ------------------------------------------------------------------------------------------

    def write(self, engine: Engine, table: Table, rows: pa.Table) -> int:
        """Append `rows`, whose columns are those of `table` in its order, in a transaction; how many there were.

        It need not survive a crash of the server: the commit counts the rows before it trusts them.
        """
        with self.transaction(engine) as connection:
            for part in rows.to_batches(max_chunksize=_INSERT_ROWS):
                if part.num_rows:
                    connection.execute(insert(table), part.to_pylist())
        return int(rows.num_rows)


def _without_separator(column: ColumnElement[Any], value: ColumnElement[str]) -> ColumnElement[str]:
    """`value`, in which a separator of its own is written as an escape and a letter."""
    if not isinstance(column.type, String):
        return value
    escaped = func.replace(value, _ESCAPE, _ESCAPE + literal_column("'0'", Text), type_=Text)
    return func.replace(escaped, _SEPARATOR, _ESCAPE + literal_column("'1'", Text), type_=Text)


def utc_now() -> datetime:
    """This machine's time, UTC."""
    return datetime.now(UTC)
