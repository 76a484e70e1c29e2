"""Watermarks: how far a pipeline has come."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from tasks.errors import Fenced
from tasks.state.tables import watermarks
from tasks.window import later, to_utc


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a pipeline has come; times in UTC.

    Attributes:
        value: highest cursor extracted, or None where there was none yet.
        covered_until: source time below which everything is in the target.
        version: grows with every commit; 0 before the first.
        position: how far a feed has come, in the source's own terms; None for an extract by windows.
    """

    value: datetime | None = None
    covered_until: datetime | None = None
    version: int = 0
    position: str | None = None

    def advanced(
        self, value: datetime | None, covered_until: datetime | None, position: str | None = None
    ) -> "Watermark":
        """The next one; neither time ever moves back. Positions are the source's: the new one is taken as it is."""
        return Watermark(
            later(self.value, value),
            later(self.covered_until, covered_until),
            self.version + 1,
            self.position if position is None else position,
        )


def read_watermark(connection: Connection, pipeline: str) -> Watermark:
    """The committed watermark of `pipeline`; version 0 where it never ran."""
    row = connection.execute(select(watermarks).where(watermarks.c.pipeline == pipeline)).one_or_none()
    if row is None:
        return Watermark()
    value = None if row.watermark is None else to_utc(row.watermark)
    return Watermark(value, row.covered_until, row.version, row.position)


def move_watermark(
    connection: Connection, pipeline: str, seen: Watermark, moved: Watermark, now: datetime, window: str
) -> None:
    """Write `moved`, provided that the watermark is still the one `seen` when the window was opened.

    Raises:
        Fenced: another run has moved it since.
    """
    values = {
        "watermark": None if moved.value is None else moved.value.isoformat(),
        "covered_until": moved.covered_until,
        "version": moved.version,
        "position": moved.position,
        "updated_at": now,
    }
    if seen.version == 0:
        try:
            with connection.begin_nested():
                connection.execute(insert(watermarks).values(pipeline=pipeline, **values))
            return
        except IntegrityError:
            pass
    else:
        matched = connection.execute(
            update(watermarks)
            .where(watermarks.c.pipeline == pipeline, watermarks.c.version == seen.version)
            .values(**values)
        )
        if matched.rowcount == 1:
            return
    raise Fenced(
        f"{pipeline} {window}: another run moved the watermark while this one was reading, so nothing was written and "
        "nothing is lost. Run it again to sync what is left; give the deployment a concurrency limit of 1."
    )
