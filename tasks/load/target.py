"""The target table and its staging, as the contract declares them."""

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
from sqlalchemy import BigInteger, Boolean, Column, MetaData, Table

from tasks.column_types import COMMENT, MAX_LENGTH, TABLE_OPTIONS, UtcDateTime, key_type, sql_type
from tasks.state.staged import CHANGED_AT, DELETED, ROW, join_index

_LONGEST = 63
"""Bytes of a name."""


def target_table(table: str, key: Sequence[str], columns: pa.Schema) -> Table:
    """The target as the contract declares it; its key is the primary key.

    Args:
        table: `name` or `schema.name`.
        key: names of key columns.
        columns: the contract's columns; a field that is not nullable is NOT NULL, and its metadata may hold a comment
            and the longest text.
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
                **_described(field),
            )
            for field in columns
        ),
        schema=schema or None,
        **TABLE_OPTIONS,
    )


def staged_table(
    name: str, columns: pa.Schema, *, key: Sequence[str] = (), changes: bool = False, dated: bool = False
) -> Table:
    """The staging table of an attempt: `etl_row`, then the contract's columns, all nullable.

    Args:
        name: its name.
        columns: the contract's columns.
        key: names of key columns, which have an index where a join needs one.
        changes: rows may be deletes; `etl_deleted` tells which.
        dated: likewise, and `etl_changed_at` tells when each change happened.
    """
    return Table(
        name,
        MetaData(),
        Column(ROW, BigInteger, nullable=False),
        *(
            Column(field.name, key_type(field) if field.name in key else sql_type(field.type), nullable=True)
            for field in columns
        ),
        *([Column(DELETED, Boolean, nullable=False)] if changes or dated else []),
        *([Column(CHANGED_AT, UtcDateTime, nullable=False)] if dated else []),
        *join_index(name, key),
        **TABLE_OPTIONS,
    )


def name_beside(target: str, what: str) -> str:
    """What a table of tidegate's own beside `target` is called; at most 63 bytes, as PostgreSQL takes."""
    name = f"etl_{what}_{target}"
    if len(name.encode()) <= _LONGEST:
        return name
    told = hashlib.sha256(target.encode()).hexdigest()[:16]
    return f"{name.encode()[: _LONGEST - 17].decode(errors='ignore')}_{told}"


def without(target: Table, names: Collection[str]) -> Table:
    """`target` less the columns of these names."""
    if not names:
        return target
    kept = [column for column in target.columns if column.name not in names]
    return Table(
        target.name,
        MetaData(),
        *(
            Column(
                column.name, column.type, primary_key=column.primary_key, autoincrement=False, nullable=column.nullable
            )
            for column in kept
        ),
        schema=target.schema,
    )


def _described(field: pa.Field) -> dict[str, Any]:
    known = field.metadata or {}
    comment, longest = known.get(COMMENT), known.get(MAX_LENGTH)
    return {
        "comment": None if comment is None else comment.decode(),
        "info": {} if longest is None else {MAX_LENGTH: int(longest)},
    }
