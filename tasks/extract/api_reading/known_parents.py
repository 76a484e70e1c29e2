"""`KnownParents`: what the target knows of the parents whose children are read."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from tasks.errors import TargetError, TargetUnavailable
from tasks.extract.feed import Home
from tasks.state.dead_letters import close_by_identity, open_by_identity
from tasks.state.parents import ParentPlace, forget_places, read_places, write_places
from tasks.window import Window, later


@dataclass(frozen=True, slots=True)
class Known:
    """What the target knows of one parent.

    Attributes:
        place: how far its children have been read; None where none have.
        letter: the window in which it was refused last, if nothing has come of it since.
    """

    place: ParentPlace | None = None
    letter: Window | None = None


class KnownParents:
    """Reads what is known before parents are asked, and writes what has come of it, inside the commit.

    Args:
        home: whose parents they are.
        window: what is read of the children.
        by_parent: each parent is asked from its own place on, and its place is kept.
        afresh: what earlier runs kept is forgotten.
        initial: where a parent without a place begins.
        lookback: how far before its watermark a parent with a place goes on.
    """

    def __init__(
        self,
        home: Home,
        window: Window,
        *,
        by_parent: bool,
        afresh: bool,
        initial: datetime | None,
        lookback: timedelta,
    ) -> None:
        self._home = home
        self._window = window
        self._by_parent = by_parent
        self._afresh = self._forgets = afresh and by_parent
        self._begun = False
        self._initial = initial
        self._lookback = lookback
        self._places: dict[str, ParentPlace] = {}
        self._answered: set[str] = set()

    def of(self, keys: Collection[str]) -> dict[str, Known]:
        """What is known of the parents `keys`.

        Raises:
            TargetUnavailable: the target did not answer.
        """
        home, places = self._home, {}
        where = f"{home.pipeline}: the target"
        with home.dialect.translated(where, TargetUnavailable, TargetError), home.engine.connect() as connection:
            if self._by_parent and not self._afresh:
                places = read_places(connection, home.pipeline, keys)
            letters = open_by_identity(connection, home.pipeline, keys)
        return {key: Known(places.get(key), letters.get(key)) for key in keys}

    def window(self, known: Known) -> Window | None:
        """What to ask a parent for; None where nothing can have changed since it was asked last."""
        end, place = self._window.end, known.place
        if not self._by_parent or end is None:
            return self._window
        if place is not None and place.covered_until >= end:
            return None
        start = self._initial if place is None or place.watermark is None else place.watermark - self._lookback
        return Window(None if start is None else min(start, end), end)

    def answered(self, key: str, known: Known, asked: Window, highest: datetime | None) -> None:
        """A parent has handed out all its children in `asked`, the highest of the cursor `highest`."""
        if self._by_parent and asked.end is not None:
            before = known.place.watermark if known.place else None
            self._places[key] = ParentPlace(later(before, highest), asked.end)
        if known.letter is not None and _covers(asked, known.letter):
            self._answered.add(key)

    def begin_part(self) -> None:
        """What came before has been committed."""
        self._forgets = self._forgets and not self._begun
        self._begun = True
        self._places, self._answered = {}, set()

    def remember(self, connection: Connection) -> None:
        """Write it, inside the commit."""
        home = self._home
        if self._forgets:
            forget_places(connection, home.pipeline)
        write_places(connection, home.pipeline, self._places)
        if self._answered:
            now = home.dialect.clock(connection)
            close_by_identity(connection, home.pipeline, self._answered, home.attempt, now)


def _covers(one: Window, other: Window) -> bool:
    """Whether all of `other` lies in `one`."""
    starts = one.start is None or (other.start is not None and one.start <= other.start)
    return starts and (one.end is None or (other.end is not None and one.end >= other.end))
