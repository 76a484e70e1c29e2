"""Connections by name: from the environment, from a Prefect block, or the embedded PostgreSQL.

A declaration says `TableExtract("operations", …)`. The name is looked up, in this order, as the environment variable
`TIDEGATE_OPERATIONS_URL`, as the `SqlAlchemyConnector` block `operations` (when `PREFECT_API_URL` is set), and last as
a database of that name in the embedded PostgreSQL under `TIDEGATE_HOME`.
"""

import atexit
import threading
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from tasks import settings
from tasks.embedded import EmbeddedPostgres
from tasks.errors import ConfigError, RetriableError, remember_secret

APPLICATION_NAME = "tidegate"
"""What our sessions call themselves; those that end in `-read` are known to be read-only."""

READ_ONLY_NAME = f"{APPLICATION_NAME}-read"

_lock = threading.RLock()
_engines: dict[tuple[str, str], Engine] = {}
_clusters: dict[str, EmbeddedPostgres] = {}


def database_url(connection: str) -> URL:
    """The SQLAlchemy URL of the database called `connection`.

    Raises:
        ConfigError: what the environment or the block holds is no SQLAlchemy URL.
        RetriableError: the Prefect server that would hold the block does not answer.
    """
    url = declared_url(connection) or make_url(embedded(connection).url(connection))
    if url.password:
        remember_secret(str(url.password))
        remember_secret(quote(str(url.password), safe=""))
    return _with_our_driver(url)


def origin(connection: str) -> str:
    """Where the URL of `connection` comes from, in words: its variable, its block, or the embedded PostgreSQL."""
    if settings.connection_url(connection) is not None:
        return settings.url_variable(connection)
    return "the embedded PostgreSQL" if _block_url(connection) is None else f"the block {block_name(connection)!r}"


def declared_url(connection: str) -> URL | None:
    """The URL that the environment or a block has for `connection`; None where it is the embedded PostgreSQL.

    Raises:
        ConfigError: what it holds is no SQLAlchemy URL.
    """
    text = settings.connection_url(connection)
    if text is None:
        return _block_url(connection)
    try:
        return make_url(text)
    except ArgumentError as error:
        raise ConfigError(
            f"{settings.url_variable(connection)} is not a database URL. "
            "Write it as postgresql+psycopg://user:password@host:5432/database."
        ) from error


def unconnected(connection: str) -> Engine:
    """An engine that tells the kind of a database and its name; nothing is started or asked for that.

    Raises:
        ConfigError: see `declared_url`.
    """
    url = declared_url(connection) or URL.create("postgresql", database=connection)
    return _create(_with_our_driver(url))


def embedded(database: str) -> EmbeddedPostgres:
    """The embedded cluster under `TIDEGATE_HOME`, running, with `database` in it."""
    folder = settings.home() / "postgres"
    with _lock:
        cluster = _clusters.setdefault(str(folder), EmbeddedPostgres(folder))
        cluster.use()
        cluster.ensure_database(database)
    return cluster


def engine(connection: str) -> Engine:
    """The pooled engine of the database called `connection`, one for each process and URL."""
    url = database_url(connection)
    key = (connection, url.render_as_string(hide_password=False))
    with _lock:
        if key not in _engines:
            _engines[key] = _create(url)
        return _engines[key]


def dispose() -> None:
    """Close every pooled connection and leave the embedded clusters."""
    with _lock:
        for pooled in _engines.values():
            pooled.dispose()
        _engines.clear()
        for cluster in _clusters.values():
            cluster.release()
        _clusters.clear()


atexit.register(dispose)


def _with_our_driver(url: URL) -> URL:
    """`url` for the drivers tidegate is written for: psycopg for PostgreSQL whatever it names, none that is async."""
    drivers = {
        "postgresql": "postgresql+psycopg",
        "postgres": "postgresql+psycopg",
        "sqlite": "sqlite",
        "mariadb": "mariadb+pymysql",
        "mysql": "mysql+pymysql",
    }
    return url.set(drivername=drivers.get(url.drivername.partition("+")[0], url.drivername))


def _create(url: URL) -> Engine:
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        arguments = {"application_name": APPLICATION_NAME, "options": "-c timezone=UTC", "connect_timeout": 10}
    elif url.get_backend_name() == "sqlite":
        arguments = {} if "timeout" in url.query else {"timeout": 60}
    elif url.get_backend_name() in ("mariadb", "mysql"):
        arguments = {"init_command": "SET time_zone = '+00:00'", "connect_timeout": 10}
    try:
        created = create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=arguments)
    except ModuleNotFoundError as error:
        extra = "'tidegate[mariadb]'" if error.name == "pymysql" else error.name
        raise ConfigError(
            f"{url.render_as_string()} needs the driver {error.name}, which is not installed. pip install {extra}"
        ) from error
    if url.get_backend_name() == "sqlite":
        _let_sqlalchemy_begin(created)
    return created


def _let_sqlalchemy_begin(sqlite: Engine) -> None:
    """Take BEGIN out of the driver's hands, so that a commit can begin IMMEDIATE and DDL stays where it is put."""

    @event.listens_for(sqlite, "connect")
    def _manual(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None

    @event.listens_for(sqlite, "begin")
    def _begin(connection: Any) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")


def _block_url(connection: str) -> URL | None:
    """The URL in the `SqlAlchemyConnector` block `connection`, or None where there is no such block."""
    if not settings.api_server_known():
        return None
    import httpx
    from prefect.exceptions import ObjectNotFound
    from prefect_sqlalchemy import SqlAlchemyConnector

    try:
        block = SqlAlchemyConnector.load(block_name(connection), _sync=True)
    except (ValueError, ObjectNotFound):
        return None
    except (httpx.HTTPError, RuntimeError) as error:
        raise RetriableError(
            f"The Prefect server that PREFECT_API_URL names did not tell where {connection!r} is: "
            f"{error or type(error).__name__}. Start it, or set {settings.url_variable(connection)}."
        ) from error
    return block._rendered_url if isinstance(block, SqlAlchemyConnector) else None


def block_name(connection: str) -> str:
    """The name of the block that holds `connection`: Prefect takes no underscore in one."""
    return connection.replace("_", "-")
