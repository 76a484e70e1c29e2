"""`Retry`: how long a request and its run keep trying, and what a source says of when to come again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from tasks.errors import ConfigError

RETRIED = frozenset({408, 425, 429})
"""Statuses below 500 that may go better next time."""


class Broken(Exception):
    """An attempt that may go better next time; `retry_after` is what the source asks to wait, in seconds."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Retry:
    """How long one request keeps trying, and its run.

    Attributes:
        attempts: how often it is sent at most.
        first: longest wait before the second attempt; doubles with each further one, and the wait is drawn evenly from
            zero up to it (full jitter).
        longest: where that doubling stops. A `Retry-After` of the source may ask for more.
        budget: longest waiting of one request between its attempts, in total.
        run_budget: longest time that a run stands still in total, over all its windows, attempts, pages and threads:
            waits between attempts, and pauses that the source asks for; not what a declared rate takes. Several threads
            that wait at the same time count once. Where it is not enough the run fails at once, with a `SourceError`:
            another attempt at the window would find the budget spent, too. Outside a run it is the client's.
    """

    attempts: int = 6
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=60)
    budget: timedelta = timedelta(minutes=5)
    run_budget: timedelta = timedelta(minutes=30)

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first, self.longest, self.budget, self.run_budget) < timedelta(0):
            raise ConfigError(f"{self}: attempts start at 1 and durations are not negative.")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds a source asks to wait, negative for a time gone by; None where it does not say, or not readably.

    A date is taken relative to the response's own `Date`, so that the two clocks need not agree (RFC 9110, 10.2.3).

    Args:
        headers: of the response.
        now: this machine's time, aware; for a source that sends no `Date`.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    until = http_date(text)
    if until is None:
        return None
    return (until - (http_date(headers.get("date", "")) or now)).total_seconds()


def http_date(text: str) -> datetime | None:
    """The time an HTTP date tells (UTC), or None where it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
