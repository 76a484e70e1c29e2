"""The types of Debezium's JSON as Arrow: Kafka Connect's own, and the ones that a schema's name says more about.

A schema is the JSON that Connect's converter writes beside a value: `type`, `name`, `parameters`. What has no form in
Arrow comes as text: arrays, maps and structs as JSON, a decimal of no fixed scale in digits.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Schema = Mapping[str, Any]

DECIMAL = "org.apache.kafka.connect.data.Decimal"
_VARIABLE_DECIMAL = "io.debezium.data.VariableScaleDecimal"
_BITS = "io.debezium.data.Bits"

_DAY = 86_400_000_000
_LARGEST_PRECISION = 76
_LARGEST_BITS = 64
_EXACT = Context(prec=100_000, Emax=999_999, Emin=-999_999)

_SIMPLE: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "string": pa.string(),
}
# Connect's JSON schemas call a double so; a schema written in Java code calls it otherwise.
_FLOATS = {"float": pa.float32(), "float32": pa.float32(), "double": pa.float64(), "float64": pa.float64()}
_DATES = ("io.debezium.time.Date", "org.apache.kafka.connect.data.Date")
# Of each the unit in which it counts, and the type that keeps it.
_INSTANTS = {
    "io.debezium.time.Timestamp": ("ms", "us"),
    "org.apache.kafka.connect.data.Timestamp": ("ms", "us"),
    "io.debezium.time.MicroTimestamp": ("us", "us"),
    "io.debezium.time.NanoTimestamp": ("ns", "ns"),
}
_TIMES = {
    "io.debezium.time.Time": (1_000, "us"),
    "org.apache.kafka.connect.data.Time": (1_000, "us"),
    "io.debezium.time.MicroTime": (1, "us"),
    "io.debezium.time.NanoTime": (1, "ns"),
}
_ZONED = "io.debezium.time.ZonedTimestamp"


def typed(values: Sequence[Any], schema: Schema | None) -> pa.Array:
    """The values of a column as Arrow.

    Args:
        values: as JSON has them; bytes and decimals may come as such.
        schema: of the column, or None where the events carry none: then the values' own types count.

    Returns:
        Typed values. All of them are text where one has no place in the type that the schema names: a time of 24:00, a
        timestamp at infinity; the contract then judges each by itself.
    """
    convert = _inferred if schema is None else _converter(schema)
    try:
        return convert(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError, TypeError):
        return pa.array([None if value is None else _text(value, schema) for value in values], pa.string())


def _converter(schema: Schema) -> Callable[[Sequence[Any]], pa.Array]:
    kind, name = schema.get("type"), schema.get("name")
    if name in _DATES:
        return lambda values: pa.array(values, pa.int32()).view(pa.date32())
    if name in _INSTANTS:
        unit, kept = _INSTANTS[name]
        return lambda values: pa.array(values, pa.int64()).view(pa.timestamp(unit)).cast(pa.timestamp(kept))
    if name in _TIMES:
        factor, unit = _TIMES[name]
        return lambda values: _times(values, factor, unit)
    if name == _ZONED:
        return lambda values: pc.cast(pa.array(values, pa.string()), pa.timestamp("us", "UTC"))
    if name == DECIMAL:
        return lambda values: _decimals(values, schema)
    if name == _BITS:
        return lambda values: _bits(values, schema)
    if kind in _FLOATS:
        return lambda values: pa.array([float(v) if isinstance(v, str) else v for v in values], _FLOATS[str(kind)])
    if kind in _SIMPLE:
        return lambda values: pa.array(values, _SIMPLE[str(kind)])
    if kind == "bytes":
        return lambda values: pa.array([None if v is None else octets(v) for v in values], pa.binary())
    return lambda values: pa.array([None if v is None else _text(v, schema) for v in values], pa.string())


def octets(value: Any) -> bytes:
    """Bytes, which JSON has in base 64."""
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


def number(value: Any, scale: int) -> Decimal:
    """A decimal: its digits as a number in two's complement, which JSON has in base 64; or as it is, in digits."""
    if isinstance(value, Decimal | int):
        return Decimal(value)
    if isinstance(value, float):
        raise ValueError(f"{value!r} has been a float, and may have lost digits")
    return Decimal(int.from_bytes(octets(value), "big", signed=True)).scaleb(-scale, _EXACT)


def _decimals(values: Sequence[Any], schema: Schema) -> pa.Array:
    parameters = schema.get("parameters") or {}
    scale = int(parameters.get("scale", 0))
    found = [None if value is None else number(value, scale) for value in values]
    precision = int(parameters.get("connect.decimal.precision") or 0)
    if not 0 <= scale <= (precision or _LARGEST_PRECISION):
        raise ValueError("Arrow's decimals have a scale from 0 to their precision")
    if not precision:
        longest = max((len(one.as_tuple().digits) for one in found if one is not None), default=0)
        precision = 38 if max(longest, scale) <= 38 else _LARGEST_PRECISION
    return pa.array(found, pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale))


def _times(values: Sequence[Any], factor: int, unit: str) -> pa.Array:
    counts = pa.array([None if value is None else value * factor for value in values], pa.int64())
    limits = pc.min_max(counts).as_py()
    if limits["min"] is not None and not 0 <= limits["min"] <= limits["max"] < _DAY * (1_000 if unit == "ns" else 1):
        raise ValueError("a time of no day")
    return counts.view(pa.time64(unit))


def _bits(values: Sequence[Any], schema: Schema) -> pa.Array:
    length = int((schema.get("parameters") or {}).get("length") or _LARGEST_BITS + 1)
    if length > _LARGEST_BITS:
        return pa.array([None if value is None else octets(value) for value in values], pa.binary())
    return pa.array([None if v is None else int.from_bytes(octets(v), "little") for v in values], pa.uint64())


def _inferred(values: Sequence[Any]) -> pa.Array:
    if any(isinstance(value, dict | list) for value in values):
        raise ValueError("Arrow's nested types are not what a contract holds")
    if any(isinstance(value, bool) for value in values) and not all(isinstance(v, bool | None) for v in values):
        raise ValueError("Arrow takes a number for a truth")
    return pa.array(values)


def _text(value: Any, schema: Schema | None) -> str:
    """A single value as text."""
    name = None if schema is None else schema.get("name")
    if isinstance(value, str) and name != DECIMAL:
        return value
    if name == _VARIABLE_DECIMAL and isinstance(value, dict):
        return format(number(value["value"], int(value["scale"])), "f")
    if name == DECIMAL and schema is not None:
        try:
            return format(number(value, int((schema.get("parameters") or {}).get("scale", 0))), "f")
        except ValueError:
            return str(value)
    if name in _TIMES and isinstance(value, int):
        factor, unit = _TIMES[name]
        return _clock_text(value * factor // (1_000 if unit == "ns" else 1))
    if isinstance(value, dict | list | bool):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return value.hex() if isinstance(value, bytes) else str(value)


def _clock_text(microseconds: int) -> str:
    """A time of no day, `hh:mm:ss`, with as many hours as it has."""
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    minutes, hours = seconds // 60 % 60, seconds // 3_600
    digits = f".{fraction:06}" if fraction else ""
    return f"{'-' if microseconds < 0 else ''}{hours:02}:{minutes:02}:{seconds % 60:02}{digits}"
