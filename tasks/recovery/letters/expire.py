"""Dead letters that have been kept as long as their pipeline says: closed ones go, open ones lose their records."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func, literal, select, update

from tasks.column_types import UtcDateTime
from tasks.declaration import Pipeline
from tasks.recovery.letters.ledgered import Ledgered
from tasks.running.assembly import Assembly
from tasks.state.emptied import NOTHING, without_values
from tasks.state.history import opened_history
from tasks.state.record import encode
from tasks.state.tables import dead_letters

_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Expired:
    """What has been kept long enough.

    Attributes:
        deleted: letters that were closed or discarded.
        emptied: open letters whose record, and the values that broke rules, are not kept any more.
    """

    deleted: int = 0
    emptied: int = 0


def expire_letters(pipeline: Pipeline) -> Expired:
    """Do what `Pipeline.letters` says; the ledger keeps how many there were.

    An open letter stays open: it is counted, a good version closes it, and a replay reads its window again.

    Raises:
        TidegateError: see `tasks.errors`; what was done before is done.
    """
    kept = pipeline.letters
    deleted = emptied = 0
    if kept.keep_closed is not None:
        days = _span(kept.keep_closed)
        gone = Ledgered(pipeline, lambda n: f"{n:,} dead letters were deleted, having been closed for {days}.")
        deleted = gone.carry_out(lambda connection, now: _delete(connection, pipeline, now))
    if kept.keep_open is not None:
        days_open = _span(kept.keep_open)
        bare = Ledgered(pipeline, lambda n: f"{n:,} open dead letters lost their records, last seen {days_open} ago.")
        emptied = bare.carry_out(lambda connection, now: _empty(connection, pipeline, now))
    return Expired(deleted, emptied)


def count_expired(pipeline: Pipeline) -> Expired:
    """What `expire_letters` would do; nothing is written.

    Raises:
        TidegateError: see `tasks.errors`.
    """
    parts = Assembly(pipeline)
    with opened_history(pipeline.load.connection) as connection:
        if connection is None:
            return Expired()
        now = parts.dialect.clock(connection)
        counted = [
            0
            if where is None
            else int(connection.execute(select(func.count()).select_from(dead_letters).where(*where)).scalar_one())
            for where in (_closed(pipeline, now), _open(pipeline, now))
        ]
    return Expired(*counted)


def _closed(pipeline: Pipeline, now: datetime) -> list[ColumnElement[bool]] | None:
    if pipeline.letters.keep_closed is None:
        return None
    limit = literal(now - pipeline.letters.keep_closed, UtcDateTime())
    # No letter is seen after it was closed: it would be open.
    over = func.coalesce(dead_letters.c.closed_at, dead_letters.c.last_seen, type_=UtcDateTime()) < limit
    return [dead_letters.c.pipeline == pipeline.name, dead_letters.c.status != "open", over]


def _open(pipeline: Pipeline, now: datetime) -> list[ColumnElement[bool]] | None:
    if pipeline.letters.keep_open is None:
        return None
    limit = literal(now - pipeline.letters.keep_open, UtcDateTime())
    whole = dead_letters.c.record_types != NOTHING
    return [dead_letters.c.pipeline == pipeline.name, dead_letters.c.status == "open", dead_letters.c.last_seen < limit,
            whole]  # fmt: skip


def _delete(connection: Connection, pipeline: Pipeline, now: datetime) -> int | None:
    where = _closed(pipeline, now)
    assert where is not None, "asked only where closed letters are not kept for ever"
    numbers = connection.execute(select(dead_letters.c.letter).where(*where).limit(_AT_ONCE)).scalars().all()
    if not numbers:
        return None
    connection.execute(delete(dead_letters).where(dead_letters.c.letter.in_(numbers)))
    return len(numbers)


def _empty(connection: Connection, pipeline: Pipeline, now: datetime) -> int | None:
    where = _open(pipeline, now)
    assert where is not None, "asked only where open letters are not kept whole for ever"
    rows = connection.execute(select(dead_letters.c.letter, dead_letters.c.reasons).where(*where).limit(_AT_ONCE)).all()
    for row in rows:
        bare = encode(without_values(json.loads(row.reasons)))
        emptied = update(dead_letters).where(dead_letters.c.letter == row.letter)
        connection.execute(emptied.values(record=NOTHING, record_types=NOTHING, reasons=bare))
    return len(rows) or None


def _span(kept: timedelta) -> str:
    days = kept / timedelta(days=1)
    return f"{days:g} days" if days >= 1 else str(kept)
