"""`Vitals`: what the ledger, the watermark and the dead letters say of how a pipeline is, in a few queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from tasks.counts import Counted
from tasks.state.tables import dead_letters, runs
from tasks.state.watermarks import read_watermark

_MOST_ATTEMPTS = 1_000
"""Of the ledger so many rows at most are looked through: a run that was split has one for each window."""

_LEAVING = ("committed", "partial", "refused")
"""How an attempt ends that leaves its dead letters."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """How the newest entry of the ledger ended.

    Attributes:
        run_id: the run it belongs to.
        status: `committed`, `failed` and so on; see `tasks.state.attempts.Status`.
        message: why, or None.
        started_at: target clock, UTC.
    """

    run_id: str
    status: str
    message: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a pipeline is; times in UTC.

    Attributes:
        at: target clock when it was asked.
        covered_until: source time below which everything is in the target, or None.
        first_seen: target clock when the ledger first heard of the pipeline; asked where nothing is covered, else None.
        recent: what came in with the newest runs that committed, each change counted once.
        recent_runs: how many runs these are.
        open_letters: dead letters that are open.
        growth: by how much each of the newest runs that wrote its letters, the newest first, left more open than there
            were before it; asked where any are open, else empty.
        last: the newest entry of the ledger; None: the pipeline has never run.
    """

    at: datetime
    covered_until: datetime | None
    first_seen: datetime | None
    recent: Counted
    recent_runs: int
    open_letters: int
    growth: tuple[int, ...]
    last: LastRun | None


def read_vitals(connection: Connection, pipeline: str, at: datetime, *, recent_runs: int, growing_runs: int) -> Vitals:
    """Ask the target; nothing is locked, and nothing written.

    Args:
        connection: to the target, whose state tables are there.
        pipeline: whose.
        at: target clock, UTC.
        recent_runs: over how many runs that committed the changes are summed. Those that somebody asked a range of are
            left out: they read again what others have counted.
        growing_runs: of how many runs the growth is told.
    """
    mine = runs.c.pipeline == pipeline
    newest = (
        select(runs.c.run_id, runs.c.status, runs.c.message, runs.c.started_at)
        .where(mine)
        .order_by(runs.c.started_at.desc())
        .limit(1)
    )
    last = connection.execute(newest).one_or_none()
    recent, counted = _recent(connection, mine, recent_runs)
    still_open = select(func.count()).where(dead_letters.c.pipeline == pipeline, dead_letters.c.status == "open")
    open_letters = connection.execute(still_open).scalar_one()
    covered_until, first_seen = read_watermark(connection, pipeline).covered_until, None
    if covered_until is None:
        first_seen = connection.execute(select(func.min(runs.c.started_at)).where(mine)).scalar_one()
    return Vitals(
        at=at,
        covered_until=covered_until,
        first_seen=first_seen,
        recent=counted,
        recent_runs=recent,
        open_letters=open_letters,
        growth=_growth(connection, pipeline, growing_runs) if open_letters else (),
        last=None if last is None else LastRun(*last),
    )


def _recent(connection: Connection, mine: ColumnElement[bool], wanted: int) -> tuple[int, Counted]:
    names = ("extracted", "added", "rejected", "reread", "reread_rejected")
    attempts = (
        select(runs.c.run_id, runs.c.started_at, *(runs.c[name] for name in names))
        .where(mine, runs.c.status.in_(("committed", "partial")), runs.c.kind.not_in(("explicit", "replay")))
        .order_by(runs.c.started_at.desc())
        .limit(_MOST_ATTEMPTS)
        .subquery("attempts")
    )
    by_run = (
        select(attempts.c.run_id, *(func.sum(attempts.c[name]).label(name) for name in names))
        .group_by(attempts.c.run_id)
        .order_by(func.max(attempts.c.started_at).desc())
        .limit(wanted)
    )
    found = [{name: int(row._mapping[name] or 0) for name in names} for row in connection.execute(by_run)]
    counted = (
        Counted(run["extracted"] + run["added"] - run["reread"], run["rejected"] - run["reread_rejected"])
        for run in found
    )
    return len(found), sum(counted, Counted())


def _growth(connection: Connection, pipeline: str, wanted: int) -> tuple[int, ...]:
    """What was filed for the first time while a run went on, less what was closed then."""
    attempts = (
        select(runs.c.run_id, runs.c.started_at, runs.c.finished_at)
        .where(runs.c.pipeline == pipeline, runs.c.status.in_(_LEAVING))
        .order_by(runs.c.started_at.desc())
        .limit(_MOST_ATTEMPTS)
        .subquery("attempts")
    )
    spans = (
        select(func.min(attempts.c.started_at), func.max(attempts.c.finished_at))
        .group_by(attempts.c.run_id)
        .order_by(func.max(attempts.c.started_at).desc())
        .limit(wanted)
    )
    times = [(began, ended) for began, ended in connection.execute(spans)]
    if not times:
        return ()
    filed, closed = (
        _within(connection, pipeline, column, times) for column in (dead_letters.c.first_seen, dead_letters.c.closed_at)
    )
    return tuple(one - other for one, other in zip(filed, closed, strict=True))


def _within(
    connection: Connection, pipeline: str, at: ColumnElement[datetime], times: Sequence[tuple[datetime, datetime]]
) -> list[int]:
    """How many letters have `at` in each of the spans `times`."""
    sums = (func.sum(case((and_(at >= began, at <= ended), 1), else_=0)) for began, ended in times)
    asked = select(*sums).where(dead_letters.c.pipeline == pipeline, at >= min(began for began, _ in times))
    return [int(count or 0) for count in connection.execute(asked).one()]
