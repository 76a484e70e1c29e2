"""Databases on the session's embedded PostgreSQL."""

import shutil
from pathlib import Path

import psycopg
from psycopg import sql

from tasks.embedded import EmbeddedPostgres


def create_database(cluster: EmbeddedPostgres, name: str) -> None:
    """An empty database, made quickly: a crash of the server may lose it."""
    _execute(cluster, sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))


def drop_database(cluster: EmbeddedPostgres, name: str) -> None:
    """Drop it, whoever is still connected."""
    _execute(cluster, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def remove_folder(folder: Path) -> None:
    """Remove a folder that may hold a cluster of another user."""
    shutil.rmtree(folder, ignore_errors=True)


def _execute(cluster: EmbeddedPostgres, statement: sql.Composed) -> None:
    with psycopg.connect(
        host=str(cluster.socket_folder), user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(statement)
