"""`ApiChildren`: for each record of one API, the records of another below it."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from tasks.errors import ConfigError
from tasks.extract.api import ApiExtract
from tasks.extract.api_reading.children_place import KeptChildren
from tasks.extract.api_reading.children_reading import ChildrenReading
from tasks.extract.api_reading.known_parents import KnownParents
from tasks.extract.api_reading.part import ApiPart
from tasks.extract.feed import Opening
from tasks.extract.http.client import HttpClient
from tasks.extract.http.template import as_text, filled, filled_path, places
from tasks.window import Window

_LONGEST_KEY = 255


@dataclass(frozen=True)
class ApiChildren:
    """Read the children of every parent: `/orders`, and of each order `/orders/{id}/items`.

    `{name}` in the path, the parameters and the body of the children stands for the parent's column of that name; in
    the path it is one segment, whatever is in it. These columns identify the parent. The parents are listed anew by
    every run, page by page. With a cursor on the children, each parent goes on where its own children were read to: one
    that is new starts at `initial`, one that was refused where it was.

    A parent that is refused for its own sake (403, 404, 410, 451) is a dead letter; the others are loaded.

    Attributes:
        parents: lists them, whole.
        children: those of one parent.
        include: parent's columns to add to each child, by the names they get there.
        concurrency: how many parents' children are read at once.
        max_failed: largest share of the parents, 0 to 1, that may be refused before the run is an error; all of them
            always are one.

    Raises:
        ConfigError: settings that contradict each other.
    """

    parents: ApiExtract
    children: ApiExtract
    include: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 1
    max_failed: float = 0.5

    tells_deletes = True

    def __post_init__(self) -> None:
        for wrong, why in (
            (
                not self.columns,
                "nothing in what is asked for the children names a column of the parent. Write it into the path, as in "
                "/orders/{id}/items",
            ),
            (
                self.parents.cursor is not None,
                "the parents have a cursor, so that a run would see only those that changed; children change without "
                "their parent, and would be missed. Leave it out; to spare requests, name one on the children",
            ),
            (
                self.parents.deleted is not None,
                "deleted=… of the parents marks rows of a target, and the parents are not loaded. Load them with a "
                "pipeline of their own",
            ),
            (
                self.parents.conditional or self.children.conditional,
                "conditional asks whether the one answer has changed; of many parents, the answers are not kept",
            ),
            (
                self.children.concurrency > 1,
                "the requests under way at once are concurrency=… of ApiChildren. Leave that of the children at 1",
            ),
            (self.concurrency < 1, "concurrency is positive"),
            (not 0 <= self.max_failed <= 1, f"max_failed is a share from 0 to 1, got {self.max_failed}"),
        ):
            if wrong:
                raise ConfigError(f"{self.name}: {why}.")

    @property
    def name(self) -> str:
        """The extract as a message begins."""
        return self.children.name

    @property
    def connection(self) -> str:
        """The children's."""
        return self.children.connection

    @property
    def dataset(self) -> str:
        """The children's path."""
        return self.children.dataset

    @property
    def cursor(self) -> str | None:
        """The children's."""
        return self.children.cursor

    @property
    def lookback(self) -> timedelta:
        """The children's; each parent goes on so much before its own watermark."""
        return self.children.lookback

    @property
    def initial(self) -> datetime | None:
        """Where a parent that is new begins (UTC)."""
        return self.children.initial

    @property
    def columns(self) -> tuple[str, ...]:
        """The parents' columns that the children are asked for by."""
        return tuple(sorted({*places([self.children.path, self.children.params, self.children.body])}))

    @property
    def fingerprint(self) -> str:
        """Tells two declarations apart, hexadecimal: a window that one has begun, another begins anew."""
        told = (self.parents.fingerprint, self.children.fingerprint, sorted(self.include.items()))
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def bound(self) -> datetime | None:
        """See `Extract.bound`; the children's."""
        return self.children.bound()

    def own_time(self) -> datetime | None:
        """See `Clocked`; the children's."""
        return self.children.own_time()

    def null_cursors(self) -> int:
        """0: an API does not tell."""
        return 0

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """See `Extract.batches`: of every parent what lies in `window`; there are no dead letters here.

        Raises:
            SourceUnavailable: the source did not answer, or broke off half way.
            SourceError: the source refused, be it for one parent only.
            ContractError: the cursor is missing, or not one is a time.
            ConfigError: a connection has no URL.
        """
        reading = ChildrenReading(self, self.clients(), window, KeptChildren(), datetime.now(UTC), None)
        with contextlib.closing(reading):
            yield from reading.batches(None)

    def unfinished(self, position: str | None) -> Window | None:
        """See `Resumable.unfinished`."""
        place = KeptChildren.parse(position).place
        return None if place is None or place.asked != self.fingerprint else place.window

    def open_window(self, asked: Opening) -> ApiPart:
        """See `Resumable.open_window`."""
        reading = asked.held.going_on(asked.position)
        if not isinstance(reading, ChildrenReading):
            known = KnownParents(
                asked.home,
                asked.window,
                by_parent=self.cursor is not None and not asked.explicit,
                afresh=asked.position is None,
                initial=self.initial,
                lookback=self.lookback,
            )
            # A load that takes everything at once has in its commit only what it reads itself.
            kept = KeptChildren() if asked.whole else KeptChildren.parse(asked.position)
            opened_at = asked.home.opened_at or datetime.now(UTC)
            reading = ChildrenReading(self, self.clients(), asked.window, kept, opened_at, known)
            asked.held.keep(reading)
        # No child is late by what earlier runs covered: its parent may be new, or have been refused.
        return ApiPart(reading, None if asked.whole else self.children.checkpoint, None)

    def clients(self) -> tuple[HttpClient, HttpClient]:
        """A client for the parents and one for the children, one and the same where nothing tells them apart.

        Raises:
            ConfigError: a connection has no URL.
        """
        client = self.children.client()
        one, other = (
            (end.connection, end.auth, end.timeout, end.retry, end.rate) for end in (self.parents, self.children)
        )
        try:
            return (client if one == other else self.parents.client()), client
        except ConfigError:
            client.close()
            raise

    def records(self, parents: pa.Table) -> list[dict[str, Any]]:
        """What the children of each of `parents` are asked for by."""
        rows: list[dict[str, Any]] = parents.select(
            [name for name in self.columns if name in parents.column_names]
        ).to_pylist()
        return rows or [{}] * parents.num_rows

    def key(self, record: Mapping[str, object]) -> str:
        """What identifies a parent, at most 255 characters.

        Raises:
            Unfit: no request can be made of it.
        """
        filled_path(self.children.path, record)
        values = [as_text(record, name) for name in self.columns]
        key = values[0] if len(values) == 1 else json.dumps(values, ensure_ascii=False)
        if len(key) <= _LONGEST_KEY:
            return key
        return key[: _LONGEST_KEY - 65] + "…" + hashlib.sha256(key.encode()).hexdigest()

    def of(self, record: Mapping[str, object]) -> ApiExtract:
        """The extract of one parent's children."""
        children = self.children
        return replace(
            children,
            path=filled_path(children.path, record),
            params=filled(children.params, record),
            body=filled(children.body, record),
        )
