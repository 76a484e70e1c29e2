"""Pipelines that log in as the roles of `tidegate grants`, which have been granted what it prints and nothing more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pytest
from sqlalchemy import Engine, NullPool, create_engine, inspect, text

from deployments.grants import LEDGER_ROLE, LETTERS_ROLE, Section, sections
from tasks import connections
from tasks.dialects import dialect_of
from tasks.extract.log import LogExtract
from tasks.extract.triggers import TriggerExtract
from tasks.pipeline import Pipeline
from tasks.running.run import Run
from tasks.state.feeds import feed_name
from tasks.state.schema import ensure_schema
from tests.conftest import Databases
from tests.extract.followed import execute

SOURCE, TARGET = "tidegate_source", "tidegate_target"
OWNER = "shop"
"""Whoever a followed table belongs to: no superuser, and none of ours."""

_SCHEMAS = """
    SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
"""
_ROLES = (SOURCE, TARGET, OWNER, LEDGER_ROLE, LETTERS_ROLE)


@dataclass(frozen=True)
class AsRoles(Databases):
    """A source and a target as a test sees them, which makes tables and looks into them as an administrator.

    Attributes:
        left_out: a statement that is printed and not run.
        right_left_out: a word of the rights that a statement lists, which is taken out of it.
    """

    left_out: str | None = None
    right_left_out: str | None = None

    @cached_property
    def source(self) -> Engine:
        return create_engine(self.source_url, poolclass=NullPool)

    @cached_property
    def target(self) -> Engine:
        return create_engine(self.target_url, poolclass=NullPool)

    def admin(self, connection: str) -> Engine:
        """Whoever may do everything there."""
        return {"source": self.source, "target": self.target}[connection]

    def grant(self, *pipelines: Pipeline) -> None:
        """Run what is printed for `pipelines`."""
        _hand_over(self.source, pipelines)
        for section in self.sections(*pipelines):
            statements = [self._less(one) for one in section.statements if one != self.left_out]
            with self.admin(section.connection).connect() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
                connection.commit()

    def _less(self, statement: str) -> str:
        listed, on, rest = statement.partition(" ON ")
        if self.right_left_out is None or not statement.startswith("GRANT ") or ", " not in listed:
            return statement
        rights = [right for right in listed.removeprefix("GRANT ").split(", ") if right != self.right_left_out]
        return f"GRANT {', '.join(rights)}{on}{rest}"

    def sections(self, *pipelines: Pipeline) -> Sequence[Section]:
        """What is printed for `pipelines`."""
        host = "@localhost" if "mariadb" in (self.source.dialect.name, self.target.dialect.name) else ""
        return [
            made
            for made in sections(
                pipelines,
                source_role=SOURCE + host * (self.source.dialect.name == "mariadb"),
                target_role=TARGET + host * (self.target.dialect.name == "mariadb"),
            )
            if made.connection in ("source", "target")
        ]


def _hand_over(source: Engine, pipelines: Sequence[Pipeline]) -> None:
    """As if somebody else's application had made the tables that a role publishes as a member of their owner."""
    for extract in (pipeline.extract for pipeline in pipelines):
        if isinstance(extract, LogExtract) and extract.publication is None:
            with source.begin() as connection:
                found = text("SELECT to_regclass(:table)::text WHERE to_regclass(:table) IS NOT NULL")
                for (table,) in connection.execute(found, {"table": extract.table}).all():
                    connection.exec_driver_sql(f"ALTER TABLE {table} OWNER TO {OWNER}")


