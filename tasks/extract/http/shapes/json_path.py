"""`JsonPath`: records by a query (RFC 9535), which takes the whole document at once."""

from decimal import Decimal
from functools import lru_cache

from jsonpath import JSONPath, JSONPathEnvironment, NodeList
from jsonpath.exceptions import JSONPathError

from tasks.errors import ConfigError, SourceError
from tasks.extract.http.answers import Answer, described, shown

ROOT = "$"
"""What a query begins with."""


class JsonPath:
    """A query. Where it can find one node at most, as `$.data.rows`, that is the list; otherwise each node is a record.

    Args:
        query: its text.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, query: str) -> None:
        self._text = query
        self._query, self._trunk = _compiled(query)

    def records(self, answer: Answer) -> object:
        """What the query finds in the body, a list unless it is about one node that is something else.

        Raises:
            SourceError: it leads nowhere. Where it may find any number of nodes, none is an empty page, but what it
                names before a wildcard, a filter or the like has to be there.
        """
        body = answer.body
        if not isinstance(body, dict | list):
            raise SourceError(
                f"The answer of {shown(answer.url)} is {described(body)}, so {self._text!r} finds nothing."
            )
        try:
            if not self._trunk.findall(body):
                raise SourceError(
                    f"The answer of {shown(answer.url)} has no {str(self._trunk)!r}; it is {described(body)}. Correct "
                    "records=…."
                )
            found = self._query.findall(body)
        except JSONPathError as error:
            raise SourceError(f"{self._text!r} cannot be evaluated on {shown(answer.url)}: {error}") from error
        return found[0] if self._query.singular_query() else found


class _Exact(JSONPathEnvironment):
    """Compares decimals with the digits that the query has, not with the float next to them."""

    def compare(self, left: object, operator: str, right: object) -> bool:
        """See there."""
        return super().compare(_decimal(left), operator, _decimal(right))


_ENVIRONMENT = _Exact(strict=True)


def _decimal(value: object) -> object:
    one = value[0] if isinstance(value, NodeList) and len(value) == 1 else value
    return Decimal(repr(one)) if isinstance(one, float) else value


@lru_cache(maxsize=256)
def _compiled(text: str) -> tuple[JSONPath, JSONPath]:
    """The query, and the longest beginning of it that is about one node."""
    try:
        query = _ENVIRONMENT.compile(text)
    except JSONPathError as error:
        raise ConfigError(f"records={text!r} is no JSONPath (RFC 9535): {error}") from error
    assert isinstance(query, JSONPath), "others are not in the RFC"
    length = len(query.segments)
    while not (trunk := JSONPath(env=_ENVIRONMENT, segments=query.segments[:length])).singular_query():
        length -= 1
    return query, trunk
