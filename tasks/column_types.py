"""Column types: which SQL type holds an Arrow type, and the two that databases disagree about."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Dialect,
    Double,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

from tasks.errors import ConfigError

UTC_TIMESTAMP = pa.timestamp("us", "UTC")
UUID = pa.uuid()
JSON = pa.json_(pa.string())

_EXACT: dict[str, Any] = {"charset": "utf8mb4", "collation": "utf8mb4_nopad_bin"}
"""How MariaDB compares byte for byte; others of its collations ignore case, accents, or blanks at the end."""

TABLE_OPTIONS: dict[str, Any] = {
    f"{name}_{option}": value
    for name in ("mysql", "mariadb")
    for option, value in {
        "engine": "InnoDB",
        "row_format": "DYNAMIC",
        "default_charset": _EXACT["charset"],
        "collate": _EXACT["collation"],
    }.items()
}
"""Of every table that tidegate makes: where the server has a choice, transactions, long keys and exact text."""

LONGEST_KEY_TEXT = 255
"""Of a text in a key on MariaDB, where a key has a longest length, and the contract names none."""

MAX_LENGTH = b"max_length"
"""In the metadata of a contract's column: the longest text it may hold, in characters."""

COMMENT = b"comment"
"""In the metadata of a contract's column: what it is, for whoever looks at the target."""


KEY_BYTES = 3_064
"""How long a key may be on MariaDB: 3,072 bytes, less the number of the row that staging has in its index."""

_LETTER_BYTES = 4
_NUMBER_BYTES = 20
"""A number of a key, or a time, at most."""


def exact_text(length: int) -> String:
    """A text of at most `length` characters; two that differ in a letter's case, an accent or a blank are two."""
    return String(length).with_variant(mysql.VARCHAR(length, **_EXACT), "mysql", "mariadb")


EXACT_TEXT = exact_text(255)
"""A name, or a key of somebody else's making."""

LONG_TEXT = Text().with_variant(mysql.LONGTEXT(**_EXACT), "mysql", "mariadb")
"""A text of any length, compared as exactly."""


class UtcDateTime(TypeDecorator[datetime]):
    """An instant, to the microsecond. Aware in Python; naive UTC where the database keeps no zone."""

    impl = DateTime
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """What a decorated type does not tell by itself."""
        return datetime

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """With a zone where there is one, to the microsecond everywhere."""
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse what is no instant."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ConfigError(f"{value!r} has no time zone, so it is no instant. Pass it in UTC.")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def literal_processor(self, dialect: Dialect) -> Callable[[datetime], str] | None:
        """With its type: a quoted text beside an interval would be taken for one."""
        quoted = super().literal_processor(dialect)
        if quoted is None or dialect.name != "postgresql":
            return quoted
        return lambda value: f"CAST({quoted(value)} AS TIMESTAMP WITH TIME ZONE)"

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ExactDecimal(TypeDecorator[Decimal]):
    """A decimal that stays one on SQLite, which would make it a float: kept there as text."""

    impl = Numeric
    cache_ok = True

    @property
    def python_type(self) -> type[Decimal]:
        """What a decorated type does not tell by itself."""
        return Decimal

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Text on SQLite, numeric elsewhere."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else self.impl_instance)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """The digits, on SQLite."""
        return str(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """A decimal again."""
        return None if value is None else Decimal(value)


class JsonText(TypeDecorator[str]):
    """A JSON document, as text in Python: `jsonb` on PostgreSQL, which compares what it says; text elsewhere."""

    impl = Text
    cache_ok = True

    @property
    def python_type(self) -> type[str]:
        """What a decorated type does not tell by itself."""
        return str

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`jsonb`, or a text of any length."""
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else LONG_TEXT)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """What PostgreSQL's driver makes JSON of."""
        return json.loads(value) if value is not None and dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """A text again."""
        return json.dumps(value) if value is not None and dialect.name == "postgresql" else value


_IN_ARRAYS = (pa.int16(), pa.int32(), pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.date32())


