"""Attempts at a window: who may commit it, and what dead ones left behind."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from tasks.dialects.dialect import Dialect
from tasks.errors import Fenced, Superseded
from tasks.state.tables import runs, targets, windows
from tasks.window import Window

Kind = Literal["full", "incremental", "explicit", "changes", "replay", "watermark"]
Status = Literal[
    "running", "committed", "partial", "refused", "failed", "fenced", "superseded", "crashed", "skipped", "moved"
]

_STAGED = "etl_staged_"
REJECTED = "etl_rejected_"
"""With the attempt's token: its dead letters on their way in."""
HASHED = "etl_hashed_"
"""With the attempt's token: the hashes of a snapshot on their way in."""
CHANGED = "etl_changed_"
"""With the attempt's token: what differs between two snapshots."""

_STAGING = (_STAGED, REJECTED, HASHED, CHANGED)


def new_token() -> str:
    """A fresh token of 32 characters."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one window. Its token is what the commit fences with.

    Attributes:
        pipeline: name of the pipeline.
        target: the target table.
        run_id: the run it belongs to.
        kind: `full` (no cursor, or a full refresh), `incremental` (moves the watermark), `explicit` (does not) or
            `changes` (a feed goes on from its position), `replay` (dead letters are judged anew); `watermark` is none,
            but somebody who sets the watermark.
        window: what is read.
        token: unique.
    """

    pipeline: str
    target: str
    run_id: str
    kind: Kind
    window: Window
    token: str = field(default_factory=new_token)

    @property
    def staged_table(self) -> str:
        """Name of the table that holds the rows on their way in."""
        return _STAGED + self.token

    @property
    def rejected_table(self) -> str:
        """Name of the table that holds the dead letters on their way in."""
        return REJECTED + self.token

    @property
    def moves_watermark(self) -> bool:
        """Whether the next run goes on where this one ends."""
        return self.kind not in ("explicit", "replay")

    def __str__(self) -> str:
        said = {"changes": "changes", "replay": "dead letters"}
        return f"{self.pipeline} {said.get(self.kind, self.window)}"


def open_attempt(connection: Connection, attempt: Attempt, owner: str, now: datetime, details: dict[str, Any]) -> None:
    """Write the attempt's `running` rows, in `etl_windows` and in the ledger.

    Args:
        connection: in a transaction of its own.
        attempt: the attempt.
        owner: from `Dialect.hold`.
        now: target clock, before the first row is read.
        details: further ledger columns: flow run, code version, contract.
    """
    shared = {**_shared(attempt), "status": "running"}
    note_target(connection, attempt.target)
    connection.execute(insert(windows).values(**shared, owner=owner, opened_at=now))
    connection.execute(insert(runs).values(**shared, started_at=now, **details))


def record_unplanned(
    connection: Connection,
    attempt: Attempt,
    message: str,
    now: datetime,
    details: dict[str, Any],
    status: Status = "failed",
) -> None:
    """Write to the ledger that a run ended before it had a window; nothing else of the attempt exists.

    Args:
        connection: in a transaction of its own.
        attempt: with the window that was asked for.
        message: why.
        now: target clock.
        details: see `open_attempt`.
        status: `failed`, `skipped` where nothing was read on purpose, or `moved` where the watermark was set.
    """
    row = {**_shared(attempt), "status": status, "message": message, "started_at": now, "finished_at": now}
    connection.execute(insert(runs).values(**row, **details))


def note_target(connection: Connection, target: str) -> None:
    """Have a row of `etl_targets` for `target`, for `lock_target`."""
    known = select(targets.c.target).where(targets.c.target == target)
    if connection.execute(known).first() is None:
        # Another run may open the same target for the first time right now.
        with contextlib.suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(targets).values(target=target))


def lock_target(connection: Connection, target: str) -> None:
    """Wait for every other commit into `target`, and keep them waiting until this transaction ends."""
    connection.execute(select(targets.c.target).where(targets.c.target == target).with_for_update())


def complete_attempt(
    connection: Connection, attempt: Attempt, status: Status, read_at: datetime | None, now: datetime
) -> None:
    """Turn the attempt's `running` row into `status`; from here on this transaction owns the window.

    Raises:
        Fenced: the row is not `running` any more.
    """
    done = connection.execute(
        update(windows)
        .where(windows.c.attempt == attempt.token, windows.c.status == "running")
        .values(status=status, read_at=read_at, finished_at=now)
    )
    if done.rowcount != 1:
        raise Fenced(
            f"{attempt}: this attempt was declared dead while it was reading, so nothing was written. "
            "Another run took its window; nothing needs to be done."
        )


def other_writers(connection: Connection, pipeline: str, target: str) -> list[str]:
    """The names of other pipelines that have ever committed a window into `target`."""
    committed = windows.c.status.in_(("committed", "partial"))
    others = select(windows.c.pipeline).where(windows.c.target == target, windows.c.pipeline != pipeline, committed)
    return list(connection.execute(others.distinct().order_by(windows.c.pipeline)).scalars())


