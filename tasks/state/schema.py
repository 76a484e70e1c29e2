"""Create and migrate tidegate's own tables, with Alembic."""

from pathlib import Path

from sqlalchemy import Column, Engine, MetaData, String, Table, inspect, select

from tasks.dialects.dialect import Dialect
from tasks.errors import TargetError

HEAD = "0008"
"""The newest version in `migrations/`; a test holds the two against each other."""

VERSION_TABLE = "etl_schema_version"
_MIGRATIONS = Path(__file__).parent / "migrations"
_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))


def ensure_schema(engine: Engine, dialect: Dialect) -> None:
    """Bring the state tables of this database to the newest version; costs one query when they are.

    Raises:
        TargetError: the tables were made by a newer tidegate.
    """
    current = schema_version(engine)
    if current != HEAD:
        _migrate(engine, dialect, current)


def schema_version(engine: Engine) -> str | None:
    """At which version the state tables are; None where there are none."""
    if not inspect(engine).has_table(VERSION_TABLE):
        return None
    with engine.connect() as connection:
        return connection.execute(select(_version.c.version_num)).scalar_one_or_none()


def _migrate(engine: Engine, dialect: Dialect, current: str | None) -> None:
    # Imported here, since nearly every run finds nothing to migrate.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise TargetError(
            f"The state tables of {engine.url.render_as_string()} are at version {current!r}, which this tidegate does "
            "not know: a newer one made them. Upgrade tidegate here."
        )
    with dialect.transaction(engine) as connection:
        dialect.serialize(connection, VERSION_TABLE)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
