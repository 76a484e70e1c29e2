"""`ChildrenPlace`: how far the reading of all parents' children has come, as the commit of a part of it keeps it."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from tasks.extract.http.pages.place import Place, read_position
from tasks.window import Window, to_utc


@dataclass(frozen=True, slots=True)
class ChildrenPlace:
    """Behind the last parent whose children are committed.

    Attributes:
        window: what is being read of the children; half-open, UTC.
        asked: fingerprint of what is declared, hexadecimal: another declaration begins anew.
        page: where the parents' walk stood before the page of that parent; None on the first page.
        done: how many parents of that page are done.
        keys: fingerprint of theirs, hexadecimal: where it is not what it was, the page is read whole.
        began: target clock before the window's first row was read, UTC.
        highest: highest cursor of the window so far, UTC.
        visited: parents so far.
        failed: those of them that were refused.
    """

    window: Window
    asked: str
    page: Place | None
    done: int
    keys: str
    began: datetime
    highest: datetime | None
    visited: int
    failed: int

    def kept(self) -> dict[str, Any]:
        """This place as JSON."""
        return {
            "window": [None if bound is None else bound.isoformat() for bound in (self.window.start, self.window.end)],
            "asked": self.asked,
            "page": self.page and self.page.kept(),
            "done": self.done,
            "keys": self.keys,
            "began": self.began.isoformat(),
            "highest": self.highest and self.highest.isoformat(),
            "visited": self.visited,
            "failed": self.failed,
        }

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """What `kept` made."""
        return cls(
            **{name: kept[name] for name in ("asked", "done", "keys", "visited", "failed")},
            window=Window.parse(*kept["window"]),
            page=kept["page"] and Place.of(kept["page"]),
            began=to_utc(kept["began"]),
            highest=kept["highest"] and to_utc(kept["highest"]),
        )


@dataclass(frozen=True, slots=True)
class KeptChildren:
    """What a run leaves for the next one.

    Attributes:
        place: where a window was left; None where it was read to its end.
    """

    place: ChildrenPlace | None = None

    @classmethod
    def parse(cls, position: str | None) -> Self:
        """What `str` made; nothing of None, or of what another extract left."""
        place = read_position(position).get("children")
        return cls(place and ChildrenPlace.of(place))

    def __str__(self) -> str:
        return json.dumps({} if self.place is None else {"children": self.place.kept()})
