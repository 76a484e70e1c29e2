"""`Bearer`, `ApiKey` and `Basic`: credentials that stay the same, as `httpx.Auth`.

Declare one in a module and give it to every extract of that API; runs and threads share it. It holds the names of
secrets, whose values are looked up with each request and never when the module is imported. `HttpClient` asks one
origin only, so that is all that ever sees them.
"""

import base64
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_plus

import httpx

from tasks.errors import ConfigError, remember_secret
from tasks.secret import Secret

DEFAULT_KEY_HEADER = "X-API-Key"

AuthFlow = Generator[httpx.Request, httpx.Response, None]


@dataclass(frozen=True)
class Bearer(httpx.Auth):
    """A token that does not expire, in the `Authorization` header (RFC 6750, 2.1).

    Attributes:
        token: what is sent.
        scheme: the word before it; some APIs say `Token` or `ApiKey`.
    """

    token: Secret
    scheme: str = "Bearer"

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        """See `httpx.Auth.auth_flow`.

        Raises:
            ConfigError: the token is not to be found, or cannot be sent.
        """
        set_header(request, "Authorization", f"{self.scheme} {self.token.value()}", self.token)
        yield request


@dataclass(frozen=True)
class ApiKey(httpx.Auth):
    """A key in a header, or in the query.

    Attributes:
        key: what is sent.
        header: which takes it; `X-API-Key` unless `query` is given.
        query: parameter that takes it instead, for an API that reads no header: URLs are written into logs all along
            the way. One of that name is replaced, so that a next link may repeat it.

    Raises:
        ConfigError: both a header and a parameter.
    """

    key: Secret
    header: str | None = None
    query: str | None = None

    def __post_init__(self) -> None:
        if self.header and self.query:
            raise ConfigError(f"{self}: an API key goes into a header or into the query. Leave one of them out.")

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        """See `httpx.Auth.auth_flow`.

        Raises:
            ConfigError: the key is not to be found, or cannot be sent.
        """
        if self.query:
            request.url = _with_parameter(request.url, self.query, self.key.value())
        else:
            set_header(request, self.header or DEFAULT_KEY_HEADER, self.key.value(), self.key)
        yield request


@dataclass(frozen=True)
class Basic(httpx.Auth):
    """User and password (RFC 7617).

    Attributes:
        user: holds no colon; a text, or a secret.
        password: what goes with it.
    """

    user: str | Secret
    password: Secret

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        """See `httpx.Auth.auth_flow`.

        Raises:
            ConfigError: a secret is not to be found, or there is a colon in the user.
        """
        user = text_of(self.user)
        if ":" in user:
            raise ConfigError(f"The user that goes with {self.password} holds a colon, where its password would begin.")
        request.headers["Authorization"] = basic(user, self.password.value())
        yield request


def basic(user: str, password: str) -> str:
    """The value of an `Authorization` header for `user` and `password`, in UTF-8; masked from now on."""
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    remember_secret(credentials)
    return f"Basic {credentials}"


def set_header(request: httpx.Request, name: str, value: str, source: object) -> None:
    """Put a secret into a header.

    Raises:
        ConfigError: it holds what no header can; the message names `source`, where it came from.
    """
    # Checked here, since what httpx says of it quotes the value.
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigError(
            f"What was found for {source} cannot be sent in the header {name}: it holds a line break, a blank at its "
            "end or a character outside ASCII. Check how it was copied."
        )
    request.headers[name] = value


def text_of(value: Any) -> Any:
    """`value` with every `Secret` in it replaced by its value, down through objects and lists.

    Raises:
        ConfigError: a secret is not to be found.
    """
    if isinstance(value, Secret):
        return value.value()
    if isinstance(value, Mapping):
        return {key: text_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [text_of(item) for item in value]
    return value


def _with_parameter(url: httpx.URL, name: str, value: str) -> httpx.URL:
    """`url` with that parameter; the rest of its query stays as it is written, byte for byte."""
    pairs = [pair for pair in url.query.decode("ascii").split("&") if pair]
    others = [pair for pair in pairs if unquote_plus(pair.partition("=")[0]) != name]
    return url.copy_with(query="&".join([*others, f"{quote(name)}={quote(value, safe='')}"]).encode("ascii"))
