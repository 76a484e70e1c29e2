"""`Gate`: where the requests of a run to one source pass, one by one when they have to."""

import threading

from tasks.extract.http.pace.rate import RateLimit, TokenBucket


class Gate:
    """Paces the requests of a run, and is closed while the source has asked for a pause. Safe between threads.

    Moments are seconds of any clock that does not go back.
    """

    def __init__(self, rate: RateLimit | None) -> None:
        self._bucket = TokenBucket(rate) if rate is not None else None
        self._closed_until = float("-inf")
        self._lock = threading.Lock()

    @property
    def closed_until(self) -> float:
        """When the pause ends that the source has asked for; it may have ended."""
        with self._lock:
            return self._closed_until

    def close(self, until: float) -> None:
        """Let nobody pass before that; a pause that has been asked for is never made shorter."""
        with self._lock:
            self._closed_until = max(self._closed_until, until)

    def take(self, now: float) -> float:
        """See `TokenBucket.take`; `now` where there is no pace to keep."""
        return now if self._bucket is None else self._bucket.take(now)
