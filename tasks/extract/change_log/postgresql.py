"""`PostgresqlLog`: what has been seen of a log is a snapshot, so nothing waits for long transactions."""

from collections.abc import Sequence
from typing import Any

from psycopg import errors
from sqlalchemy import Boolean, ColumnElement, Connection, Engine, literal_column, not_, select, text
from sqlalchemy.exc import DBAPIError

from tasks.dialects.dialect import Dialect
from tasks.dialects.reading import Reading, only
from tasks.errors import SourceError
from tasks.extract.change_log.log import CHANGE, CHANGED_AT, LOG, LOST, NOTE, ChangeLog, State
from tasks.missing_right import remedy

_TXID = "etl_txid"
_LOCK_SECONDS = 10

_COLUMNS = """
    SELECT a.attname::text, a.attnum::int, format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_attribute a WHERE a.attrelid = to_regclass('{table}') AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""
_FUNCTION = "SELECT p.prosrc FROM pg_proc p WHERE p.oid = to_regprocedure('{function}')"
_TRIGGERS = """
    SELECT t.tgname::text FROM pg_trigger t
    WHERE t.tgrelid = to_regclass('{table}') AND t.tgfoid = to_regprocedure('{function}') AND t.tgenabled IN ('O', 'A')
"""
_SCHEMA = text("""
    SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(:table)),
                    quote_ident(current_schema()))
""")
_FITNESS = """
    SELECT c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid),
           row_security_active(c.oid)
    FROM pg_class c WHERE c.oid = to_regclass('{table}')
