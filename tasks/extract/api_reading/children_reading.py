"""`ChildrenReading`: the children of all parents while they are read, one parent after the other or several at once."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from tasks.change_columns import IDENTITY, OPERATION, REASON
from tasks.errors import ConfigError, SourceError
from tasks.extract.api_reading.children_place import ChildrenPlace, KeptChildren
from tasks.extract.api_reading.known_parents import KnownParents
from tasks.extract.api_reading.parents_walk import Parent, ParentsWalk
from tasks.extract.api_reading.reading import ApiReading
from tasks.extract.feed import Notice
from tasks.extract.http.answers import Refused
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pages.place import Kept
from tasks.extract.http.parallel import Stream, in_order
from tasks.window import Window, later

if TYPE_CHECKING:
    from tasks.extract.api_children import ApiChildren

PARENTS_OWN = frozenset({403, 404, 410, 451})
"""Statuses that are about one parent: it is gone, or not ours to see. A 401 is about the credentials, and a 400, 405 or
422 about how the children are asked for: every parent would be answered so."""


@dataclass(frozen=True, slots=True)
class _End:
    """What follows a parent's last row.

    Attributes:
        parent: whose.
        pages: how many came.
        highest: highest cursor of them, UTC.
        refusal: why it was refused, or None.
        drifted: rows that came on two pages.
    """

    parent: Parent
    pages: int = 0
    highest: datetime | None = None
    refusal: str | None = None
    drifted: int = 0


class ChildrenReading:
    """The reading of all children in a window; it goes on while what it brought is being committed.

    Args:
        declared: the declaration.
        clients: bound to the API of the parents and to that of the children, which may be one and the same.
        window: what to read of the children.
        kept: what the last run left.
        opened_at: target clock, UTC.
        known: what the target knows of the parents; None: nothing, and then a parent's refusal is an error.
    """

    unchanged = False

    def __init__(
        self,
        declared: "ApiChildren",
        clients: tuple[HttpClient, HttpClient],
        window: Window,
        kept: KeptChildren,
        opened_at: datetime,
        known: KnownParents | None,
    ) -> None:
        place = kept.place
        if place is not None and (place.window, place.asked) != (window, declared.fingerprint):
            place = None
        self.window = window
        self.kept = kept
        self.position: str | None = None
        self.began = place.began if place else opened_at
        self.highest = place.highest if place else None
        self._declared = declared
        self._clients = clients
        self._counted = 0
        self._known = known
        self._visited, self._failed = (place.visited, place.failed) if place else (0, 0)
        self._last_refusal = ""
        self._told = {"refused": 0, "drifted": 0}
        self._parents = ParentsWalk(declared, clients[0], window, place, self.began, known)
        self._left = self._read()

    def batches(self, pages: int | None) -> Iterator[pa.Table]:
        """The rows of about so many further pages, or of all; it ends between two parents.

        Raises:
            SourceUnavailable: the source did not answer, or broke off half way.
            SourceError: the source refused, or too many parents were.
        """
        read, place = 0, None
        # Until the rows have been handed on: a reading that broke off goes on nowhere.
        self.position = None
        if self._known is not None:
            self._known.begin_part()
        for item in self._left:
            if isinstance(item, pa.Table):
                yield item
                continue
            self._note(item)
            if item.refusal is not None:
                yield _letter(item.parent, item.refusal)
            read += max(1, item.pages)
            # Not while too many were refused: what follows decides whether that is an error.
            if pages is not None and read >= pages and not self._too_many:
                place = self._place_behind(item.parent)
                if place.page is None or place.page.keepable:
                    break
                place = None
        else:
            self._visited += self._parents.passed_over
            if self._too_many:
                raise SourceError(
                    f"{self._where}: {self._failed:,} of {self._visited:,} parents were refused, the last with "
                    f"{self._last_refusal}; max_failed={self._declared.max_failed:.0%} allows less, and never all. "
                    "Check the path of the children, and what the credentials may see."
                )
        self.kept = KeptChildren(place)
        # At its end it goes on nowhere either: what is left then is what any other window leaves, too.
        self.position = None if place is None else str(self.kept)

    def remember(self, connection: Connection) -> None:
        """Write how far each parent has come; inside the commit."""
        if self._known is not None:
            self._known.remember(connection)

    def count_requests(self) -> int:
        """How many HTTP requests have been sent since it was last asked for, for parents and children."""
        before, self._counted = self._counted, sum(client.requests for client in set(self._clients))
        return self._counted - before

    def notices(self) -> Sequence[Notice]:
        """What happened since it was last asked for, if anything did."""
        told = list(self._parents.notices())
        refused, drifted = self._told["refused"], self._told["drifted"]
        if refused:
            text = f"{refused:,} parents were refused; they are in etl_dead_letters, and asked again by the next run."
            told.append(Notice("etl.parents.refused", text, {"parents": refused}, alarming=True))
        if drifted:
            text = f"{drifted:,} records came on two pages, the same both times; once was enough."
            told.append(Notice("etl.pages.drifted", text, {"rows": drifted}))
        self._told = {"refused": 0, "drifted": 0}
        return told

    def close(self) -> None:
        """Stop reading ahead, and close every connection."""
        self._left.close()
        self._parents.stop()
        for client in set(self._clients):
            client.close()

    @property
    def _where(self) -> str:
        return f"{self._declared.name}, window {self.window}"

    @property
    def _too_many(self) -> bool:
        limit = self._declared.max_failed * self._visited
        return self._failed > limit or self._failed == self._visited > 0

    def _read(self) -> Generator["pa.Table | _End", None, None]:
        if self._declared.cursor is None or not self.window.empty:
            yield from in_order(self._streams(), self._declared.concurrency)

    def _streams(self) -> Iterator[Stream["pa.Table | _End"]]:
        for parent in self._parents.parents():
            assert parent.window is not None, "those that have nothing to be asked are passed over"
            yield partial(self._children, parent, parent.window)

    def _children(self, parent: Parent, window: Window) -> Iterator["pa.Table | _End"]:
        """The rows of one parent's children, all pages of them, and then its end."""
        if parent.unfit is not None:
            yield self._refused(parent, parent.unfit)
            return
        [record] = self._declared.records(parent.row)
        reading = ApiReading(self._declared.of(record), self._clients[1], window, Kept(), self.began)
        try:
            for rows in reading.batches(None):
                yield self._with_included(rows, parent)
        except Refused as refusal:
            if refusal.status not in PARENTS_OWN or self._known is None:
                raise
            yield _End(parent, reading.pages, reading.highest, f"{refusal.status} to {refusal.asked}")
            return
        finally:
            # The client is everybody's, and stays open.
            reading.stop()
        drifted = sum(int(notice.payload.get("rows") or 0) for notice in reading.notices())
        yield _End(parent, reading.pages, reading.highest, drifted=drifted)

    def _refused(self, parent: Parent, why: str) -> _End:
        if self._known is None:
            raise SourceError(f"{self._where}: a parent cannot be asked for its children: {why}.")
        return _End(parent, refusal=f"nothing was asked: {why}")

    def _with_included(self, rows: pa.Table, parent: Parent) -> pa.Table:
        for name, column in self._declared.include.items():
            if name in rows.column_names:
                raise ConfigError(
                    f"{self._where}: include={{{name!r}: …}} names a column that the children have themselves. Give "
                    "the parent's column another name, or leave it out."
                )
            if column not in parent.row.column_names:
                raise ConfigError(
                    f"{self._where}: include names the parents' column {column!r}, and theirs are "
                    f"{', '.join(parent.row.column_names)}."
                )
            first = pa.array(np.zeros(rows.num_rows, np.int64))
            rows = rows.append_column(name, parent.row.column(column).take(first))
        return rows

    def _note(self, end: _End) -> None:
        """Count a parent that has been read, and keep what is to be remembered of it."""
        # Of those that were passed over everything is known: they count as good ones.
        self._visited += end.parent.passed_over + 1
        self.highest = later(self.highest, end.highest)
        self._told["drifted"] += end.drifted
        if end.refusal is not None:
            self._failed += 1
            self._told["refused"] += 1
            self._last_refusal = end.refusal
        elif self._known is not None and end.parent.key is not None and end.parent.window is not None:
            self._known.answered(end.parent.key, end.parent.known, end.parent.window, end.highest)

    def _place_behind(self, parent: Parent) -> ChildrenPlace:
        return ChildrenPlace(
            window=self.window,
            asked=self._declared.fingerprint,
            page=parent.page,
            done=parent.number,
            keys=parent.keys,
            began=self.began,
            highest=self.highest,
            visited=self._visited,
            failed=self._failed,
        )


def _letter(parent: Parent, why: str) -> pa.Table:
    """A parent that was refused, as a row that says so."""
    told = {OPERATION: "unreadable", REASON: why, IDENTITY: parent.key}
    row = parent.row
    for name, value in told.items():
        row = row.append_column(name, pa.array([value], pa.string()))
    return row
