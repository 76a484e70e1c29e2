"""`History`: staged changes into the versions of their keys; the writer of `Scd2`.

The events of every key that came in are gathered in staging: what came, what the versions in the target tell, and what
is kept beside them because no version shows it. From these events alone the versions are computed anew, and what
differs is written.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import (
    Connection,
    Select,
    Table,
    and_,
    case,
    delete,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)

from tasks.column_types import UtcDateTime
from tasks.errors import ConservationError, HistoryError
from tasks.load.keyed import Keyed, differ, insert_rows
from tasks.load.staged_events import StagedEvents
from tasks.load.timeline import Timeline
from tasks.load.writer import Classes, Incoming, before_passed
from tasks.state.staged import CHANGED_AT, DELETED, OWN, ROW
from tasks.version_columns import IS_CURRENT, VALID_FROM, VALID_TO


class Tracking(Protocol):
    """What a history is told by its declaration."""

    @property
    def key(self) -> Sequence[str]:
        """Columns that identify a row, whatever its version."""

    @property
    def untracked(self) -> Sequence[str]:
        """Columns whose change opens no version."""


class History:
    """A `Writer` of versions.

    Args:
        load: the strategy.
        incoming: what has been staged, with its times.
    """

    def __init__(self, load: Tracking, incoming: Incoming) -> None:
        self._target = target = incoming.target
        self._staged = staged = incoming.staged
        self._incoming = incoming
        self._clearings = tuple(incoming.clearings)
        self._keyed = Keyed(load.key)
        # Of the contract's those that the target has: drift may be ignored.
        ours = [column.name for column in staged.columns if column.name in target.c]
        self._columns = [name for name in ours if name not in {*OWN, *self._keyed.key}]
        self._tracked = [name for name in self._columns if name not in {*load.untracked, incoming.cursor}]
        self._ordered = incoming.cursor is None
        [self._kept] = incoming.companions
        self._events = StagedEvents(
            self._keyed, self._columns, staged, incoming.rejected, target, self._kept, self._clearings
        )
        self._gone = self._outdone = 0

    # -- what came ----------------------------------------------------------------------------------------------------

    def deduplicate(self, connection: Connection) -> int:
        """Leave one change of each key and instant in staging, the last; stage a delete of what a marker cleared."""
        early = before_passed(self._incoming, self._staged.c[CHANGED_AT])
        repeated, self._outdone = self._events.deduplicate(connection, early)
        for clearing in self._clearings:
            gone, outdone = self._events.clear(connection, clearing)
            self._gone, repeated = self._gone + gone, repeated + outdone
        return repeated

    def absent(self, connection: Connection) -> tuple[int, int]:
        """How many keys the markers cleared, and how many have a current version."""
        if not self._clearings:
            return 0, 0
        current = select(func.count()).select_from(self._target).where(self._target.c[IS_CURRENT].is_(true()))
        return self._gone, connection.execute(current).scalar_one()

    # -- what it is ---------------------------------------------------------------------------------------------------

    def classify(self, connection: Connection) -> Classes:
        """Gather what is known of the keys that came, and count what came by what it is to that."""
        events, every = self._events, self._staged
        events.gather(connection)
        # Without a cursor changes come in the order of their times; with one, a row that is as it was may still turn
        # out to be the return from what comes late.
        settled = events.settle(connection) if self._ordered else 0
        one = case((every.c[DELETED], 1), else_=0)
        first = func.row_number().over(partition_by=self._keyed.of(every), order_by=[one, every.c[CHANGED_AT]])
        came = (
            select(
                every,
                first.label("first"),
                func.min(one).over(partition_by=self._keyed.of(every)).label("only_deletes"),
            )
            .where(events.came())
            .subquery("came")
        )
        same = every.alias("same")
        there = (
            select(*self._keyed.of(every)).where(every.c[ROW] < 0, not_(every.c[DELETED])).distinct().subquery("there")
        )
        known = there.c[self._keyed.key[0]].is_not(None)
        kind = case(
            (and_(same.c[ROW].is_not(None), not_(differ(came, same, [DELETED, *self._columns]))), "unchanged"),
            (and_(came.c[DELETED], not_(known), came.c.only_deletes == 1), "unchanged"),
            (came.c[DELETED], "deleted"),
            (known, "changed"),
            (came.c.first == 1, "new"),
            else_="changed",
        )
        early = before_passed(self._incoming, came.c[CHANGED_AT])
        late = literal(0) if early is None else case((early, 1), else_=0)
        again = and_(self._keyed.same(came, same), came.c[CHANGED_AT] == same.c[CHANGED_AT], same.c[ROW] < 0)
        joined = came.outerjoin(same, again).outerjoin(there, self._keyed.same(came, there))
        judged = select(kind.label("kind"), late.label("late")).select_from(joined).subquery("classified")
        counted = select(judged.c.kind, func.count(), func.sum(judged.c.late)).group_by(judged.c.kind)
        rows = connection.execute(counted).all()
        found: dict[str, int] = {kind: count for kind, count, _ in rows}
        late_by_kind = {kind: int(late) for kind, _, late in rows}
        events.forget_outdone(connection)
        return Classes(
            **{name: found.get(name, 0) for name in ("new", "changed", "deleted")},
            unchanged=found.get("unchanged", 0) + settled,
            stale=0,
            repeated=0,
            late=sum(late for kind, late in late_by_kind.items() if kind != "unchanged"),
            reread=found.get("unchanged", 0) if early is None else late_by_kind.get("unchanged", 0) + self._outdone,
        )

    # -- what comes of it ---------------------------------------------------------------------------------------------

    def write(self, connection: Connection, classes: Classes, gone: int) -> int:
        """See `Writer.write`; the rows counted are versions.

        Raises:
            HistoryError: what is in the target then is no history.
        """
        timeline = Timeline(self._events.all(), self._keyed.key, self._columns, self._tracked)
        written = self._reconcile(connection, self._target, VALID_FROM, timeline.versions(), timeline.no_versions())
        self._reconcile(connection, self._kept, CHANGED_AT, timeline.hidden(), timeline.shown())
        self._check(connection)
        self._events.forget_known(connection)
        return written

    def _reconcile(
        self, connection: Connection, table: Table, place: str, wanted: Select[Any], unwanted: Select[Any]
    ) -> int:
        """Make `table` hold the `wanted` rows and none of the `unwanted`; how many rows that took.

        Args:
            connection: in the commit's transaction.
            table: the target, or the events beside it.
            place: its column that with the key is unique.
            wanted: rows, in its columns.
            unwanted: key and place of rows that are not to be there.
        """
        right, wrong = wanted.subquery("wanted"), unwanted.subquery("unwanted")
        values = [column.name for column in right.c if column.name not in {*self._keyed.key, place}]
        there = and_(self._keyed.same(table, right), table.c[place] == right.c[place])
        differs = differ(table, right, values)
        absent = table.c[self._keyed.key[0]].is_(None)
        kinds = select(
            func.coalesce(func.sum(case((absent, 1), else_=0)), 0),
            func.coalesce(func.sum(case((and_(not_(absent), differs), 1), else_=0)), 0),
        ).select_from(right.outerjoin(table, there))
        new, changed = (int(count) for count in connection.execute(kinds).one())
        over = wrong.join(table, and_(self._keyed.same(table, wrong), table.c[place] == wrong.c[CHANGED_AT]))
        stray = connection.execute(select(func.count()).select_from(over)).scalar_one()
        if stray:
            found = tuple_(*self._keyed.of(table), table.c[place]).in_(select(*wrong.c))
            self._expect(table, "deleted", connection.execute(delete(table).where(found)).rowcount, stray)
        if changed:
            statement = update(table).values({name: right.c[name] for name in values}).where(there, differs)
            self._expect(table, "updated", connection.execute(statement).rowcount, changed)
        if new:
            names = [column.name for column in right.c]
            rows = select(*right.c).select_from(right.outerjoin(table, there)).where(absent)
            ordered = rows.order_by(*self._keyed.of(right), right.c[place])
            self._expect(table, "inserted", insert_rows(connection, table, names, ordered), new)
        return new + changed + stray

    def _check(self, connection: Connection) -> None:
        """No overlap, no gap but for deletes, at most one current version: of every key that came in."""
        versions, kept, touched = self._target, self._kept, self._events.touched()
        lead = func.lead(versions.c[VALID_FROM], type_=UtcDateTime)
        found = (
            select(
                *self._keyed.of(versions),
                *(versions.c[name] for name in (VALID_FROM, VALID_TO, IS_CURRENT)),
                lead.over(partition_by=self._keyed.of(versions), order_by=versions.c[VALID_FROM]).label("next"),
            )
            .select_from(versions.join(touched, self._keyed.same(versions, touched)))
            .subquery("versions")
        )
        begins, ends, following = found.c[VALID_FROM], found.c[VALID_TO], found.c.next
        closed = and_(self._keyed.same(found, kept), kept.c[CHANGED_AT] == ends, kept.c[DELETED].is_(true()))
        broken = or_(
            ends <= begins,
            and_(following.is_not(None), or_(ends.is_(None), ends > following)),
            and_(ends.is_not(None), ends.is_distinct_from(following), kept.c[CHANGED_AT].is_(None)),
            case((ends.is_(None), 1), else_=0) != case((found.c[IS_CURRENT], 1), else_=0),
        )
        wrong = select(*self._keyed.of(found), begins).select_from(found.outerjoin(kept, closed)).where(broken).limit(1)
        if row := connection.execute(wrong).first():
            raise HistoryError(
                f"{versions.fullname}: the version of ({', '.join(self._keyed.key)}) = {tuple(row)[:-1]!r} from "
                f"{row[-1].isoformat()} on overlaps the next, leaves a gap before it, or says falsely whether it is "
                "current. Everything was rolled back. Does anything else write to it, a trigger for instance?"
            )

    def _expect(self, table: Table, done: str, rows: int, expected: int) -> None:
        if rows != expected:
            raise ConservationError(
                f"{table.fullname}: {rows:,} rows were {done} where {expected:,} were computed so; everything was "
                f"rolled back. Is ({', '.join(self._keyed.key)}) with its instant unique there, and does nothing else "
                "write?"
            )
