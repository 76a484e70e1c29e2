"""`walk`: every page of an answer that comes in pages."""

from collections.abc import Iterator

from tasks.errors import SourceError
from tasks.extract.http.answers import shown
from tasks.extract.http.client import HttpClient
from tasks.extract.http.page import Page
from tasks.extract.http.paginators import Paginator
from tasks.extract.http.request import Request
from tasks.extract.http.shapes import Shape


def walk(client: HttpClient, first: Request, shape: Shape, paginator: Paginator) -> Iterator[Page]:
    """Every page from `first` on, requested one at a time when it is asked for.

    Args:
        client: bound to the only origin that is asked.
        first: the request to start with.
        shape: the form of the answers.
        paginator: leads from page to page.

    Raises:
        SourceUnavailable: a page could not be had.
        SourceError: the source refused, or sends the walk in a circle.
    """
    # Fingerprints instead of requests: a walk of a million pages remembers some megabytes.
    seen: set[str] = set()
    request: Request | None = paginator.first(first)
    while request is not None:
        if request.identity in seen:
            raise SourceError(
                f"The pages run in a circle: {shown(request.url)} follows for the second time, after {len(seen)} "
                "pages. Check that the API honours the paging parameters, and that the paginator fits it."
            )
        seen.add(request.identity)
        page = shape.page(client.fetch(request))
        yield page
        request = paginator.following(request, page)
