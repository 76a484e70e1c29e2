"""`Partitioned`: how a table's rows fall into partitions by one of its columns."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, Literal, get_args

import pyarrow as pa

from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import ConfigError
from tasks.local_time import LocalTime
from tasks.window import Window

Grain = Literal["hour", "day", "month"]

_TICK = timedelta(microseconds=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_MONTHS = 12


@dataclass(frozen=True)
class Partitioned:
    """Partitions of a table: the hours, days or months of a time, or the values of any column.

    A day is what the zone's calendar calls one: 23 or 25 hours where the clocks are changed, and none where a day is
    left out. It begins at the first instant that shows its midnight. An hour that comes twice is two.

    A partition has a name, its part: the ISO date of a day, that of a month's first day, the ISO 8601 instant in UTC at
    which an hour begins, or a value's text.

    Attributes:
        column: column of the contract.
        grain: `hour`, `day` or `month` of a date or timestamp column; None: every value is a partition.
        zone: IANA name of the calendar. The date of a date column stands for the instant at which it begins there; a
            timestamp that names no zone is UTC, and needs `UTC`.

    Raises:
        ConfigError: another grain, or a zone that does not exist.
    """

    column: str
    grain: Grain | None = None
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if self.grain is not None and self.grain not in get_args(Grain):
            raise ConfigError(
                f"Partitions by {self.column!r}: there is no grain {self.grain!r}. Write 'hour', 'day' or 'month', or "
                "None where every value is a partition."
            )
        LocalTime(self.zone)

    def check(self, columns: pa.Schema, where: str) -> None:
        """Whether the contract's columns can be partitioned so.

        Args:
            columns: the contract's.
            where: strategy and table, as the message begins.

        Raises:
            ConfigError: the column is missing, or its type has no such grain.
        """
        if self.column not in columns.names:
            raise ConfigError(
                f"{where}: partitions are by {self.column!r}, and the contract has no such column. Declare it there, "
                f"or name one of {', '.join(columns.names)}."
            )
        kind = columns.field(self.column).type
        if self.grain is None or kind == UTC_TIMESTAMP:
            return
        if pa.types.is_timestamp(kind):
            if self.zone != "UTC":
                raise ConfigError(
                    f"{where}: the times of {self.column!r} name no zone, so they are no instants that {self.zone!r} "
                    f"could have days of. Declare `{self.column}: UtcTimestamp`, or leave out the zone."
                )
        elif not pa.types.is_date(kind):
            raise ConfigError(
                f"{where}: {self.column!r} is of type {kind}, which has no {self.grain}s. Declare a date or timestamp "
                "column, or grain=None, and every value is a partition."
            )
        elif self.grain == "hour":
            raise ConfigError(f"{where}: {self.column!r} holds dates, which have no hours. Write grain='day'.")

    def around(self, instant: datetime) -> Window:
        """The partition that `instant` lies in, UTC; unbounded where the calendar ends."""
        if self.grain == "hour":
            return self._hour(instant)
        day = self._day(instant)
        return self._from(day.replace(day=1) if self.grain == "month" else day)

    def aligned(self, window: Window) -> Window:
        """`window` with every partition that it touches, as a whole; an empty one stays as it is."""
        if window.empty or self.grain is None:
            return window
        start, end = window.start, window.end
        return Window(
            None if start is None else self.around(start).start,
            None if end is None else self.around(end - _TICK).end,
        )

    def split(self, window: Window, by: timedelta) -> Iterator[Window]:
        """`window` cut into consecutive ones of about `by`, between partitions; each has at least one."""
        start = window.start
        for piece in window.split(by):
            end = piece.end if piece.end is None or piece.end == window.end else self.aligned(piece).end
            end = window.end if end is None or (window.end is not None and end > window.end) else end
            if end is None or start is None or end > start or window.empty:
                yield Window(start, end)
            start = end

    def part(self, value: Any) -> str:
        """The name of the partition of a row that has `value` in the column, an instant aware."""
        if isinstance(value, datetime):
            instant = value.replace(tzinfo=UTC) if value.tzinfo is None else value
            if self.grain is None:
                return value.isoformat()
            if self.grain == "hour":
                return (self._hour(instant).start or instant).isoformat()
            value = self._day(instant)
        if isinstance(value, date):
            return (value.replace(day=1) if self.grain == "month" else value).isoformat()
        return str(value)

    def window(self, part: str) -> Window:
        """The partition that is called `part`, where there is a grain; UTC.

        Raises:
            ConfigError: there is none, or `part` is not of its making.
        """
        try:
            if self.grain == "hour":
                return self._hour(datetime.fromisoformat(part).astimezone(UTC))
            if self.grain is not None:
                return self._from(date.fromisoformat(part))
        except ValueError as error:
            raise ConfigError(f"Partitions by {self.column!r}: {part!r} is no {self.grain}.") from error
        raise ConfigError(f"Partitions by {self.column!r} are its values, and {part!r} is no range. Declare a grain.")

    def first_date(self, instant: datetime) -> date | None:
        """The first date that stands for `instant` or a later one; None where the calendar has ended."""
        day: date | None = instant.date()
        while day is not None and (self._begin(day) or instant) < instant:
            day = _later(day)
        return day

    @cached_property
    def _time(self) -> LocalTime:
        return LocalTime(self.zone)

    def _hour(self, instant: datetime) -> Window:
        # Where the clocks are changed, an hour of the wall is cut: each side is a partition.
        try:
            shown, offset = self._time.shown(instant), self._time.offset(instant)
            start = instant - (shown - shown.replace(minute=0, second=0, microsecond=0))
            end = start + _HOUR
            if self._time.offset(start) != offset:
                start = self._time.change(start, instant)
            if self._time.offset(end - _TICK) != offset:
                end = self._time.change(instant, end)
        except OverflowError:
            start = instant.replace(minute=0, second=0, microsecond=0)
            return Window(start, None if start.year == date.max.year else start + _HOUR)
        return Window(start, end)

    def _day(self, instant: datetime) -> date:
        """The date whose partition holds `instant`: nearly always what the clocks show."""
        try:
            day = self._time.shown(instant).date()
        except OverflowError:
            return instant.date()
        while (after := _later(day)) is not None and (self._begin(after) or instant) <= instant:
            day = after
        while day > date.min and (self._begin(day) or instant) > instant:
            day -= _DAY
        return day

    def _from(self, day: date) -> Window:
        """The partition that begins with `day`."""
        if self.grain == "month":
            end = None
            if (day.year, day.month) < (date.max.year, _MONTHS):
                end = date(day.year + day.month // _MONTHS, day.month % _MONTHS + 1, 1)
        else:
            end = _later(day)
        return Window(self._begin(day), None if end is None else self._begin(end))

    def _begin(self, day: date) -> datetime | None:
        return None if day == date.min else self._time.earliest(datetime.combine(day, time()))


def _later(day: date) -> date | None:
    return None if day == date.max else day + _DAY
