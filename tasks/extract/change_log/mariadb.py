"""`MariadbLog`: what has been seen of a log is the very numbers, so nothing waits for long transactions."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, func, literal_column, select, text, true
from sqlalchemy.exc import DBAPIError

from tasks.change_columns import OPERATION
from tasks.dialects.mariadb import error_code
from tasks.dialects.reading import Reading, only
from tasks.errors import SourceError, SourceUnavailable
from tasks.extract.change_log.log import CHANGE, CHANGED_AT, FORGOTTEN, LOG, NOTE, RESHAPED, ChangeLog, State
from tasks.extract.change_log.mariadb_triggers import triggers
from tasks.extract.change_log.numbers import Numbers
from tasks.missing_right import remedy

_LOCK_SECONDS = 10
_DELETED_AT_ONCE = 500
_SHORT = 255
"""Bytes. Longer columns are kept apart from the log's row, which may not be twice as long as the table's."""

_DENIED = {
    1044,  # no rights in the database
    1142, 1143,  # no such right on the table, or a column
    1227,  # a privilege of the server
    1370,  # no right on a routine
    1419,  # triggers need SUPER where there is a binary log
}  # fmt: skip


def _of_table(schema: str = "table_schema", name: str = "table_name") -> str:
    """What finds the table in a view of `information_schema`, told from one whose name has other cases."""
    return f"""
        {schema} = :schema AND {name} = :table
        AND (@@lower_case_table_names > 0 OR CAST({name} AS BINARY) = CAST(:table AS BINARY))
    """


_COLUMNS = f"""
    SELECT column_name, column_type, character_set_name, collation_name, character_octet_length, is_nullable
    FROM information_schema.columns WHERE {_of_table()} ORDER BY ordinal_position
"""
_FITNESS = f"""
    SELECT engine, create_options LIKE '%partitioned%' FROM information_schema.tables
    WHERE {_of_table()} AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
"""
_CREATED = f"SELECT CAST(create_time AS CHAR) FROM information_schema.tables WHERE {_of_table()}"
_UNIQUE_KEYS = f"""
    SELECT index_name, column_name FROM information_schema.statistics
    WHERE {_of_table()} AND non_unique = 0 AND index_type = 'BTREE'
"""
_CASCADES = f"""
    SELECT constraint_name FROM information_schema.referential_constraints
    WHERE {_of_table("constraint_schema")}
      AND (delete_rule NOT IN ('RESTRICT', 'NO ACTION') OR update_rule NOT IN ('RESTRICT', 'NO ACTION'))
"""
_TRIGGERS = f"""
    SELECT trigger_name, action_statement FROM information_schema.triggers
    WHERE {_of_table("event_object_schema", "event_object_table")} AND action_timing = 'AFTER'
