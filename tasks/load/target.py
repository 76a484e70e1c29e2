"""The target table and its staging: made from the contract, changed only by adding."""

from collections.abc import Sequence

import pyarrow as pa
from sqlalchemy import BigInteger, Boolean, Column, Engine, MetaData, Table, inspect
from sqlalchemy.schema import CreateColumn, CreateTable

from tasks.column_types import TABLE_OPTIONS, key_type, sql_type
from tasks.dialects.dialect import Dialect
from tasks.state.dead_letters import DELETED, ROW, join_index


def target_table(table: str, key: Sequence[str], columns: pa.Schema) -> Table:
    """The target as the contract declares it; its key is the primary key.

    Args:
        table: `name` or `schema.name`.
        key: names of key columns.
        columns: the contract's columns; a field that is not nullable is NOT NULL.
    """
    schema, _, name = table.rpartition(".")
    return Table(
        name,
        MetaData(),
        *(
            Column(
                field.name,
                key_type(field) if field.name in key else sql_type(field.type),
                primary_key=field.name in key,
                autoincrement=False,
                nullable=field.nullable and field.name not in key,
            )
            for field in columns
        ),
        schema=schema or None,
        **TABLE_OPTIONS,
    )


def staged_table(name: str, columns: pa.Schema, *, key: Sequence[str] = (), changes: bool = False) -> Table:
    """The staging table of an attempt: `etl_row`, then the contract's columns, all nullable.

    Args:
        name: its name.
        columns: the contract's columns.
        key: names of key columns, which have an index where a join needs one.
        changes: rows may be deletes; `etl_deleted` tells which.
    """
    return Table(
        name,
        MetaData(),
        Column(ROW, BigInteger, nullable=False),
        *(
            Column(field.name, key_type(field) if field.name in key else sql_type(field.type), nullable=True)
            for field in columns
        ),
        *([Column(DELETED, Boolean, nullable=False)] if changes else []),
        *join_index(name, key),
        **TABLE_OPTIONS,
    )


def ensure_target(engine: Engine, dialect: Dialect, target: Table) -> None:
    """Create the target where it is absent; add the columns it lacks, nullable. Nothing is ever taken away."""
    inspector = inspect(engine)
    if inspector.has_table(target.name, target.schema):
        present = {column["name"] for column in inspector.get_columns(target.name, target.schema)}
        missing = [column for column in target.columns if column.name not in present]
        if not missing:
            return
    with dialect.transaction(engine) as connection:
        # Looked at again under the lock: another run may have been first.
        dialect.serialize(connection, f"etl_ddl {target.fullname}")
        inspector = inspect(connection)
        if not inspector.has_table(target.name, target.schema):
            connection.execute(CreateTable(target))
            return
        present = {column["name"] for column in inspector.get_columns(target.name, target.schema)}
        quoted = engine.dialect.identifier_preparer.format_table(target)
        for column in target.columns:
            if column.name not in present:
                addition = Column(column.name, column.type, nullable=True)
                definition = CreateColumn(addition).compile(dialect=engine.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {definition}")
