"""A key as people type it, as dead letters have it: a text that the target's database makes of typed values."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine, delete, insert, select

from tasks.column_types import JSON, UUID
from tasks.dialects.dialect import Dialect
from tasks.errors import ConfigError
from tasks.state.attempts import REJECTED, drop_staging, new_token
from tasks.state.dead_letters import key_columns, rejected_table


def row_key_of(engine: Engine, dialect: Dialect, key: pa.Schema, pipeline: str, typed: Mapping[str, str]) -> str:
    """The `row_key` of a letter whose row has this key.

    It is made where letters get it, in a table like that of rejected rows, in which nothing is left.

    Args:
        engine: the target database.
        dialect: its dialect.
        key: the key columns of the contract, with their types.
        pipeline: its name, for messages.
        typed: what each is, as people type it: ISO 8601 for times, UTC where no zone is named.

    Raises:
        ConfigError: a text that is nothing of its column's type.
    """
    values = {f"key_{place}": _value(pipeline, field, typed[field.name]) for place, field in enumerate(key)}
    token = new_token()
    table = rejected_table(REJECTED + token, key)
    with dialect.transaction(engine) as connection:
        table.create(connection, checkfirst=False)
    try:
        with dialect.transaction(engine) as connection:
            connection.execute(insert(table).values(**values))
            found = connection.execute(select(dialect.key_text(key_columns(table)))).scalar_one()
            connection.execute(delete(table))
    finally:
        drop_staging(engine, dialect, token)
    return str(found)


def _value(pipeline: str, field: pa.Field, text: str) -> Any:
    kind = field.type
    try:
        if kind == UUID:
            return uuid.UUID(text)
        if pa.types.is_timestamp(kind):
            instant = _instant(text)
            return instant if kind.tz else instant.replace(tzinfo=None)
        return pc.cast(pa.scalar(text), kind if kind != JSON else pa.string()).as_py()
    except (ValueError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ConfigError(
            f"{pipeline}: what is given for the key column {field.name!r} is no {kind}. Write it as the source has it; "
            "a time as 2013-01-08T06:00:00+00:00."
        ) from None


def same(value: Any, text: str) -> bool:
    """Whether a field of a record, as JSON has it, is what somebody has typed: the same text, number, time or UUID."""
    if value is None:
        return False
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    if str(value) == text:
        return True
    with suppress(InvalidOperation):
        return Decimal(str(value)) == Decimal(text)
    with suppress(ValueError):
        return _instant(str(value)) == _instant(text)
    with suppress(ValueError):
        return uuid.UUID(str(value)) == uuid.UUID(text)
    return False


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
