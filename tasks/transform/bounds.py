"""`RowCount` and `NullShare`: what a window as a whole may look like, compared with the windows before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, Protocol

from sqlalchemy import Connection

from tasks.errors import ConfigError
from tasks.state.attempts import Attempt
from tasks.state.statistics import Measured, Statistics, earlier_windows

ENOUGH = 3
"""With fewer earlier windows nothing is usual yet, and nothing is compared."""

Action = Literal["warn", "abort"]


class Bound(Protocol):
    """A bound on the statistics of a window. Frozen, comparable."""

    @property
    def last(self) -> int:
        """With how many earlier windows it compares."""

    @property
    def action(self) -> Action:
        """`warn` loads the window and says so; `abort` refuses it."""

    def exceeded(self, measured: Measured, earlier: Sequence[Measured]) -> str | None:
        """What is out of bounds, as a clause; None where nothing is, or too little is known."""


@dataclass(frozen=True)
class RowCount:
    """How many rows a window may hold, compared with the median of those before it.

    Windows differ in length: where they have a start and an end, rows per second are compared, over the length of this
    one. A source with a rhythm needs a `last`, or windows, that cover it.

    Attributes:
        min_share: fewest rows, as a share of what is usual.
        max_share: most rows, likewise.
        last: with how many earlier windows it compares.
        action: `warn` or `abort`.
        min_rows: fewer usual rows are too few to call a window short, and a window is only long compared with these.

    Raises:
        ConfigError: shares or numbers that make no sense.
    """

    min_share: float = 0.5
    max_share: float = 2.0
    last: int = 7
    action: Action = "warn"
    min_rows: int = 20

    def __post_init__(self) -> None:
        _check("RowCount", self.last, self.action)
        if not 0 <= self.min_share <= 1 <= self.max_share:
            raise ConfigError(
                f"RowCount: min_share is from 0 to 1 and max_share at least 1, got {self.min_share} and "
                f"{self.max_share}."
            )

    def exceeded(self, measured: Measured, earlier: Sequence[Measured]) -> str | None:
        """See `Bound.exceeded`."""
        rows = measured.statistics.rows
        length = measured.seconds
        scales = [1.0 if length is None else length / each.seconds if each.seconds else 0.0 for each in earlier]
        known = [each.statistics.rows * scale for each, scale in zip(earlier, scales, strict=True) if scale]
        if len(known) < ENOUGH:
            return None
        usual = median(known)
        told = f"it holds {rows:,} rows where {usual:,.0f} are usual (the median of {len(known)} windows before it)"
        if usual >= self.min_rows and rows < usual * self.min_share:
            return f"{told}, and min_share={self.min_share:g}"
        if rows > max(usual, self.min_rows) * self.max_share:
            return f"{told}, and max_share={self.max_share:g}"
        return None


@dataclass(frozen=True)
class NullShare:
    """How many rows of a window may be without a value in a column.

    Attributes:
        column: of the contract, where it is nullable.
        max_increase: by how much the share, 0 to 1, may exceed that of all rows of the windows before it; None does not
            compare.
        max: largest share, whatever it was before; None sets none.
        last: with how many earlier windows it compares.
        action: `warn` or `abort`.
        min_rows: a window with fewer rows is not judged.

    Raises:
        ConfigError: neither a `max_increase` nor a `max`; shares or numbers that make no sense.
    """

    column: str
    max_increase: float | None = None
    max: float | None = None
    last: int = 7
    action: Action = "warn"
    min_rows: int = 20

    def __post_init__(self) -> None:
        what = f"NullShare({self.column!r})"
        _check(what, self.last, self.action)
        if self.max_increase is None and self.max is None:
            raise ConfigError(f"{what} has no bound: give max_increase=0.1, or max=0.3, or both.")
        for name in ("max_increase", "max"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"{what}: {name} is a share from 0 to 1, got {share}.")

    def exceeded(self, measured: Measured, earlier: Sequence[Measured]) -> str | None:
        """See `Bound.exceeded`."""
        now = measured.statistics
        if now.rows < max(self.min_rows, 1) or self.column not in now.nulls:
            return None
        share = now.nulls[self.column] / now.rows
        told = f"{share:.1%} of its {now.rows:,} rows have no {self.column!r}"
        if self.max is not None and share > self.max:
            return f"{told}, and max={self.max:g}"
        # A column that has been declared since says nothing of the windows before that.
        known = [each.statistics for each in earlier if self.column in each.statistics.nulls and each.statistics.rows]
        if self.max_increase is None or len(known) < ENOUGH:
            return None
        usual = sum(each.nulls[self.column] for each in known) / sum(each.rows for each in known)
        if share <= usual + self.max_increase:
            return None
        return f"{told}, {usual:.1%} in the {len(known)} windows before it, and max_increase={self.max_increase:g}"


@dataclass(frozen=True)
class BoundsCheck:
    """The bounds of one attempt, judged inside its commit.

    Attributes:
        bounds: as the pipeline declares them.
        attempt: at which window.
        statistics: of the rows staged; None where the source said that nothing has changed, so that nothing came in.
    """

    bounds: Sequence[Bound]
    attempt: Attempt
    statistics: Statistics | None

    def judge(self, connection: Connection) -> tuple[str | None, str | None]:
        """Why the window is refused, and what is only warned of; None where nothing is."""
        if not self.bounds or self.statistics is None:
            return None, None
        earlier = earlier_windows(connection, self.attempt, max(bound.last for bound in self.bounds))
        measured = Measured(self.attempt.window, self.statistics)
        found: dict[Action, list[str]] = {"warn": [], "abort": []}
        for bound in self.bounds:
            if told := bound.exceeded(measured, earlier[: bound.last]):
                found[bound.action].append(told)
        refusal = warning = None
        if found["abort"]:
            refusal = (
                f"{self.attempt}: out of bounds: {'; '.join(found['abort'])}. Nothing but the dead letters was "
                "written. Look at the source; if it is right, run it with Overrides(ignore_bounds=True)."
            )
        if found["warn"]:
            warning = f"{self.attempt}: out of bounds: {'; '.join(found['warn'])}."
        return refusal, warning


def _check(what: str, last: int, action: str) -> None:
    if last < ENOUGH:
        raise ConfigError(f"{what} compares with the last {last}; with fewer than {ENOUGH} windows nothing is usual.")
    if action not in ("warn", "abort"):
        raise ConfigError(f"{what}: action is 'warn' or 'abort', got {action!r}.")
