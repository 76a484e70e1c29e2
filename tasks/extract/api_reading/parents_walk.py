"""`ParentsWalk`: the parents whose children are to be read, page by page, behind those that are done."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from tasks.extract.api_reading.children_place import ChildrenPlace
from tasks.extract.api_reading.known_parents import Known, KnownParents
from tasks.extract.api_reading.reading import ApiReading
from tasks.extract.feed import Notice
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pages.place import Kept, Place
from tasks.extract.http.template import Unfit
from tasks.window import Window

if TYPE_CHECKING:
    from tasks.extract.api_children import ApiChildren

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Parent:
    """One whose children are asked for.

    Attributes:
        row: its record, a table of one row.
        key: what its children are asked for by; None where they cannot be.
        unfit: why not.
        known: what the target knows of it.
        window: what its children are asked for; None where none of them can have changed.
        page: where the walk stood before its page.
        number: its place on that page, from 1.
        keys: fingerprint of the keys up to its own, hexadecimal.
        passed_over: how many right before it were not asked.
    """

    row: pa.Table
    key: str | None
    unfit: str | None
    known: Known
    window: Window | None
    page: Place | None
    number: int
    keys: str
    passed_over: int = 0


class ParentsWalk:
    """One walk through all parents; it is read in one thread.

    Args:
        declared: the declaration.
        client: bound to the parents' API.
        window: what to read of the children.
        begun: behind whom to begin; None: with the first.
        began: target clock before the first row was read, UTC.
        known: what the target knows of the parents; None: nothing.

    Attributes:
        passed_over: how many after the last one handed on were not asked.
    """

    def __init__(
        self,
        declared: "ApiChildren",
        client: HttpClient,
        window: Window,
        begun: ChildrenPlace | None,
        began: datetime,
        known: KnownParents | None,
    ) -> None:
        self.passed_over = 0
        self._declared = declared
        self._window = window
        self._begun = begun
        self._goes_on = True
        self._known = known
        self._pages = ApiReading(declared.parents, client, Window(), Kept(begun.page if begun else None), began)

    def parents(self) -> Iterator[Parent]:
        """Those to be asked for their children, in order.

        Raises:
            SourceUnavailable: the source did not answer, or broke off half way.
            SourceError: the source refused.
            TargetUnavailable: the target did not say what it knows of them.
        """
        for parent in self._rest():
            if parent.window is None:
                self.passed_over += 1
                continue
            passed_over, self.passed_over = self.passed_over, 0
            yield replace(parent, passed_over=passed_over)

    def notices(self) -> Sequence[Notice]:
        """What happened since it was last asked for, if anything did."""
        return self._pages.notices()

    def stop(self) -> None:
        """Stop reading ahead."""
        self._pages.stop()

    def _rest(self) -> Iterator[Parent]:
        begun = self._begun
        page = begun.page if begun else None
        while True:
            waiting: list[Parent] = []
            for parent in self._page(page):
                if begun is None:
                    yield parent
                    continue
                waiting.append(parent)
                if parent.number == begun.done:
                    # The same parents at the head of the page: their children are committed.
                    yield from [] if parent.keys == begun.keys else waiting
                    begun, waiting = None, []
            yield from waiting
            begun, self._goes_on = None, False
            page = self._pages.kept.place
            if page is None:
                return

    def _page(self, page: Place | None) -> Iterator[Parent]:
        """The parents of the next page; `page` is where the walk stands before it."""
        number, digest = 0, hashlib.sha256()
        for rows in self._pages.batches(1):
            if self._goes_on and self._pages.restarted:
                page = None
            for start in range(0, rows.num_rows, _AT_ONCE):
                some = rows.slice(start, _AT_ONCE)
                keys = [_key(self._declared, record) for record in self._declared.records(some)]
                known = self._known.of({key for key, _ in keys if key}) if self._known else {}
                for place, (key, unfit) in enumerate(keys):
                    number += 1
                    digest.update(f"{key}\0".encode())
                    of_it = known.get(key or "", Known())
                    window = self._known.window(of_it) if self._known else self._window
                    yield Parent(some.slice(place, 1), key, unfit, of_it, window, page, number, digest.hexdigest())


def _key(declared: "ApiChildren", record: Mapping[str, object]) -> tuple[str | None, str | None]:
    """What identifies a parent, or why its children cannot be asked for."""
    try:
        return declared.key(record), None
    except Unfit as why:
        return None, str(why)