def storable(kind: pa.DataType) -> pa.DataType:
    """The type of the same family that every target can hold: `int8` becomes `int16`, nanoseconds microseconds.

    Raises:
        ConfigError: no column of a target can hold it.
    """
    if pa.types.is_dictionary(kind):
        return storable(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC") if kind.tz else pa.timestamp("us")
    if isinstance(kind, pa.JsonType):
        return JSON
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        array = pa.list_(storable(kind.value_type))
        sql_type(array)
        return array
    for family, chosen in (
        (pa.types.is_int8, pa.int16()),
        (pa.types.is_uint8, pa.int16()),
        (pa.types.is_uint16, pa.int32()),
        (pa.types.is_uint32, pa.int64()),
        (pa.types.is_uint64, pa.decimal128(20, 0)),
        (pa.types.is_float16, pa.float64()),
        (pa.types.is_float32, pa.float64()),
        (pa.types.is_large_string, pa.string()),
        (pa.types.is_string_view, pa.string()),
        (pa.types.is_large_binary, pa.binary()),
        (pa.types.is_fixed_size_binary, pa.binary()),
        (pa.types.is_date64, pa.date32()),
        (pa.types.is_time, pa.time64("us")),
    ):
        if family(kind):
            return chosen
    sql_type(kind)
    return kind


def sql_type(kind: pa.DataType) -> TypeEngine[Any]:
    """The SQL type of a `storable` Arrow type.

    Raises:
        ConfigError: it is not a storable one.
    """
    if pa.types.is_timestamp(kind):
        return UtcDateTime() if kind.tz else DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    if pa.types.is_decimal(kind):
        return ExactDecimal(kind.precision, kind.scale)
    if kind in (UUID, JSON):
        return Uuid() if kind == UUID else JsonText()
    if pa.types.is_list(kind) and kind.value_type in _IN_ARRAYS:
        return ARRAY(sql_type(kind.value_type))
    simple: dict[pa.DataType, TypeEngine[Any]] = {
        pa.string(): LONG_TEXT,
        pa.int16(): SmallInteger(),
        pa.int32(): Integer(),
        pa.int64(): BigInteger(),
        pa.float64(): Double(),
        pa.bool_(): Boolean(),
        pa.date32(): Date(),
        pa.time64("us"): Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb"),
        pa.binary(): LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"),
    }
    try:
        return simple[kind]
    except KeyError:
        raise ConfigError(
            f"No target column can hold the type {kind}. Declare text, a number, bool, a date, time or timestamp, "
            "a decimal, bytes, Uuid or Json, and convert in the transform."
        ) from None


def key_type(field: pa.Field) -> TypeEngine[Any]:
    """The SQL type of a `storable` column that is in a key: on MariaDB a text or bytes of a bounded length."""
    length = key_length(field)
    if pa.types.is_string(field.type):
        return Text().with_variant(mysql.VARCHAR(length, **_EXACT), "mysql", "mariadb")
    if pa.types.is_binary(field.type):
        return LargeBinary().with_variant(mysql.VARBINARY(length), "mysql", "mariadb")
    return sql_type(field.type)


def key_length(field: pa.Field) -> int:
    """How many characters, or bytes, of `field` a key may have on MariaDB: what the contract says, else 255."""
    declared = (field.metadata or {}).get(MAX_LENGTH)
    return LONGEST_KEY_TEXT if declared is None else int(declared)


def sharing_a_key(columns: pa.Schema) -> pa.Schema:
    """`columns`, whose texts and bytes share among them what a key on MariaDB has room for."""
    long = [field for field in columns if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
    room = (KEY_BYTES - _NUMBER_BYTES * len(columns)) // _LETTER_BYTES // max(len(long), 1)
    return pa.schema(
        [
            field.with_metadata({**(field.metadata or {}), MAX_LENGTH: str(room)}) if field in long else field
            for field in columns
        ]
    )


def key_bytes(field: pa.Field) -> int:
    """How much of `KEY_BYTES` a column of a key takes at most."""
    if pa.types.is_string(field.type):
        return _LETTER_BYTES * key_length(field)
    return key_length(field) if pa.types.is_binary(field.type) else _NUMBER_BYTES


def decimal_text(value: Decimal) -> str:
    """`value` in digits, without zeros at the end of a fraction: equal decimals are equal texts."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
