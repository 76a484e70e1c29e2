"""`walk`: every page of an answer that comes in pages, one after the other or several at once."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.errors import SourceError
from tasks.extract.http.answers import NOT_MODIFIED, shown
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pages.numbered import Numbered
from tasks.extract.http.pages.page import Page
from tasks.extract.http.pages.paginators import Paginator
from tasks.extract.http.parallel import Stream, in_order
from tasks.extract.http.request import Request
from tasks.extract.http.shapes.shape import Shape


@dataclass(frozen=True, slots=True)
class Visit:
    """A page, and how it was come by.

    Attributes:
        request: what brought it.
        page: what came.
        paginator: leads on.
    """

    request: Request
    page: Page
    paginator: Paginator

    def following(self) -> Request | None:
        """See `Paginator.following`."""
        return self.paginator.following(self.request, self.page)


@dataclass(frozen=True, slots=True)
class Walk:
    """How an API is walked through.

    Attributes:
        client: bound to the only origin that is asked.
        shape: the form of the answers.
        paginator: leads from page to page.
        at_once: how many pages of a `Numbered` strategy are asked for at the same time.
    """

    client: HttpClient
    shape: Shape
    paginator: Paginator
    at_once: int = 1

    def visits(self, start: Request) -> Iterator[Visit]:
        """Every page from the one that `start` asks for on, in order; one at a time only when it is asked for.

        Raises:
            SourceUnavailable: a page could not be had.
            SourceError: the source refused, sends the walk in a circle, or leaves gaps between pages.
        """
        several = self.at_once > 1 and isinstance(self.paginator, Numbered)
        before: Visit | None = None
        for visit in self._several(start) if several else self._in_turn(start):
            if before is not None:
                self._check(before, visit)
            yield visit
            before = visit

    def visit(self, request: Request) -> Visit:
        """The page that `request` asks for."""
        return Visit(request, self.shape.page(self.client.fetch(request, self.shape)), self.paginator)

    def visit_if_changed(self, request: Request) -> Visit | None:
        """The page that a conditional `request` asks for; None where it is the one that its headers name."""
        answer = self.client.fetch(request, self.shape)
        return None if answer.status == NOT_MODIFIED else Visit(request, self.shape.page(answer), self.paginator)

    def _in_turn(self, start: Request) -> Iterator[Visit]:
        # Fingerprints instead of requests: a walk of a million pages remembers some megabytes.
        seen: set[bytes] = set()
        request: Request | None = start
        while request is not None:
            if request.identity in seen:
                raise SourceError(
                    f"The pages run in a circle: {shown(request.url)} follows for the second time, after {len(seen)} "
                    "pages. Check that the API honours the paging parameters, and that the paginator fits it."
                )
            seen.add(request.identity)
            visit = self.visit(request)
            yield visit
            request = visit.following()

    def _several(self, start: Request) -> Iterator[Visit]:
        assert isinstance(self.paginator, Numbered), "only those can be asked for without the page before"
        # The first alone: it may tell how many there are, and then none is asked for in vain.
        last = self.visit(start)
        yield last
        if last.following() is None:
            return
        rest = self.paginator.requests(start, last.page)
        for visit in in_order(map(self._stream, rest), self.at_once):
            yield visit
            last = visit
            if visit.following() is None:
                return
        # More have come since the first page told how many there are.
        following = last.following()
        if following is not None:
            yield from self._in_turn(following)

    def _stream(self, request: Request) -> Stream[Visit]:
        return lambda: iter([self.visit(request)])

    def _check(self, before: Visit, visit: Visit) -> None:
        """Refuse what shows that pages do not follow each other."""
        if not visit.page.count:
            return
        if visit.page.fingerprint == before.page.fingerprint:
            raise SourceError(
                f"{shown(visit.request.url)} brought the very records of the page before it. Check that the API "
                "honours the paging parameters, and that the paginator fits it."
            )
        step = self.paginator.step if self.at_once > 1 and isinstance(self.paginator, Numbered) else None
        if step is not None and before.page.count < step:
            raise SourceError(
                f"{shown(before.request.url)} brought {before.page.count:,} records where {step:,} were asked for, and "
                "more come after it, so that some in between are missing. Declare the size that the API allows."
            )
