"""`StagedEvents`: the events of every key that came in, gathered in staging: what came, and what was known.

What was known has an `etl_row` below 0. What came and says nothing new has one from `SETTLED` on; it is there, but it
is no event.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Subquery,
    Table,
    and_,
    delete,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    union,
    update,
)

from tasks.change_columns import Clearing
from tasks.column_types import UtcDateTime
from tasks.load.keyed import Keyed, insert_rows
from tasks.state.dead_letters import key_columns
from tasks.state.staged import CHANGED_AT, DELETED, ROW
from tasks.version_columns import IS_CURRENT, VALID_FROM

SETTLED = 1 << 62
"""No row of a window has a number as high; see `tasks.transform.contract.SIBLINGS`."""


class StagedEvents:
    """The events of some keys; changed by its methods, which are called in this order.

    Args:
        key: the key.
        columns: names of the contract's others.
        staged: what came, with its times.
        rejected: dead letters that came with it.
        versions: the target.
        kept: what is kept beside the target because no version shows it.
        clearings: the markers that came, in order.
    """

    def __init__(
        self,
        key: Keyed,
        columns: Sequence[str],
        staged: Table,
        rejected: Table,
        versions: Table,
        kept: Table,
        clearings: Sequence[Clearing],
    ) -> None:
        self._keyed, self._columns = key, list(columns)
        self._staged, self._rejected = staged, rejected
        self._versions, self._kept = versions, kept
        self._markers = [clearing.row for clearing in clearings]

    def deduplicate(self, connection: Connection, early: ColumnElement[bool] | None) -> tuple[int, int]:
        """Leave one change of each key and instant, the last; how many went, and how many of them are `early`."""
        staged = self._staged
        identity = [*self._keyed.of(staged), staged.c[CHANGED_AT]]
        repeated = select(literal(1)).select_from(staged).group_by(*identity).having(func.count() > 1).limit(1)
        if connection.execute(repeated).first() is None:
            return 0, 0
        rank = func.row_number().over(partition_by=identity, order_by=staged.c[ROW].desc())
        ranked = select(staged.c[ROW], rank.label("rank")).subquery("ranked")
        losers = select(ranked.c[ROW]).where(ranked.c.rank > 1)
        outdone = 0
        if early is not None:
            count = select(func.count()).select_from(staged).where(early, staged.c[ROW].in_(losers))
            outdone = connection.execute(count).scalar_one()
        return connection.execute(delete(staged).where(staged.c[ROW].in_(losers))).rowcount, outdone

    def clear(self, connection: Connection, clearing: Clearing) -> tuple[int, int]:
        """Stage a delete, at the marker's time, of every key that was there before it, and is not after it.

        After `truncate` every key was gone, also one that came again.

        Returns:
            How many deletes that are, and how many changes of that very instant they outdo.
        """
        staged = self._staged
        row = literal(clearing.row, BigInteger)
        at = literal(clearing.at, UtcDateTime)
        rank = func.row_number().over(
            partition_by=self._keyed.of(staged), order_by=[staged.c[CHANGED_AT].desc(), staged.c[ROW].desc()]
        )
        ranked = select(*self._keyed.of(staged), staged.c[DELETED], rank.label("rank")).where(staged.c[ROW] < row)
        earlier = ranked.subquery("earlier")
        newest = select(*self._keyed.of(earlier), earlier.c[DELETED]).where(earlier.c.rank == 1).subquery("newest")
        known = self._versions.outerjoin(newest, self._keyed.same(self._versions, newest))
        there = union(
            select(*self._keyed.of(self._versions))
            .select_from(known)
            .where(self._versions.c[IS_CURRENT].is_(true()), newest.c[self._keyed.key[0]].is_(None)),
            select(*self._keyed.of(newest)).where(not_(newest.c[DELETED])),
        ).subquery("there")
        later = select(*self._keyed.of(staged)).where(staged.c[ROW] > row).distinct()
        came = (later if clearing.by == "snapshot" else later.where(staged.c[CHANGED_AT] == at)).subquery("came")
        names = [column.label(name) for column, name in zip(key_columns(self._rejected), self._keyed.key, strict=True)]
        rejected = select(*names).where(self._rejected.c[ROW] > row).distinct().subquery("refused")
        gone = (
            select(row.label(ROW), *self._keyed.of(there), true().label(DELETED), at.label(CHANGED_AT))
            .select_from(
                there.outerjoin(came, self._keyed.same(there, came)).outerjoin(
                    rejected, self._keyed.same(there, rejected)
                )
            )
            .where(came.c[self._keyed.key[0]].is_(None))
        )
        if clearing.by == "snapshot":
            gone = gone.where(rejected.c[self._keyed.key[0]].is_(None))
        deletes = insert_rows(connection, self._staged, [ROW, *self._keyed.key, DELETED, CHANGED_AT], gone)
        cleared = select(*self._keyed.of(staged)).where(staged.c[ROW] == row).subquery("cleared")
        outdone = select(staged.c[ROW]).select_from(staged.join(cleared, self._keyed.same(staged, cleared)))
        outdone = outdone.where(staged.c[ROW] < row, staged.c[CHANGED_AT] == at)
        rows = outdone.subquery("outdone")
        return deletes, connection.execute(delete(staged).where(staged.c[ROW].in_(select(rows.c[ROW])))).rowcount

    def gather(self, connection: Connection) -> None:
        """Stage what is known of the keys in staging, under numbers below 0."""
        kept, versions = self._kept, self._versions
        names = [ROW, *self._keyed.key, *self._columns, DELETED, CHANGED_AT]
        for source, at, deleted, place in (
            (kept, kept.c[CHANGED_AT], kept.c[DELETED], 0),
            (versions, versions.c[VALID_FROM], false(), 1),
        ):
            touched = self.touched()
            found = source.join(touched, self._keyed.same(source, touched))
            number = func.row_number().over(order_by=[*self._keyed.of(source), at])
            events = select(
                (-2 * number - place).label(ROW),
                *(source.c[name] for name in [*self._keyed.key, *self._columns]),
                deleted.label(DELETED),
                at.label(CHANGED_AT),
            )
            if source is versions:
                # What is kept of the event at which a version begins is the event; the version may show a later one's.
                found = found.outerjoin(kept, and_(self._keyed.same(versions, kept), kept.c[CHANGED_AT] == at))
                events = events.where(kept.c[CHANGED_AT].is_(None))
            insert_rows(connection, self._staged, names, events.select_from(found))

    def settle(self, connection: Connection) -> int:
        """Set aside what came and is as the state before it; how many they are.

        Only where changes come in the order of their times: else one that comes later may fall between the two.
        """
        every = self._staged
        names = [ROW, DELETED, *self._columns]
        order: dict[str, Any] = {
            "partition_by": self._keyed.of(every),
            "order_by": [every.c[CHANGED_AT], every.c[ROW]],
        }
        # Apart from the comparison, for MariaDB's sake: see `Timeline`.
        lags = [func.lag(every.c[name]).over(**order).label(f"lag_{place}") for place, name in enumerate(names)]
        pairs = select(*(every.c[name] for name in names), *lags).subquery("pairs")
        differs = or_(*(pairs.c[f"lag_{place}"].is_distinct_from(pairs.c[name])
                        for place, name in enumerate(names) if name != ROW))  # fmt: skip
        # A delete of what nobody knows says as little.
        nothing = and_(pairs.c.lag_0.is_(None), pairs.c[DELETED])
        judged = select(pairs.c[ROW], or_(not_(differs), nothing).label("same")).subquery("judged")
        same = select(judged.c[ROW]).where(judged.c.same, judged.c[ROW] >= 0, judged.c[ROW].not_in(self._markers))
        settled = update(every).where(every.c[ROW].in_(same)).values({ROW: every.c[ROW] + literal(SETTLED, BigInteger)})
        return connection.execute(settled).rowcount

    def forget_outdone(self, connection: Connection) -> None:
        """Of one key and instant, what came counts, and not what was known."""
        known, came = self._staged.alias("known"), self._staged.alias("came")
        again = and_(self._keyed.same(known, came), known.c[CHANGED_AT] == came.c[CHANGED_AT])
        outdone = select(known.c[ROW]).select_from(known.join(came, again)).where(known.c[ROW] < 0, came.c[ROW] >= 0)
        rows = outdone.subquery("outdone")
        connection.execute(delete(self._staged).where(self._staged.c[ROW].in_(select(rows.c[ROW]))))

    def forget_known(self, connection: Connection) -> None:
        """Leave only what came: the rest came in some other time, and closes no letter."""
        ours = or_(self._staged.c[ROW] < 0, self._staged.c[ROW].in_(self._markers))
        connection.execute(delete(self._staged).where(ours))

    def came(self) -> ColumnElement[bool]:
        """Which staged rows are events that came in; the deletes that markers stand for are none."""
        row = self._staged.c[ROW]
        return and_(row >= 0, row < literal(SETTLED, BigInteger), row.not_in(self._markers))

    def all(self) -> Subquery:
        """Every event, one for each key and instant."""
        return select(self._staged).where(self._staged.c[ROW] < literal(SETTLED, BigInteger)).subquery("events")

    def touched(self) -> Subquery:
        """The keys of what came."""
        return select(*self._keyed.of(self._staged)).where(self._staged.c[ROW] >= 0).distinct().subquery("touched")
