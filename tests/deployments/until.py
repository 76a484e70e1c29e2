"""`until`: what tests wait for that takes its time."""

import time
from collections.abc import Callable


def until(what: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    """Look again and again until it is so.

    Raises:
        AssertionError: it was not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
