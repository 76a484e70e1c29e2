"""`Load`: what a commit asks of a write strategy.

`Upsert`, `Append`, `Replace` and `ReplacePartition` are one merge (`merge.py`) with another scope and other rights;
each class says only what it allows.
"""

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa
from sqlalchemy import Table

from tasks.errors import ConfigError
from tasks.load.writer import Incoming, Writer
from tasks.partitioned import Partitioned


class Load(Protocol):
    """A declaration of where to write and how. Frozen, comparable, without secrets."""

    @property
    def connection(self) -> str:
        """Name of the target database; see `tasks.connections`."""

    @property
    def table(self) -> str:
        """The target, `name` or `schema.name`; created from the contract when absent."""

    @property
    def key(self) -> Sequence[str]:
        """Columns that identify a row; NULL in one of them rejects the row."""

    @property
    def updates(self) -> bool:
        """Whether a row whose key is in the target already may be written over."""

    @property
    def deletes(self) -> bool:
        """Whether a row is deleted when its source says that it is gone, or a full refresh shows it; else it stays."""

    @property
    def soft_delete(self) -> str | None:
        """Column of the target that a deleted row is marked in, with the time, instead of being deleted."""

    @property
    def deletes_absent(self) -> bool:
        """Whether a target row that did not come in is deleted."""

    @property
    def max_shrink(self) -> float:
        """Largest share of the target, 0 to 1, that one run may delete."""

    @property
    def dated(self) -> bool:
        """Whether every staged row has to have its source time, in `etl_changed_at`, and to say whether it is gone."""

    @property
    def track(self) -> Partitioned | None:
        """The partitions of the target whose changes are recorded for who reads them; see `tasks.state.partitions`."""

    def target(self, columns: pa.Schema) -> Table:
        """The target table for a contract's columns; a field that is not nullable is NOT NULL."""

    def companions(self, columns: pa.Schema, cursor: str | None, *, tells_deletes: bool) -> Sequence[Table]:
        """Tables that the strategy keeps beside the target, created with it.

        Args:
            columns: the contract's columns.
            cursor: column that orders the versions of a row, or None.
            tells_deletes: whether rows may come in that say that they are gone.
        """

    def writer(self, incoming: Incoming) -> Writer:
        """What writes an attempt's rows."""


def checked_key(strategy: str, table: str, key: Sequence[str]) -> tuple[str, ...]:
    """`key` as a tuple.

    Raises:
        ConfigError: no column, or one twice.
    """
    columns = (key,) if isinstance(key, str) else tuple(key)
    if not columns or len(set(columns)) != len(columns):
        raise ConfigError(f"{strategy} into {table!r} needs a key of one or more different columns, got {key!r}.")
    return columns


def checked_share(strategy: str, table: str, max_shrink: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: `max_shrink` is not from 0 to 1.
    """
    if not 0 <= max_shrink <= 1:
        raise ConfigError(f"{strategy} into {table!r}: max_shrink is a share from 0 to 1, got {max_shrink}.")
