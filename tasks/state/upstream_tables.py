"""Upstream tables as a whole: whether one whose partitions nobody tracks was written to, and how far they are loaded.

What is asked here is asked before the tables are read: what is committed in between counts as not yet seen.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, func, select

from tasks.state.partitions import ChangedPartition
from tasks.state.tables import partitions_read, runs, watermarks, windows

WHOLE = ""
"""The part that stands for a whole table in `etl_partitions_read`."""

_COMMITTED = ("committed", "partial")


def rewritten(connection: Connection, pipeline: str, targets: Collection[str]) -> list[ChangedPartition]:
    """Those of `targets` that were written to since `pipeline` read them, by the commits in the ledger that wrote rows.

    A table that no pipeline loads has none, and never counts as changed.
    """
    commits = (
        select(runs.c.target, func.count().label("version"))
        .where(runs.c.target.in_(targets), runs.c.status.in_(_COMMITTED), runs.c.written > 0)
        .group_by(runs.c.target)
        .order_by(runs.c.target)
    )
    read = select(partitions_read.c.target, partitions_read.c.version).where(
        partitions_read.c.pipeline == pipeline, partitions_read.c.part == WHOLE
    )
    seen: dict[str, int] = {target: version for target, version in connection.execute(read)}
    return [
        ChangedPartition(target, WHOLE, version)
        for target, version in connection.execute(commits)
        if seen.get(target) != version
    ]


def loaded_until(connection: Connection, targets: Collection[str]) -> datetime | None:
    """Source time (UTC) before which everything is in all of `targets`: the least of the pipelines that load them.

    None where one of these pipelines proves nothing, or none loads them.
    """
    loading = select(windows.c.pipeline).where(windows.c.target.in_(targets), windows.c.status.in_(_COMMITTED))
    covered = select(watermarks.c.covered_until).where(watermarks.c.pipeline.in_(loading))
    times = list(connection.execute(covered).scalars())
    return None if None in times else min(times, default=None)


def time_upstream(connection: Connection, targets: Collection[str], at: datetime) -> datetime | None:
    """What time it is (UTC) in the sources of `targets`, whichever clocks they go by.

    What a pipeline has covered was the time there when it moved its watermark, and since then time has gone on.

    Args:
        connection: to the target.
        targets: tables.
        at: target clock, UTC.

    Returns:
        The least of the pipelines that load them; None where none has covered anything.
    """
    loading = select(windows.c.pipeline).where(windows.c.target.in_(targets), windows.c.status.in_(_COMMITTED))
    moved = select(watermarks.c.covered_until, watermarks.c.updated_at).where(
        watermarks.c.pipeline.in_(loading), watermarks.c.covered_until.is_not(None)
    )
    return min((covered + (at - updated) for covered, updated in connection.execute(moved)), default=None)
