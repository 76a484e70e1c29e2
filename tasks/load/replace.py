"""`Replace`: the target becomes what the source is now."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy import Table

from tasks.load.merge import Merge
from tasks.load.strategy import checked_key, checked_share
from tasks.load.target import target_table
from tasks.load.writer import Incoming
from tasks.partitioned import Partitioned


@dataclass(frozen=True)
class Replace:
    """Make the target equal to the extract, writing only what differs, so that readers notice nothing.

    A row that is absent from the extract is deleted. A row that came in but was rejected is not absent: the
    target keeps its last good version.

    Attributes:
        connection: name of the target database.
        table: target table, `name` or `schema.name`; created from the contract when absent.
        key: columns that identify a row; NULL in one of them rejects the row.
        max_shrink: largest share of the target, 0 to 1, that one run may delete before it is refused.
        track: the partitions of the target whose changes are recorded for who reads them; see `tasks.state.partitions`.
    """

    connection: str
    table: str
    key: Sequence[str]
    max_shrink: float = 0.5
    track: Partitioned | None = None

    updates = True
    deletes = True
    soft_delete = None
    deletes_absent = True
    dated = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", checked_key("Replace", self.table, self.key))
        checked_share("Replace", self.table, self.max_shrink)

    def target(self, columns: pa.Schema) -> Table:
        """See `Load.target`: the contract's columns, the key as primary key."""
        return target_table(self.table, self.key, columns)

    def companions(self, columns: pa.Schema, cursor: str | None, *, tells_deletes: bool) -> Sequence[Table]:
        """See `Load.companions`: none."""
        return ()

    def writer(self, incoming: Incoming) -> Merge:
        """See `Load.writer`."""
        return Merge(self, incoming)
