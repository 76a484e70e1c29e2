"""`Timeline`: the events of some keys, in order, and the versions they make; window functions over one table."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, false, func, not_, or_, select

from tasks.column_types import UtcDateTime
from tasks.state.staged import CHANGED_AT, DELETED
from tasks.version_columns import IS_CURRENT, VALID_FROM, VALID_TO


class Timeline:
    """What the events in `events`, at most one for each key and instant, come to.

    Events that follow each other without a difference are a run: of deletes, or of rows with equal tracked columns.
    A run of rows is a version, from its first event until the next run's; it shows the last event's columns.

    Args:
        events: with key and columns, `etl_changed_at` and `etl_deleted`.
        key: names of the key columns.
        columns: names of the others.
        tracked: those of them whose difference opens a version.
    """

    def __init__(self, events: FromClause, key: Sequence[str], columns: Sequence[str], tracked: Sequence[str]) -> None:
        self._key = list(key)
        self._columns = list(columns)
        names = [*key, *columns, CHANGED_AT, DELETED]
        followed = [DELETED, *tracked]
        # A window function stands alone in its column: amid a condition, MariaDB takes another value for it.
        order: dict[str, Any] = {
            "partition_by": [events.c[name] for name in key],
            "order_by": events.c[CHANGED_AT],
        }
        lags = [func.lag(events.c[name]).over(**order).label(f"lag_{place}") for place, name in enumerate(followed)]
        pairs = select(*(events.c[name] for name in names), *lags).subquery("pairs")
        turns = [pairs.c[f"lag_{place}"].is_distinct_from(pairs.c[name]) for place, name in enumerate(followed)]
        other = or_(turns[0], and_(not_(pairs.c[DELETED]), or_(false(), *turns[1:])))
        turned = select(*(pairs.c[name] for name in names), case((other, 1), else_=0).label("turn")).subquery("turned")
        parts = [turned.c[name] for name in key]
        run = func.sum(turned.c.turn).over(partition_by=parts, order_by=turned.c[CHANGED_AT])
        runs = select(*(turned.c[name] for name in names), run.label("run")).subquery("runs")
        parts, time = [runs.c[name] for name in key], runs.c[CHANGED_AT]
        self._events = select(
            *(runs.c[name] for name in names),
            func.min(time).over(partition_by=[*parts, runs.c.run]).label("begins"),
            func.lead(time, type_=UtcDateTime).over(partition_by=parts, order_by=time).label("next"),
            func.row_number().over(partition_by=[*parts, runs.c.run], order_by=time.desc()).label("back"),
        ).subquery("timeline")
        self._deleted: ColumnElement[bool] = self._events.c[DELETED]
        self._opens = self._events.c.begins == self._events.c[CHANGED_AT]
        # Alone in its run: the version is the event.
        self._shown = and_(not_(self._deleted), self._opens, self._events.c.back == 1)

    def versions(self) -> Select[Any]:
        """The versions, in the target's columns."""
        found = self._events.c
        return select(
            *(found[name] for name in [*self._key, *self._columns]),
            found.begins.label(VALID_FROM),
            found.next.label(VALID_TO),
            found.next.is_(None).label(IS_CURRENT),
        ).where(found.back == 1, not_(self._deleted))

    def no_versions(self) -> Select[Any]:
        """Keys and instants of events at which no version begins."""
        return self._identities(or_(self._deleted, not_(self._opens)))

    def hidden(self) -> Select[Any]:
        """The events that no version shows as they were."""
        found = self._events.c
        names = [*self._key, *self._columns, CHANGED_AT, DELETED]
        return select(*(found[name] for name in names)).where(not_(self._shown))

    def shown(self) -> Select[Any]:
        """Keys and instants of the others."""
        return self._identities(self._shown)

    def _identities(self, which: ColumnElement[bool]) -> Select[Any]:
        found = self._events.c
        return select(*(found[name] for name in [*self._key, CHANGED_AT])).where(which)
