"""`Window`: a half-open slice `[start, end)` of source time, in UTC."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from tasks.errors import ConfigError


def to_utc(value: datetime | date | str, what: str = "time") -> datetime:
    """`value` as an aware datetime in UTC.

    Args:
        value: an aware or naive datetime (naive counts as UTC), a date (its midnight in UTC) or an ISO 8601
            text of either.
        what: what the value is, for the message.

    Raises:
        ConfigError: a text that is no ISO 8601 date or time.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ConfigError(
                f"{what} {value!r} is not a date or time. Write it as 2013-01-08 or 2013-01-08T06:00:00+00:00."
            ) from error
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two times, of which either may be unknown."""
    return one if other is None else other if one is None else max(one, other)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open slice `[start, end)` of source time; `None` is unbounded on that side.

    Both bounds are aware and in UTC. A window without bounds is the whole of a source that has no cursor.
    """

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound is not None and bound.utcoffset() != timedelta(0):
                raise ConfigError(f"A window's bounds are in UTC, got {bound!r}. Use Window.parse.")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ConfigError(
                f"Window {self} ends before it starts. Windows are half-open, [start, end): swap the bounds."
            )

    @classmethod
    def parse(cls, start: datetime | date | str | None, end: datetime | date | str | None) -> "Window":
        """A window from what people type; see `to_utc` for the forms.

        Raises:
            ConfigError: a bound that cannot be read, or an end before its start.
        """
        return cls(
            None if start is None else to_utc(start, "start"),
            None if end is None else to_utc(end, "end"),
        )

    @property
    def empty(self) -> bool:
        """Whether no instant lies inside."""
        return self.start is not None and self.start == self.end

    @property
    def duration(self) -> timedelta | None:
        """`end - start`, or None where a side is unbounded."""
        return None if self.start is None or self.end is None else self.end - self.start

    def overlaps(self, other: "Window") -> bool:
        """Whether any instant lies in both."""
        if self.empty or other.empty:
            return False
        return (self.start is None or other.end is None or self.start < other.end) and (
            other.start is None or self.end is None or other.start < self.end
        )

    def clip(self, end: datetime) -> "Window":
        """This window without what lies at or after `end`; empty at its start where nothing is left."""
        if self.end is not None and self.end <= end:
            return self
        return Window(self.start, end if self.start is None else max(self.start, end))

    def split(self, by: timedelta) -> Iterator["Window"]:
        """This window cut into consecutive ones of at most `by`; itself where a side is unbounded.

        Raises:
            ConfigError: `by` is not positive.
        """
        if by <= timedelta(0):
            raise ConfigError(f"A window is split by a positive duration, got {by}.")
        if self.start is None or self.end is None or self.empty:
            yield self
            return
        start = self.start
        while start < self.end:
            end = min(start + by, self.end)
            yield Window(start, end)
            start = end

    def __str__(self) -> str:
        start = "the beginning" if self.start is None else self.start.isoformat()
        end = "the end" if self.end is None else self.end.isoformat()
        return f"[{start}, {end})"


def joined_windows(windows: Iterable[Window]) -> list[Window]:
    """`windows` in order, with those that touch or overlap made one."""
    first = datetime.min.replace(tzinfo=UTC)
    together: list[Window] = []
    for window in sorted(windows, key=lambda window: window.start or first):
        if window.empty:
            continue
        last = together[-1] if together else None
        if last is not None and (last.end is None or window.start is None or window.start <= last.end):
            end = None if last.end is None or window.end is None else max(last.end, window.end)
            together[-1] = Window(last.start, end)
        else:
            together.append(window)
    return together
