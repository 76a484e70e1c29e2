"""`ApiReading`: a window of an `ApiExtract` while it is read."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from tasks.errors import SourceError
from tasks.extract.changes import cursor_values
from tasks.extract.deleted import with_operations
from tasks.extract.feed import Notice
from tasks.extract.http.answers import Refused, shown
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pages.drift import Drift
from tasks.extract.http.pages.numbered import Numbered
from tasks.extract.http.pages.place import Kept, Place
from tasks.extract.http.pages.walk import Visit, Walk
from tasks.extract.http.parallel import in_order
from tasks.extract.http.request import Request
from tasks.extract.http.times import EPOCH, step
from tasks.window import Window, later

if TYPE_CHECKING:
    from tasks.extract.api import ApiExtract

_FORGOTTEN = frozenset({400, 404, 410, 422})
"""What APIs answer to a page token that they do not know any more."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A page, or all pages of a leg that is read whole.

    Attributes:
        leg: what it is a part of.
        visits: the pages, in order.
        ended: whether the leg ends with it.
    """

    leg: Window
    visits: Sequence[Visit]
    ended: bool


class ApiReading:
    """The reading of a window, page by page; it goes on while what it brought is being committed.

    A window is read leg by leg, each a walk over pages of its own: by its declared `split`, or in halves where the API
    gives no more than `max_results` for one.

    Args:
        extract: the declaration.
        client: bound to its API.
        window: what to read.
        kept: what the last run left.
        opened_at: target clock, UTC.
        contract: fingerprint of what judges the rows.

    Attributes:
        pages: how many have been handed on.
    """

    def __init__(
        self,
        extract: "ApiExtract",
        client: HttpClient,
        window: Window,
        kept: Kept,
        opened_at: datetime,
        contract: str = "",
    ) -> None:
        place = kept.place
        self._restarted = place is not None and place.window == window and place.declared != extract.fingerprint
        self._begun = place if place is not None and place.window == window and not self._restarted else None
        self.window = window
        self.began = self._begun.began if self._begun else opened_at
        self.highest = self._begun.highest if self._begun else None
        self.unchanged = False
        self.kept = kept
        self.position: str | None = None
        self._extract = extract
        self._client = client
        self._counted = client.requests
        self._where = f"{extract.name}, window {window}"
        self._walk = Walk(client, extract.shaped, extract.paginator, 1 if extract.split else extract.concurrency)
        self._contract = contract
        self._drift = Drift(extract.unique, extract.on_drift)
        self.pages = 0
        self._left = self._read()

    def batches(self, pages: int | None) -> Iterator[pa.Table]:
        """The rows of so many further pages, or of all; then `kept` says where the next ones begin."""
        read, place = 0, None
        # Until the rows have been handed on: a reading that broke off goes on nowhere.
        self.position = None
        with self._extract.named(self._where):
            for piece in self._left:
                for visit in piece.visits:
                    yield from self._rows(visit, piece.leg)
                    read += 1
                last = piece.ended and piece.leg.end == self.window.end
                if pages is not None and read >= pages and not last:
                    place = self._place_after(piece)
                    if place.keepable:
                        break
                    place = None
        self.kept = replace(self.kept, place=place)
        # At its end it goes on nowhere either: what is left then is what any other window leaves, too.
        self.position = None if place is None else str(self.kept)

    def count_requests(self) -> int:
        """How many HTTP requests have been sent since it was last asked for."""
        before, self._counted = self._counted, self._client.requests
        return self._counted - before

    def notices(self) -> Sequence[Notice]:
        """What happened since it was last asked for, if anything did."""
        told = []
        if self._restarted:
            text = "the declaration, or the page where the last run ended, has changed; the window was begun anew."
            told.append(Notice("etl.walk.restarted", text, {"window": str(self.window)}))
        if self._drift.passed_over:
            rows = self._drift.passed_over
            text = f"{rows:,} records came on two pages, the same both times; once was enough."
            told.append(Notice("etl.pages.drifted", text, {"rows": rows}))
        self._restarted, self._drift.passed_over = False, 0
        return told

    @property
    def restarted(self) -> bool:
        """Whether it was begun anew, since the page where the last run ended is not what it was."""
        return self._restarted

    def remember(self, connection: Connection) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Stop reading ahead."""
        self._left.close()

    def close(self) -> None:
        """Stop reading ahead, and close every connection."""
        self.stop()
        self._client.close()

    def _read(self) -> Generator[_Piece, None, None]:
        if self._extract.cursor is not None and self.window.empty:
            return
        yield from self._conditional() if self._extract.conditional else self._pieces()

    def _pieces(self) -> Iterator[_Piece]:
        """Every piece of the window, from the place on where the last run ended."""
        begun, rest = self._begun, self.window
        if begun is not None and self._first(begun.leg).identity.hex() != begun.asked:
            self._restarted, begun = True, None
        if begun is not None:
            yield from self._rest_of_leg(begun)
            if begun.leg.end == self.window.end:
                return
            rest = Window(begun.leg.end, self.window.end)
        legs = [rest] if self._extract.split is None else rest.split(self._extract.split)
        at_once = self._extract.concurrency if self._extract.split else 1
        yield from in_order(map(self._stream, legs), at_once)

    def _stream(self, leg: Window) -> Callable[[], Iterator[_Piece]]:
        return lambda: self._leg(leg)

    def _leg(self, leg: Window) -> Iterator[_Piece]:
        if self._extract.max_results is None:
            yield from self._page_by_page(leg, self._walk.visits(self._first(leg)))
        else:
            yield from self._whole(leg, self._extract.max_results)

    def _page_by_page(self, leg: Window, visits: Iterator[Visit]) -> Iterator[_Piece]:
        for visit in visits:
            yield _Piece(leg, [visit], visit.following() is None)

    def _whole(self, leg: Window, most: int) -> Iterator[_Piece]:
        """A leg in one piece; in halves, if it has as many records as the API gives at most."""
        visits: list[Visit] = []
        count = 0
        for visit in self._walk.visits(self._first(leg)):
            visits.append(visit)
            count += visit.page.count
            if count >= most:
                for half in self._halves(leg, count):
                    yield from self._whole(half, most)
                return
        yield _Piece(leg, visits, True)

    def _halves(self, leg: Window, count: int) -> tuple[Window, Window]:
        shortest = step(self._extract.param_form)
        if leg.start is None or leg.end is None:
            raise SourceError(
                f"{count:,} records came for a window without start or end, as many as max_results says the API gives "
                "at most, and it cannot be halved. Declare initial=…, or run with a start."
            )
        # Between two parameters that differ, whole steps from the epoch on.
        middle = EPOCH + (leg.start + (leg.end - leg.start) / 2 - EPOCH) // shortest * shortest
        if middle <= leg.start:
            middle += shortest
        if middle >= leg.end:
            raise SourceError(
                f"{count:,} records came for {leg}, as many as max_results says the API gives at most, and no shorter "
                "window can be asked for. Ask by a finer param_format, or in parts by another parameter."
            )
        return Window(leg.start, middle), Window(middle, leg.end)

    def _rest_of_leg(self, begun: Place) -> Iterator[_Piece]:
        """What follows the last page of the last run; the leg anew, where that page is not what it was."""
        if begun.request is None or begun.following is None:
            return
        going_on = begun.following
        try:
            if isinstance(self._extract.paginator, Numbered):
                # What a token leads to stays; what a number leads to may have moved.
                again = self._walk.visit(begun.request)
                if again.page.fingerprint != begun.fingerprint:
                    raise _Moved
                for _ in self._rows(again, begun.leg):
                    pass
                following = again.following()
                if following is None:
                    return
                going_on = following
            visits = self._walk.visits(going_on)
            first = next(visits)
        except _Moved:
            first = None
        except Refused as refusal:
            if refusal.status not in _FORGOTTEN:
                raise
            first = None
        if first is None:
            self._restarted = True
            yield from self._leg(begun.leg)
            return
        yield from self._page_by_page(begun.leg, _chained(first, visits))

    def _rows(self, visit: Visit, leg: Window) -> Iterator[pa.Table]:
        """What lies in the leg: where bounds are included, the next leg brings the same records again."""
        extract = self._extract
        self.pages += 1
        for rows in visit.page.tables():
            rows = extract.inside(rows, leg, self._where)
            rows = self._drift.without_repeated(rows, self.pages, f"{self._where}, {shown(visit.request.url)}")
            if rows.num_rows == 0:
                continue
            if extract.cursor is not None:
                self.highest = later(self.highest, pc.max(cursor_values(rows, extract.cursor, self._where)).as_py())
            yield rows if extract.deleted is None else self._with_operations(rows, extract.deleted)

    def _with_operations(self, rows: pa.Table, deleted: str) -> pa.Table:
        """`rows` as changes: those whose field `deleted` says so are deletes.

        But for one whose cursor cannot be read: whether it is older than the row it is about nobody knows, so that it
        is judged as any row is.
        """
        cursor = self._extract.cursor
        dated = None if cursor is None else cursor_values(rows, cursor, self._where).is_valid()
        return with_operations(rows, deleted, dated)

    def _conditional(self) -> Iterator[_Piece]:
        """The one answer of the API, unless it is still the one that the last run has loaded."""
        request = self._first(self.window)
        asked = f"{request.identity.hex()} {self._extract.fingerprint} {self._contract}"
        known = self.kept.validators or {}
        if known.get("asked") == asked:
            headers = {name: known[kept] for kept, name in _CONDITIONS.items() if kept in known}
            request = replace(request, headers=headers)
        visit = self._walk.visit_if_changed(request)
        if visit is None:
            self.unchanged = True
            return
        self.kept = replace(self.kept, validators={"asked": asked, **visit.page.answer.validators()})
        yield _Piece(self.window, [visit], True)

    def _first(self, leg: Window) -> Request:
        return self._extract.paginator.first(self._extract.request(self._client, leg))

    def _place_after(self, piece: _Piece) -> Place:
        last = piece.visits[-1]
        return Place(
            window=self.window,
            leg=piece.leg,
            declared=self._extract.fingerprint,
            asked=self._first(piece.leg).identity.hex(),
            request=None if piece.ended else last.request,
            following=None if piece.ended else last.following(),
            fingerprint=last.page.fingerprint,
            began=self.began,
            highest=self.highest,
        )


class _Moved(Exception):
    """The page where the last run ended holds other records now."""


_CONDITIONS = {"etag": "If-None-Match", "last_modified": "If-Modified-Since"}


def _chained(first: Visit, rest: Iterator[Visit]) -> Iterator[Visit]:
    yield first
    yield from rest
