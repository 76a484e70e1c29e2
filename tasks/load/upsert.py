"""`Upsert`: insert what is new, write over what differs and is not older."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy import Table

from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import ConfigError
from tasks.load.merge import Merge
from tasks.load.strategy import checked_key, checked_share
from tasks.load.target import target_table
from tasks.load.tombstones import tombstones
from tasks.load.writer import Incoming
from tasks.partitioned import Partitioned


@dataclass(frozen=True)
class Upsert:
    """Insert new keys; write over known ones only where they differ and are not older; delete those a feed deletes.

    A run leaves alone what does not come in, but a full refresh of a whole source deletes it.

    Attributes:
        connection: name of the target database.
        table: target table, `name` or `schema.name`; created from the contract when absent.
        key: columns that identify a row; NULL in one of them rejects the row.
        soft_delete: name of a column besides the contract's. A deleted row stays, and has in it the time (UTC, target
            clock) at which the delete was loaded; NULL is a row that is there. None deletes it.
        track: the partitions of the target whose changes are recorded for who reads them; see `tasks.state.partitions`.
        max_shrink: largest share of the target, 0 to 1, that a full refresh may delete before it is refused.

    Raises:
        ConfigError: no key, or one of its columns twice; `max_shrink` is no share.
    """

    connection: str
    table: str
    key: Sequence[str]
    soft_delete: str | None = None
    track: Partitioned | None = None
    max_shrink: float = 0.5

    updates = True
    deletes = True
    deletes_absent = False
    dated = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", checked_key("Upsert", self.table, self.key))
        checked_share("Upsert", self.table, self.max_shrink)

    def target(self, columns: pa.Schema) -> Table:
        """See `Load.target`: the contract's columns, the key as primary key, and the mark of what is deleted.

        Raises:
            ConfigError: the contract has a column of the mark's name.
        """
        if self.soft_delete is None:
            return target_table(self.table, self.key, columns)
        if self.soft_delete in columns.names:
            raise ConfigError(
                f"Upsert into {self.table!r}: the column {self.soft_delete!r} is written by the load, which marks "
                "deleted rows in it, and the contract has one of that name. Give one of the two another name."
            )
        marked = pa.field(self.soft_delete, UTC_TIMESTAMP, nullable=True)
        return target_table(self.table, self.key, columns.append(marked))

    def companions(self, columns: pa.Schema, cursor: str | None, *, tells_deletes: bool) -> Sequence[Table]:
        """See `Load.companions`: the tombstones, where an older version of a row may come after its delete."""
        return tombstones(self.target(columns), self.key, cursor) if tells_deletes else ()

    def writer(self, incoming: Incoming) -> Merge:
        """See `Load.writer`."""
        return Merge(self, incoming)