def refuse_if_superseded(
    connection: Connection, attempt: Attempt, opened_at: datetime, *, by_refresh: bool = False
) -> None:
    """Refuse when an overlapping window was, or may have been, read later than ours.

    For rows without a cursor, which does not tell the older from the newer; and for a full refresh, which deletes what
    it has not seen.

    Args:
        connection: inside the commit.
        attempt: what is committed.
        opened_at: target clock before its first row was read.
        by_refresh: only a full refresh of the same pipeline counts: what that has deleted must not come back.

    Raises:
        Superseded: such a window is committed.
    """
    overlapping = [
        committed
        for committed in connection.execute(
            select(windows.c.attempt, windows.c.window_start, windows.c.window_end, windows.c.read_at).where(
                windows.c.target == attempt.target,
                windows.c.status.in_(("committed", "partial")),
                windows.c.attempt != attempt.token,
                windows.c.read_at > opened_at,
                *([windows.c.kind == "full", windows.c.pipeline == attempt.pipeline] if by_refresh else []),
            )
        )
        if Window(committed.window_start, committed.window_end).overlaps(attempt.window)
    ]
    if overlapping:
        raise Superseded(
            f"{attempt}: {attempt.target} already holds data read at {overlapping[0].read_at.isoformat()}, after this "
            f"attempt began to read at {opened_at.isoformat()}; nothing was written. Nothing needs to be done, unless "
            "the source has changed since, or this window reaches beyond that one: then run it again."
        )


def attempt_status(connection: Connection, attempt: Attempt) -> str | None:
    """What became of the attempt, waiting for a commit of it that may still be under way."""
    lock_target(connection, attempt.target)
    return connection.execute(select(windows.c.status).where(windows.c.attempt == attempt.token)).scalar_one_or_none()


def close_attempt(connection: Connection, attempt: Attempt, status: Status, message: str, now: datetime) -> None:
    """Record that the attempt ended without a commit; an attempt that is not `running` is left as it is."""
    _end(connection, attempt.token, status, message, now)


def sweep(engine: Engine, dialect: Dialect, pipeline: str) -> list[str]:
    """Record attempts of `pipeline` whose process died as `crashed`, and drop the staging nobody needs any more.

    Returns:
        The tokens of the attempts found dead.
    """
    with engine.connect() as connection:
        running = connection.execute(
            select(windows.c.attempt, windows.c.owner).where(
                windows.c.pipeline == pipeline, windows.c.status == "running"
            )
        ).all()
        dead = [row.attempt for row in running if not dialect.held(connection, row.attempt, row.owner)]
    for token in dead:
        with dialect.transaction(engine) as connection:
            _end(
                connection,
                token,
                "crashed",
                "Its process or its connection died before it could commit.",
                dialect.clock(connection),
            )
    for token in set(_staging_tokens(engine)):
        if _is_over(engine, token):
            drop_staging(engine, dialect, token)
    return dead


def drop_staging(engine: Engine, dialect: Dialect, token: str) -> None:
    """Drop the staging tables of an attempt, as far as they exist."""
    quote = engine.dialect.identifier_preparer.quote
    with dialect.transaction(engine) as connection:
        for prefix in _STAGING:
            connection.execute(text(f"DROP TABLE IF EXISTS {quote(prefix + token)}"))


def _shared(attempt: Attempt) -> dict[str, Any]:
    """What a window's row and a ledger's have in common."""
    return {
        "attempt": attempt.token,
        "run_id": attempt.run_id,
        "pipeline": attempt.pipeline,
        "target": attempt.target,
        "kind": attempt.kind,
        "window_start": attempt.window.start,
        "window_end": attempt.window.end,
    }


def _staging_tokens(engine: Engine) -> Iterator[str]:
    for name in inspect(engine).get_table_names():
        for prefix in _STAGING:
            if name.startswith(prefix):
                yield name.removeprefix(prefix)


def _is_over(engine: Engine, token: str) -> bool:
    """Whether no process will use this attempt's staging again; an unknown attempt's staging is not ours to judge."""
    with engine.connect() as connection:
        return (
            connection.execute(
                select(windows.c.attempt).where(windows.c.attempt == token, windows.c.status != "running")
            ).first()
            is not None
        )


def _end(connection: Connection, token: str, status: Status, message: str, now: datetime) -> None:
    ended = connection.execute(
        update(windows)
        .where(windows.c.attempt == token, windows.c.status == "running")
        .values(status=status, finished_at=now)
    )
    if ended.rowcount == 1:
        connection.execute(
            update(runs).where(runs.c.attempt == token).values(status=status, message=message, finished_at=now)
        )
