"""The token endpoint: the one request that carries a secret to another place than the API, and its answer.

Nothing of an answer's body is ever quoted but an OAuth error code: what is in it are tokens.
"""

import re
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any, TypeVar

import httpx

from tasks.errors import ConfigError, SourceError
from tasks.extract.http.answers import Answer, shown
from tasks.extract.http.pace.retry import RETRIED, Broken, retry_after
from tasks.extract.http.shapes.bodies import Body
from tasks.extract.http.shapes.json_text import whole
from tasks.secret import remember_forms

_T = TypeVar("_T")
Asking = Generator[httpx.Request, httpx.Response, _T]
"""Yields requests, is sent their responses, and returns something."""

_TOKENS = ("access_token", "refresh_token", "id_token")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")


class TokenRefused(SourceError):
    """A token endpoint that would answer so again; `code` is the OAuth error code (RFC 6749, 5.2), or ""."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def check_endpoint(text: str) -> None:
    """Check the URL of a token endpoint; one that begins with `/` is a path at the API's origin.

    Raises:
        ConfigError: it is none.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    absolute = url.scheme in ("http", "https") and url.host and not url.userinfo
    if url.fragment or not (absolute or (text.startswith("/") and not text.startswith("//"))):
        raise ConfigError(
            "The URL of a token endpoint is not one. Write it as https://host/path, without user and password, or as "
            "/path for one at the API's own origin."
        )


def token_request(
    url: httpx.URL,
    asked: httpx.Request,
    *,
    form: Mapping[str, str] | None = None,
    json: Any = None,
    authorization: str | None = None,
) -> httpx.Request:
    """A POST to a token endpoint.

    Args:
        url: where to.
        asked: the API's request. Its credentials stay out; without its time-outs, this one would wait for ever.
        form: the body as a form, or
        json: as JSON.
        authorization: the client's credentials.
    """
    headers = {"Accept": "application/json"}
    if "user-agent" in asked.headers:
        headers["User-Agent"] = asked.headers["user-agent"]
    if authorization is not None:
        headers["Authorization"] = authorization
    extensions = {name: value for name, value in asked.extensions.items() if name == "timeout"}
    return httpx.Request("POST", url, data=form, json=json, headers=headers, extensions=extensions)


def ask(request: httpx.Request, now: datetime, remedy: Mapping[str, str]) -> Asking[Answer]:
    """Send a token request.

    Args:
        request: to the endpoint.
        now: this machine's time, aware.
        remedy: what to do about each OAuth error code; "" about any other refusal.

    Raises:
        Broken: 408, 425, 429, 5xx, or an answer that breaks off: the client's retry is to send everything again.
        TokenRefused: any other answer that grants nothing.
    """
    response = yield request
    response.read()
    endpoint, status = shown(request.url), response.status_code
    summary = f"{status} {response.reason_phrase}".strip()
    if status in RETRIED or status >= 500:
        raise Broken(f"{summary} of the token endpoint {endpoint}", retry_after(response.headers, now))
    if 300 <= status < 400:
        raise TokenRefused(
            f"The token endpoint {endpoint} answered {summary}: not followed, since the credentials would go along. "
            f"If it has moved to {_target(response)}, declare that URL."
        )
    body = _json(response, endpoint)
    if isinstance(body, dict):
        for token in map(body.get, _TOKENS):
            if isinstance(token, str):
                remember_forms(token)
    code = body.get("error") if isinstance(body, dict) else None
    # Some answer 200 to a refusal.
    if not response.is_success or (isinstance(code, str) and code):
        code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
        what = f"{summary}, {code}" if code else summary
        raise TokenRefused(
            f"The token endpoint {endpoint} refused: {what}. {remedy.get(code) or remedy['']}".rstrip(), code
        )
    if body is None:
        kind = response.headers.get("content-type", "no content type")
        raise TokenRefused(
            f"The token endpoint {endpoint} answered {summary}, but its body ({kind}) is not JSON. Check that the URL "
            "is that of the token endpoint, and not of a page."
        )
    return Answer(request.url, response.headers, body, status)


def _json(response: httpx.Response, endpoint: str) -> object:
    """The body, or None where it is no JSON."""
    try:
        return whole(Body.of(response.content, encoding=response.encoding or "utf-8"), "float")
    except Broken as broken:
        if not response.is_success:
            return None
        raise Broken(f"{broken}, of the token endpoint {endpoint}") from None
    except SourceError:
        # It quotes the body.
        return None


def _target(response: httpx.Response) -> str:
    try:
        return shown(response.url.join(response.headers.get("location", "")))
    except httpx.InvalidURL:
        return "another place"
