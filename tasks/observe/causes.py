"""What can be wrong with a pipeline, by the names that its events and the automations that wait for them share."""

from dataclasses import dataclass
from typing import Final

RUN_COMMITTED: Final = "etl.run.committed"
RUN_SKIPPED: Final = "etl.run.skipped"
WINDOW_COVERED: Final = "etl.window.covered"
DATASET_LANDED: Final = "etl.dataset.landed"
AWAITED: Final = "etl.dataset.awaited"
"""Label of a landing: `true` where open dead letters wait for rows of that table, so that they are judged anew."""

TARGET_CHANGED: Final = "etl.target.changed"
TARGET_DRIFTED: Final = "etl.target.drifted"
BOUNDS_EXCEEDED: Final = "etl.bounds.exceeded"
BOUND_STALLED: Final = "etl.bound.stalled"
CURSOR_MISSING: Final = "etl.cursor.missing"
RECONCILED: Final = "etl.reconciled"


@dataclass(frozen=True)
class Measured:
    """A promise that is measured, at the end of a run or by the flow `watch`.

    Attributes:
        cause: name of what is wrong where it is breached.
        breached: event that says so.
        kept: event that says it is not.
    """

    cause: str
    breached: str
    kept: str


FRESHNESS: Final = Measured("freshness", "etl.freshness.breached", "etl.freshness.kept")
ERROR_RATE: Final = Measured("error-rate", "etl.run.error-rate-exceeded", "etl.run.error-rate-kept")
RECENT_ERROR_RATE: Final = Measured("recent-error-rate", "etl.recent-error-rate.breached", "etl.recent-error-rate.kept")
DEAD_LETTERS: Final = Measured("dead-letters", "etl.dead-letters.breached", "etl.dead-letters.kept")
SLOT_LAG: Final = Measured("slot-lag", "etl.slot.lag-exceeded", "etl.slot.lag")
