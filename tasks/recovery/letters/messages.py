"""The ledger's messages of a pipeline, rewritten page by page."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, select, update

from tasks.recovery.letters.ledgered import Page
from tasks.state.tables import runs

_AT_ONCE = 1_000


def rewritten_messages(pipeline: str, rewrite: Callable[[str], str]) -> Page:
    """Puts what `rewrite` makes of a message in its place."""
    last = ""
    mine = select(runs.c.attempt, runs.c.message).where(runs.c.pipeline == pipeline, runs.c.message.is_not(None))

    def page(connection: Connection, now: datetime) -> int | None:
        nonlocal last
        found = connection.execute(mine.where(runs.c.attempt > last).order_by(runs.c.attempt).limit(_AT_ONCE)).all()
        if not found:
            return None
        last, changed = found[-1].attempt, 0
        for row in found:
            message = rewrite(row.message)
            if message != row.message:
                connection.execute(update(runs).where(runs.c.attempt == row.attempt).values(message=message))
                changed += 1
        return changed

    return page
