"""`BackfillPlan`: which windows of a range the ledger has, by which contract, and which there are to do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar, get_args

from sqlalchemy import Connection

from tasks.declaration import Pipeline
from tasks.errors import ConfigError, one_of
from tasks.extract.feed import Feed
from tasks.recovery.backfill.calendar import By, cut
from tasks.recovery.backfill.estimate import Estimates
from tasks.running.announce import say_clipped
from tasks.running.assembly import Assembly
from tasks.running.plan import expect_past, whole_partitions
from tasks.state.coverage import Coverage, read_coverage
from tasks.state.history import has_history
from tasks.window import Window, later, to_utc

Only = Literal["missing", "failed", "stale", "all"]
Standing = Literal["missing", "failed", "stale", "covered"]
Estimate = TypeVar("Estimate", int, float)

MOST_WINDOWS = 50_000
"""A plan is held in memory, and written down."""


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """A window of a plan.

    Attributes:
        window: what would be read.
        standings: all that holds of it: `missing`, a part of it was never covered; `failed`, the last word on a part
            was a failure; `stale`, a part was last covered under another contract. None of them: it is covered.
        rows: how many it is estimated to bring; None where nothing is known of the past.
        calls: how many HTTP requests that is; None where none have been counted.
        seconds: how long that takes.
        contract: fingerprint of the schema and transform by which it was covered last, the oldest where there are
            several; None where it never was.
        code_version: what ran then.
        covered_at: when, target clock, UTC.
        failure: why the last attempt at it failed, or None.
    """

    window: Window
    standings: frozenset[Standing] = frozenset()
    rows: int | None = None
    calls: int | None = None
    seconds: float | None = None
    contract: str | None = None
    code_version: str | None = None
    covered_at: datetime | None = None
    failure: str | None = None

    @property
    def standing(self) -> Standing:
        """What tells most of it: a failure, then that it is missing, then that it is stale."""
        told: tuple[Standing, ...] = ("failed", "missing", "stale")
        return next((one for one in told if one in self.standings), "covered")

    def as_dict(self) -> dict[str, Any]:
        """For programs; times are aware."""
        return {
            "window": {"start": self.window.start, "end": self.window.end},
            "standing": self.standing,
            "standings": sorted(self.standings),
            "rows": self.rows,
            "calls": self.calls,
            "seconds": self.seconds,
            "contract": self.contract,
            "code_version": self.code_version,
            "covered_at": self.covered_at,
            "failure": self.failure,
        }


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """The windows of a range, in order, and which of them are to do.

    Attributes:
        pipeline: whose.
        asked: the range as it was asked for.
        by: what a window is.
        only: which are chosen.
        contract: fingerprint of today's schema and transform.
        windows: all of them; whole partitions, and none beyond `bound`.
        bound: source time (UTC) up to which there is something to read; None where the source has no clock.
    """

    pipeline: str
    asked: Window
    by: By
    only: Only
    contract: str
    windows: tuple[PlannedWindow, ...]
    bound: datetime | None = None

    @property
    def chosen(self) -> tuple[PlannedWindow, ...]:
        """Those that `only` selects."""
        return tuple(one for one in self.windows if self.only == "all" or self.only in one.standings)

    @property
    def clipped(self) -> bool:
        """Whether the range was asked for beyond what is proven."""
        return self.bound is not None and self.asked.end is not None and self.asked.end > self.bound

    @property
    def rows(self) -> int | None:
        """How many the chosen ones are estimated to bring; None where of one nobody knows."""
        return total(one.rows for one in self.chosen)

    @property
    def calls(self) -> int | None:
        """How many HTTP requests the chosen ones are estimated to take."""
        return total(one.calls for one in self.chosen)

    @property
    def seconds(self) -> float | None:
        """How long they take one after the other."""
        return total(one.seconds for one in self.chosen)

    def as_dict(self) -> dict[str, Any]:
        """For programs; times are aware."""
        return {
            "pipeline": self.pipeline,
            "asked": {"start": self.asked.start, "end": self.asked.end},
            "by": self.by,
            "only": self.only,
            "contract": self.contract,
            "bound": self.bound,
            "chosen": len(self.chosen),
            "rows": self.rows,
            "calls": self.calls,
            "seconds": self.seconds,
            "windows": [one.as_dict() for one in self.windows],
        }


def plan_backfill(
    pipeline: Pipeline, start: datetime | None, end: datetime | None, by: By = "day", only: Only = "missing"
) -> BackfillPlan:
    """What the ledger says of `[start, end)`; nothing is written.

    The range is cut where hours, days, weeks (on Mondays) or months of UTC begin, and where the pipeline replaces or
    derives whole partitions, between these.

    Args:
        pipeline: whose.
        start: first instant, UTC if naive; None is where the extract begins (`initial`).
        end: first instant that is left out; None is as far as the source is proven. Beyond that it is clipped.
        by: what a window is.
        only: which windows are chosen: `missing`, `failed`, `stale` or `all`.

    Raises:
        ConfigError: the source has no past; nobody knows where to begin or end; another `by` or `only`; too many
            windows.
        TidegateError: source or target did not answer, or refused; see `tasks.errors`.
    """
    expect_past(pipeline)
    _expect_known(pipeline, "by", by, get_args(By))
    _expect_known(pipeline, "only", only, get_args(Only))
    asked, parts = Window.parse(start, end), Assembly(pipeline)
    bound = None if isinstance(pipeline.extract, Feed) else pipeline.extract.bound()
    span = _span(pipeline, asked, bound)
    windows = _cut(pipeline, span, by)
    contract = parts.contract.fingerprint
    with parts.target_errors(pipeline.name):
        coverage, estimates = Coverage(), Estimates()
        if windows and has_history(parts.engine):
            with parts.engine.connect() as connection:
                coverage, estimates = _known(connection, pipeline, windows)
    planned = tuple(_planned(windows, coverage, estimates, contract))
    return BackfillPlan(pipeline.name, asked, by, only, contract, planned, bound)


def _known(connection: Connection, pipeline: Pipeline, windows: Sequence[Window]) -> tuple[Coverage, Estimates]:
    whole = Window(windows[0].start, windows[-1].end)
    coverage = read_coverage(connection, pipeline.name, whole)
    return coverage, Estimates.read(connection, pipeline.name)


def _expect_known(pipeline: Pipeline, name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{pipeline.name}: {name} is {one_of(known)}, got {value!r}.")


def _span(pipeline: Pipeline, asked: Window, bound: datetime | None) -> Window:
    """The range with both ends, of whole partitions, as far as there is something to read."""
    extract, name = pipeline.extract, pipeline.name
    start = asked.start
    if start is None and not isinstance(extract, Feed):
        start = extract.initial
    if start is None:
        raise ConfigError(
            f"{name}: nobody says where {extract.dataset!r} begins. Give a start, or declare `initial` on the extract."
        )
    if asked.end is None and bound is None:
        raise ConfigError(f"{name}: {extract.dataset!r} is made of other tables and has no clock. Give an end.")
    if bound is not None and asked.end is not None and asked.end > bound:
        say_clipped(pipeline, asked, bound)
    window = Window.parse(start, asked.end or later(to_utc(start), bound))
    partitions = whole_partitions(pipeline)
    window = window if partitions is None else partitions.aligned(window)
    if window.start is None or window.end is None:
        raise ConfigError(f"{name}: the partitions of {asked} begin or end nowhere. Give a shorter range.")
    return window if bound is None else window.clip(bound)


def _cut(pipeline: Pipeline, span: Window, by: By) -> list[Window]:
    windows: list[Window] = []
    for window in cut(span, by, whole_partitions(pipeline)):
        if len(windows) == MOST_WINDOWS:
            raise ConfigError(
                f"{pipeline.name}: {span} has more than {MOST_WINDOWS:,} windows by {by}. Cut it by a longer one, or "
                "give a shorter range."
            )
        windows.append(window)
    return windows


def _planned(
    windows: Sequence[Window], coverage: Coverage, estimates: Estimates, contract: str
) -> Iterator[PlannedWindow]:
    for window in windows:
        covered, failed = coverage.covering(window), coverage.failing(window)
        standings: set[Standing] = set()
        if failed:
            standings.add("failed")
        if not coverage.fills(window):
            standings.add("missing")
        if any(one.attempt.contract != contract for one in covered):
            standings.add("stale")
        # The oldest is what makes it stale.
        last = min((one.attempt for one in covered), key=lambda one: one.at, default=None)
        failure = max((one.attempt for one in failed), key=lambda one: one.at, default=None)
        rows = estimates.rows(window, covered)
        yield PlannedWindow(
            window=window,
            standings=frozenset(standings),
            rows=rows,
            calls=estimates.calls(rows),
            seconds=estimates.seconds(rows),
            contract=None if last is None else last.contract,
            code_version=None if last is None else last.code_version,
            covered_at=None if last is None else last.at,
            failure=None if failure is None else failure.message,
        )


def total(estimates: Iterable[Estimate | None]) -> Estimate | None:
    """The sum of estimates; None where one of them is unknown, or there is none."""
    known: list[Estimate] = []
    for one in estimates:
        if one is None:
            return None
        known.append(one)
    return sum(known[1:], known[0]) if known else None
