"""Changed partitions: which of a target's partitions have rows that changed, and what their readers have seen of them.

A commit raises the version of every partition in which it inserts, updates or deletes a row, if its strategy declares
`track`. A reader asks for what has `changed`, reads it, and says so with `mark_read` in the commit of what it made of
it. Ask before reading: what changes in between has a higher version than the one marked, and is read again.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from tasks.state.tables import partitions, partitions_read

_AT_ONCE = 500
"""Names of partitions in a statement: some databases take no more than a thousand values."""


class ChangedPartition(NamedTuple):
    """A partition in which something changed.

    Attributes:
        target: the table.
        part: name of the partition; see `tasks.partitioned.Partitioned`.
        version: how often it has changed.
    """

    target: str
    part: str
    version: int


def raise_versions(connection: Connection, target: str, parts: Collection[str]) -> None:
    """Say that rows of `parts` of `target` change; in the transaction that changes them, with `target` locked."""
    for some in _pieces(sorted(parts)):
        mine = [partitions.c.target == target, partitions.c.part.in_(some)]
        known = set(connection.execute(select(partitions.c.part).where(*mine)).scalars())
        if known:
            connection.execute(update(partitions).where(*mine).values(version=partitions.c.version + 1))
        fresh = [{"target": target, "part": part, "version": 1} for part in some if part not in known]
        if fresh:
            connection.execute(insert(partitions), fresh)


def changed(connection: Connection, pipeline: str, targets: Sequence[str]) -> list[ChangedPartition]:
    """The partitions of `targets` that have another version than the one `pipeline` has read, by target and name."""
    seen = and_(
        partitions_read.c.pipeline == pipeline,
        partitions_read.c.target == partitions.c.target,
        partitions_read.c.part == partitions.c.part,
    )
    found = (
        select(partitions.c.target, partitions.c.part, partitions.c.version)
        .select_from(partitions.outerjoin(partitions_read, seen))
        .where(partitions.c.target.in_(targets))
        .where(or_(partitions_read.c.version.is_(None), partitions_read.c.version != partitions.c.version))
        .order_by(partitions.c.target, partitions.c.part)
    )
    return [ChangedPartition(*row) for row in connection.execute(found)]


def mark_read(connection: Connection, pipeline: str, read: Iterable[tuple[str, str, int]]) -> None:
    """Say that `pipeline` has read these versions, given as (target, part, version); in its commit.

    A run that read an older version and commits later puts it back, and the partition is read once more.
    """
    by_target: dict[str, dict[str, int]] = {}
    for target, part, version in read:
        by_target.setdefault(target, {})[part] = version
    for target, versions in by_target.items():
        for some in _pieces(sorted(versions)):
            mine = [partitions_read.c.pipeline == pipeline, partitions_read.c.target == target]
            connection.execute(delete(partitions_read).where(*mine, partitions_read.c.part.in_(some)))
            rows = [{"pipeline": pipeline, "target": target, "part": part, "version": versions[part]} for part in some]
            connection.execute(insert(partitions_read), rows)


def _pieces(parts: Sequence[str]) -> Iterable[Sequence[str]]:
    return (parts[start : start + _AT_ONCE] for start in range(0, len(parts), _AT_ONCE))
