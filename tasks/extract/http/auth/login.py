"""`JwtLogin`: a token in exchange for credentials, as APIs grant it that have a login and no OAuth."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

from tasks.errors import SourceError
from tasks.extract.http.answers import Answer, described, shown
from tasks.extract.http.auth.credentials import text_of
from tasks.extract.http.auth.token_endpoint import Asking, ask, token_request
from tasks.extract.http.auth.tokens import AccessToken, TokenAuth
from tasks.extract.http.pace.retry import http_date
from tasks.secret import Secret


@dataclass(frozen=True)
class JwtLogin(TokenAuth):
    """POST credentials as JSON, and send the token that comes back.

    Attributes:
        url: the login; `/path` for one at the API's own origin.
        body: what is sent, with a `Secret` in the place of each secret value, as in
            `{"user": "etl", "password": Secret("crm")}`.
        token: dotted path of the token in the answer.
        lifetime: how long a token is good for; None reads the `exp` claim of a JWT (RFC 7519, 4.1.4), and one without
            is used until the API answers 401.
        scheme: the word before the token; "" sends it alone.
        header: which takes it.

    Raises:
        ConfigError: a login URL that is none, or a negative `ahead`.
    """

    url: str
    body: Mapping[str, Any] = field(repr=False, hash=False)
    token: str = "token"
    lifetime: timedelta | None = None
    scheme: str = "Bearer"
    header: str = "Authorization"

    @property
    def _endpoint(self) -> str:
        return self.url

    @property
    def _header(self) -> tuple[str, str]:
        return self.header, self.scheme

    def _granted(self, url: httpx.URL, asked: httpx.Request, rejected: AccessToken | None) -> Asking[AccessToken]:
        names = " and ".join(secret.places for secret in _secrets(self.body))
        remedy = f"Check body=…{f', and the secret from {names}' if names else ''}."
        start = self.clock()
        answer = yield from ask(token_request(url, asked, json=text_of(self.body)), start, {"": remedy})
        value = answer.at(self.token, None)
        if not isinstance(value, str) or not value:
            raise SourceError(
                f"The login {shown(url)} grants no token at the path {self.token!r}; it answered "
                f"{described(answer.body)}. Correct the path in the declaration."
            )
        lifetime = _lifetime(value, answer, start) if self.lifetime is None else self.lifetime
        return AccessToken(value, None if lifetime is None else start + lifetime, start)


def _secrets(body: Any) -> list[Secret]:
    """Every `Secret` in a body."""
    if isinstance(body, Mapping):
        return [secret for item in body.values() for secret in _secrets(item)]
    if isinstance(body, list):
        return [secret for item in body for secret in _secrets(item)]
    return [body] if isinstance(body, Secret) else []


def _lifetime(token: str, answer: Answer, now: datetime) -> timedelta | None:
    """How long a JWT is good for, or None where it does not say.

    Read, not verified: that is for the API, whose key we do not have. Counted from the response's own `Date`, so that
    the two clocks need not agree.
    """
    try:
        payload = token.split(".")[1]
        expires = float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
        told_at = http_date(answer.headers.get("date", "")) or now
        return timedelta(seconds=max(0.0, expires - told_at.timestamp()))
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return None
