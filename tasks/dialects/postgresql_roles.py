"""`PostgresqlRoles`: what a role is granted on PostgreSQL, and how it says that a right is missing."""

from collections.abc import Iterator, Sequence
from functools import partial

import adbc_driver_manager
import psycopg
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy.exc import DBAPIError

from tasks.dialects.ddl_text import name_text
from tasks.dialects.dialect import AGAIN, Dialect
from tasks.needs import (
    Calls,
    FollowsByTriggers,
    FollowsLog,
    Grant,
    KeepsState,
    Loads,
    LooksAt,
    Need,
    Reads,
    SeesTransactions,
)

_DENIED = ("42501",)
_UNSEEN = ("42P01", "3F000")
"""SQLSTATEs: insufficient privilege; no such table, no such schema: where a role may not use a schema, it sees none."""

_SCHEMA = "public"
"""Where names without a schema are looked for, and made."""


class PostgresqlRoles(Dialect):
    """Rights on PostgreSQL."""

    has_roles = True

    def is_denied(self, error: Exception) -> bool:
        """By SQLSTATE. At the login libpq tells none."""
        return _sqlstate(error) in _DENIED

    def is_unseen(self, error: Exception) -> bool:
        """By SQLSTATE."""
        return _sqlstate(error) in _UNSEEN

    def role(self, on: SqlDialect, name: str, *, login: bool = True) -> str:
        """See `Dialect.role`."""
        return name_text(name, on)

    def role_creation(self, on: SqlDialect, name: str, *, login: bool) -> str:
        """See `Dialect.role_creation`."""
        return f"CREATE ROLE {self.role(on, name)} " + ("LOGIN PASSWORD '<password>'" if login else "NOLOGIN")

    def grants(self, on: SqlDialect, role: str, database: str, need: Need) -> Iterator[Grant]:
        """See `Dialect.grants`."""
        quote = partial(name_text, on=on)
        to = self.role(on, role)
        yield Grant(f"GRANT CONNECT ON DATABASE {quote(database)} TO {to}", "to log in to the database")
        match need:
            case Reads(table, purpose, made_by_runs):
                yield self._usage(on, to, table)
                if made_by_runs:
                    yield _if_there(on, "SELECT", [table], to, purpose)
                else:
                    yield Grant(f"GRANT SELECT ON {_table(on, table)} TO {to}", purpose)
            case Calls(function, purpose):
                yield Grant(
                    f"GRANT EXECUTE ON FUNCTION {_table(on, function)} TO {to}", purpose, _CALLED, optional=True
                )
            case SeesTransactions(lag=False, purpose=purpose):
                yield Grant(f"GRANT pg_read_all_stats TO {to}", purpose, "with a `lag` declared it is not needed")
            case FollowsLog():
                yield from self._follows(on, to, database, need)
            case FollowsByTriggers(table, purpose):
                yield self._usage(on, to, table)
                yield Grant(f"GRANT TRIGGER ON {_table(on, table)} TO {to}", f"{purpose}: the triggers")
                yield self._creation(on, to, table, f"{purpose}: the log beside the table, and the triggers' function")
            case KeepsState(purpose):
                yield self._usage(on, to, _SCHEMA + ".")
                yield self._creation(on, to, _SCHEMA + ".", purpose)
            case Loads():
                yield from self._loads(on, to, need)
            case LooksAt(tables, purpose):
                yield self._usage(on, to, tables[0])
                yield _if_there(on, "SELECT", tables, to, purpose)

    def _follows(self, on: SqlDialect, to: str, database: str, need: FollowsLog) -> Iterator[Grant]:
        table, quote = _table(on, need.table), partial(name_text, on=on)
        yield self._usage(on, to, need.table)
        yield Grant(
            f"ALTER ROLE {to} REPLICATION",
            f"{need.purpose}: to make a replication slot, read it and move it",
            "PostgreSQL has no narrower right: such a role may read the log of the whole server, so its password is "
            "for nobody else",
        )
        if need.publication is None:
            yield Grant(
                f"GRANT CREATE ON DATABASE {quote(database)} TO {to}", f"{need.purpose}: to make its publication"
            )
            yield Grant(
                _membership(table, to),
                f"{need.purpose}: to publish it, which only the owner of a table may",
                "this makes the role a member of the owner, who may do much more. Declare publication='...' and an "
                "administrator makes it instead: then neither this is needed nor CREATE on the database",
            )
        else:
            yield Grant(
                _publication(quote(need.publication), need.publication, table),
                f"{need.purpose}: the publication that is declared, so that the role owns nothing here",
            )
        yield Grant(
            f"ALTER TABLE {table} REPLICA IDENTITY FULL",
            f"{need.purpose}: only where the table has no primary key, or another key is declared",
            optional=True,
        )

    def _loads(self, on: SqlDialect, to: str, need: Loads) -> Iterator[Grant]:
        table = _table(on, need.table)
        yield self._usage(on, to, need.table)
        yield self._creation(on, to, need.table, _MAKES)
        if need.evolves:
            yield Grant(
                f"ALTER TABLE {table} OWNER TO {to}",
                need.purpose,
                "the first run makes the table, and owns it. One that somebody else has made is altered by its owner "
                "only, and on_drift='evolve' may have to; under 'freeze' and 'ignore' rights are enough",
                optional=True,
            )
            return
        verbs = ["SELECT", "INSERT", *["UPDATE"] * need.updates, *["DELETE"] * need.deletes]
        yield _if_there(
            on,
            ", ".join(verbs),
            [need.table],
            to,
            f"{need.purpose}, where an administrator makes the table",
        )

    def _usage(self, on: SqlDialect, to: str, table: str) -> Grant:
        schema = _schema(on, table)
        return Grant(f"GRANT USAGE ON SCHEMA {schema} TO {to}", "to find tables in the schema")

    def _creation(self, on: SqlDialect, to: str, table: str, purpose: str) -> Grant:
        return Grant(f"GRANT CREATE ON SCHEMA {_schema(on, table)} TO {to}", purpose)


