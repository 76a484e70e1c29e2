"""`RateLimit`: how often a source is asked at most, and `TokenBucket`, which sees to it."""

import shlex
import threading
from dataclasses import dataclass
from datetime import timedelta

from tasks.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How often a source is asked at most. Every request counts, retries and redirects included.

    With `burst=1` requests are spread evenly, and no period of that length sees more than `requests`, however the
    source draws the borders of its own; a greater burst may add as many less one.

    Attributes:
        requests: how many are allowed in each period.
        per: that period.
        burst: how many may follow each other at once after a pause.
        shared: name of a global concurrency limit of Prefect's, which other runs and machines take from as well; each
            run still keeps its own pace too.

    Raises:
        ConfigError: a number below 1, or a period of nothing.
    """

    requests: int
    per: timedelta = timedelta(seconds=1)
    burst: int = 1
    shared: str | None = None

    def __post_init__(self) -> None:
        if min(self.requests, self.burst) < 1 or self.per <= timedelta(0):
            raise ConfigError(f"{self}: requests and burst start at 1, and per is longer than nothing.")
        if self.shared is not None and not self.shared.strip():
            raise ConfigError(f"{self}: shared is the name of a global concurrency limit of Prefect's.")

    @property
    def spacing(self) -> float:
        """Seconds after which another request is allowed."""
        return self.per.total_seconds() / self.requests

    @property
    def create_command(self) -> str:
        """What creates the global concurrency limit that keeps this very rate."""
        return (
            f"prefect gcl create {shlex.quote(self.shared or '')} --limit {self.burst} "
            f"--slot-decay-per-second {1 / self.spacing:.6g}"
        )


class TokenBucket:
    """Holds `burst` tokens at most, and gets a new one every `spacing` seconds; it begins full. Safe between threads.

    It never sleeps and never reserves: who is told to wait asks again, so that a pause the source asks for meanwhile
    costs nobody a token. Moments are seconds of any clock that does not go back.
    """

    def __init__(self, rate: RateLimit) -> None:
        self._spacing = rate.spacing
        self._ahead = (rate.burst - 1) * rate.spacing
        self._full_at = float("-inf")
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Take a token, and return `now`; or take none, and return the moment when there will be one."""
        with self._lock:
            next_at = self._full_at - self._ahead
            if now < next_at:
                return next_at
            self._full_at = max(self._full_at, now) + self._spacing
            return now
