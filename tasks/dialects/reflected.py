"""`reflected`: a table as the database describes it, and of that no more than reading it takes."""

from sqlalchemy import Column, Engine, MetaData, Table, inspect


def reflected(engine: Engine, name: str, schema: str | None, *, keyed: bool = False) -> Table:
    """A table or a view with its columns, their types, and where they may be NULL.

    SQLAlchemy's own reflection asks for keys, indexes, checks, comments and options too, which takes three times as
    long: a run reads its source's columns several times, since they may change between its attempts.

    Args:
        engine: the database.
        name: the table.
        schema: where it is; None is the connection's own.
        keyed: it is to be read by a key, so that the keys it has and the table's options count as well.

    Raises:
        NoSuchTableError: there is none that the user may see.
    """
    if keyed:
        return Table(name, MetaData(), schema=schema, autoload_with=engine, resolve_fks=False)
    with engine.connect() as connection:
        there = inspect(connection).get_columns(name, schema)
    columns = [Column(one["name"], one["type"], nullable=one["nullable"]) for one in there]
    return Table(name, MetaData(), *columns, schema=schema)