def bare(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> AsRoles:
    """The same databases, in which nobody may do anything, for pipelines that log in as roles without a right."""
    roles = AsRoles(databases.kind, databases.source_url, databases.target_url)
    for name, role in (("source", SOURCE), ("target", TARGET)):
        engine = roles.admin(name)
        if engine.dialect.name == "postgresql":
            database = engine.url.database
            execute(engine, f"REVOKE ALL ON DATABASE {database} FROM PUBLIC", "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        url = engine.url if engine.dialect.name == "sqlite" else engine.url.set(username=role)
        monkeypatch.setenv(f"TIDEGATE_{name.upper()}_URL", url.render_as_string(hide_password=False))
    _make(roles)
    return roles


def _make(roles: AsRoles) -> None:
    for name, role in (("source", SOURCE), ("target", TARGET)):
        engine = roles.admin(name)
        if engine.dialect.name == "mariadb":
            people = (f"CREATE ROLE {one}" for one in (LEDGER_ROLE, LETTERS_ROLE))
            # The server has a binary log; what is printed says so too, but as a comment.
            trusts = "SET GLOBAL log_bin_trust_function_creators = 1"
            execute(engine, f"CREATE USER {role}@localhost", *people, trusts)
    if "postgresql" in (roles.source.dialect.name, roles.target.dialect.name):
        engine = roles.target if roles.target.dialect.name == "postgresql" else roles.source
        with engine.begin() as connection:
            known = set(connection.exec_driver_sql("SELECT rolname FROM pg_roles").scalars())
            for role in _ROLES:
                if role not in known:
                    login = "NOLOGIN" if role in (LEDGER_ROLE, LETTERS_ROLE) else "LOGIN"
                    connection.exec_driver_sql(f"CREATE ROLE {role} {login}")


def unmake(roles: AsRoles) -> None:
    """Take the roles away, with what they own, and give everybody back what they had."""
    connections.dispose()
    engines = [roles.source, roles.target]
    postgresql = [engine for engine in engines if engine.dialect.name == "postgresql"]
    for engine in postgresql:
        with engine.begin() as connection:
            for slot in connection.exec_driver_sql(
                "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
            ).scalars():
                connection.exec_driver_sql(f"SELECT pg_drop_replication_slot('{slot}')")
        execute(engine, *(f"DROP OWNED BY {role} CASCADE" for role in _ROLES),
                f"GRANT CONNECT, TEMPORARY ON DATABASE {engine.url.database} TO PUBLIC")  # fmt: skip
    if postgresql:
        execute(postgresql[0], *(f"DROP ROLE {role}" for role in _ROLES))
    for engine, role in zip(engines, (SOURCE, TARGET), strict=True):
        if engine.dialect.name == "mariadb":
            people = (f"DROP ROLE {one}" for one in (LEDGER_ROLE, LETTERS_ROLE))
            execute(engine, f"DROP USER {role}@localhost", *people, "SET GLOBAL log_bin_trust_function_creators = 0")


def empty(roles: AsRoles) -> None:
    """Nothing is in either database any more."""
    for engine in (roles.source, roles.target):
        if engine.dialect.name == "postgresql":
            with engine.begin() as connection:
                for (schema,) in connection.exec_driver_sql(_SCHEMAS).all():
                    connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
                for (publication,) in connection.exec_driver_sql(
                    "SELECT quote_ident(pubname) FROM pg_publication"
                ).all():
                    connection.exec_driver_sql(f"DROP PUBLICATION {publication}")
            execute(
                engine, "CREATE SCHEMA public AUTHORIZATION pg_database_owner", "GRANT USAGE ON SCHEMA public TO PUBLIC"
            )
        elif engine.dialect.name == "mariadb":
            execute(engine, f"DROP DATABASE {engine.url.database}", f"CREATE DATABASE {engine.url.database}")
        else:
            for table in inspect(engine).get_table_names():
                execute(engine, f"DROP TABLE {table}")


def granted_as_they_run(roles: AsRoles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a pipeline runs, or takes its feed away, run what is printed for it."""
    for name in ("run", "remove_feed"):
        method = getattr(Run, name)

        def granted(run: Run, *args: object, method: object = method, **options: object) -> object:
            roles.grant(run.pipeline)
            if roles.source.dialect.name == "mariadb" and isinstance(run.pipeline.extract, TriggerExtract):
                _draw_name(run.pipeline)
                roles.grant(run.pipeline)
            return method(run, *args, **options)  # type: ignore[operator]

        monkeypatch.setattr(Run, name, granted)


def _draw_name(pipeline: Pipeline) -> None:
    """What a first run does before it is refused for want of a right on its log, whose name is then known."""
    target = connections.engine(pipeline.load.connection)
    ensure_schema(target, dialect_of(target))
    feed_name(target, dialect_of(target), pipeline.name)


def as_roles(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[AsRoles]:
    """`databases`, for pipelines under the roles that are printed for them; the body of a fixture."""
    roles = bare(databases, monkeypatch)
    try:
        granted_as_they_run(roles, monkeypatch)
        yield roles
    finally:
        unmake(roles)
