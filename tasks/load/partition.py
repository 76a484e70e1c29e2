"""`ReplacePartition`: the partitions that came in become what the source is now; the others stay as they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, Date, Table, and_, false, not_, or_, select, true

from tasks.column_types import UtcDateTime
from tasks.errors import ConfigError
from tasks.load.merge import Merge
from tasks.load.parts import parts_of
from tasks.load.strategy import checked_key, checked_share
from tasks.load.target import target_table
from tasks.load.tombstones import tombstones
from tasks.load.writer import Incoming
from tasks.partitioned import Grain, Partitioned
from tasks.window import Window, joined_windows

_AT_ONCE = 200
"""Ranges in one condition: SQLite takes an expression of no more than a thousand levels."""


@dataclass(frozen=True)
class ReplacePartition:
    """Make whole partitions of the target equal to the extract, writing only what differs.

    Which partitions those are: with a cursor on the partition column the window that is read, widened to whole
    partitions when it is planned; else what the extract says it brings (`tasks.extract.feed.Scoped`); else those of the
    rows that came in. A row of them that did not come in is deleted; one that came in but was rejected is not absent. A
    key that the target holds in another partition moves, unless its cursor there is newer.

    Attributes:
        connection: name of the target database.
        table: target table, `name` or `schema.name`; created from the contract when absent.
        key: columns that identify a row, in the whole table; NULL in one of them rejects the row.
        partition: column of the contract that is never NULL.
        grain: `hour`, `day` or `month` of a date or timestamp; None: every value of the column is a partition.
        zone: IANA name of the calendar; see `tasks.partitioned.Partitioned`.
        allow_empty: a partition of which nothing came in is empty, and is emptied; else the run is refused.
        max_shrink: largest share of the rows of these partitions, 0 to 1, that one run may delete before it is refused.
        track: the partitions of the target whose changes are recorded for who reads them; see `tasks.state.partitions`.

    Raises:
        ConfigError: no key, no such grain or zone, or a share that is none.
    """

    connection: str
    table: str
    key: Sequence[str]
    partition: str
    grain: Grain | None = None
    zone: str = "UTC"
    allow_empty: bool = False
    max_shrink: float = 0.5
    track: Partitioned | None = None

    updates = True
    deletes = True
    soft_delete = None
    deletes_absent = True
    dated = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", checked_key("ReplacePartition", self.table, self.key))
        checked_share("ReplacePartition", self.table, self.max_shrink)
        _ = self.partitions

    @property
    def partitions(self) -> Partitioned:
        """How the target is partitioned."""
        return Partitioned(self.partition, self.grain, self.zone)

    def target(self, columns: pa.Schema) -> Table:
        """See `Load.target`: the contract's columns, the key as primary key.

        Raises:
            ConfigError: the partition column is missing, may be NULL, or has no such grain.
        """
        self.partitions.check(columns, self._name)
        if columns.field(self.partition).nullable and self.partition not in self.key:
            raise ConfigError(
                f"{self._name}: a row without {self.partition!r} is in no partition. Declare the column not nullable, "
                "and such rows are rejected."
            )
        return target_table(self.table, self.key, columns)

    def companions(self, columns: pa.Schema, cursor: str | None, *, tells_deletes: bool) -> Sequence[Table]:
        """See `Load.companions`: the tombstones, where an older version of a row may come after its delete."""
        return tombstones(self.target(columns), self.key, cursor) if tells_deletes else ()

    def writer(self, incoming: Incoming) -> "PartitionMerge":
        """See `Load.writer`."""
        return PartitionMerge(self, incoming)

    @property
    def _name(self) -> str:
        return f"ReplacePartition into {self.table!r}"


class PartitionMerge(Merge):
    """The merge whose scope is partitions.

    Args:
        load: the strategy.
        incoming: what has been staged, and of which ranges that is all.
    """

    def __init__(self, load: ReplacePartition, incoming: Incoming) -> None:
        super().__init__(load, incoming)
        self.by = load.partitions
        self._column: ColumnElement[Any] = self.target.c[load.partition]
        self._ranges = incoming.scope
        self._scope: list[ColumnElement[bool]] | None = None
        if self.cursor == load.partition and incoming.scope is not None:
            there, came = (
                self._within(incoming.scope, table.c[load.partition]) for table in (self.target, self.staged)
            )
            self._let_what_was_read_win(there, came)

    def scope(self, connection: Connection) -> Sequence[ColumnElement[bool]]:
        """See `Merge.scope`."""
        if self._scope is None:
            self._scope = self._conditions(connection)
        return self._scope

    def emptied(self, connection: Connection) -> Sequence[str]:
        """See `ByPartition.emptied`."""
        gone: set[str] = set()
        kept: set[str] = set()
        for some in self.scope(connection):
            gone |= parts_of(connection, self.by, self._column, self.target, some, self._did_not_come(connection))
            kept |= parts_of(connection, self.by, self._column, self.target, some, self._rejected(connection))
        if gone:
            kept |= parts_of(connection, self.by, self.staged.c[self.by.column], self.staged, *self._alive())
        return sorted(gone - kept)

    def _conditions(self, connection: Connection) -> list[ColumnElement[bool]]:
        ranges = self._ranges
        if ranges is None:
            arrived = self.staged.c[self.by.column]
            if self.by.grain is None:
                # No range of anything, and perhaps too many to name.
                return [self._column.in_(select(arrived).where(*self._alive()))]
            ranges = tuple(map(self.by.window, parts_of(connection, self.by, arrived, self.staged, *self._alive())))
        joined = joined_windows(ranges)
        places = range(0, len(joined), _AT_ONCE)
        return [self._within(joined[start : start + _AT_ONCE], self._column) for start in places]

    def _within(self, windows: Sequence[Window], column: ColumnElement[Any]) -> ColumnElement[bool]:
        return or_(false(), *(and_(true(), *self._bounds(window, column)) for window in windows if not window.empty))

    def _bounds(self, window: Window, column: ColumnElement[Any]) -> Iterable[ColumnElement[bool]]:
        if window.start is not None:
            yield self._at_or_after(window.start, column)
        if window.end is not None:
            yield not_(self._at_or_after(window.end, column))

    def _at_or_after(self, instant: datetime, column: ColumnElement[Any]) -> ColumnElement[bool]:
        if isinstance(column.type, Date):
            first = self.by.first_date(instant)
            return column >= first if first is not None else false()
        if isinstance(column.type, UtcDateTime):
            return column >= instant
        return column >= instant.replace(tzinfo=None)
