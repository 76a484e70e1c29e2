"""The merge: staged rows into the target, as far as the strategy's rights go.

Upsert, Append, Replace and ReplacePartition are this one merge, with another scope: what lies in it and did not come in
is deleted. It first classifies every staged row against the target, then writes what differs, and the number of rows
written has to be the number classified.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)

from tasks.column_types import UtcDateTime
from tasks.dialects import dialect_of
from tasks.errors import ConservationError
from tasks.load.parts import parts_of
from tasks.load.strategy import Load
from tasks.load.tombstones import Tombstones
from tasks.load.writer import Classes, Incoming, before_passed
from tasks.partitioned import Partitioned
from tasks.state.dead_letters import key_columns
from tasks.state.partitions import raise_versions
from tasks.state.staged import DELETED, ROW, alive, best_first


class Merge:
    """One merge; a `Writer`.

    Args:
        load: the strategy.
        incoming: what has been staged.
    """

    def __init__(self, load: Load, incoming: Incoming) -> None:
        self.load = load
        self.target = target = incoming.target
        self.staged = staged = incoming.staged
        self.cursor = cursor = incoming.cursor
        self.rejected = incoming.rejected
        self.cleared_at = incoming.cleared_at if load.deletes else None
        self._reach = before_passed(incoming, None if cursor is None else staged.c[cursor])
        self._by_time = isinstance(incoming.passed, datetime)
        self._outdone = 0
        self.now = incoming.now
        self.everything = load.deletes_absent or incoming.complete
        self.whole = self.everything or self.cleared_at is not None
        self._columns = [column.name for column in target.columns if column.name in staged.c]
        self._same_key = and_(*(target.c[name] == staged.c[name] for name in load.key))
        values = [name for name in self._columns if name not in load.key]
        self._values = values
        self._deleted: ColumnElement[bool] = staged.c[DELETED] if DELETED in staged.c else false()
        self._marked = false() if load.soft_delete is None else target.c[load.soft_delete].is_not(None)
        self._differs = or_(self._marked, *(target.c[name].is_distinct_from(staged.c[name]) for name in values))
        self._stale: ColumnElement[bool] = false()
        self._buried: ColumnElement[bool] = false()
        self._tombstones: Tombstones | None = None
        if cursor is not None and load.updates:
            self._stale = func.coalesce(target.c[cursor] > staged.c[cursor], false())
            for table in incoming.companions:
                self._tombstones = Tombstones(table, target, staged, load.key, cursor)
                self._buried = ~self._deleted & self._tombstones.buries
        if incoming.complete:
            self._let_what_was_read_win(true(), true())

    def _let_what_was_read_win(self, there: ColumnElement[bool], came: ColumnElement[bool]) -> None:
        """Of what was read whole the source holds nothing newer: what it has now is right, whatever its cursor.

        But for a key of which something was rejected: that may be the newer version.

        Args:
            there: which rows of the target that is about.
            came: which staged ones.
        """
        pairs = zip(key_columns(self.rejected), self.load.key, strict=True)
        rejected = exists().where(*(column == self.target.c[name] for column, name in pairs))
        self._stale = and_(self._stale, not_(and_(there, not_(rejected))))
        self._buried = and_(self._buried, not_(came))

    def scope(self, connection: Connection) -> Sequence[ColumnElement[bool]]:
        """Of which target rows the staged ones are all there is: conditions, any of which may hold, but only one."""
        return [true()] if self.whole else []

    def deduplicate(self, connection: Connection) -> int:
        """Leave one row of each key in staging: the newest, or the oldest where rows are never written over.

        Returns:
            How many rows went, those that were cleared away later included.
        """
        cleared = 0
        if self.cleared_at is not None:
            cleared = connection.execute(delete(self.staged).where(self.staged.c[ROW] < self.cleared_at)).rowcount
        key = [self.staged.c[name] for name in self.load.key]
        repeated = select(literal(1)).select_from(self.staged).group_by(*key).having(func.count() > 1).limit(1)
        if connection.execute(repeated).first() is None:
            return cleared
        order = best_first(self.staged, self.cursor, newest=self.load.updates)
        rank = func.row_number().over(partition_by=key, order_by=order)
        ranked = select(self.staged.c[ROW], rank.label("rank")).subquery("ranked")
        losers = select(ranked.c[ROW]).where(ranked.c.rank > 1)
        if self._reach is not None:
            outdone = select(func.count()).select_from(self.staged).where(self._reach, self.staged.c[ROW].in_(losers))
            self._outdone = connection.execute(outdone).scalar_one()
        return cleared + connection.execute(delete(self.staged).where(self.staged.c[ROW].in_(losers))).rowcount

    def classify(self, connection: Connection) -> Classes:
        """Count the staged rows by what will become of them; their keys are unique by now."""
        both = self.staged.outerjoin(self.target, self._same_key)
        joined = select(self._kind().label("kind"), self._late().label("late")).select_from(both).subquery("classified")
        rows = connection.execute(
            select(joined.c.kind, func.count(), func.sum(joined.c.late)).group_by(joined.c.kind)
        ).all()
        found: dict[str, int] = {kind: count for kind, count, _ in rows}
        early = {kind: int(late) for kind, _, late in rows}
        reread = found.get("unchanged", 0)
        # What a number orders is read again until it is proven, above what was passed, too.
        if self._reach is not None and self._by_time:
            reread = self._outdone + sum(early.get(kind, 0) for kind in ("unchanged", "stale", "repeated"))
        return Classes(
            **{name: found.get(name, 0) for name in ("new", "changed", "deleted", "unchanged", "stale", "repeated")},
            late=early.get("new", 0) + early.get("changed", 0),
            reread=reread,
        )

    def _kind(self) -> ColumnElement[str]:
        """What becomes of a staged row beside the target's of its key, if there is one."""
        absent = self.target.c[self.load.key[0]].is_(None)
        return case(
            (self._deleted & (absent | self._marked | literal(not self.load.deletes)), literal("unchanged")),
            (self._buried, literal("stale")),
            (absent, literal("new")),
            (self._stale, literal("stale")),
            (self._deleted, literal("deleted")),
            (self._differs, literal("changed" if self.load.updates else "repeated")),
            else_=literal("unchanged"),
        )

    def _late(self) -> ColumnElement[int]:
        return literal(0) if self._reach is None else case((self._reach, 1), else_=0)

    def absent(self, connection: Connection) -> tuple[int, int]:
        """Where the staged rows are all there is: how many of the scope did not come in, and how many it has.

        A dead letter without a key may be any of them. Where everything is read nothing is absent then: the next such
        run sees the whole source again. After a marker no other chunk ever will, so what did not come in goes.
        """
        scope = self.scope(connection)
        if not scope:
            return 0, 0
        if self.everything:
            nameless = or_(*(key.is_(None) for key in key_columns(self.rejected)))
            if connection.execute(select(self.rejected).where(nameless).limit(1)).first() is not None:
                return 0, 0
        there = select(func.count()).select_from(self.target).where(~self._marked)
        missing = there.where(self._did_not_come(connection))
        gone = sum(connection.execute(missing.where(some)).scalar_one() for some in scope)
        return gone, sum(connection.execute(there.where(some)).scalar_one() for some in scope)

    def write(self, connection: Connection, classes: Classes, gone: int) -> int:
        """See `Writer.write`."""
        if self.load.track is not None:
            parts = self._changing(connection, self.load.track, classes, gone)
            raise_versions(connection, self.load.table, parts)
        if self._tombstones is not None:
            self._tombstones.write(connection, self._stale)
        if classes.changed:
            changed = (
                update(self.target)
                .values({name: self.staged.c[name] for name in self._values} | self._mark(null()))
                .where(self._same_key, self._differs, ~self._stale if self.cursor else true(), *self._alive())
            )
            self._expect("updated", connection.execute(changed).rowcount, classes.changed)
        if classes.new:
            known = exists().where(self._same_key)
            rows = select(*(self.staged.c[name] for name in self._columns)).where(~known, *self._alive())
            # Sorted, all of them are found before the first is written: PostgreSQL may look through the whole target
            # for each, where its statistics say that it is empty, and would find it growing.
            ordered = rows.order_by(*(self.staged.c[name] for name in self.load.key))
            statement = insert(self.target).from_select(self._columns, ordered)
            inserted = connection.execute(statement.execution_options(preserve_rowcount=True))
            self._expect("inserted", inserted.rowcount, classes.new)
        if classes.deleted:
            # Not EXISTS: SQLite would look through all of staging for every row of the target.
            gone_keys = select(*(self.staged.c[name] for name in self.load.key)).where(self._deleted)
            if self.cursor:
                gone_keys = gone_keys.join_from(self.staged, self.target, self._same_key).where(~self._stale)
            # Distinct, and so found before the first row goes: MariaDB deletes from no table that it still reads.
            found = gone_keys.distinct().subquery("gone")
            key = tuple_(*(self.target.c[name] for name in self.load.key))
            self._delete(connection, [key.in_(select(found))], classes.deleted)
        if gone:
            which = [self._did_not_come(connection) & some for some in self.scope(connection)]
            self._delete(connection, which, gone)
        if self._tombstones is not None:
            self._tombstones.lift(connection, self._buried)
        return classes.changed + classes.new + classes.deleted + gone

    def _delete(self, connection: Connection, which: Sequence[ColumnElement[bool]], expected: int) -> None:
        """Delete rows of the target, or mark them, as declared; those that are marked already stay as they are."""
        if self.load.soft_delete is None:
            done = sum(connection.execute(delete(self.target).where(some)).rowcount for some in which)
        else:
            marked = update(self.target).values(self._mark(literal(self.now, UtcDateTime()))).where(~self._marked)
            done = sum(connection.execute(marked.where(some)).rowcount for some in which)
        self._expect("deleted", done, expected)

    def _mark(self, value: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
        return {} if self.load.soft_delete is None else {self.load.soft_delete: value}

    def _changing(self, connection: Connection, by: Partitioned, classes: Classes, gone: int) -> set[str]:
        """The partitions of the rows that are about to be written, as they were and as they will be."""
        both = self.staged.outerjoin(self.target, self._same_key)
        before, after = self.target.c[by.column], self.staged.c[by.column]
        parts: set[str] = set()
        if classes.new or classes.changed:
            parts |= parts_of(connection, by, after, both, self._kind().in_(["new", "changed"]))
        if classes.changed or classes.deleted:
            parts |= parts_of(connection, by, before, both, self._kind().in_(["changed", "deleted"]))
        if gone:
            for some in self.scope(connection):
                missing = self._did_not_come(connection)
                parts |= parts_of(connection, by, before, self.target, some, missing, ~self._marked)
        return parts

    def _alive(self) -> list[ColumnElement[bool]]:
        """What a staged row has to fulfil to be written."""
        return [*alive(self.staged), *([~self._buried] if self._tombstones else [])]

    def _did_not_come(self, connection: Connection) -> ColumnElement[bool]:
        """Target rows whose key is neither staged nor among the dead letters."""
        staged = self.staged.alias("arrived")
        key = [self.target.c[name] for name in self.load.key]
        came = dialect_of(connection.engine).among(key, [staged.c[name] for name in self.load.key])
        return and_(~came, ~self._rejected(connection))

    def _rejected(self, connection: Connection) -> ColumnElement[bool]:
        """Target rows whose key is among the dead letters."""
        key = [self.target.c[name] for name in self.load.key]
        uncleared = [] if self.cleared_at is None else [self.rejected.c[ROW] > self.cleared_at]
        return dialect_of(connection.engine).among(key, key_columns(self.rejected), *uncleared)

    def _expect(self, done: str, rows: int, expected: int) -> None:
        if rows != expected:
            raise ConservationError(
                f"{self.target.fullname}: {rows:,} rows were {done} where {expected:,} were classified so; everything "
                f"was rolled back. Is its key {tuple(self.load.key)} unique, and does nothing else write to it?"
            )