"""


class MariadbLog(ChangeLog):
    """A trigger for each kind of change.

    Numbers are given out before their transaction commits, so one that was open while the log was read comes up later
    with a lower number than what has been seen. So a place in the log is no number, but the set of those that were
    there: whatever else is there later has not been seen, however long its transaction took, and the numbers of those
    that rolled back are never missed. The set is small, since what has been seen is deleted.

    TRUNCATE fires no trigger. What has been seen tells therefore how many rows the table had. Emptied, it has no more
    than were inserted since, and counting as far as that proves that it was not. An ALTER TABLE, which may change
    values and then be undone, shows in the time of the table's creation.
    """

    def prepare(self) -> None:
        """See `ChangeLog.prepare`.

        Raises:
            SourceError: a right is missing, or the table is none that triggers can follow.
            SourceUnavailable: another run is at it.
            DBAPIError: the table's writers did not let it be locked in time.
        """
        try:
            with self._session() as connection:
                if not connection.execute(select(func.get_lock(self.name, _LOCK_SECONDS))).scalar_one():
                    raise SourceUnavailable(f"{self.where}: another run is making the log {self.name!r}.")
                state = self._state(connection)
                if not state.sound:
                    self._make(connection, state)
        except DBAPIError as error:
            if error_code(error) not in _DENIED:
                raise
            raise SourceError(f"{self.where}: its role lacks rights to make a change log. {self._grants()}") from error

    def remove(self) -> None:
        """See `ChangeLog.remove`."""
        with self._session() as connection:
            self._drop_triggers(connection)
            self.run(connection, f"DROP TABLE IF EXISTS {self.qualified(self.name)}")

    def state(self, reading: Reading) -> State:
        """See `ChangeLog.state`."""
        return self._state(reading)

    def seen(self, reading: Reading, before: str | None) -> str:
        """When the table was created, how many rows it has, and the numbers that are there."""
        if before is None:
            rows = only(reading.rows(select(func.count()).select_from(self.source)))
        else:
            inserted, deleted = self._inserted_and_deleted(reading, before)
            rows = int(before.split(";")[1]) + inserted - deleted
        numbers = Numbers.of(self._changes(reading, self.log.c[OPERATION].not_in([LOG, FORGOTTEN])))
        return f"{self._created(reading)};{rows};{numbers}"

    def unseen(self, seen: str) -> ColumnElement[bool]:
        """Any: what was seen has been deleted, unless that failed."""
        return true()

    def mask(self, seen: str, changes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """See `ChangeLog.mask`."""
        return ~_numbers(seen).holds(changes)

    def held(self, reading: Reading, seen: str) -> int:
        """See `ChangeLog.held`."""
        numbers = _numbers(seen)
        return sum(int(numbers.holds(changes).sum()) for changes in self._changes(reading, true()))

    def untold(self, reading: Reading, seen: str) -> bool:
        """Whether the table has been altered or emptied."""
        created, rows, _ = seen.split(";")
        if created != self._created(reading):
            return True
        inserted, deleted = self._inserted_and_deleted(reading, seen)
        some = select(literal_column("1")).select_from(self.source).limit(inserted + 1).subquery()
        there = only(reading.rows(select(func.count()).select_from(some)))
        return bool(there != min(int(rows) + inserted - deleted, inserted + 1))

    def forget(self, seen: str, chunk: str) -> None:
        """See `ChangeLog.forget`. It waits for no row that others have locked, and locks no gap between rows."""
        numbers, log = _numbers(seen), self.qualified(self.name)
        if not len(numbers):
            return
        committed = self.engine.execution_options(isolation_level="READ COMMITTED")
        with committed.begin() as connection:
            for some in numbers.slices(_DELETED_AT_ONCE):
                listed = " UNION ALL ".join([f"SELECT {some[0]} AS number", *(f"SELECT {other}" for other in some[1:])])
                # One row after the other by its key. For a list of numbers the server may rather read the whole log.
                self.run(
                    connection,
                    f"DELETE gone FROM ({listed}) AS seen STRAIGHT_JOIN {log} AS gone FORCE INDEX (PRIMARY) "
                    f"ON gone.{CHANGE} = seen.number",
                )
            self.run(connection, f"UPDATE {log} SET {NOTE} = '{chunk}' WHERE {CHANGE} = {self._mark(connection)}")

    def fits(self, column: str) -> bool:
        """It counts letters, not bytes."""
        return len(column) <= 64

    # -- making ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _session(self) -> Iterator[Connection]:
        """One of its own, whose settings go with it: who makes triggers gives them its `sql_mode` for good."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.detach()
            self.run(connection, f"SET lock_wait_timeout = {_LOCK_SECONDS}")
            self.run(connection, "SET sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES'")
            self.run(connection, "SET innodb_strict_mode = ON")
            yield connection

    def _make(self, connection: Connection, state: State) -> None:
        """Each statement is a transaction of its own, so that the order of them is what keeps every change.

        The mark comes before anything is taken away; no trigger is there without a log; the snapshot comes later. The
        numbers go on after the highest that may have been seen: whoever wrote is done when the triggers are gone.
        """
        log, columns, last = self.qualified(self.name), self._columns(connection), 0
        if state.token:
            self.run(connection, f"INSERT INTO {log} (etl_operation, {NOTE}) VALUES ('{RESHAPED}', 'made anew')")
        self._drop_triggers(connection)
        if state.token:
            last = connection.execute(select(func.max(self.log.c[CHANGE]))).scalar_one()
        self.run(connection, f"DROP TABLE IF EXISTS {log}")
        typed = [
            f"{self.quoted(f'{prefix}_{column[0]}')} {_kept(*column[1:5])} NULL DEFAULT NULL"
            for prefix in ("new", "old")
            for column in columns
        ]
        self.run(
            connection,
            f"CREATE TABLE {log} ({CHANGE} BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, "
            f"etl_operation VARCHAR(10) CHARACTER SET ascii NOT NULL, "
            f"{CHANGED_AT} DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)), {NOTE} TEXT, {', '.join(typed)}) "
            f"ENGINE = InnoDB ROW_FORMAT = DYNAMIC CHARACTER SET utf8mb4 AUTO_INCREMENT = {last + 1}",
        )
        marks = ", ".join(f"('{operation}', '{note}')" for operation, note in self.marks(state.token))
        self.run(connection, f"INSERT INTO {log} (etl_operation, {NOTE}) VALUES {marks}")
        for name, (event, body) in self._triggers(columns).items():
            self.run(
                connection,
                f"CREATE TRIGGER {self.qualified(name)} AFTER {event} ON {self.table_sql} FOR EACH ROW {body}",
            )

    def _drop_triggers(self, connection: Connection) -> None:
        for event in ("ins", "upd", "del"):
            self.run(connection, f"DROP TRIGGER IF EXISTS {self.qualified(f'{self.name}_{event}')}")

    def _triggers(self, columns: list[tuple[Any, ...]]) -> dict[str, tuple[str, str]]:
        """By their names: what they fire after, and their bodies."""
        # The catalogue does not give every letter back.
        shape = hashlib.sha256(repr([column[:4] for column in columns]).encode()).hexdigest()
        found = triggers(self.quoted, self.name, [name for name, *_ in columns], self.key, shape)
        return {f"{self.name}_{event[:3].lower()}": (event, body) for event, body in found.items()}

    def _grants(self) -> str:
        with self.engine.connect() as connection:
            user, _, host = str(connection.exec_driver_sql("SELECT CURRENT_USER()").scalar_one()).rpartition("@")
        role = f"'{user}'@'{host}'"
        return (
            f"GRANT SELECT, TRIGGER ON {self.table_sql} TO {role}; "
            f"GRANT CREATE, DROP, SELECT, INSERT, UPDATE, DELETE ON {self.qualified(self.name)} TO {role}; and where "
            "the server writes a binary log, SET GLOBAL log_bin_trust_function_creators = 1, or GRANT SUPER; "
            + remedy(SourceError)
        )

    # -- what is there -----------------------------------------------------------------------------------------------

    def _expect_fit(self, source: Reading | Connection) -> None:
        assert self.source is not None, "a table that is not there is told of first, in the usual words"
        fitness = self._ask(source, _FITNESS)
        if not fitness or fitness[0][0].lower() != "innodb" or fitness[0][1]:
            raise SourceError(
                f"{self.where}: triggers follow a plain table of InnoDB. This is none, or is partitioned and can be "
                "emptied in part without them. Convert it, or read it by a cursor."
            )
        if cascades := [name for (name,) in self._ask(source, _CASCADES)]:
            raise SourceError(
                f"{self.where}: the foreign key {cascades[0]!r} changes rows without firing a trigger. Make it "
                "RESTRICT, or read the table in another way."
            )
        columns = self._columns(source)
        if not columns:
            # The catalogue shows a column to those who have a right on it.
            raise SourceError(f"{self.where}: its role may not read the table. {self._grants()}")
        unique: dict[str, set[str | None]] = {}
        for index, column in self._ask(source, _UNIQUE_KEYS):
            unique.setdefault(index, set()).add(column)
        nullable = {name for name, *_, empty in columns if empty == "YES"}
        if set(self.key) & nullable or not any(columns <= set(self.key) for columns in unique.values()):
            raise SourceError(
                f"{self.where}: its key ({', '.join(self.key)}) is not unique and without NULL, so the order of its "
                "changes says nothing. Declare the primary key, or another unique one of NOT NULL columns."
            )

    def _state(self, source: Reading | Connection) -> State:
        self._expect_fit(source)
        columns = self._columns(source)
        wanted = {name: body for name, (_, body) in self._triggers(columns).items()}
        found = dict(self._ask(source, _TRIGGERS))
        known = list(self.source.c.keys()) == [name for name, *_ in columns]
        return State(
            self._token(source),
            tuple(name for name in wanted if name not in found),
            not known or any(found.get(name) != body for name, body in wanted.items()),
        )

    def _token(self, source: Reading | Connection) -> str | None:
        if not self.exists():
            return None
        found = _rows(source, select(self.log.c[NOTE]).where(self.log.c[OPERATION] == LOG))
        return None if (token := only(found)) is None else str(token)

    def _mark(self, connection: Connection) -> int:
        """The number of the mark that says what has been deleted; to look for it by another column would lock rows."""
        asked = select(self.log.c[CHANGE]).where(self.log.c[OPERATION] == FORGOTTEN)
        return int(connection.execute(asked).scalar_one())

    def _inserted_and_deleted(self, reading: Reading, seen: str) -> tuple[int, int]:
        """How many rows have been since."""
        counts = [
            sum(
                int(self.mask(seen, changes).sum()) for changes in self._changes(reading, self.log.c[OPERATION] == kind)
            )
            for kind in ("insert", "delete")
        ]
        return counts[0], counts[1]

    def _changes(self, reading: Reading, condition: ColumnElement[bool]) -> Iterator[npt.NDArray[np.int64]]:
        """The numbers of the rows that meet a condition, in order, in batches."""
        for batch in reading.tables(select(self.log.c[CHANGE]).where(condition).order_by(self.log.c[CHANGE])):
            yield np.asarray(batch.column(CHANGE), dtype=np.int64)

    def _columns(self, source: Reading | Connection) -> list[tuple[Any, ...]]:
        """Name, type, character set, collation, bytes and whether it may be NULL, of every column."""
        return self._ask(source, _COLUMNS)

    def _created(self, reading: Reading) -> str:
        return str(only(self._ask(reading, _CREATED)))

    def _ask(self, source: Reading | Connection, question: str) -> list[tuple[Any, ...]]:
        schema, name = self.schema or self.engine.url.database, self._table.rpartition(".")[2]
        return _rows(source, text(question).bindparams(schema=schema, table=name))


def _rows(source: Reading | Connection, asked: Any) -> list[tuple[Any, ...]]:
    return source.rows(asked) if isinstance(source, Reading) else [tuple(row) for row in source.execute(asked)]


def _numbers(seen: str) -> Numbers:
    return Numbers.parse(seen.split(";")[2])


def _kept(kind: str, characters: str | None, collation: str | None, octets: int | None) -> str:
    """The type in which the log keeps values of a column."""
    if octets is not None and octets > _SHORT and kind.startswith(("var", "char", "binary")):
        kind = "longtext" if characters else "longblob"
    return f"{kind} CHARACTER SET {characters} COLLATE {collation}" if characters else kind
