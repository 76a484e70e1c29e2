"""`Scd2`: every version of a row, from when until when it was valid in the source's time."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy import Table

from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import ConfigError
from tasks.load.history import History
from tasks.load.strategy import checked_key
from tasks.load.target import name_beside, target_table
from tasks.load.writer import Incoming
from tasks.state.staged import CHANGED_AT, DELETED
from tasks.version_columns import IS_CURRENT, VALID_FROM, VALID_TO


@dataclass(frozen=True)
class Scd2:
    """Keep the history of every key: one row for each version, valid in `[valid_from, valid_to)`, UTC.

    The history of a key is a function of its changes alone, each at its source time: the cursor where the extract has
    one, else when the change was made or committed, or the snapshot taken. In what order and in which runs they come
    makes no difference: a late one splits the version it falls into, or is merged with its neighbours. A delete closes
    the version; where the row returns there is a gap. Of two changes of a key at the same instant the later in the
    feed counts, and of two in different runs the one that came last.

    Without a cursor changes come in the order of their times, and a row that is as it was is no change.

    Beside the target, `etl_events_<table>` keeps what no version shows as it was: deletes, and changes that made no
    difference when they came. It holds at most one row for each change of a key.

    Attributes:
        connection: name of the target database.
        table: target table, `name` or `schema.name`; created from the contract when absent, with `valid_from`,
            `valid_to` (NULL: open) and `is_current` behind its columns.
        key: columns that identify a row, whatever its version; NULL in one of them rejects the row.
        untracked: columns whose change opens no version; a version shows them as they were last. The cursor is one.
    """

    connection: str
    table: str
    key: Sequence[str]
    untracked: Sequence[str] = ()

    updates = True
    deletes = True
    soft_delete = None
    deletes_absent = False
    dated = True
    track = None
    max_shrink = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", checked_key("Scd2", self.table, self.key))
        untracked = (self.untracked,) if isinstance(self.untracked, str) else tuple(self.untracked)
        object.__setattr__(self, "untracked", untracked)
        if both := set(untracked) & set(self.key):
            raise ConfigError(
                f"Scd2 into {self.table!r}: {sorted(both)[0]!r} is in the key, so it never changes. Leave it out of "
                "`untracked`."
            )

    def target(self, columns: pa.Schema) -> Table:
        """See `Load.target`: the contract's columns and the versions' own; key and `valid_from` are the primary key.

        Raises:
            ConfigError: a column of the contract has a name of ours, or an untracked one is not in it.
        """
        for name in (VALID_FROM, VALID_TO, IS_CURRENT):
            if name in columns.names:
                raise ConfigError(
                    f"Scd2 into {self.table!r} makes the column {name!r} itself, and the contract has one too. Rename "
                    "it in the transform."
                )
        for name in self.untracked:
            if name not in columns.names:
                raise ConfigError(
                    f"Scd2 into {self.table!r}: the untracked column {name!r} is not in the contract, which has "
                    f"{', '.join(columns.names)}."
                )
        own = [
            pa.field(VALID_FROM, UTC_TIMESTAMP, nullable=False),
            pa.field(VALID_TO, UTC_TIMESTAMP),
            pa.field(IS_CURRENT, pa.bool_(), nullable=False),
        ]
        return target_table(self.table, (*self.key, VALID_FROM), pa.schema([*columns, *own]))

    def companions(self, columns: pa.Schema, cursor: str | None, *, tells_deletes: bool) -> Sequence[Table]:
        """See `Load.companions`: the changes that no version shows as they were."""
        own = [pa.field(CHANGED_AT, UTC_TIMESTAMP, nullable=False), pa.field(DELETED, pa.bool_(), nullable=False)]
        plain = [field.with_nullable(True) for field in columns]
        schema, dot, name = self.table.rpartition(".")
        events = f"{schema}{dot}{name_beside(name, 'events')}"
        return (target_table(events, (*self.key, CHANGED_AT), pa.schema([*plain, *own])),)

    def writer(self, incoming: Incoming) -> History:
        """See `Load.writer`."""
        return History(self, incoming)
