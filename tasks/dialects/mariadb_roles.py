"""`MariadbRoles`: what a user is granted on MariaDB, and on MySQL as a source."""

from collections.abc import Iterator
from functools import partial

from sqlalchemy import Dialect as SqlDialect

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


class MariadbRoles(Dialect):
    """Rights on MariaDB. A user is written `name@host`; `name` alone is one of any host."""

    has_roles = True
    state_rights_reach_all_tables = True

    def role(self, on: SqlDialect, name: str, *, login: bool = True) -> str:
        """See `Dialect.role`. Who logs in is a user."""
        if not login:
            return name_text(name, on)
        user, at, host = name.rpartition("@")
        return f"{_literal(user)}@{_literal(host)}" if at else f"{_literal(name)}@'%'"

    def role_creation(self, on: SqlDialect, name: str, *, login: bool) -> str:
        """See `Dialect.role_creation`."""
        if not login:
            return f"CREATE ROLE IF NOT EXISTS {self.role(on, name, login=False)}"
        return f"CREATE USER IF NOT EXISTS {self.role(on, name)} IDENTIFIED BY '<password>'"

    def grants(self, on: SqlDialect, role: str, database: str, need: Need) -> Iterator[Grant]:
        """See `Dialect.grants`."""
        quote = partial(name_text, on=on)
        to = self.role(on, role, login=not isinstance(need, LooksAt))

        def named(table: str, beside: str | None = None) -> str:
            schema, _, name = table.rpartition(".")
            return f"{quote(schema or database)}.{quote(beside or name)}"

        match need:
            case Reads(table, purpose, made_by_runs):
                granted = f"GRANT SELECT ON {named(table)} TO {to}"
                if made_by_runs:
                    yield from _if_there(table, database, granted, purpose)
                else:
                    yield Grant(granted, purpose)
            case Calls(function, purpose):
                yield Grant(f"GRANT EXECUTE ON FUNCTION {named(function)} TO {to}", purpose)
            case SeesTransactions(purpose=purpose):
                yield Grant(
                    f"GRANT PROCESS ON *.* TO {to}",
                    purpose,
                    "without it the declared `lag` has to be longer than any transaction of the source. It shows the "
                    "statements of all others, too, so this is for you to weigh",
                    optional=True,
                )
            case FollowsLog(table, by="debezium", purpose=purpose):
                yield Grant(
                    f"GRANT RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {to}",
                    f"{purpose}: Debezium reads the binlog, and takes its snapshot under a lock",
                    "these are rights on the server; none of a database are enough",
                )
            case FollowsByTriggers(table, purpose, log):
                yield Grant(f"GRANT TRIGGER ON {named(table)} TO {to}", f"{purpose}: the triggers")
                yield Grant(
                    f"GRANT CREATE, DROP, SELECT, INSERT, UPDATE, DELETE ON {named(table, log or '<log>')} TO {to}",
                    f"{purpose}: the log beside the table",
                    "" if log else "the first run draws its name and is refused; then it is known here",
                    optional=log is None,
                )
                yield Grant(
                    "SET GLOBAL log_bin_trust_function_creators = 1",
                    f"{purpose}: where the server writes a binary log; else it takes SUPER to make a trigger",
                    optional=True,
                )
            case KeepsState(purpose):
                yield Grant(
                    f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX ON {quote(database)}.* TO {to}",
                    f"{purpose}, and targets",
                    "staging tables have new names each time, and MariaDB grants by name or for all of a database: so "
                    "let this one hold nothing but what tidegate loads",
                )
            case Loads() if "." in need.table:
                altered = ", ALTER" if need.evolves else ""
                for beside, more in ((None, altered), *((name, "") for name in need.beside)):
                    yield Grant(
                        f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE{more} ON {named(need.table, beside)} TO {to}",
                        need.purpose if beside is None else f"{need.purpose}: what lies beside it",
                    )
            case LooksAt(tables, purpose):
                for table in tables:
                    yield from _if_there(table, database, f"GRANT SELECT ON {named(table)} TO {to}", purpose)


def _if_there(table: str, database: str, statement: str, purpose: str) -> Iterator[Grant]:
    """`statement`, if its table is there; it can be run again when it is."""
    schema, _, name = table.rpartition(".")
    kept = f"@`grant on {table.replace('`', '')}`"
    yield Grant(
        f"SELECT IF(count(*), {_literal(statement)}, 'DO 0') INTO {kept} FROM information_schema.tables\n"
        f"    WHERE table_schema = {_literal(schema or database)} AND table_name = {_literal(name)}",
        purpose,
        AGAIN,
    )
    yield Grant(f"EXECUTE IMMEDIATE {kept}", "what the statement before has found")


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
