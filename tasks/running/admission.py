"""`Admission`: whether the upstreams of a pipeline have come far enough for what a run is going to read."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Engine, inspect

from tasks.connections import engine
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.errors import TargetError, TargetUnavailable
from tasks.observe.context import logger
from tasks.running.assembly import Assembly
from tasks.running.plan import Plan
from tasks.state.tables import watermarks
from tasks.state.watermarks import Watermark, read_watermark
from tasks.upstreams import DependsOn, ReadsTables
from tasks.window import Window, later

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
"""Seconds between two looks at the watermarks; doubled each time."""


_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the upstreams have come.

    Attributes:
        marks: the watermark of each.
        now: the target's clock, UTC.
    """

    marks: Mapping[DependsOn, Watermark]
    now: datetime

    def of(self, upstream: DependsOn, *, as_loaded: bool = False) -> datetime | None:
        """Until when may be read what depends on `upstream`; None is nothing.

        Args:
            upstream: which.
            as_loaded: what is read is what it has loaded, so that exactly as far is as far as it has come.
        """
        mark = self.marks[upstream]
        if upstream.max_age is None or (as_loaded and not upstream.max_age):
            return _EVER if mark.version else None
        return None if mark.covered_until is None else mark.covered_until + upstream.max_age


@dataclass(frozen=True, slots=True)
class Behind:
    """An upstream that has not come far enough.

    Attributes:
        upstream: which.
        mark: its watermark.
        read: what it has to reach, its `max_age` included, UTC; None where anything would do.
        beyond: that very instant is not enough.
    """

    upstream: DependsOn
    mark: Watermark
    read: datetime | None
    beyond: bool = False

    def __str__(self) -> str:
        name, age = self.upstream.pipeline, self.upstream.max_age
        if not self.mark.version:
            return f"{name} has not been loaded yet"
        covered = self.mark.covered_until
        come = f"{name} is covered until {covered.isoformat()}" if covered else f"{name} tells no covered_until"
        if self.read is None or age is None:
            return come
        return f"{come}, and has to be covered {'after' if self.beyond else 'until'} {(self.read - age).isoformat()}"


