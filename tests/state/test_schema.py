"""tidegate's own tables: what the migrations make, and who may make them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect, text

from tasks.dialects import dialect_of
from tasks.errors import TargetError
from tasks.state import schema
from tasks.state.schema import VERSION_TABLE, ensure_schema
from tasks.state.tables import metadata
from tests.conftest import Databases

MIGRATE = """
import sys
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.state.schema import ensure_schema

target = engine("target")
print("ready", flush=True)
sys.stdin.readline()
ensure_schema(target, dialect_of(target))
"""


def migrate(databases: Databases) -> None:
    """Bring the state tables of the target to the newest version."""
    ensure_schema(databases.target, dialect_of(databases.target))


def test_the_migrations_make_exactly_the_declared_tables(databases: Databases) -> None:
    migrate(databases)
    assert_as_declared(databases)


def test_every_unique_constraint_and_primary_key_is_there(databases: Databases) -> None:
    """Which the comparison leaves out on SQLite."""
    migrate(databases)
    inspector = inspect(databases.target)
    for name, table in metadata.tables.items():
        assert inspector.get_pk_constraint(name)["constrained_columns"] == [key.name for key in table.primary_key]
        null = {column["name"]: column["nullable"] for column in inspector.get_columns(name)}
        assert null == {column.name: column.nullable for column in table.columns}
    (unique,) = inspector.get_unique_constraints("etl_dead_letters")
    assert unique["column_names"] == ["pipeline", "row_key"]


def test_migrating_again_changes_nothing(databases: Databases) -> None:
    migrate(databases)
    with databases.target.begin() as connection:
        connection.execute(text("INSERT INTO etl_targets VALUES ('kept')"))
    before = described(databases)
    migrate(databases)
    assert described(databases) == before
    with databases.target.connect() as connection:
        assert connection.execute(text("SELECT target FROM etl_targets")).scalars().all() == ["kept"]
        assert len(connection.execute(text(f"SELECT * FROM {VERSION_TABLE}")).all()) == 1


def test_processes_that_migrate_at_once_all_succeed_on_postgresql(postgresql: Databases) -> None:
    _migrate_at_once(postgresql)


@pytest.mark.slow
def test_processes_that_migrate_at_once_all_succeed_on_sqlite(sqlite: Databases) -> None:
    _migrate_at_once(sqlite)


@pytest.mark.slow
@pytest.mark.mariadb
def test_processes_that_migrate_at_once_all_succeed_on_mariadb(mariadb_target: Databases) -> None:
    _migrate_at_once(mariadb_target)


def _migrate_at_once(databases: Databases) -> None:
    """Two processes, each of which waits at the start until the other is there."""
    command = [sys.executable, "-W", "error", "-c", MIGRATE]
    processes = [
        subprocess.Popen(
            command, env=databases.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    assert_as_declared(databases)


@pytest.mark.mariadb
def test_a_migration_that_dies_after_any_of_its_steps_is_gone_on_with(mariadb_target: Databases) -> None:
    """MariaDB commits each change of a table at once, so what was done stays done."""
    steps = 0
    done: list[str] = []

    def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(("CREATE", "ALTER")):
            done.append(statement)
            raise Died

    event.listen(mariadb_target.target, "after_cursor_execute", die)
    while True:
        try:
            migrate(mariadb_target)
            break
        except Died:
            steps += 1
    event.remove(mariadb_target.target, "after_cursor_execute", die)
    assert steps == len(set(done)) > len(metadata.tables), "no step is done twice"
    assert_as_declared(mariadb_target)


class Died(Exception):
    """What a migration dies of."""


@pytest.mark.mariadb
def test_every_text_of_the_state_is_compared_exactly_on_mariadb(mariadb_target: Databases) -> None:
    """Whatever the server and the database have for a default: theirs is latin1 here, and ignores case."""
    migrate(mariadb_target)
    collations = text(
        "SELECT DISTINCT collation_name FROM information_schema.columns "
        "WHERE table_schema = database() AND table_name <> :version AND collation_name IS NOT NULL"
    )
    engines = text("SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = database()")
    with mariadb_target.target.connect() as connection:
        found = connection.execute(collations, {"version": VERSION_TABLE}).scalars().all()
        assert (found, connection.execute(engines).scalars().all()) == (["utf8mb4_nopad_bin"], ["InnoDB"])


def test_tables_of_a_newer_version_are_refused(databases: Databases) -> None:
    migrate(databases)
    with databases.target.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(TargetError, match=r"at version '9999', which this tidegate does not know.*Upgrade tidegate"):
        migrate(databases)


def assert_as_declared(databases: Databases) -> None:
    """The state tables are those of `tasks.state.tables`; comments, which say nothing to a database, apart."""
    with databases.target.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert [change for change in found if not _is_comment(change)] == []
    assert set(inspect(databases.target).get_table_names()) - {VERSION_TABLE} == set(metadata.tables)


def _is_comment(change: Any) -> bool:
    return isinstance(change, list) and {part[0] for part in change} == {"modify_comment"}


def described(databases: Databases) -> list[Any]:
    """Every table with its columns and indexes."""
    inspector = inspect(databases.target)
    return [
        (name, [str(column) for column in inspector.get_columns(name)], str(inspector.get_indexes(name)))
        for name in sorted(inspector.get_table_names())
    ]


def test_the_version_it_asks_for_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD
