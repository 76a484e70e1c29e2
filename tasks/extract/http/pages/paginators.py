"""How an API hands out its pages: one small frozen class per strategy.

A strategy holds no state. It derives the next request from one request and its page alone, so that a walk can start at
any page. A parameter's `name` is one of the query; `$.name` is a field of the JSON body, dots leading further in.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import httpx

from tasks.errors import SourceError
from tasks.extract.http.answers import Answer, described, shown
from tasks.extract.http.origin import same_origin
from tasks.extract.http.pages.page import Page
from tasks.extract.http.request import Request

_ABSENT = object()


class Paginator(Protocol):
    """A page strategy. Frozen, comparable."""

    def first(self, request: Request) -> Request:
        """`request` as it asks for the first page."""

    def following(self, request: Request, page: Page) -> Request | None:
        """What to ask for after `page`, which `request` brought; None at the end.

        Raises:
            SourceError: the page does not say, or leads to another origin.
        """


@dataclass(frozen=True, slots=True)
class SinglePage:
    """Everything comes in one answer."""

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return request

    def following(self, request: Request, page: Page) -> None:
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

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return request

    def following(self, request: Request, page: Page) -> Request | None:
        """See `Paginator.following`."""
        link = _told(page.answer, self.field, self.optional)
        if link is None or link == "":
            return None
        if not isinstance(link, str):
            here = shown(page.answer.url)
            raise SourceError(f"The next link {self.field!r} of {here} is {described(link)}, not a URL.")
        return _linked(request, page.answer, link, repr(self.field))


@dataclass(frozen=True, slots=True)
class LinkHeader:
    """Each answer's `Link` header names the next page (RFC 8288); the last one has none.

    Attributes:
        rel: the relation of the link.
    """

    rel: str = "next"

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return request

    def following(self, request: Request, page: Page) -> Request | None:
        """See `Paginator.following`."""
        # httpx reads the header; a link without a relation goes by its URL there, and is none of ours.
        answer = page.answer
        for link in httpx.Response(200, headers=answer.headers).links.values():
            if self.rel in link.get("rel", "").split():
                return _linked(request, answer, link["url"], f"of the relation {self.rel!r}")
        return None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Each body holds a token that asks for the next page; the last one null, "" or false.

    Attributes:
        field: dotted path of the token.
        param: parameter that takes it.
        optional: the last page may leave the field out. Not assumed, as in `NextUrl`.
    """

    field: str
    param: str
    optional: bool = False

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return request

    def following(self, request: Request, page: Page) -> Request | None:
        """See `Paginator.following`."""
        token = _told(page.answer, self.field, self.optional)
        if token is None or token is False or token == "":
            return None
        if not isinstance(token, str | int):
            raise SourceError(
                f"The cursor {self.field!r} of {shown(page.answer.url)} is {described(token)}, not a text or a number."
            )
        return request.having(self.param, token)


@dataclass(frozen=True, slots=True)
class CursorHeader:
    """Each answer's header holds a token that asks for the next page; the last one has none.

    Attributes:
        header: its name.
        param: parameter that takes the token.
    """

    header: str
    param: str

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return request

    def following(self, request: Request, page: Page) -> Request | None:
        """See `Paginator.following`."""
        token = page.answer.headers.get(self.header, "").strip()
        return request.having(self.param, token) if token else None


def _told(answer: Answer, field: str, optional: bool) -> object:
    """What the body says in `field`; None where it may say nothing, and does."""
    told = answer.at(field, None if optional else _ABSENT)
    if told is _ABSENT:
        raise SourceError(
            f"The answer of {shown(answer.url)} has no {field!r}; it is {described(answer.body)}. Correct the field, "
            "or say optional=True if the last page leaves it out."
        )
    return told


def _linked(request: Request, answer: Answer, link: str, which: str) -> Request:
    """`request` at the page that a link leads to."""
    here = answer.url
    try:
        url = here.join(link)
    except httpx.InvalidURL as error:
        raise SourceError(f"The next link {which} of {shown(here)} is not a URL: {link[:500]!r}.") from error
    if not same_origin(url, here):
        raise SourceError(
            f"The next link of {shown(here)} leads to {shown(url)}, which is another origin: not requested, so that no "
            "credential leaves. If the API is reached under that address, point the connection's URL at it; if it is "
            "behind a proxy, tell the API its public address."
        )
    return replace(request, url=url)
