"""Databases on the session's embedded PostgreSQL."""

import shutil
from pathlib import Path

import psycopg
from psycopg import sql

from tasks.embedded import EmbeddedPostgres

NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
"""Settings of a cluster that nobody needs after a power cut; it survives the death of its processes like any other."""

_END_SESSIONS = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_SLOTS = "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = current_database()"
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"


def create_database(cluster: EmbeddedPostgres, name: str) -> None:
    """An empty database, made quickly: a crash of the server may lose it."""
    _execute(cluster, sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))


def drop_database(cluster: EmbeddedPostgres, name: str) -> None:
    """Drop it, whoever is still connected."""
    _execute(cluster, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def empty_database(cluster: EmbeddedPostgres, name: str) -> None:
    """As it was when it was made: no session, no replication slot, no publication, nothing in it."""
    # From outside: a setting of the database would hold for this session too, a time limit for instance.
    _execute(cluster, sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(name)))
    with psycopg.connect(host=str(cluster.socket_folder), user="postgres", dbname=name, autocommit=True) as connection:
        connection.execute(_END_SESSIONS)
        for slot, holder in connection.execute(_SLOTS).fetchall():
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", [holder])
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        for publication in connection.execute("SELECT pubname FROM pg_publication").fetchall():
            connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(*publication)))
        for schema in connection.execute(_SCHEMAS).fetchall():
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(*schema)))
        connection.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
        connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")


def remove_folder(folder: Path) -> None:
    """Remove a folder that may hold a cluster of another user."""
    shutil.rmtree(folder, ignore_errors=True)


def _execute(cluster: EmbeddedPostgres, statement: sql.Composed) -> None:
    with psycopg.connect(
        host=str(cluster.socket_folder), user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(statement)
