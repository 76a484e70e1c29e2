"""`Answer`: what a source says, and how it reads in a message."""

import json
import re
from dataclasses import dataclass
from datetime import timedelta

import httpx

from tasks.errors import SourceError, redact
from tasks.extract.http.pace.retry import http_date
from tasks.extract.http.shapes.records import Records

NOT_MODIFIED = 304

_EXCERPT = 500
_PROVEN_AFTER = timedelta(minutes=1)

_TELLING_PARAMETER = re.compile(
    r"(?i)token|secret|passw|pwd|credential|signature|auth(?!or)|(api|access)[_-]?key|^key$|^sig$"
)
_MISSING = object()


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What a source answered.

    Attributes:
        url: where the answer came from, after redirects.
        headers: the response's headers.
        body: the parsed JSON, or what is around the records, in whose place is an empty list; None of a 304, and of a
            form that knows nothing but records.
        status: 200, or 304 to a conditional request.
        records: those that were found where the body was read; None leaves them to be found in `body`.
    """

    url: httpx.URL
    headers: httpx.Headers
    body: object
    status: int = 200
    records: Records | None = None

    def at(self, path: str, missing: object = _MISSING) -> object:
        """The value at a dotted `path` of the body, "" being the body itself.

        A step is a key, or an index into a list. A key that holds dots itself, as `@odata.nextLink`, can be the last.

        Args:
            path: the way into the body.
            missing: what to return where the path leads nowhere.

        Raises:
            SourceError: the path leads nowhere, and `missing` was not given.
        """
        node, rest = self.body, path
        while rest:
            if isinstance(node, dict) and rest in node:
                return node[rest]
            step, _, rest = rest.partition(".")
            if isinstance(node, dict) and step in node:
                node = node[step]
            elif isinstance(node, list) and re.fullmatch(r"-?\d+", step) and -len(node) <= int(step) < len(node):
                node = node[int(step)]
            elif missing is not _MISSING:
                return missing
            else:
                raise SourceError(
                    f"The answer of {shown(self.url)} has no {path!r}: where {step!r} should be there is "
                    f"{described(node)}. Correct the path in the declaration."
                )
        return node

    def validators(self) -> dict[str, str]:
        """By what to ask whether this answer has changed: `etag` and `last_modified`, as far as they prove it.

        A time in whole seconds proves nothing of a second that had not passed; RFC 9110, 8.8.2.2, asks for that, and
        here for a minute, since clocks behind a load balancer differ.
        """
        found = {}
        if "etag" in self.headers:
            found["etag"] = self.headers["etag"]
        modified, sent = http_date(self.headers.get("last-modified", "")), http_date(self.headers.get("date", ""))
        if modified is not None and sent is not None and sent - modified >= _PROVEN_AFTER:
            found["last_modified"] = self.headers["last-modified"]
        return found

    def __repr__(self) -> str:
        return f"Answer({shown(self.url)!r})"


class Refused(SourceError):
    """An answer that would come again.

    Attributes:
        status: of the answer.
        asked: method and URL of the request, as `shown`.
    """

    def __init__(self, message: str, status: int = 0, asked: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.asked = asked


def shown(url: httpx.URL) -> str:
    """`url` for a message: without its user, and with the values of telling query parameters masked."""
    url = url.copy_with(userinfo=b"", fragment=None)
    query = url.query.decode("ascii").split("&")
    for number, pair in enumerate(query):
        name, equals, _ = pair.partition("=")
        if equals and _TELLING_PARAMETER.search(name):
            query[number] = f"{name}=***"
    head, question, _ = str(url).partition("?")
    return redact(head + question + "&".join(query))


def described(node: object) -> str:
    """What kind of JSON value this is, for a message, without its content."""
    if isinstance(node, dict):
        return f"an object with the keys {', '.join(map(repr, list(node)[:20]))}" if node else "an empty object"
    if isinstance(node, list):
        return f"a list of {len(node)}"
    if node is None or isinstance(node, bool):
        return str(json.dumps(node))
    return "a text" if isinstance(node, str) else "a number"


def masked(text: str, url: httpx.URL) -> str:
    """The start of a body from `url`. Masked before it is cut: half a secret would not be recognised."""
    text = text[: 10 * _EXCERPT]
    for name, value in url.params.multi_items():
        if len(value) >= 4 and _TELLING_PARAMETER.search(name):
            text = text.replace(value, "***")
    return redact(text)[:_EXCERPT]
