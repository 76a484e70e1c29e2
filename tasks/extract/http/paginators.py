"""How an API hands out its pages: one small frozen class per strategy, and the walk they steer.

A strategy holds no state. It derives the next request from one page alone, so that a walk can start at any page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import httpx

from tasks.errors import SourceError
from tasks.extract.http.answers import Answer, described, shown
from tasks.extract.http.client import HttpClient
from tasks.extract.http.origin import same_origin

Record = dict[str, object]
"""One JSON object of a source."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer and the records in it.

    Attributes:
        answer: as it came.
        records: the JSON objects it lists, in its order.
    """

    answer: Answer
    records: list[Record]

    @classmethod
    def of(cls, answer: Answer, path: str) -> "Page":
        """The page whose records are the list at the dotted `path` of `answer`; "" is the body itself.

        Raises:
            SourceError: there is no list there, or something in it is no object.
        """
        records = answer.at(path)
        place = repr(path) if path else "the body itself"
        if not isinstance(records, list):
            raise SourceError(
                f"The records of {shown(answer.url)} are expected in {place}, but that is {described(records)}. "
                "Name the dotted path of the list in records=…."
            )
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise SourceError(
                    f"Record {number} in {place} of {shown(answer.url)} is {described(record)}, not an object. Ask the "
                    "API for objects, or name another list in records=…."
                )
        return cls(answer, records)


class Paginator(Protocol):
    """A page strategy. Frozen, comparable."""

    def following(self, page: Page) -> httpx.URL | None:
        """What to request after `page`; None at the end.

        Raises:
            SourceError: the page does not say, or leads to another origin.
        """


@dataclass(frozen=True, slots=True)
class SinglePage:
    """Everything comes in one answer."""

    def following(self, page: Page) -> None:
        """See `Paginator.following`."""


@dataclass(frozen=True, slots=True)
class NextUrl:
    """Each body links to the next page, the last one to null or "".

    Attributes:
        field: dotted path of the link; a relative one counts from the page it stands on.
        optional: the last page may leave the field out. Not assumed, since a misspelt field would then read as the end
            of the data.
    """

    field: str = "next_url"
    optional: bool = False

    def following(self, page: Page) -> httpx.URL | None:
        """See `Paginator.following`."""
        here = page.answer.url
        link = page.answer.at(self.field, None) if self.optional else self._required(page.answer)
        if link is None or link == "":
            return None
        if not isinstance(link, str):
            raise SourceError(f"The next link {self.field!r} of {shown(here)} is {described(link)}, not a URL.")
        try:
            url = here.join(link)
        except httpx.InvalidURL as error:
            raise SourceError(f"The next link {self.field!r} of {shown(here)} is not a URL: {link[:500]!r}.") from error
        if not same_origin(url, here):
            raise SourceError(
                f"The next link of {shown(here)} leads to {shown(url)}, which is another origin: not requested, so "
                "that no credential leaves. If the API is reached under that address, point the connection's URL at "
                "it; if it is behind a proxy, tell the API its public address."
            )
        return url

    def _required(self, answer: Answer) -> object:
        link = answer.at(self.field, _ABSENT)
        if link is _ABSENT:
            raise SourceError(
                f"The answer of {shown(answer.url)} has no {self.field!r}; it is {described(answer.body)}. Correct the "
                "field, or say NextUrl(…, optional=True) if the last page leaves it out."
            )
        return link


_ABSENT = object()


def walk(client: HttpClient, first: httpx.URL, records: str, paginator: Paginator) -> Iterator[Page]:
    """Every page from `first` on, requested one at a time when it is asked for.

    Args:
        client: bound to the only origin that is asked.
        first: the request to start with.
        records: dotted path of the list of records in each body.
        paginator: leads from page to page.

    Raises:
        SourceUnavailable: a page could not be had.
        SourceError: the source refused, or sends the walk in a circle.
    """
    # Fingerprints instead of URLs: a walk of a million pages remembers some megabytes.
    seen: set[int] = set()
    url: httpx.URL | None = first
    while url is not None:
        if hash(url) in seen:
            raise SourceError(
                f"The pages run in a circle: {shown(url)} follows for the second time, after {len(seen)} pages. Check "
                "that the API honours the paging parameters, and that the paginator fits it."
            )
        seen.add(hash(url))
        page = Page.of(client.get_json(url), records)
        yield page
        url = paginator.following(page)
