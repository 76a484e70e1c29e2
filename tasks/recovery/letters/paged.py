"""`every_letter`: the dead letters of a pipeline, whatever their status, changed page by page."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from tasks.recovery.letters.ledgered import Page
from tasks.state.tables import dead_letters

_AT_ONCE = 1_000


def every_letter(pipeline: str, change: Callable[[Connection, Row[Any], datetime], bool]) -> Page:
    """Calls `change` with each letter and the target's clock; it says whether it has changed the letter."""
    last = -1
    rows = select(dead_letters).where(dead_letters.c.pipeline == pipeline).order_by(dead_letters.c.letter)

    def page(connection: Connection, now: datetime) -> int | None:
        nonlocal last
        found = connection.execute(rows.where(dead_letters.c.letter > last).limit(_AT_ONCE)).all()
        if not found:
            return None
        last = found[-1].letter
        return sum(change(connection, row, now) for row in found)

    return page
