"""PostgreSQL's text of a value as Arrow, by the type's number; what has no form in Arrow stays text."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

_BOOL, _BYTEA, _DATE, _TIME, _TIMESTAMP, _TIMESTAMPTZ, _NUMERIC = 16, 17, 1082, 1083, 1114, 1184, 1700
_SIMPLE = {
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    26: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    _DATE: pa.date32(),
    _TIMESTAMP: pa.timestamp("us"),
    _TIMESTAMPTZ: pa.timestamp("us", "UTC"),
}
_LARGEST_PRECISION = 38


def typed(texts: pa.Array, oid: int, modifier: int) -> pa.Array:
    """`texts` as the Arrow type that the fast reader of tables gives for the same column.

    Args:
        texts: output of the type, with the settings of `tasks.extract.transaction_log.replication`.
        oid: number of the type in `pg_type`.
        modifier: the column's type modifier, -1 without.

    Returns:
        Typed values. All of them stay text where one has no place in the Arrow type: an infinite date, or a year before
        our era; the contract then judges each by itself.
    """
    convert = _converter(oid, modifier)
    if convert is None:
        return texts
    try:
        return convert(texts)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        return texts


def _converter(oid: int, modifier: int) -> Callable[[pa.Array], pa.Array] | None:
    if oid in _SIMPLE:
        return lambda texts: pc.cast(texts, _SIMPLE[oid])
    if oid == _BOOL:
        return lambda texts: pc.equal(texts, "t")
    if oid == _TIME:
        return _times
    if oid == _BYTEA:
        return lambda texts: pa.array(
            [None if text is None else bytes.fromhex(text[2:]) for text in texts.to_pylist()], pa.binary()
        )
    if oid == _NUMERIC and modifier >= 4:
        # As `make_numeric_typmod` packs them; the scale is signed, in eleven bits.
        precision, scale = ((modifier - 4) >> 16) & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 1024) - 1024
        if precision <= _LARGEST_PRECISION and 0 <= scale <= precision:
            return lambda texts: pc.cast(texts, pa.decimal128(precision, scale))
    return None


def _times(texts: pa.Array) -> pa.Array:
    # Arrow reads a text as an instant, not as a time of day.
    instants = pc.cast(pc.binary_join_element_wise("1970-01-01 ", texts, ""), pa.timestamp("us"))
    return pc.cast(instants, pa.time64("us"))
