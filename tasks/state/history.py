"""The ledger as people look at it: what ran, how it ended, and in how many rows."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, or_, select

from tasks.connections import engine
from tasks.counts import Counts
from tasks.dialects import dialect_of
from tasks.errors import TargetError, TargetUnavailable
from tasks.state.ledger import PHASES
from tasks.state.schema import HEAD, schema_version
from tasks.state.tables import COUNTS, runs
from tasks.window import Window

FAILED = ("failed", "crashed", "refused", "fenced", "superseded")
"""How an attempt ends that was to commit rows, and did not."""

_RECENT = 1_000
"""Attempts that a run is looked for in: the last run of a feed may be many."""


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """A row of the ledger; durations in seconds, times in UTC, None where the attempt did not come so far.

    Attributes:
        attempt: its token.
        run_id: the run it belongs to.
        pipeline: whose it is.
        target: the table.
        kind: `full`, `incremental`, `explicit`, `changes`, or `watermark` where somebody set that by hand.
        window: what was read.
        status: how it ended, or `running`.
        message: why it failed or was refused, or what was said of it.
        counts: what became of every change; None where nothing was counted.
        seconds: from opening to the end of the commit.
        phases: seconds by phase, as far as it came.
        started_at: target clock.
        finished_at: target clock.
        flow_run_id: Prefect's, where it was in a flow run.
        code_version: what ran.
        contract: fingerprint of schema and transform.
        overrides: guards that were set aside, as JSON.
        watermark: highest cursor extracted, ISO 8601.
        position: where a feed had come to.
        written: rows of the target that were inserted, updated or deleted.
        warned: rows loaded although a reference with `on_missing="warn"` is missing.
        late: rows that only the lookback caught.
        requests: HTTP requests that an API was sent, retries included.
    """

    attempt: str
    run_id: str
    pipeline: str
    target: str
    kind: str
    window: Window
    status: str
    message: str | None
    counts: Counts | None
    seconds: float | None
    phases: Mapping[str, float]
    started_at: datetime
    finished_at: datetime | None
    flow_run_id: str | None
    code_version: str | None
    contract: str | None
    overrides: str | None
    watermark: str | None
    position: str | None
    written: int | None
    warned: int | None
    late: int | None
    requests: int | None

    @property
    def error_rate(self) -> float | None:
        """Rejected ÷ incoming; None where nothing was counted."""
        return None if self.counts is None else self.counts.error_rate


@dataclass(frozen=True, slots=True)
class PastRun:
    """The attempts of one run, in order.

    Attributes:
        attempts: at least one.
    """

    attempts: tuple[PastAttempt, ...]

    @property
    def status(self) -> str:
        """How its last attempt ended; a failed one that a later attempt has made good does not count."""
        return self.attempts[-1].status

    @property
    def started_at(self) -> datetime:
        """When the first attempt was opened."""
        return self.attempts[0].started_at

    @property
    def finished_at(self) -> datetime | None:
        """When the last one ended; None while it runs."""
        return self.attempts[-1].finished_at

    @property
    def seconds(self) -> float | None:
        """Between the two."""
        return None if self.finished_at is None else (self.finished_at - self.started_at).total_seconds()

    @property
    def counts(self) -> Counts | None:
        """The sum over all windows; None where nothing was counted."""
        known = [one.counts for one in self.attempts if one.counts is not None]
        return sum(known, Counts()) if known else None

    @property
    def error_rate(self) -> float | None:
        """Rejected ÷ incoming over all windows."""
        counts = self.counts
        return None if counts is None else counts.error_rate


@contextlib.contextmanager
def opened_history(name: str) -> Iterator[Connection | None]:
    """A connection to the target called `name`, to read what is kept there; None where nothing has been loaded yet.

    Raises:
        TargetUnavailable: it did not answer.
        TargetError: it refused, or its state tables are of another version.
        ConfigError: the connection is not known.
    """
    target = engine(name)
    with dialect_of(target).translated(f"The target {name!r}", TargetUnavailable, TargetError):
        if not has_history(target):
            yield None
            return
        with target.connect() as connection:
            yield connection


def has_history(target: Engine) -> bool:
    """Whether there are state tables to read; a database that nothing has been loaded into has none.

    Raises:
        TargetError: they are of another version than this code reads.
    """
    version = schema_version(target)
    if version not in (None, HEAD):
        raise TargetError(
            f"The state tables of {target.url.render_as_string()} are at version {version!r}, and this tidegate reads "
            f"{HEAD!r}. Where they are older, the next run of a pipeline brings them up to date; where they are newer, "
            "upgrade tidegate here."
        )
    return version is not None


def past_attempts(connection: Connection, pipeline: str, *, limit: int, failed: bool = False) -> list[PastAttempt]:
    """The last attempts of `pipeline`, the newest first.

    Args:
        connection: to the target.
        pipeline: whose.
        limit: how many at most.
        failed: only those that were to commit rows and did not.
    """
    statement = select(runs).where(runs.c.pipeline == pipeline)
    if failed:
        statement = statement.where(runs.c.status.in_(FAILED))
    newest = statement.order_by(runs.c.started_at.desc(), runs.c.attempt).limit(limit)
    return [_attempt(row._mapping) for row in connection.execute(newest)]


def last_run(connection: Connection, pipeline: str) -> PastRun | None:
    """The run that was begun last, as far as its last thousand attempts; None where none ever was."""
    newest = (
        select(runs.c.run_id)
        .where(runs.c.pipeline == pipeline, runs.c.kind != "watermark")
        .order_by(runs.c.started_at.desc(), runs.c.attempt)
        .limit(1)
    )
    run_id = connection.execute(newest).scalar_one_or_none()
    return None if run_id is None else past_run(connection, run_id)


def past_run(connection: Connection, run_id: str) -> PastRun | None:
    """The run called so, as far as its last thousand attempts; None where there is none."""
    statement = select(runs).where(runs.c.run_id == run_id)
    rows = connection.execute(statement.order_by(runs.c.started_at.desc(), runs.c.attempt).limit(_RECENT)).all()
    return PastRun(tuple(_attempt(row._mapping) for row in reversed(rows))) if rows else None


def runs_called(connection: Connection, name: str) -> Sequence[str]:
    """The ids of runs that begin with `name`, or belong to the Prefect flow run `name`; a few where it is many."""
    called = or_(runs.c.run_id.startswith(name, autoescape=True), runs.c.flow_run_id == name)
    return list(connection.execute(select(runs.c.run_id).where(called).distinct().limit(5)).scalars())


def _attempt(row: Mapping[Any, Any]) -> PastAttempt:
    return PastAttempt(
        attempt=row["attempt"],
        run_id=row["run_id"],
        pipeline=row["pipeline"],
        target=row["target"],
        kind=row["kind"],
        window=Window(row["window_start"], row["window_end"]),
        status=row["status"],
        message=row["message"],
        counts=None if row["extracted"] is None else Counts(**{name: row[name] for name in COUNTS}),
        seconds=row["seconds"],
        phases={phase: row[f"{phase}_seconds"] for phase in PHASES if row[f"{phase}_seconds"] is not None},
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        flow_run_id=row["flow_run_id"],
        code_version=row["code_version"],
        contract=row["contract"],
        overrides=row["overrides"],
        watermark=row["watermark"],
        position=row["position"],
        written=row["written"],
        warned=row["warned"],
        late=row["late"],
        requests=row["requests"],
    )
