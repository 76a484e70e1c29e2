"""`Append`: immutable events, each kept once."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy import Table

from tasks.load.merge import Merge
from tasks.load.strategy import checked_key
from tasks.load.target import target_table
from tasks.load.writer import Incoming
from tasks.partitioned import Partitioned


@dataclass(frozen=True)
class Append:
    """Insert keys the target does not hold; never touch a row that is there.

    A second version of a key, in the same window or a later one, counts as deduplicated; a delete changes nothing and
    counts as unchanged.

    Attributes:
        connection: name of the target database.
        table: target table, `name` or `schema.name`; created from the contract when absent.
        key: columns that identify an event; NULL in one of them rejects the row.
        track: the partitions of the target whose changes are recorded for who reads them; see `tasks.state.partitions`.
    """

    connection: str
    table: str
    key: Sequence[str]
    track: Partitioned | None = None

    updates = False
    deletes = False
    soft_delete = None
    deletes_absent = False
    dated = False
    max_shrink = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", checked_key("Append", self.table, self.key))

    def target(self, columns: pa.Schema) -> Table:
        """See `Load.target`: the contract's columns, the key as primary key."""
        return target_table(self.table, self.key, columns)

    def companions(self, columns: pa.Schema, cursor: str | None, *, tells_deletes: bool) -> Sequence[Table]:
        """See `Load.companions`: none."""
        return ()

    def writer(self, incoming: Incoming) -> Merge:
        """See `Load.writer`."""
        return Merge(self, incoming)