"""
_RIGHTS = """
    SELECT has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'TRIGGER'),
           has_schema_privilege(c.relnamespace, 'CREATE'), pg_has_role(c.relowner, 'USAGE'),
           quote_ident(current_user), quote_ident(n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass('{table}')
"""
_UNIQUE_KEYS = """
    SELECT array_agg(a.attname::text)
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(attnum)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = to_regclass('{table}') AND i.indisunique AND i.indimmediate AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL
    GROUP BY i.indexrelid
"""


class PostgresqlLog(ChangeLog):
    """One function for two triggers: every changed row, and TRUNCATE.

    A row is written down as it stands in the table when the trigger runs, not as the statement left it: another trigger
    of the table may have changed it again in between, and has been written down already. An error that comes of
    columns altered since, or of row security, never reaches whoever writes; `lost` is written down instead. Where the
    log itself has been dropped there is nowhere to write, and the next run finds that it is gone.
    """

    def __init__(self, engine: Engine, dialect: Dialect, table: str, key: Sequence[str], name: str, where: str) -> None:
        super().__init__(engine, dialect, table, key, name, where)
        if self.schema is None:
            # The function looks nowhere by itself: whoever writes may have a search path of their own.
            with engine.connect() as connection:
                schema = connection.execute(_SCHEMA, {"table": self.quoted(table)}).scalar_one()
                if schema is None:
                    raise SourceError(f"{self.where}: its role may use no schema. {remedy(SourceError)}")
                found = connection.execute(
                    text("SELECT n FROM parse_ident(:schema) AS n(n)"), {"schema": schema}
                ).scalar_one()
            self.schema = found[0]
            self._table = f"{self.schema}.{table}"

    def prepare(self) -> None:
        """See `ChangeLog.prepare`.

        Raises:
            SourceError: a right is missing, or the table is none that triggers can follow.
            DBAPIError: the table's writers did not let it be locked in time.
        """
        with self.engine.begin() as connection:
            self.dialect.serialize(connection, f"etl_change_log {self.name}")
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            self._lookup()
            state = self._state(connection)
            if state.sound:
                return
            owned = self._expect_rights(connection)
            try:
                self._make(connection, state, owned)
            except DBAPIError as error:
                if isinstance(error.orig, errors.InsufficientPrivilege):
                    raise SourceError(f"{self.where}: {error.orig}. {remedy(SourceError)}") from error
                raise

    def remove(self) -> None:
        """See `ChangeLog.remove`. The triggers go with their function: who may not alter the table may do that."""
        with self.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            self.run(connection, f"DROP FUNCTION IF EXISTS {self._function} CASCADE")
            self.run(connection, f"DROP TABLE IF EXISTS {self.qualified(self.name)}")

    def state(self, reading: Reading) -> State:
        """See `ChangeLog.state`."""
        return self._state(reading)

    def seen(self, reading: Reading, before: str | None) -> str:
        """The snapshot. A transaction that is not in it will be in a later one, whenever its number was given out."""
        return str(only(reading.rows(text("SELECT pg_current_snapshot()::text"))))

    def unseen(self, seen: str) -> ColumnElement[bool]:
        """Rows of transactions that the snapshot does not show."""
        return not_(_shown(seen))

    def rewound(self, reading: Reading, seen: str) -> bool:
        """Whether transactions have lower numbers than those that were seen."""
        later = text(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric "
            f"< split_part({_literal(seen)}, ':', 2)::numeric"
        )
        return bool(only(reading.rows(later)))

    def forget(self, seen: str, chunk: str) -> None:
        """See `ChangeLog.forget`."""
        with self.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            self.delete(connection, str(_shown(seen)), chunk)

    def _expect_rights(self, connection: Connection) -> bool:
        """Whether the role owns the table, once it is clear that it may make what is needed.

        Raises:
            SourceError: it may not.
        """
        ((may_read, may_trigger, may_create, owned, role, schema),) = self._ask(connection, _RIGHTS)
        grants = [
            grant
            for allowed, grant in (
                (may_read, f"GRANT SELECT ON {self.table_sql} TO {role}"),
                (may_trigger, f"GRANT TRIGGER ON {self.table_sql} TO {role}"),
                (may_create, f"GRANT CREATE ON SCHEMA {schema} TO {role}"),
            )
            if not allowed
        ]
        if grants:
            raise SourceError(
                f"{self.where}: its role lacks rights to make a change log. {'; '.join(grants)}; {remedy(SourceError)}"
            )
        return bool(owned)

    def _expect_fit(self, source: Reading | Connection) -> None:
        fitness = self._ask(source, _FITNESS)
        if fitness and not fitness[0][0]:
            raise SourceError(
                f"{self.where}: a trigger tells of the rows of a plain table. This is a view, is partitioned or has "
                "children, which can be emptied without it. Follow each of the tables under it, or use LogExtract."
            )
        if fitness and fitness[0][1]:
            raise SourceError(
                f"{self.where}: row security hides rows from its role. Give it BYPASSRLS: ALTER ROLE … BYPASSRLS."
            )
        not_null = {name for name, _, _, required in self._columns(source) if required}
        unique = [set(columns) for (columns,) in self._ask(source, _UNIQUE_KEYS)]
        if not set(self.key) <= not_null or not any(columns <= set(self.key) for columns in unique):
            raise SourceError(
                f"{self.where}: its key ({', '.join(self.key)}) is not unique, without NULL and checked at once, "
                "so the order of its changes says nothing. Declare the primary key, or make the constraint NOT "
                "DEFERRABLE and the columns NOT NULL."
            )

    def _make(self, connection: Connection, state: State, owned: bool) -> None:
        log = self.qualified(self.name)
        columns = self._columns(connection)
        if self._exists(connection, _FUNCTION):
            # Locks the table against its writers first, so that no change falls between the old log and the new.
            self._make_triggers(connection, owned)
        self.run(connection, f"DROP TABLE IF EXISTS {log}")
        typed = [
            f"{self.quoted(f'{prefix}_{name}')} {kind}" for prefix in ("new", "old") for name, _, kind, _ in columns
        ]
        self.run(
            connection,
            f"CREATE TABLE {log} ({CHANGE} bigint GENERATED ALWAYS AS IDENTITY, etl_operation text NOT NULL, "
            f"{CHANGED_AT} timestamptz NOT NULL DEFAULT clock_timestamp(), {NOTE} text, "
            f"{_TXID} xid8 NOT NULL DEFAULT pg_current_xact_id(), {', '.join(typed)})",
        )
        self.run(
            connection,
            f"CREATE OR REPLACE FUNCTION {self._function} RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            "SET search_path = pg_catalog, pg_temp SET row_security = off "
            f"AS $tidegate${self._body(columns)}$tidegate$",
        )
        self._make_triggers(connection, owned)
        for operation, note in self.marks(state.token):
            self.run(connection, f"INSERT INTO {log} (etl_operation, {NOTE}) VALUES ('{operation}', '{note}')")

    def _make_triggers(self, connection: Connection, owned: bool) -> None:
        for name, event in self._triggers.items():
            self.run(
                connection,
                f"CREATE OR REPLACE TRIGGER {self.quoted(name)} AFTER {event} EXECUTE FUNCTION {self._function}",
            )
            if owned:
                # Also for what replication applies here.
                self.run(connection, f"ALTER TABLE {self.table_sql} ENABLE ALWAYS TRIGGER {self.quoted(name)}")

    def _body(self, columns: list[tuple[Any, ...]]) -> str:
        log, table = self.qualified(self.name), self.table_sql
        names = [name for name, *_ in columns]
        new, old = self.names("new_", names), self.names("old_", names)
        plain = self.names("", names)
        # Found by the index of the key; told apart to the letter, as the target does.
        same = {
            row: " AND ".join(
                f"present.{n} = {row}.{n} AND {_exact('present', n)} = {_exact(row, n)}" for n in self._key
            )
            for row in ("OLD", "NEW")
        }
        moved = " OR ".join(f"{_exact('OLD', n)} IS DISTINCT FROM {_exact('NEW', n)}" for n in self._key)
        shape = "; ".join(f"{number} {name!r} {kind}" for name, number, kind, _ in columns)
        return f"""
-- {shape}
DECLARE
    moved boolean;
    reason text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO {log} (etl_operation) VALUES ('truncate');
        RETURN NULL;
    END IF;
    moved := TG_OP = 'UPDATE' AND ({moved});
    IF TG_OP = 'DELETE' OR moved THEN
        INSERT INTO {log} (etl_operation, {", ".join(old)})
        SELECT 'delete', {", ".join(f"OLD.{n}" for n in plain)}
        WHERE NOT EXISTS (SELECT FROM {table} AS present WHERE {same["OLD"]});
    END IF;
    IF TG_OP = 'INSERT' OR moved THEN
        INSERT INTO {log} (etl_operation, {", ".join(new)})
        SELECT 'insert', {", ".join(f"present.{n}" for n in plain)} FROM {table} AS present WHERE {same["NEW"]};
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO {log} (etl_operation, {", ".join([*new, *old])})
        SELECT 'update', {", ".join([*(f"present.{n}" for n in plain), *(f"OLD.{n}" for n in plain)])}
        FROM {table} AS present WHERE {same["NEW"]};
    END IF;
    RETURN NULL;
EXCEPTION WHEN syntax_error_or_access_rule_violation OR data_exception THEN
    reason := SQLERRM;
    BEGIN
        INSERT INTO {log} (etl_operation, {NOTE}) VALUES ('{LOST}', reason);
    EXCEPTION WHEN undefined_table OR undefined_column THEN
        -- The log has been dropped.
    END;
    RETURN NULL;
END
"""

    def _lookup(self) -> None:
        """Tell of a table or a column that is not there before anything else is asked."""
        assert self.source is not None

    def _state(self, source: Reading | Connection) -> State:
        self._expect_fit(source)
        columns = self._columns(source)
        body = only(self._ask(source, _FUNCTION))
        triggers = {name for (name,) in self._ask(source, _TRIGGERS)}
        known = list(self.source.c.keys()) == [name for name, *_ in columns]
        return State(
            self._token(source),
            tuple(name for name in self._triggers if name not in triggers),
            not known or body != self._body(columns),
        )

    def _token(self, source: Reading | Connection) -> str | None:
        there = only(self._ask(source, f"SELECT to_regclass({_literal(self.qualified(self.name))})::text"))
        if there is None:
            return None
        asked = select(self.log.c[NOTE]).where(self.log.c.etl_operation == LOG)
        found = only(source.rows(asked) if isinstance(source, Reading) else [tuple(r) for r in source.execute(asked)])
        return None if found is None else str(found)

    def _columns(self, source: Reading | Connection) -> list[tuple[Any, ...]]:
        """Name, number, type, and whether it is NOT NULL, of every column."""
        return self._ask(source, _COLUMNS)

    def _exists(self, source: Connection, question: str) -> bool:
        return bool(self._ask(source, question))

    def _ask(self, source: Reading | Connection, question: str) -> list[tuple[Any, ...]]:
        table, function = self.table_sql.replace("'", "''"), self._function.replace("'", "''")
        asked = question.replace("{table}", table).replace("{function}", function)
        statement = text(asked.replace(":", r"\:"))
        return source.rows(statement) if isinstance(source, Reading) else [tuple(r) for r in source.execute(statement)]

    @property
    def _function(self) -> str:
        return f"{self.qualified(self.name)}()"

    @property
    def _key(self) -> list[str]:
        return self.names("", self.key)

    @property
    def _triggers(self) -> dict[str, str]:
        """Names, and what they fire after."""
        return {
            f"{self.name}_row": f"INSERT OR UPDATE OR DELETE ON {self.table_sql} FOR EACH ROW",
            f"{self.name}_all": f"TRUNCATE ON {self.table_sql} FOR EACH STATEMENT",
        }


def _exact(row: str, column: str) -> str:
    return f'{row}.{column}::text COLLATE "C"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _shown(snapshot: str) -> ColumnElement[bool]:
    """Whether a row's transaction is in the snapshot; a snapshot's text has digits, commas and colons only."""
    return literal_column(f"pg_visible_in_snapshot({_TXID}, {_literal(snapshot)}::pg_snapshot)", Boolean)
