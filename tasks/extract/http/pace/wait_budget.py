"""`WaitBudget`: how long a run may stand still."""

import threading


class WaitBudget:
    """How long a run may stand still in total. Safe between threads.

    What counts is time on the clock, not per thread: eight threads that wait for the same ten seconds cost ten. Moments
    are seconds of any clock that does not go back.

    Args:
        seconds: that may be spent.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._spent = 0.0
        self._until = float("-inf")
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        with self._lock:
            return self.seconds - self._spent

    def spend(self, now: float, until: float) -> bool:
        """Spend what of that time nobody has spent yet; False, and nothing is spent, where there is not enough."""
        with self._lock:
            cost = max(0.0, until - max(now, self._until))
            if self._spent + cost > self.seconds:
                return False
            self._spent += cost
            self._until = max(self._until, until)
            return True
