"""`RowHashes`: a snapshot's keys and hashes against those of the last one, compared in the target."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from tasks.change_columns import OPERATION
from tasks.dialects.snapshot_reader import HASH
from tasks.errors import ConservationError, SourceError, TargetError, TargetUnavailable
from tasks.extract.feed import Home
from tasks.extract.hash_tables import NUMBER, HashTables, count_known, drop_known, empty_known, type_names
from tasks.shrink import Shrink

_PAGE_ROWS = 5_000
_OPERATIONS = ("delete", "insert", "update")


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two snapshots.

    Attributes:
        counts: changes by operation.
        shrink: what became of the number of rows.
    """

    counts: dict[str, int]
    shrink: Shrink

    @property
    def written(self) -> int:
        """Rows that are new or different."""
        return self.counts["insert"] + self.counts["update"]


class RowHashes:
    """The comparison of one attempt.

    Args:
        home: the feed's.
        key: names of the source's key columns.
        where: the source, for messages.
    """

    def __init__(self, home: Home, key: Sequence[str], where: str) -> None:
        self.home = home
        self.key = tuple(key)
        self._where = where
        self._kept: HashTables | None = None
        self._staged = 0
        self._changes: Changes | None = None

    def stage(self, batch: pa.Table) -> None:
        """Keep a batch of keys and hashes, as `SnapshotReader.hashes` gives them.

        Raises:
            SourceError: a key or a hash is NULL, or the key's values are of different types from batch to batch.
            ConfigError: no column of the target can hold the key.
            TargetUnavailable: the target did not answer.
            TargetError: it refused.
        """
        self._refuse_nulls(batch)
        keys = batch.select(self.key)
        with self._target_errors():
            if self._kept is None:
                self._kept = HashTables(self.home, keys.schema.remove_metadata(), self._where)
                self._kept.create()
            try:
                stored = keys.cast(self._kept.kinds).cast(self._kept.stored)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise SourceError(
                    f"{self._where}: the key ({', '.join(self.key)}) is of the types {type_names(self._kept.kinds)} at "
                    f"first and then of {type_names(keys.schema)}. Cast it to one of them in a query."
                ) from error
            rows = stored.append_column(HASH, batch.column(HASH))
            self.home.dialect.write(self.home.engine, self._kept.staged, rows)
        self._staged += rows.num_rows

    def compare(self) -> Changes:
        """Find what differs from the last committed snapshot.

        Raises:
            SourceError: two rows have the same key.
            TargetUnavailable: the target did not answer, or lost a row that was staged.
            TargetError: it refused.
        """
        with self._target_errors(), self.home.dialect.transaction(self.home.engine) as connection:
            known = count_known(connection, self.home)
            counts = dict.fromkeys(_OPERATIONS, 0)
            if self._kept is None:
                counts["delete"] = known
            else:
                self._refuse_lost(connection)
                self._refuse_repeated(connection)
                gone = connection.execute(self._numbered(self._gone(), 0)).rowcount
                connection.execute(self._numbered(self._written(), gone))
                operation = self._kept.changed.c[OPERATION]
                found = connection.execute(select(operation, func.count()).group_by(operation))
                counts |= {name: number for name, number in found}
        self._changes = Changes(counts, Shrink(gone=counts["delete"], known=known, left=self._staged))
        return self._changes

    def gone(self) -> Iterator[pa.Table]:
        """The keys that are not in the source any more, in its own types, some thousands at a time."""
        return self._pages(0, self._found.counts["delete"])

    def written(self) -> Iterator[pa.Table]:
        """The keys of rows that are new or different, likewise, with `etl_operation`."""
        return self._pages(self._found.counts["delete"], sum(self._found.counts.values()))

    def remember(self, connection: Connection) -> None:
        """Make the last committed snapshot this one; inside the commit.

        Raises:
            ConservationError: somebody else has written to it.
        """
        if self._kept is None:
            # Not a row has been read; the commit was told that there is none.
            empty_known(connection, self.home)
            return
        known, changed = self._tables.known, self._tables.changed
        same = self._same_key(known, changed)
        gone = select(*self._tables.keys(changed)).where(changed.c[OPERATION] == "delete")
        new = select(*self._tables.keys(changed), changed.c[HASH]).where(changed.c[OPERATION] == "insert")
        statements = {
            # Not EXISTS: SQLite would look through all that changed for every row that is known.
            # And distinct: only so does MariaDB look for them with an index.
            "delete": delete(known).where(
                tuple_(*self._tables.keys(known)).in_(select(gone.distinct().subquery("gone")))
            ),
            "update": update(known).values({HASH: changed.c[HASH]}).where(same, changed.c[OPERATION] == "update"),
            "insert": insert(known)
            .from_select([*self.key, HASH], new)
            .execution_options(preserve_rowcount=True),
        }  # fmt: skip
        for operation, expected in self._found.counts.items():
            if expected and (rows := connection.execute(statements[operation]).rowcount) != expected:
                raise ConservationError(
                    f"{self.home.pipeline}: {expected:,} hashes were to {operation} in {known.name!r}, and it was "
                    f"{rows:,}; everything was rolled back. Does nothing else write to it?"
                )

    def drop(self) -> None:
        """Forget the last committed snapshot."""
        with self._target_errors(), self.home.dialect.transaction(self.home.engine) as connection:
            drop_known(connection, self.home)

    def _refuse_nulls(self, batch: pa.Table) -> None:
        for name in self.key:
            if lacking := batch.column(name).null_count:
                raise SourceError(
                    f"{self._where}: {lacking:,} rows have no {name!r}, which is in the key they are compared by. "
                    "Name a key that is never NULL, or leave them out with a query."
                )
        if batch.column(HASH).null_count:
            raise SourceError(
                f"{self._where}: a row is longer than the server's max_allowed_packet and cannot be hashed there. "
                "Raise it, or leave the long column out with a query."
            )

    def _refuse_lost(self, connection: Connection) -> None:
        found = connection.execute(select(func.count()).select_from(self._tables.staged)).scalar_one()
        if found != self._staged:
            raise TargetUnavailable(
                f"{self.home.pipeline}: {found:,} hashes are staged where {self._staged:,} were written; the server "
                "lost some. The snapshot is taken again."
            )

    def _refuse_repeated(self, connection: Connection) -> None:
        keys = self._tables.keys(self._tables.staged)
        repeated = select(*keys, func.count()).group_by(*keys).having(func.count() > 1).limit(1)
        if (example := connection.execute(repeated).first()) is not None:
            raise SourceError(
                f"{self._where}: {example[-1]:,} rows have the key ({', '.join(self.key)}) = "
                f"({', '.join(map(repr, example[:-1]))}), so nobody can tell which is which. Name a key that is "
                "unique, or leave the others out with a query."
            )

    def _gone(self) -> Select[Any]:
        known, staged = self._tables.known, self._tables.staged
        return (
            select(literal("delete", String).label(OPERATION), *self._tables.keys(known), known.c[HASH])
            .select_from(known.outerjoin(staged, self._same_key(known, staged)))
            .where(staged.c[HASH].is_(None))
        )

    def _written(self) -> Select[Any]:
        known, staged = self._tables.known, self._tables.staged
        operation = case((known.c[HASH].is_(None), "insert"), else_="update").label(OPERATION)
        return (
            select(operation, *self._tables.keys(staged), staged.c[HASH])
            .select_from(staged.outerjoin(known, self._same_key(known, staged)))
            .where(staged.c[HASH].is_distinct_from(known.c[HASH]))
        )

    def _numbered(self, found: Select[Any], first: int) -> Any:
        """Keep `found`, numbered behind `first` in the order of the key, in which the source finds rows fastest."""
        rows = found.subquery("found")
        number = func.row_number().over(order_by=[rows.c[name] for name in self.key]) + first
        names = [NUMBER, OPERATION, *self.key, HASH]
        statement = insert(self._tables.changed).from_select(names, select(number, *rows.c))
        return statement.execution_options(preserve_rowcount=True)

    def _pages(self, first: int, last: int) -> Iterator[pa.Table]:
        """Page by page, so that nothing is open on the target while others write to it."""
        size = max(_PAGE_ROWS // len(self.key), 1)
        for start in range(first, last, size):
            changed = self._tables.changed
            page = (
                select(*self._tables.keys(changed), changed.c[OPERATION])
                .where(changed.c[NUMBER] > start, changed.c[NUMBER] <= min(start + size, last))
                .order_by(changed.c[NUMBER])
            )
            with self._target_errors(), self.home.engine.connect() as connection:
                *keys, operations = zip(*connection.execute(page).all(), strict=True)
            arrays = [*self._tables.restored(keys), pa.array(operations, pa.string())]
            yield pa.table(arrays, names=[*self.key, OPERATION])

    def _same_key(self, one: Table, other: Table) -> ColumnElement[bool]:
        return and_(*(one.c[name] == other.c[name] for name in self.key))

    @property
    def _tables(self) -> HashTables:
        assert self._kept is not None, "a batch has told the key's types"
        return self._kept

    @property
    def _found(self) -> Changes:
        assert self._changes is not None, "the snapshots have been compared"
        return self._changes

    def _target_errors(self) -> AbstractContextManager[None]:
        return self.home.dialect.translated(f"{self.home.pipeline}: the target", TargetUnavailable, TargetError)
