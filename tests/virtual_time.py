"""A clock that passes only when everybody who takes part sleeps, and then at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

START = datetime(2013, 1, 8, 6, tzinfo=UTC)


class VirtualTime:
    """`sleep`, `moment` and `clock` for an `HttpClient`.

    Args:
        threads: how many sleep on it; time stands still until all of them do. Each that ends first `leaves`.
    """

    def __init__(self, threads: int = 1) -> None:
        self.slept: list[float] = []
        self._now = 0.0
        self._awake = threads
        self._wakings: list[float] = []
        self._changed = threading.Condition()

    def moment(self) -> float:
        """Seconds since the beginning."""
        with self._changed:
            return self._now

    def clock(self) -> datetime:
        """The time of day."""
        return START + timedelta(seconds=self.moment())

    def sleep(self, seconds: float) -> None:
        """Until `seconds` have passed."""
        with self._changed:
            until = self._now + seconds
            self.slept.append(seconds)
            self._wakings.append(until)
            self._awake -= 1
            self._pass()
            self._changed.wait_for(lambda: self._now >= until, 60)
            assert self._now >= until, "somebody neither slept nor left"

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Take no part any more in the end."""
        try:
            yield
        finally:
            with self._changed:
                self._awake -= 1
                self._pass()

    def _pass(self) -> None:
        if self._awake == 0 and self._wakings:
            self._now = min(self._wakings)
            woken = [waking for waking in self._wakings if waking <= self._now]
            self._wakings = [waking for waking in self._wakings if waking > self._now]
            self._awake += len(woken)
            self._changed.notify_all()
