"""`Admission`: whether the upstreams of a pipeline have come far enough for what a run is going to read."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Engine, inspect

from tasks.assembly import Assembly
from tasks.connections import engine
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.errors import TargetError, TargetUnavailable
from tasks.observe.context import logger
from tasks.plan import Plan
from tasks.state.tables import watermarks
from tasks.state.watermarks import Watermark, read_watermark
from tasks.upstreams import DependsOn
from tasks.window import Window, later

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
"""Seconds between two looks at the watermarks; doubled each time."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the upstreams have come.

    Attributes:
        covered: `covered_until` of each, UTC; None where it has committed nothing that tells one.
        now: the target's clock, UTC.
    """

    covered: Mapping[DependsOn, datetime | None]
    now: datetime

    def of(self, upstream: DependsOn) -> datetime | None:
        """Until when may be read what depends on `upstream`; None is nothing."""
        covered = self.covered[upstream]
        return None if covered is None else covered + upstream.max_age


@dataclass(frozen=True, slots=True)
class Behind:
    """An upstream that has not come far enough.

    Attributes:
        upstream: which.
        covered_until: how far it has come, UTC; None where it has committed nothing that tells.
        needed: how far it has to come, UTC; None where anything would do.
        beyond: that very instant is not enough.
    """

    upstream: DependsOn
    covered_until: datetime | None
    needed: datetime | None
    beyond: bool = False

    def __str__(self) -> str:
        name = self.upstream.pipeline
        come = f"covered until {self.covered_until.isoformat()}" if self.covered_until else "not covered at all yet"
        if self.needed is None:
            return f"{name} is {come}"
        wanted = f"{'after' if self.beyond else 'until'} {self.needed.isoformat()}"
        return f"{name} is {come}, and has to be covered {wanted}"


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
        covered = {
            upstream: self._covered(upstream, parts.engine if upstream.connection in (None, own) else None)
            for upstream in parts.pipeline.upstreams
        }
        with parts.target_errors(parts.pipeline.name), parts.engine.connect() as connection:
            return Reach(covered, parts.dialect.clock(connection))

    def _covered(self, upstream: DependsOn, target: Engine | None) -> datetime | None:
        where = upstream.connection or self._parts.pipeline.load.connection
        target = target or engine(where)
        what = f"{self._parts.pipeline.name}: the watermark of {upstream.pipeline!r} in {where!r}"
        with dialect_of(target).translated(what, TargetUnavailable, TargetError):
            # A database that no pipeline has loaded into yet has no watermarks.
            if not inspect(target).has_table(watermarks.name):
                return None
            with target.connect() as connection:
                return read_watermark(connection, upstream.pipeline).covered_until

    def _say_cut(self, planned: Plan, admitted: Plan) -> None:
        if admitted != planned:
            logger().info(
                "%s: reads until %s instead of %s: further its upstreams have not come.",
                self._parts.pipeline.name,
                admitted.windows[-1].end,
                planned.windows[-1].end,
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
    end = planned.windows[-1].end or reach.now
    behind = []
    for upstream in pipeline.upstreams:
        until = reach.of(upstream)
        if until is None or until < end:
            behind.append(Behind(upstream, reach.covered[upstream], end - upstream.max_age))
    return tuple(behind) or planned


def _cut(planned: Plan, seen: Watermark, reach: Reach, pipeline: Pipeline) -> Plan | tuple[Behind, ...]:
    """An incremental plan, ending where the first upstream does; that has to be after what has been read before."""
    end, read = planned.windows[-1].end, later(seen.covered_until, planned.windows[0].start)
    assert end is not None, "an incremental window ends at the bound"
    behind, cut = [], end
    for upstream in pipeline.upstreams:
        until = reach.of(upstream)
        if until is None or (until < end and read is not None and until <= read):
            needed = None if read is None else min(read, end) - upstream.max_age
            behind.append(Behind(upstream, reach.covered[upstream], needed, beyond=True))
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
