"""The databases tidegate knows, by SQLAlchemy's name for them."""

from sqlalchemy import Engine

from tasks.dialects.dialect import Dialect


def dialect_of(engine: Engine) -> Dialect:
    """The dialect for `engine`; the generic one for a database that only serves as a source."""
    name = engine.dialect.name
    if name == "postgresql":
        from tasks.dialects.postgresql import Postgresql

        return Postgresql(name)
    if name == "sqlite":
        from tasks.dialects.sqlite import Sqlite

        return Sqlite(name)
    if name in ("mariadb", "mysql"):
        from tasks.dialects.mariadb import Mariadb

        return Mariadb(name)
    return Dialect(name)
