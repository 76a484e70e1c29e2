"""`SqliteLog`: one writer at a time, so the numbers of the log are in the order of the commits."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, text

from tasks.dialects.reading import Reading, only
from tasks.errors import SourceError
from tasks.extract.change_log.log import CHANGE, CHANGED_AT, LOG, NOTE, ChangeLog, State

_CANDIDATE = "replaced?"
"""Mark of a row that INSERT OR REPLACE may be about to delete without firing a trigger for it."""


class SqliteLog(ChangeLog):
    """A row is written down as it stands in the table when the trigger runs, not as the statement left it.

    Another trigger may have changed it again in between, as one that touches `updated_at` does, and SQLite fires them
    in no particular order. What REPLACE deletes for a unique constraint other than the key fires no trigger by default:
    those rows are noted before, and taken for deleted if they are gone after.
    """

    def prepare(self) -> None:
        """See `ChangeLog.prepare`."""
        with self.dialect.transaction(self.engine) as connection:
            self._expect_fit(connection)
            state = self._state(connection)
            if state.sound:
                return
            last = self._last(connection) if state.token else 0
            self._drop(connection)
            for statement in (self._table_sql(connection), self._index_sql, *self._triggers(connection).values()):
                self.run(connection, statement)
            for place, (operation, note) in enumerate(self.marks(state.token), 1):
                self.run(
                    connection,
                    f"INSERT INTO {self.qualified(self.name)} ({CHANGE}, etl_operation, {NOTE}) "
                    f"VALUES ({last + place}, '{operation}', '{note}')",
                )

    def remove(self) -> None:
        """See `ChangeLog.remove`."""
        with self.dialect.transaction(self.engine) as connection:
            self._drop(connection)

    def state(self, reading: Reading) -> State:
        """See `ChangeLog.state`."""
        return self._state(reading)

    def seen(self, reading: Reading, before: str | None) -> str:
        """The highest number."""
        return str(only(reading.rows(select(func.coalesce(func.max(self.log.c[CHANGE]), 0)))))

    def unseen(self, seen: str) -> ColumnElement[bool]:
        """Higher ones."""
        return self.log.c[CHANGE] > int(seen)

    def rewound(self, reading: Reading, seen: str) -> bool:
        """Whether numbers were given out that the file does not know of."""
        return self._last(reading) < int(seen)

    def forget(self, seen: str, chunk: str) -> None:
        """See `ChangeLog.forget`."""
        with self.dialect.transaction(self.engine) as connection:
            self.delete(connection, f"{CHANGE} <= {int(seen)}", chunk)

    def fits(self, column: str) -> bool:
        """Any."""
        return True

    def _expect_fit(self, connection: Connection) -> None:
        # The table is looked up first, so that its absence is told in the usual words.
        names = {name.lower() for name in self.source.columns.keys()}  # noqa: SIM118 columns, not names, are what it iterates over
        kinds = _ask(connection, "SELECT type FROM sqlite_master WHERE name = {} COLLATE NOCASE", self._name)
        unique = [set(columns) for columns, _ in self._uniques(connection)]
        if kinds != [("table",)] or not names:
            raise SourceError(f"{self.where}: a trigger tells of the rows of a table, and this is none.")
        if not any({column.lower() for column in columns} <= {name.lower() for name in self.key} for columns in unique):
            raise SourceError(
                f"{self.where}: no unique constraint keeps its key ({', '.join(self.key)}) unique, so the order of its "
                "changes says nothing. Declare the primary key, or another unique one."
            )

    def _drop(self, connection: Connection) -> None:
        for suffix in _SUFFIXES:
            self.run(connection, f"DROP TRIGGER IF EXISTS {self.qualified(f'{self.name}_{suffix}')}")
        self.run(connection, f"DROP TABLE IF EXISTS {self.qualified(self.name)}")

    def _state(self, source: Reading | Connection) -> State:
        wanted = self._triggers(source)
        found = dict(
            _ask(source, "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = {} COLLATE NOCASE",
                 self._name)
        )  # fmt: skip
        there = _ask(source, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = {}", self.name)
        return State(
            self._token(source) if there else None,
            tuple(name for name in wanted if name not in found and not name.startswith(f"{self.name}_before")),
            any(found.get(name) != statement for name, statement in wanted.items()),
        )

    def _token(self, source: Reading | Connection) -> str | None:
        found = _ask(source, f"SELECT {NOTE} FROM {self.qualified(self.name)} WHERE etl_operation = {{}}", LOG)
        return None if (token := only(found)) is None else str(token)

    def _last(self, source: Reading | Connection) -> int:
        return int(only(_ask(source, "SELECT seq FROM sqlite_sequence WHERE name = {}", self.name)) or 0)

    def _columns(self, source: Reading | Connection) -> list[tuple[str, str]]:
        """Name and declared type of every column."""
        rows = _ask(source, "SELECT name, type FROM pragma_table_xinfo({}) WHERE hidden <> 1", self._name)
        return [(name, kind.removesuffix(" GENERATED ALWAYS")) for name, kind in rows]

    def _uniques(self, source: Reading | Connection) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Columns and collations of what REPLACE and the key look at; a partial index counts as a whole one.

        Raises:
            SourceError: a unique index is over an expression.
        """
        primary = _ask(source, "SELECT name, type FROM pragma_table_xinfo({}) WHERE pk > 0 ORDER BY pk", self._name)
        found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        if len(primary) == 1 and primary[0][1].upper() == "INTEGER":
            found.append(((primary[0][0],), ("BINARY",)))
        for (index,) in _ask(source, 'SELECT name FROM pragma_index_list({}) WHERE "unique" = 1', self._name):
            parts = _ask(source, "SELECT name, coll FROM pragma_index_xinfo({}) WHERE key = 1", index)
            if any(name is None for name, _ in parts):
                raise SourceError(
                    f"{self.where}: what INSERT OR REPLACE deletes for the unique index {index!r}, which is over an "
                    "expression, no trigger can tell. Make it one over columns."
                )
            found.append((tuple(name for name, _ in parts), tuple(collation for _, collation in parts)))
        return found

    def _table_sql(self, source: Connection) -> str:
        typed = [f"{self.quoted(f'{p}_{name}')} {kind}" for p in ("new", "old") for name, kind in self._columns(source)]
        return (
            f"CREATE TABLE {self.qualified(self.name)} ({CHANGE} INTEGER PRIMARY KEY AUTOINCREMENT, "
            f"etl_operation TEXT NOT NULL, {CHANGED_AT} DATETIME NOT NULL "
            f"DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')), {NOTE} TEXT, {', '.join(typed)})"
        )

    @property
    def _index_sql(self) -> str:
        index = self.qualified(f"{self.name}_replaced")
        return f"CREATE INDEX {index} ON {self.quoted(self.name)} ({CHANGE}) WHERE etl_operation = '{_CANDIDATE}'"

    def _triggers(self, source: Reading | Connection) -> dict[str, str]:
        """Their names, and the statements that make them, as SQLite keeps them."""
        names = [name for name, _ in self._columns(source)]
        log, table = self.quoted(self.name), self.quoted(self._name)
        new, old, plain = (self.names(prefix, names) for prefix in ("new_", "old_", ""))
        key = self.names("", self.key)
        present, before = [f"present.{n}" for n in plain], [f"OLD.{n}" for n in plain]
        moved = " OR ".join(f"OLD.{n} COLLATE BINARY IS NOT NEW.{n}" for n in key)
        same = {
            row: " AND ".join(f"present.{n} IS {row}.{n} AND present.{n} COLLATE BINARY IS {row}.{n}" for n in key)
            for row in ("OLD", "NEW")
        }
        gone = (
            f"INSERT INTO {log} (etl_operation, {', '.join(old)}) SELECT 'delete', {', '.join(before)} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {table} AS present WHERE {same['OLD']})"
        )
        logged = " AND ".join(
            f"present.{n} IS {log}.{o} AND present.{n} COLLATE BINARY IS {log}.{o}"
            for n, o in zip(key, self.names("old_", self.key), strict=True)
        )
        conflicts = self._conflicts(source)
        settled = [
            f"UPDATE {log} SET etl_operation = 'delete' WHERE etl_operation = '{_CANDIDATE}' AND NOT EXISTS "
            f"(SELECT 1 FROM {table} AS present WHERE {logged});",
            f"DELETE FROM {log} WHERE etl_operation = '{_CANDIDATE}';",
        ] if conflicts else []  # fmt: skip
        candidates = (
            f"INSERT INTO {log} (etl_operation, {', '.join(old)}) SELECT '{_CANDIDATE}', {', '.join(present)} "
            f"FROM {table} AS present WHERE ({conflicts})"
        )
        inserted = (
            f"INSERT INTO {log} (etl_operation, {', '.join(new)}) SELECT 'insert', {', '.join(present)} "
            f"FROM {table} AS present WHERE {same['NEW']};"
        )
        updated = (
            f"INSERT INTO {log} (etl_operation, {', '.join([*new, *old])}) "
            f"SELECT CASE WHEN {moved} THEN 'insert' ELSE 'update' END, {', '.join(present)}, "
            f"{', '.join(f'CASE WHEN NOT ({moved}) THEN {n} END' for n in before)} "
            f"FROM {table} AS present WHERE {same['NEW']};"
        )
        bodies = {
            "insert": ("AFTER INSERT", [*settled, inserted]),
            "update": ("AFTER UPDATE", [*settled, f"{gone} AND ({moved});", updated]),
            "delete": ("AFTER DELETE", [f"{gone};"]),
        }
        if conflicts:
            bodies["before_insert"] = ("BEFORE INSERT", [f"{candidates};"])
            bodies["before_update"] = ("BEFORE UPDATE", [f"{candidates} AND NOT ({same['OLD']});"])
        return {
            f"{self.name}_{suffix}": (
                f"CREATE TRIGGER {self.qualified(f'{self.name}_{suffix}')} {event} ON {table} "
                f"FOR EACH ROW BEGIN {' '.join(body)} END"
            )
            for suffix, (event, body) in bodies.items()
        }

    def _conflicts(self, source: Reading | Connection) -> str:
        """Whether `present` has to give way to `NEW` for a constraint that does not hold the whole key."""
        key = {name.lower() for name in self.key}
        alternatives = []
        for columns, collations in self._uniques(source):
            if key <= {name.lower() for name in columns} and set(collations) == {"BINARY"}:
                continue
            pairs = zip(self.names("", columns), collations, strict=True)
            alternatives.append(" AND ".join(f"present.{n} = NEW.{n} COLLATE {collation}" for n, collation in pairs))
        return " OR ".join(f"({alternative})" for alternative in alternatives)

    @property
    def _name(self) -> str:
        """The table's, without its schema."""
        return self._table.rpartition(".")[2]


_SUFFIXES = ("insert", "update", "delete", "before_insert", "before_update")


def _ask(source: Reading | Connection, question: str, value: str) -> list[tuple[Any, ...]]:
    statement = text(question.replace("{}", ":value")).bindparams(value=value)
    return source.rows(statement) if isinstance(source, Reading) else [tuple(row) for row in source.execute(statement)]