_CALLED = (
    "everybody may, unless that was revoked. What a function of yours reads has to be granted, too, unless it is "
    "SECURITY DEFINER"
)
_MAKES = "to make targets, and what lies beside them: the first run does"


def _sqlstate(error: Exception) -> str | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause.sqlstate if isinstance(cause, psycopg.Error | adbc_driver_manager.Error) else None


def _schema(on: SqlDialect, table: str) -> str:
    return name_text(table.rpartition(".")[0] or _SCHEMA, on)


def _table(on: SqlDialect, table: str) -> str:
    return f"{_schema(on, table)}.{name_text(table.rpartition('.')[2], on)}"


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _block(*lines: str) -> str:
    return "\n".join(("DO $tidegate$", "BEGIN", *(f"    {line}" for line in lines), "END", "$tidegate$"))


def _if_there(on: SqlDialect, verbs: str, tables: Sequence[str], to: str, purpose: str) -> Grant:
    """Rights on those of `tables` that are there; it can be run again when more of them are."""
    lines: list[str] = []
    for name in (_table(on, table) for table in tables):
        lines += [
            f"IF to_regclass({_literal(name)}) IS NOT NULL THEN",
            f"    GRANT {verbs} ON {name} TO {to};",
            "END IF;",
        ]
    return Grant(_block(*lines), purpose, AGAIN)


def _membership(table: str, to: str) -> str:
    refusal = f"{table} belongs to a superuser, of whom no role should be a member: declare a publication."
    return "\n".join((
        "DO $tidegate$",
        "DECLARE",
        f"    owner pg_roles := r FROM pg_roles AS r JOIN pg_class ON relowner = r.oid "
        f"WHERE pg_class.oid = {_literal(table)}::regclass;",
        "BEGIN",
        "    IF owner.rolsuper THEN",
        f"        RAISE EXCEPTION {_literal(refusal.replace('%', '%%'))};",
        "    END IF;",
        f"    EXECUTE format('GRANT %I TO %s', owner.rolname, {_literal(to)});",
        "END",
        "$tidegate$",
    ))  # fmt: skip


def _publication(quoted: str, name: str, table: str) -> str:
    known = f"IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {_literal(name)}) THEN"
    held = (
        f"ELSIF NOT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = {_literal(name)} "
        f"AND format('%I.%I', schemaname, tablename)::regclass = {_literal(table)}::regclass) THEN"
    )
    return _block(
        known,
        f"    CREATE PUBLICATION {quoted} FOR TABLE {table} WITH (publish_via_partition_root = true);",
        "    IF current_setting('server_version_num')::int >= 180000 THEN",
        f"        ALTER PUBLICATION {quoted} SET (publish_generated_columns = stored);",
        "    END IF;",
        held,
        f"    ALTER PUBLICATION {quoted} ADD TABLE {table};",
        "END IF;",
    )