class Admission:
    """Lets a planned run go on as far as its upstreams have come, or waits for them, from now on.

    Args:
        parts: the pipeline that depends on others.
        sleep: waits for so many seconds.
        moment: seconds on a clock that only goes forward.
    """

    def __init__(
        self,
        parts: Assembly,
        *,
        sleep: Callable[[float], None] = time.sleep,
        moment: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._sleep = sleep
        self._moment = moment
        self._began = moment()

    def admit(self, planned: Plan, seen: Watermark, again: Callable[[], Plan]) -> Plan | str:
        """`planned`, or as much of it as the upstreams cover; why nothing is read, where they are behind for too long.

        Args:
            planned: what the run would read.
            seen: the pipeline's own watermark; one without times for a full refresh.
            again: plans anew, after a wait.

        Raises:
            TargetUnavailable: a database that holds the watermarks did not answer.
            TargetError: it refused.
        """
        pause, waited = _FIRST_PAUSE, False
        while True:
            admitted = judge(planned, seen, self._reach(), self._parts.pipeline)
            if isinstance(admitted, Plan) and waited:
                planned, waited = again(), False
                continue
            if isinstance(admitted, Plan):
                self._say_cut(planned, admitted)
                return admitted
            passed = self._moment() - self._began
            left = _patience(admitted) - passed
            if left <= 0:
                return self._refusal(admitted, passed)
            if not waited:
                logger().info("%s: waiting: %s.", self._parts.pipeline.name, _listed(admitted))
            self._sleep(min(pause, left))
            pause, waited = min(2 * pause, _LONGEST_PAUSE), True

    def _reach(self) -> Reach:
        parts, own = self._parts, self._parts.pipeline.load.connection
        marks = {
            upstream: self._mark(upstream, parts.engine if upstream.connection in (None, own) else None)
            for upstream in parts.pipeline.upstreams
        }
        with parts.target_errors(parts.pipeline.name), parts.engine.connect() as connection:
            return Reach(marks, parts.dialect.clock(connection))

    def _mark(self, upstream: DependsOn, target: Engine | None) -> Watermark:
        where = upstream.connection or self._parts.pipeline.load.connection
        target = target or engine(where)
        what = f"{self._parts.pipeline.name}: the watermark of {upstream.pipeline!r} in {where!r}"
        with dialect_of(target).translated(what, TargetUnavailable, TargetError):
            # A database that no pipeline has loaded into yet has no watermarks.
            if not inspect(target).has_table(watermarks.name):
                return Watermark()
            with target.connect() as connection:
                return read_watermark(connection, upstream.pipeline)

    def _say_cut(self, planned: Plan, admitted: Plan) -> None:
        if admitted != planned:
            logger().info(
                "%s: reads until %s instead of %s: further its upstreams have not come.",
                self._parts.pipeline.name,
                admitted.windows[-1].end,
                planned.windows[-1].end or planned.bound,
            )
        if planned.complete and not admitted.complete:
            logger().warning(
                "%s: this full refresh deletes nothing: what lies beyond its upstreams was not read.",
                self._parts.pipeline.name,
            )

    def _refusal(self, behind: tuple[Behind, ...], waited: float) -> str:
        names = " and ".join(one.upstream.pipeline for one in behind)
        patience = f", also after {waited:.0f} s" if waited > 0 and _patience(behind) else ""
        return (
            f"{self._parts.pipeline.name}: skipped, nothing was read: {_listed(behind)}{patience}. Run {names} first, "
            f"or allow it to be further behind with DependsOn({behind[0].upstream.pipeline!r}, max_age=…)."
        )


def judge(planned: Plan, seen: Watermark, reach: Reach, pipeline: Pipeline) -> Plan | tuple[Behind, ...]:
    """As much of `planned` as `reach` covers, or the upstreams that are behind."""
    # What an earlier run left of its window was admitted when that run began.
    if planned.rest or not pipeline.upstreams:
        return planned
    if planned.kind == "incremental":
        return _cut(planned, seen, reach, pipeline)
    end = planned.windows[-1].end or planned.bound or reach.now
    as_loaded = planned.kind != "explicit" and isinstance(pipeline.extract, ReadsTables)
    reached = {upstream: reach.of(upstream, as_loaded=as_loaded) for upstream in pipeline.upstreams}
    behind = [Behind(one, reach.marks[one], end) for one, until in reached.items() if until is None or until < end]
    if behind and planned.complete and planned.bound is not None:
        # Its bound is a moment ago, where no upstream can be. What is read as far as they are is not all there is.
        until = Window(None, planned.bound)
        return _cut(replace(planned, kind="incremental", windows=(until,), complete=False), seen, reach, pipeline)
    return tuple(behind) or planned


def _cut(planned: Plan, seen: Watermark, reach: Reach, pipeline: Pipeline) -> Plan | tuple[Behind, ...]:
    """An incremental plan, ending where the first upstream does; that has to be after what has been read before."""
    end, read = planned.windows[-1].end, later(seen.covered_until, planned.windows[0].start)
    assert end is not None, "an incremental window ends at the bound"
    behind, cut = [], end
    for upstream in pipeline.upstreams:
        until = reach.of(upstream)
        if until is None or (until < end and read is not None and until <= read):
            behind.append(Behind(upstream, reach.marks[upstream], read and min(read, end), beyond=True))
        else:
            cut = min(cut, until)
    if behind:
        return tuple(behind)
    return planned if cut == end else replace(planned, windows=tuple(_until(planned.windows, cut)))


def _until(windows: tuple[Window, ...], cut: datetime) -> list[Window]:
    return [window.clip(cut) for window in windows if window.start is None or window.start < cut]


def _patience(behind: tuple[Behind, ...]) -> float:
    """How many seconds a run waits for all of them; not at all where one is to be skipped."""
    waits = [one.upstream.timeout.total_seconds() if one.upstream.when_behind == "wait" else 0.0 for one in behind]
    return min(waits)


def _listed(behind: tuple[Behind, ...]) -> str:
    return "; ".join(str(one) for one in behind)
