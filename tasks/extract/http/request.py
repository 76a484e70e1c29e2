"""`Request`: one question to an API, as a value that can be changed, compared and kept."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import httpx

from tasks.errors import ConfigError, is_secret

Value = str | int | float | bool
Params = Mapping[str, Value | Sequence[str]]
"""Query parameters, as httpx encodes them."""

_IN_BODY = "$."


@dataclass(frozen=True, slots=True)
class Request:
    """One request; with a body it is a POST of JSON, else a GET.

    Attributes:
        url: absolute.
        body: JSON object, or None.
        headers: sent besides the client's own.
    """

    url: httpx.URL
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def method(self) -> str:
        """`GET` or `POST`."""
        return "GET" if self.body is None else "POST"

    @property
    def identity(self) -> bytes:
        """A fingerprint of method, URL and body: two requests with the same one ask for the same."""
        asked = f"{self.method} {self.url} {json.dumps(self.body, sort_keys=True)}"
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).digest()

    def having(self, place: str, value: Value) -> Self:
        """This request with a parameter: `name` is one of the query, `$.a.b` a field of the body, made if need be.

        Raises:
            ConfigError: a place in the body of a request that has none, or below something that is no object.
        """
        if not place.startswith(_IN_BODY):
            return replace(self, url=self.url.copy_set_param(place, value))
        if self.body is None:
            raise ConfigError(f"{place!r} is a place in the body, and this request has none. Declare body={{}}.")
        body = node = copy.deepcopy(dict(self.body))
        *steps, last = place.removeprefix(_IN_BODY).split(".")
        for step in steps:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{place!r} leads through {step!r}, which is no object in body={{…}}.")
        node[last] = value
        return replace(self, body=body)

    def value(self, place: str) -> Any:
        """The parameter at `place`, or None where there is none."""
        if not place.startswith(_IN_BODY):
            return self.url.params.get(place)
        node: Any = self.body
        for step in place.removeprefix(_IN_BODY).split("."):
            node = node.get(step) if isinstance(node, dict) else None
        return node

    def kept(self) -> dict[str, Any]:
        """This request as JSON, to ask it again in another run; secrets that a source's link repeats are left out."""
        params = [(name, value) for name, value in self.url.params.multi_items() if not is_secret(value)]
        url = self.url.copy_with(userinfo=b"")
        if len(params) < len(url.params.multi_items()):
            url = url.copy_with(params=params)
        return {"url": str(url), "body": self.body}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Self:
        """What `kept` made."""
        return cls(httpx.URL(kept["url"]), kept["body"])
