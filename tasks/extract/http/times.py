"""`TimeFormat`: how an API writes times, in parameters and in records."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal

import pyarrow as pa

from tasks.extract.http.request import Value

TimeFormat = Literal["iso", "date", "epoch", "epoch_ms"]
"""ISO 8601 text (UTC where it has no zone), its date alone, or seconds or milliseconds since 1970-01-01T00:00Z."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = pa.timestamp("us", "UTC")
_STEPS: dict[TimeFormat, timedelta] = {
    "iso": timedelta(seconds=1),
    "date": timedelta(days=1),
    "epoch": timedelta(seconds=1),
    "epoch_ms": timedelta(milliseconds=1),
}


def step(form: TimeFormat) -> timedelta:
    """The shortest time between two parameters that differ."""
    return _STEPS[form]


def written(moment: datetime, form: TimeFormat, *, up: bool = False) -> Value:
    """`moment` as a parameter, rounded down to a whole step of the form, or up."""
    whole = (moment - EPOCH) // _STEPS[form]
    if up and EPOCH + whole * _STEPS[form] < moment:
        whole += 1
    if form in ("epoch", "epoch_ms"):
        return whole
    rounded = (EPOCH + whole * _STEPS[form]).replace(tzinfo=None)
    return rounded.date().isoformat() if form == "date" else rounded.isoformat() + "Z"


def with_times(rows: pa.Table, name: str, form: TimeFormat) -> pa.Table:
    """`rows` with the numbers in column `name` as `timestamp[us, UTC]`; other forms are texts, and stay so.

    A value that is no number becomes NULL, so that its row is judged; where not one is, the column is left as it came.
    """
    if form not in ("epoch", "epoch_ms") or name not in rows.column_names:
        return rows
    per_second = 1 if form == "epoch" else 1_000
    values = rows.column(name).to_pylist()
    times = [_time(value, per_second) for value in values]
    if not any(times) and any(value is not None for value in values):
        return rows
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(times, _TIME))


def _time(value: object, per_second: int) -> datetime | None:
    if isinstance(value, bool):
        return None
    try:
        return EPOCH + timedelta(microseconds=int(Decimal(str(value)) * (1_000_000 // per_second)))
    except (InvalidOperation, OverflowError, ValueError):
        return None
