"""`Template`: a scenario's target on the eve of the disturbed run, copied for every fault point."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql
from sqlalchemy import NullPool, create_engine, inspect, make_url, text
from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from tasks.embedded import EmbeddedPostgres
from tests.crash.child import Job, Outcome, run_child
from tests.crash.scenarios import Scenario, fill_referenced, fill_source
from tests.crash.state import State, read_state
from tests.servers.mariadb import MariadbServer

_numbers = itertools.count(1)


class Home(Protocol):
    """Where a template's databases are."""

    def new_database(self, name: str, template: str | None = None) -> str:
        """The URL of a new database, empty or with the contents of the one at `template`."""

    def drop_database(self, url: str) -> None:
        """Remove it."""

    def wait_until_quiet(self, url: str) -> None:
        """Return when the server is up and none of its sessions is left there: that of a dead client outlives it."""


@dataclass(frozen=True)
class Template:
    """A source and a target after every run of a scenario but the last.

    Attributes:
        scenario: whose.
        home: where they are.
        source_url: the source, in its last state; runs only read it.
        target_url: the target before the last run; only copied.
    """

    scenario: Scenario
    home: Home
    source_url: str
    target_url: str

    @classmethod
    def make(cls, scenario: Scenario, home: Home) -> "Template":
        """Run the scenario's history."""
        name = scenario.pipeline.name
        made = cls(scenario, home, home.new_database(f"{name}_source"), home.new_database(f"{name}_target"))
        target = create_engine(made.target_url, poolclass=NullPool)
        fill_referenced(target)
        source = create_engine(made.source_url, poolclass=NullPool)
        for state in scenario.states[:-1]:
            fill_source(source, state)
            outcome = run_child(made.job(made.target_url))
            assert outcome.error is None and outcome.exit_code == 0, outcome
        fill_source(source, scenario.states[-1])
        home.wait_until_quiet(made.target_url)
        return made

    @contextlib.contextmanager
    def copy(self) -> Iterator[str]:
        """The URL of a copy of the target."""
        url = self.home.new_database(f"{self.scenario.pipeline.name}_copy", self.target_url)
        try:
            yield url
        finally:
            self.home.drop_database(url)

    def job(self, target_url: str) -> Job:
        """The scenario's next run into `target_url`, undisturbed."""
        return Job(self.scenario.pipeline, {"source": self.source_url, "target": target_url})

    def state(self, target_url: str) -> State:
        """What `target_url` holds once nobody works on it any more."""
        self.home.wait_until_quiet(target_url)
        return read_state(target_url)


@dataclass(frozen=True)
class Reference:
    """What undisturbed runs leave, in a database of their own.

    Attributes:
        before: the eve of the disturbed run.
        once: after that run.
        twice: after the same run again.
        outcome: of that run.
    """

    before: State
    once: State
    twice: State
    outcome: Outcome

    @classmethod
    def of(cls, template: Template) -> "Reference":
        """Run a copy of `template` undisturbed."""
        with template.copy() as url:
            before = template.state(url)
            outcome = run_child(template.job(url))
            once = template.state(url)
            run_child(template.job(url))
            return cls(before, once, template.state(url), outcome)


@dataclass(frozen=True)
class ClusterHome:
    """Databases on a PostgreSQL cluster, whose server may be recovering from a crash at any time."""

    cluster: EmbeddedPostgres

    def new_database(self, name: str, template: str | None = None) -> str:
        """See `Home`."""
        fresh = f"{name}_{next(_numbers)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log").format(
            sql.Identifier(fresh), sql.Identifier("template1" if template is None else _name(template))
        )
        self._execute(statement)
        return self.cluster.url(fresh)

    def drop_database(self, url: str) -> None:
        """See `Home`."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_name(url))))

    def wait_until_quiet(self, url: str) -> None:
        """See `Home`."""
        sessions = sql.SQL("SELECT 1 FROM pg_stat_activity WHERE datname = {}").format(sql.Literal(_name(url)))
        polling = Retrying(
            retry=retry_if_exception_type(psycopg.OperationalError) | retry_if_result(lambda found: found > 0),
            stop=stop_after_delay(60),
            wait=wait_fixed(0.02),
            reraise=True,
        )
        polling(lambda: self._execute(sessions))

    def _execute(self, statement: sql.Composed) -> int:
        with psycopg.connect(
            host=str(self.cluster.socket_folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            return connection.execute(statement).rowcount


@dataclass(frozen=True)
class FolderHome:
    """SQLite files in a folder."""

    folder: Path

    def new_database(self, name: str, template: str | None = None) -> str:
        """See `Home`."""
        path = self.folder / f"{name}_{next(_numbers)}.db"
        if template is not None:
            shutil.copyfile(_path(template), path)
        return f"sqlite:///{path}"

    def drop_database(self, url: str) -> None:
        """See `Home`."""
        _path(url).unlink()

    def wait_until_quiet(self, url: str) -> None:
        """See `Home`. Its locks are gone with the process that held them."""


@dataclass(frozen=True)
class MariadbHome:
    """Targets on a MariaDB, sources in a folder: MariaDB as a source is another matter."""

    server: MariadbServer
    sources: FolderHome

    def new_database(self, name: str, template: str | None = None) -> str:
        """See `Home`."""
        if name.endswith("_source"):
            return self.sources.new_database(name)
        fresh = f"{name}_{next(_numbers)}"
        self.server.create_database(fresh)
        url = self.server.url(fresh)
        if template is not None:
            engine = create_engine(url, poolclass=NullPool)
            with engine.begin() as connection:
                for table in inspect(create_engine(template, poolclass=NullPool)).get_table_names():
                    connection.execute(text(f"CREATE TABLE `{table}` LIKE `{_name(template)}`.`{table}`"))
                    connection.execute(text(f"INSERT INTO `{table}` SELECT * FROM `{_name(template)}`.`{table}`"))
        return url

    def drop_database(self, url: str) -> None:
        """See `Home`."""
        self.server.drop_database(_name(url))

    def wait_until_quiet(self, url: str) -> None:
        """See `Home`."""
        sessions = text("SELECT count(*) FROM information_schema.processlist WHERE db = :database")
        with create_engine(self.server.url(""), poolclass=NullPool).connect() as connection:
            Retrying(retry=retry_if_result(bool), stop=stop_after_delay(60), wait=wait_fixed(0.02))(
                lambda: connection.execute(sessions, {"database": _name(url)}).scalar_one()
            )


def _name(url: str) -> str:
    return make_url(url).database or ""


def _path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))
