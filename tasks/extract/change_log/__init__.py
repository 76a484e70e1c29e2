"""Change logs, by the database they are in."""

from collections.abc import Sequence

from sqlalchemy import Engine

from tasks.dialects import dialect_of
from tasks.errors import ConfigError
from tasks.extract.change_log.log import ChangeLog


def change_log(engine: Engine, table: str, key: Sequence[str], name: str, where: str) -> ChangeLog:
    """The change log of `table`; see `ChangeLog`.

    Raises:
        ConfigError: nobody has written the triggers for such a database.
    """
    dialect = dialect_of(engine)
    if dialect.name == "postgresql":
        from tasks.extract.change_log.postgresql import PostgresqlLog

        return PostgresqlLog(engine, dialect, table, key, name, where)
    if dialect.name == "sqlite":
        from tasks.extract.change_log.sqlite import SqliteLog

        return SqliteLog(engine, dialect, table, key, name, where)
    if dialect.name in ("mariadb", "mysql"):
        from tasks.extract.change_log.mariadb import MariadbLog

        return MariadbLog(engine, dialect, table, key, name, where)
    raise ConfigError(
        f"{where}: triggers are known for PostgreSQL, MariaDB and SQLite, and this is {dialect.name}. Read it by a "
        "cursor with TableExtract, or compare snapshots."
    )
