"""`Place`: how far the reading of a window has come, as the commit of a part of it keeps it."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from tasks.errors import holds_secret
from tasks.extract.http.request import Request
from tasks.window import Window, to_utc


@dataclass(frozen=True, slots=True)
class Place:
    """The last page that was read, or the end of a leg.

    Attributes:
        window: what is being read; half-open, UTC.
        leg: the part of it that a walk of its own reads.
        declared: fingerprint of the extract, hexadecimal: another declaration begins anew.
        asked: fingerprint of the leg's first request, hexadecimal; it holds the API's address, too.
        request: what brought the last page; None where the leg has been read to its end.
        following: what comes after it.
        fingerprint: of that page.
        began: target clock before the window's first row was read, UTC.
        highest: highest cursor of the window so far, UTC.
    """

    window: Window
    leg: Window
    declared: str
    asked: str
    request: Request | None
    following: Request | None
    fingerprint: str
    began: datetime
    highest: datetime | None

    @property
    def keepable(self) -> bool:
        """Whether no secret is in it. A link of the source's may hold one where it cannot be left out."""
        return not holds_secret(json.dumps(self.kept()))

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """What `kept` made."""
        return cls(
            window=Window.parse(*kept["window"]),
            leg=Window.parse(*kept["leg"]),
            declared=kept["declared"],
            asked=kept["asked"],
            request=kept["request"] and Request.of(kept["request"]),
            following=kept["following"] and Request.of(kept["following"]),
            fingerprint=kept["fingerprint"],
            began=to_utc(kept["began"]),
            highest=kept["highest"] and to_utc(kept["highest"]),
        )

    def kept(self) -> dict[str, Any]:
        """This place as JSON."""
        return {
            "window": _bounds(self.window),
            "leg": _bounds(self.leg),
            "declared": self.declared,
            "asked": self.asked,
            "request": self.request and self.request.kept(),
            "following": self.following and self.following.kept(),
            "fingerprint": self.fingerprint,
            "began": self.began.isoformat(),
            "highest": self.highest and self.highest.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run leaves for the next one.

    Attributes:
        place: where a window was left; None where it was read to its end.
        validators: by which the source tells whether an answer has changed since, and of which request and contract.
    """

    place: Place | None = None
    validators: dict[str, str] | None = None

    @classmethod
    def parse(cls, position: str | None) -> Self:
        """What `str` made; nothing of None."""
        kept = read_position(position)
        place = kept.get("place")
        return cls(place and Place.of(place), kept.get("validators"))

    def __str__(self) -> str:
        kept = {"place": self.place and self.place.kept(), "validators": self.validators}
        return json.dumps({name: value for name, value in kept.items() if value})


def read_position(position: str | None) -> dict[str, Any]:
    """What an API's reading left; nothing of None, or of what another kind of extract left."""
    try:
        kept = json.loads(position or "{}")
    except ValueError:
        return {}
    return kept if isinstance(kept, dict) else {}


def _bounds(window: Window) -> list[str | None]:
    return [None if bound is None else bound.isoformat() for bound in (window.start, window.end)]
