"""`etl_backfills`: what a backfill set out to do, and since when. What of it is done, only the ledger says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, insert, select, update

from tasks.state.tables import backfills
from tasks.window import Window

BackfillStatus = Literal["running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What tells one backfill from another.

    Attributes:
        pipeline: whose windows.
        range: as it was asked for.
        by: `hour`, `day`, `week` or `month`.
        only: which windows: `missing`, `failed`, `stale` or `all`.
        contract: fingerprint of the schema and transform that they are done with.
    """

    pipeline: str
    range: Window
    by: str
    only: str
    contract: str


@dataclass(frozen=True, slots=True)
class KeptBackfill:
    """A row of `etl_backfills`; times by the target's clock, UTC.

    Attributes:
        backfill_id: its id.
        asked: what it is.
        windows: what was to do when it was opened, in order.
        status: `running`, `done`, `failed` or `cancelled`.
        message: why it ended so, or None.
        started_at: when it was opened; it stays when it is gone on with.
        finished_at: when it ended; None while it runs.
    """

    backfill_id: str
    asked: Asked
    windows: tuple[Window, ...]
    status: BackfillStatus
    message: str | None
    started_at: datetime
    finished_at: datetime | None


def unfinished_backfill(connection: Connection, asked: Asked) -> KeptBackfill | None:
    """The newest that asked the same and has not come to its end; None where there is none."""
    same = _kept().where(*_same(asked), backfills.c.contract == asked.contract, backfills.c.status != "done")
    row = connection.execute(same.order_by(backfills.c.started_at.desc()).limit(1)).one_or_none()
    return None if row is None else _read(row)


def kept_backfill(connection: Connection, backfill_id: str) -> KeptBackfill | None:
    """The one of that id, or None."""
    row = connection.execute(_kept().where(backfills.c.backfill_id == backfill_id)).one_or_none()
    return None if row is None else _read(row)


def last_backfills(connection: Connection, pipeline: str, limit: int) -> Sequence[KeptBackfill]:
    """The last ones of a pipeline, the newest first."""
    newest = _kept().where(backfills.c.pipeline == pipeline).order_by(backfills.c.started_at.desc()).limit(limit)
    return [_read(row) for row in connection.execute(newest)]


def insert_backfill(connection: Connection, kept: KeptBackfill, code_version: str) -> None:
    """Write down one that begins."""
    asked = kept.asked
    connection.execute(
        insert(backfills).values(
            backfill_id=kept.backfill_id,
            pipeline=asked.pipeline,
            asked_start=asked.range.start,
            asked_end=asked.range.end,
            cut_by=asked.by,
            chosen=asked.only,
            contract=asked.contract,
            code_version=code_version,
            planned=_planned(kept.windows),
            status=kept.status,
            started_at=kept.started_at,
        )
    )


def set_backfill_status(
    connection: Connection, backfill_id: str, status: BackfillStatus, message: str | None, now: datetime
) -> None:
    """End it."""
    same = backfills.c.backfill_id == backfill_id
    connection.execute(update(backfills).where(same).values(status=status, message=message, finished_at=now))


def resume_backfill(connection: Connection, backfill_id: str, windows: Sequence[Window]) -> None:
    """Have it run again, with these windows."""
    same = backfills.c.backfill_id == backfill_id
    values = {"planned": _planned(windows), "status": "running", "message": None, "finished_at": None}
    connection.execute(update(backfills).where(same).values(**values))


def outdated_backfills(connection: Connection, asked: Asked) -> Sequence[str]:
    """The ids of those that ask the same of another contract, and have not ended."""
    others = select(backfills.c.backfill_id).where(
        *_same(asked), backfills.c.contract != asked.contract, backfills.c.status == "running"
    )
    return list(connection.execute(others).scalars())


def _same(asked: Asked) -> list[Any]:
    bounds = zip((backfills.c.asked_start, backfills.c.asked_end), (asked.range.start, asked.range.end), strict=True)
    return [
        backfills.c.pipeline == asked.pipeline,
        backfills.c.cut_by == asked.by,
        backfills.c.chosen == asked.only,
        *(column.is_(None) if bound is None else column == bound for column, bound in bounds),
    ]


def _kept() -> Select[Any]:
    return select(backfills)


def _read(row: Row[Any]) -> KeptBackfill:
    return KeptBackfill(
        row.backfill_id,
        Asked(row.pipeline, Window(row.asked_start, row.asked_end), row.cut_by, row.chosen, row.contract),
        tuple(Window.parse(*bounds) for bounds in json.loads(row.planned)),
        row.status,
        row.message,
        row.started_at,
        row.finished_at,
    )


def _planned(windows: Sequence[Window]) -> str:
    return json.dumps([[_text(window.start), _text(window.end)] for window in windows])


def _text(bound: datetime | None) -> str | None:
    return None if bound is None else bound.isoformat()
