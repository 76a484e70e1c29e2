"""Page strategies that count: by pages, by records, or from the last record on.

Those whose requests do not depend on the page before are `Numbered`, and can be asked for several at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import Protocol, runtime_checkable

from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.http.answers import Answer, described, shown
from tasks.extract.http.pages.page import Page
from tasks.extract.http.request import Request


@runtime_checkable
class Numbered(Protocol):
    """A page strategy that can ask for a page without having seen the one before."""

    @property
    def step(self) -> int | None:
        """How many records a page has to have for the one after it to follow without a gap; None: any number."""

    def requests(self, request: Request, page: Page) -> Iterator[Request]:
        """What to ask for after `page`, which `request` brought: as many as the page tells, or without end."""


@dataclass(frozen=True, slots=True)
class Keyset:
    """The next page is what comes after the last record's field; an empty page is the end.

    The API has to sort by the field, and the field has to be unique, or records that share a value with the last of a
    page are lost.

    Attributes:
        field: dotted path in a record.
        param: parameter for "after this value".
        size: how many records to ask for.
        size_param: parameter of the size.
        short_is_last: a page with less than `size` is the end, which spares a request. Not assumed: where the API caps
            its pages lower than that, the rest would be lost.
    """

    field: str
    param: str
    size: int | None = None
    size_param: str | None = None
    short_is_last: bool = False

    def __post_init__(self) -> None:
        _check_size(self)

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return _sized(self, request)

    def following(self, request: Request, page: Page) -> Request | None:
        """See `Paginator.following`."""
        if page.last is None or _short(self, page):
            return None
        value = Answer(page.answer.url, page.answer.headers, page.last).at(self.field, None)
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise SourceError(
                f"The last record of {shown(page.answer.url)} has {described(value)} in {self.field!r}, which leads to "
                "no next page. Name a field that every record has, and that the API sorts by."
            )
        return request.having(self.param, value if isinstance(value, str | int) else str(value))


@dataclass(frozen=True, slots=True)
class PageNumber:
    """Pages are numbered; an empty one is the end, unless the body tells it before.

    Attributes:
        param: parameter of the page's number.
        start: number of the first page.
        size: how many records to ask for.
        size_param: parameter of the size.
        pages: dotted path of the number of pages in a body.
        total: dotted path of the number of records in a body; needs `size`.
        short_is_last: as in `Keyset`.
    """

    param: str = "page"
    start: int = 1
    size: int | None = None
    size_param: str | None = None
    pages: str | None = None
    total: str | None = None
    short_is_last: bool = False

    step = None

    def __post_init__(self) -> None:
        _check_size(self, total=self.total)

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return _sized(self, request).having(self.param, self.start)

    def following(self, request: Request, page: Page) -> Request | None:
        """See `Paginator.following`."""
        number = _number(request, self.param)
        if self.total is not None:
            assert self.size is not None, "checked"
            if _all_read(page, self.total, (number - self.start) * self.size, self.size):
                return None
        elif self.pages is not None:
            if number - self.start + 1 >= _whole(page.answer, self.pages):
                return None
        elif page.last is None or _short(self, page):
            return None
        return request.having(self.param, number + 1)

    def requests(self, request: Request, page: Page) -> Iterator[Request]:
        """See `Numbered.requests`."""
        number = _number(request, self.param)
        pages = self._pages(page)
        numbers = count(number + 1) if pages is None else range(number + 1, self.start + pages)
        return (request.having(self.param, number) for number in numbers)

    def _pages(self, page: Page) -> int | None:
        """How many pages there are, as far as `page` tells."""
        if self.total is not None and self.size is not None:
            return -(-_whole(page.answer, self.total) // self.size)
        return None if self.pages is None else _whole(page.answer, self.pages)


@dataclass(frozen=True, slots=True)
class Offset:
    """A page starts so many records from the beginning; an empty one is the end, unless a count tells it before.

    Attributes:
        size: how many records to ask for.
        param: parameter of the offset.
        size_param: parameter of the size.
        total: dotted path of the number of records in a body.
        short_is_last: as in `Keyset`.
    """

    size: int
    param: str = "offset"
    size_param: str = "limit"
    total: str | None = None
    short_is_last: bool = False

    def __post_init__(self) -> None:
        _check_size(self)

    @property
    def step(self) -> int:
        """See `Numbered.step`."""
        return self.size

    def first(self, request: Request) -> Request:
        """See `Paginator.first`."""
        return _sized(self, request).having(self.param, 0)

    def following(self, request: Request, page: Page) -> Request | None:
        """See `Paginator.following`. After as many as came, so that an API which caps its pages loses none."""
        offset = _number(request, self.param)
        if self.total is not None:
            if _all_read(page, self.total, offset, 1):
                return None
        elif page.last is None or _short(self, page):
            return None
        return request.having(self.param, offset + page.count)

    def requests(self, request: Request, page: Page) -> Iterator[Request]:
        """See `Numbered.requests`."""
        start = _number(request, self.param) + self.size
        offsets = (
            count(start, self.size) if self.total is None else range(start, _whole(page.answer, self.total), self.size)
        )
        return (request.having(self.param, offset) for offset in offsets)


class _Sized(Protocol):
    @property
    def size(self) -> int | None: ...
    @property
    def size_param(self) -> str | None: ...
    @property
    def short_is_last(self) -> bool: ...


def _check_size(paginator: _Sized, total: str | None = None) -> None:
    if paginator.size is not None and paginator.size < 1:
        raise ConfigError(f"{paginator}: a page has at least one record.")
    for needs, what in ((paginator.size_param, "size_param"), (paginator.short_is_last, "short_is_last")):
        if needs and paginator.size is None:
            raise ConfigError(f"{paginator}: {what} needs a size.")
    if total is not None and paginator.size is None:
        raise ConfigError(f"{paginator}: a total tells the last page only where every page has the same size=….")


def _sized(paginator: _Sized, request: Request) -> Request:
    if paginator.size is None or paginator.size_param is None:
        return request
    return request.having(paginator.size_param, paginator.size)


def _short(paginator: _Sized, page: Page) -> bool:
    return paginator.short_is_last and page.count < (paginator.size or 0)


def _all_read(page: Page, total: str, before: int, least: int) -> bool:
    """Whether the records before `page` and its own are all there are.

    Raises:
        SourceUnavailable: the page has fewer than `least`, or than what is left: they moved while they were read, or
            the API caps its pages.
    """
    there = _whole(page.answer, total)
    left = there - before
    if page.count < min(least, left):
        raise SourceUnavailable(
            f"{shown(page.answer.url)} says {total}={there:,} and brought {page.count:,} records where at least "
            f"{min(least, left):,} were left. Either records went while they were read, and another attempt is right, "
            "or the API gives fewer to a page than it is asked for: then declare a smaller size=…."
        )
    return page.count >= left


def _number(request: Request, place: str) -> int:
    value = request.value(place)
    assert value is not None, "the first request has it"
    return int(value)


def _whole(answer: Answer, path: str) -> int:
    value = answer.at(path)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SourceError(f"{shown(answer.url)} says {described(value)} in {path!r}, where a count is expected.")
    return value
