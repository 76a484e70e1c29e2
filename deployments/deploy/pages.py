"""Everything that a list of the server's holds, page by page."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Thing = TypeVar("Thing")

_PAGE = 200
"""The most that the server gives at once."""


def everything(read: Callable[..., list[Thing]], **filters: Any) -> Iterator[Thing]:
    """Each thing that `read`, a method of the client with `limit` and `offset`, gives."""
    offset = 0
    while True:
        page = read(limit=_PAGE, offset=offset, **filters)
        yield from page
        if len(page) < _PAGE:
            return
        offset += _PAGE
