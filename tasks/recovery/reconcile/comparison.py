"""`compare`: from checksums of large blocks down to the keys of the rows that differ."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tasks.recovery.reconcile.blocks import (
    BLOCK_ROWS,
    Block,
    Level,
    Total,
    differing,
    levels_by_cursor,
    levels_by_key,
    rows_in,
)
from tasks.recovery.reconcile.sides import Sides
from tasks.recovery.reconcile.table_side import TableSide, Texts

MOST_ROWS = 200_000
"""Rows of a side that are read one by one, and kept in memory, at most."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A level that was compared.

    Attributes:
        level: how fine, as people say it.
        blocks: how many there were.
        differing: those of them whose checksums differ.
        seconds: how long both databases took.
    """

    level: str
    blocks: int
    differing: int
    seconds: float


@dataclass
class Comparison:
    """What differs.

    Attributes:
        levels: what was compared, from the coarsest on.
        source_rows: how many rows the source has, as the first level counted them.
        target_rows: likewise of the target.
        blocks: blocks that were read row by row.
        unread: blocks that differ and were not read, since there were too many.
        rows_read: rows that were read one by one, on both sides.
        most_rows: how many rows the blocks that were read have, on both sides.
        ours: the rows of the source of every key that differs.
        theirs: those of the target.
    """

    levels: list[Compared] = field(default_factory=list)
    source_rows: int = 0
    target_rows: int = 0
    blocks: int = 0
    unread: int = 0
    rows_read: int = 0
    most_rows: int = 0
    ours: dict[Texts, list[Texts]] = field(default_factory=dict)
    theirs: dict[Texts, list[Texts]] = field(default_factory=dict)

    @property
    def keys(self) -> list[Texts]:
        """The keys that differ, in order."""
        return sorted({*self.ours, *self.theirs}, key=lambda key: tuple(text or "" for text in key))


def compare(sides: Sides, most_rows: int = MOST_ROWS) -> Comparison:
    """Drill down to the blocks that differ, and read these.

    A row whose cursor has moved lies in another block on either side: rows are matched by key over all blocks together.

    Args:
        sides: what to compare.
        most_rows: rows of a side that are read one by one at most; blocks beyond that are counted as unread.
    """
    done, leaves = Comparison(), list[tuple[Level, list[Block]]]()
    left, within = most_rows, None
    levels = _levels(sides)
    for place, level in enumerate(levels):
        began = time.monotonic()
        ours, theirs = sides.source.totals(level, within), sides.target.totals(level, within)
        found = differing(ours, theirs)
        done.levels.append(Compared(str(level), len({*ours, *theirs}), len(found), time.monotonic() - began))
        if not place:
            done.source_rows, done.target_rows = _rows(ours.values()), _rows(theirs.values())
        last = place == len(levels) - 1
        read: list[Block] = []
        further: list[Block] = []
        for block in found:
            rows = rows_in([block], ours, theirs)
            if not last and rows > BLOCK_ROWS:
                further.append(block)
            elif rows <= left:
                read.append(block)
                left -= rows
                done.most_rows += ours.get(block, Total()).rows + theirs.get(block, Total()).rows
            else:
                done.unread += 1
        if read:
            leaves.append((level, read))
            done.blocks += len(read)
        if not further:
            break
        within = further
    _read(sides, leaves, done)
    return done


def _rows(totals: Iterable[Total]) -> int:
    return sum(total.rows for total in totals)


def _levels(sides: Sides) -> list[Level]:
    extents = [sides.target.extent()]
    if isinstance(sides.source, TableSide):
        extents.append(sides.source.extent())
    rows = max(rows for rows, _, _ in extents)
    if sides.deep:
        # Every level would read the source once more.
        return levels_by_key(rows)[:1]
    if sides.cursor is None:
        return levels_by_key(rows)
    ends = [datetime.fromisoformat(text) for _, *texts in extents for text in texts if text is not None]
    return levels_by_cursor(rows, max(ends) - min(ends) if ends else timedelta(0))


def _read(sides: Sides, leaves: Iterable[tuple[Level, list[Block]]], done: Comparison) -> None:
    key = sides.target.key
    for level, blocks in leaves:
        for side, rows in ((sides.rows_of, done.ours), (sides.target, done.theirs)):
            for row in side.rows(level, blocks):
                done.rows_read += 1
                rows.setdefault(row[:key], []).append(row)
    for same in [one for one, rows in done.ours.items() if _same(rows, done.theirs.get(one))]:
        del done.ours[same], done.theirs[same]


def _same(ours: list[Texts], theirs: list[Texts] | None) -> bool:
    if theirs is None or len(theirs) != 1:
        return False
    return all(row == theirs[0] for row in ours)
