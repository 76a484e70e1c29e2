"""tidegate's own tables as the migrations leave them, made at once; `test_schema` holds the two against each other."""

import contextlib
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import create_mock_engine
from sqlalchemy.schema import ExecutableDDLElement

from tasks.embedded import EmbeddedPostgres
from tasks.state.schema import HEAD, VERSION_TABLE
from tasks.state.tables import metadata


def make_in_postgresql(cluster: EmbeddedPostgres, database: str) -> None:
    """In one round trip, in an empty database."""
    with psycopg.connect(host=str(cluster.socket_folder), user="postgres", dbname=database) as connection:
        connection.execute(_script("postgresql+psycopg://"))


def make_in_sqlite(file: Path) -> None:
    """In a file that is not there yet."""
    file.write_bytes(_sqlite_file())


@cache
def _sqlite_file() -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_script("sqlite://").decode())
        return connection.serialize()


@cache
def _script(url: str) -> bytes:
    statements: list[str] = []

    def collect(statement: ExecutableDDLElement, *_: Any, **__: Any) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine(url, collect)
    metadata.create_all(engine, checkfirst=False)
    statements += [
        f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) PRIMARY KEY)",
        f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')",
    ]
    return ";".join(statements).encode()
