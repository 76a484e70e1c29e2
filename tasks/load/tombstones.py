"""`Tombstones`: what has been deleted, and as of when, so that an older version of it that comes late stays out."""

from collections.abc import Sequence

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from tasks.column_types import TABLE_OPTIONS
from tasks.load.target import name_beside
from tasks.state.staged import DELETED


def tombstones(target: Table, key: Sequence[str], cursor: str | None) -> tuple[Table, ...]:
    """The table of keys that are gone from `target`, each with the cursor of its delete; it lies beside the target.

    None where no older version of a row can come after its delete: without a cursor the order of the changes decides,
    and with the cursor in the key every version is a row of its own.

    Args:
        target: the target table.
        key: its key columns.
        cursor: the column that orders the versions of a row, or None.
    """
    if cursor is None or cursor in key:
        return ()
    columns = [Column(part, target.c[part].type, primary_key=True, autoincrement=False) for part in key]
    deleted_at = Column(cursor, target.c[cursor].type, nullable=False)
    name = name_beside(target.name, "tombstones")
    return (Table(name, MetaData(), *columns, deleted_at, schema=target.schema, **TABLE_OPTIONS),)


class Tombstones:
    """The tombstones of a target, seen from the rows that have been staged for it.

    Args:
        table: from `tombstones`.
        target: the target table.
        staged: good rows, deletes among them.
        key: the target's key columns.
        cursor: the column that orders the versions of a row.
    """

    def __init__(self, table: Table, target: Table, staged: Table, key: Sequence[str], cursor: str) -> None:
        self.table = table
        self._target = target
        self._staged = staged
        self._key = tuple(key)
        self._cursor = cursor
        self.same_key = and_(*(table.c[name] == staged.c[name] for name in key))

    @property
    def buries(self) -> ColumnElement[bool]:
        """Whether a staged row is no newer than the delete of its key; false where there is none.

        One with the cursor of the delete is what was deleted: a source that marks a row as gone without a new time.
        """
        late = self.table.c[self._cursor] >= self._staged.c[self._cursor]
        found = select(literal(1)).select_from(self.table).where(self.same_key, late)
        return found.correlate(self._staged).exists()

    def write(self, connection: Connection, stale: ColumnElement[bool]) -> None:
        """Bury what the staged deletes name, before the target loses it; those that are `stale` bury nothing.

        A key that the target does not hold is buried as well: an older version of it may be on its way. A delete that
        tells no cursor has that of the row it is about.
        """
        staged, target, cursor = self._staged, self._target, self._cursor
        connection.execute(
            update(self.table)
            .values({cursor: staged.c[cursor]})
            .where(self.same_key, staged.c[DELETED], self.table.c[cursor] < staged.c[cursor])
        )
        both = staged.outerjoin(target, and_(*(target.c[name] == staged.c[name] for name in self._key)))
        as_of = func.coalesce(staged.c[cursor], target.c[cursor])
        buried = (
            select(*(staged.c[name] for name in self._key), as_of)
            .select_from(both)
            .where(staged.c[DELETED], as_of.is_not(None), ~stale, ~exists().where(self.same_key))
        )
        connection.execute(insert(self.table).from_select([*self._key, cursor], buried))

    def lift(self, connection: Connection, buried: ColumnElement[bool]) -> None:
        """Forget the delete of every key with a staged row that is not `buried`: now the row says what is older."""
        staged = self._staged
        returned = (
            select(*(staged.c[name] for name in self._key))
            .join(self.table, self.same_key)
            .where(~staged.c[DELETED], ~buried)
        )
        # A table of its own, since MariaDB deletes from none that the condition reads.
        keys = select(returned.distinct().subquery("returned"))
        connection.execute(delete(self.table).where(tuple_(*(self.table.c[name] for name in self._key)).in_(keys)))
