"""`LocalTime`: what a clock on the wall shows, as instants, where an hour comes twice or not at all."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import ConfigError

_TICK = timedelta(microseconds=1)
_INSTANTS = pa.timestamp("us", "UTC")

# Arrow reads a zone's list of changes, which ends in 2037, and not the rule that follows it.
_ARROWS_LAST = datetime(2037, 1, 1)

_FIRST, _LAST = datetime.min, datetime.max


@dataclass(frozen=True)
class LocalTime:
    """The naive times of one zone.

    A time in the hour that comes twice counts as the later of its two instants, and one in the hour that is left out as
    the instant of the change. So a later time is never an earlier instant, and what a source wrote in the first pass of
    a doubled hour is read up to an hour late instead of never.

    Attributes:
        zone: IANA name.

    Raises:
        ConfigError: there is no such zone.
    """

    zone: str

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"There is no time zone {self.zone!r}. Write an IANA name, such as 'Europe/Berlin' or 'UTC'."
            ) from error

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone)

    def instant(self, naive: datetime) -> datetime:
        """The instant that `naive` stands for, UTC; at the ends of the calendar the last one that can be written."""
        try:
            return self._instant(naive)
        except OverflowError:
            return (_LAST if naive.year == _LAST.year else _FIRST).replace(tzinfo=UTC)

    def _instant(self, naive: datetime) -> datetime:
        later = max(naive.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if self.shown(later) == naive:
            return later
        # Left out: both readings lie around the change, which is the first instant that shows more than `naive`.
        earlier = min(naive.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return self.change(earlier, later)

    def instants(self, naive: pa.ChunkedArray) -> pa.ChunkedArray:
        """`naive`, of type `timestamp[us]`, as `timestamp[us, UTC]`."""
        ends = pc.min_max(naive).as_py()
        if ends["min"] is not None and (ends["max"] >= _ARROWS_LAST or ends["min"].year == _FIRST.year):
            values = [None if value is None else self.instant(value) for value in naive.to_pylist()]
            return pa.chunked_array([pa.array(values, _INSTANTS)])
        zoned = pc.assume_timezone(naive, self.zone, ambiguous="latest", nonexistent="latest")
        return pc.cast(zoned, _INSTANTS)

    def first_at(self, instant: datetime) -> datetime:
        """The smallest naive time that stands for `instant` or a later one.

        So `naive >= first_at(instant)` says the same of wall times as `>= instant` says of what they stand for.
        """
        try:
            shown, before = self.shown(instant), self.shown(instant - _TICK) + _TICK
        except OverflowError:
            return instant.replace(tzinfo=None)
        if before < shown:
            # The hour left out ends here, and all of it stands for this instant.
            return before
        if self.instant(shown) == instant:
            return shown
        # The first pass of an hour that comes twice: nothing stands for it.
        return self.shown(self.change(instant, self.instant(shown)))

    def earliest(self, naive: datetime) -> datetime:
        """The first instant that shows `naive`, UTC; of a time that is left out, the instant of the change."""
        try:
            first = naive.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
            return first if self.shown(first) == naive else self.instant(naive)
        except OverflowError:
            return self.instant(naive)

    def offset(self, instant: datetime) -> timedelta:
        """How far the zone's clocks are ahead of UTC at `instant`."""
        return instant.astimezone(self._zone).utcoffset() or timedelta(0)

    def shown(self, instant: datetime) -> datetime:
        """The naive time that the zone's clocks show at `instant`."""
        return instant.astimezone(self._zone).replace(tzinfo=None, fold=0)

    def change(self, before: datetime, after: datetime) -> datetime:
        """The first instant in `(before, after]` with another offset than `before`."""
        offset = self.offset(before)
        while after - before > _TICK:
            middle = before + (after - before) / 2
            if self.offset(middle) == offset:
                before = middle
            else:
                after = middle
        return after
