"""A PostgreSQL source and target that many tests use one after another: emptying them is quicker than making them."""

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tasks import connections
from tasks.embedded import EmbeddedPostgres
from tests.conftest import Databases
from tests.servers.cluster import create_database, drop_database

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def reused(cluster: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """The names of two databases."""
    number = next(_numbers)
    names = (f"reused_source_{number}", f"reused_target_{number}")
    for name in names:
        create_database(cluster, name)
    yield names
    for name in names:
        drop_database(cluster, name)


@pytest.fixture
def postgresql(
    cluster: EmbeddedPostgres, reused: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Databases]:
    """The same two, empty again."""
    source, target = map(cluster.url, reused)
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", source)
    monkeypatch.setenv("TIDEGATE_TARGET_URL", target)
    yield Databases("postgresql", source, target)
    connections.dispose()
    for name in reused:
        _empty(cluster, name)


def _empty(cluster: EmbeddedPostgres, database: str) -> None:
    with psycopg.connect(host=str(cluster.socket_folder), user="postgres", dbname=database) as connection:
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).fetchall()
        for (schema,) in schemas:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        connection.execute("CREATE SCHEMA public")
