"""`ClientCredentials` and `RefreshToken`: OAuth 2.0 (RFC 6749), as `httpx.Auth`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

import httpx

from tasks.errors import SourceError
from tasks.extract.http.answers import Answer, described, shown
from tasks.extract.http.auth.credentials import basic, text_of
from tasks.extract.http.auth.token_endpoint import Asking, TokenRefused, ask, token_request
from tasks.extract.http.auth.tokens import AccessToken, TokenAuth
from tasks.kept import KeptFile
from tasks.secret import Secret, digest, has_digest


@dataclass(frozen=True)
class ClientCredentials(TokenAuth):
    """The client's own access token (RFC 6749, 4.4).

    Attributes:
        token_url: the token endpoint; `/path` for one at the API's own origin. It may be at another one, and then sees
            nothing of the API's requests.
        client_id: a text, or a secret.
        client_secret: what goes with it.
        scope: asked for, names with blanks between them; "" leaves it to the server.
        audience: the API that the token is for, where the server wants to know.
        in_body: send the client's credentials in the form, for a server that does not take HTTP Basic (2.3.1).

    Raises:
        ConfigError: a token endpoint that is none, or a negative `ahead`.
    """

    token_url: str
    client_id: str | Secret
    client_secret: Secret
    scope: str = ""
    audience: str = ""
    in_body: bool = False

    @property
    def _endpoint(self) -> str:
        return self.token_url

    def _granted(self, url: httpx.URL, asked: httpx.Request, rejected: AccessToken | None) -> Asking[AccessToken]:
        form = {"grant_type": "client_credentials", "scope": self.scope, "audience": self.audience}
        start = self.clock()
        client = _Client(self.client_id, self.client_secret, self.in_body)
        answer = yield from ask(client.request(url, asked, form), start, client.remedies)
        return _access_token(answer, start)


@dataclass(frozen=True)
class RefreshToken(TokenAuth):
    """An access token for a user who has once said yes (RFC 6749, 6).

    Where the server replaces the refresh token with each use, the new one is stored before the new access token is
    used, and processes on this machine take turns and share the access token, since such a server may revoke the one
    before. A process on another machine that has refreshed in the meantime is noticed if both read a Prefect block.

    Attributes:
        token_url: the token endpoint; `/path` for one at the API's own origin. It may be at another one, and then sees
            nothing of the API's requests.
        client_id: a text, or a secret.
        refresh_token: the token that a person was given; see `tasks.secret` for where its successors go.
        client_secret: of a confidential client; None for a public one.
        scope: asked for; "" asks for what was granted.
        in_body: send the client's credentials in the form, for a server that does not take HTTP Basic (2.3.1).

    Raises:
        ConfigError: a token endpoint that is none, or a negative `ahead`.
    """

    token_url: str
    client_id: str | Secret
    refresh_token: Secret
    client_secret: Secret | None = None
    scope: str = ""
    in_body: bool = False

    @property
    def _endpoint(self) -> str:
        return self.token_url

    def _granted(self, url: httpx.URL, asked: httpx.Request, rejected: AccessToken | None) -> Asking[AccessToken]:
        with self.refresh_token.locked():
            # Not from memory: another process may have replaced it since.
            current = self.refresh_token.value(fresh=True)
            shared = self._usable(self._shared(url).read(current), rejected)
            if shared is not None:
                return shared
            start = self.clock()
            try:
                answer = yield from self._ask(url, asked, current, start)
            except TokenRefused as refused:
                if refused.code != "invalid_grant":
                    raise
                # Spent, perhaps by another machine, which may have stored the next one by now.
                spent, current = current, self.refresh_token.value(fresh=True)
                if current == spent:
                    raise
                answer = yield from self._ask(url, asked, current, start)
            # First of all: whatever becomes of this run, the old one is spent and this one cannot be had again.
            successor = answer.at("refresh_token", None)
            if isinstance(successor, str) and successor not in ("", current):
                self.refresh_token.store(successor)
                current = successor
            token = _access_token(answer, start)
            self._shared(url).write(token, current)
            return token

    def _ask(self, url: httpx.URL, asked: httpx.Request, refresh_token: str, start: datetime) -> Asking[Answer]:
        client = _Client(self.client_id, self.client_secret, self.in_body)
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "scope": self.scope}
        remedies = {
            **client.remedies,
            "invalid_grant": (
                f"The refresh token {self.refresh_token.name!r} has been used before, has expired or was revoked. Let "
                f"the user grant access again, and put the new refresh token into {self.refresh_token.places}."
            ),
        }
        return (yield from ask(client.request(url, asked, form), start, remedies))

    def _shared(self, url: httpx.URL) -> "_SharedToken":
        asked = "\n".join((str(url), text_of(self.client_id), self.scope))
        name = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return _SharedToken(KeptFile(f"{self.refresh_token.block}.{name}"))


@dataclass(frozen=True)
class _SharedToken:
    """The access token that processes of this machine share, for as long as its refresh token is the current one."""

    file: KeptFile

    def read(self, refresh_token: str) -> AccessToken | None:
        kept = self.file.read()
        if kept is None or not has_digest(refresh_token, kept["of"]):
            return None
        expires = kept["expires"]
        return AccessToken(
            kept["token"], datetime.fromisoformat(expires) if expires else None, datetime.fromisoformat(kept["asked"])
        )

    def write(self, token: AccessToken, refresh_token: str) -> None:
        expires = token.expires.isoformat() if token.expires else None
        self.file.write(
            {"token": token.value, "expires": expires, "asked": token.asked.isoformat(), "of": digest(refresh_token)}
        )


@dataclass(frozen=True)
class _Client:
    """How the client says who it is (RFC 6749, 2.3.1)."""

    id: str | Secret
    secret: Secret | None
    in_body: bool

    def request(self, url: httpx.URL, asked: httpx.Request, form: Mapping[str, str]) -> httpx.Request:
        sent = {name: value for name, value in form.items() if value}
        client_id = text_of(self.id)
        authorization = None
        if self.secret is None:
            sent["client_id"] = client_id
        elif self.in_body:
            sent |= {"client_id": client_id, "client_secret": self.secret.value()}
        else:
            # Both are form-encoded first, so that a colon in the id separates nothing.
            authorization = basic(quote_plus(client_id), quote_plus(self.secret.value()))
        return token_request(url, asked, form=sent, authorization=authorization)

    @property
    def remedies(self) -> dict[str, str]:
        """What to do about each error code."""
        check = "Check client_id"
        if self.secret is not None:
            check += f" and the secret {self.secret.name!r}, which comes from {self.secret.places}"
            if not self.in_body:
                check += "; some servers want them in the body (in_body=True)"
        return {
            "": f"{check}, and the token URL.",
            "invalid_client": f"{check}.",
            "invalid_scope": "Check scope=….",
            "invalid_target": "Check audience=….",
            "unauthorized_client": "Have the server allow this client this grant type.",
            "unsupported_grant_type": "The server does not know this grant type; take another kind of authentication.",
        }


def _access_token(answer: Answer, asked: datetime) -> AccessToken:
    """The access token of a successful answer (RFC 6749, 5.1).

    Raises:
        SourceError: there is none, or one of a type that we cannot use.
    """
    endpoint = shown(answer.url)
    value = answer.at("access_token", None)
    if not isinstance(value, str) or not value:
        raise SourceError(
            f"The token endpoint {endpoint} granted no access_token, but answered {described(answer.body)}. Check that "
            "the URL is that of an OAuth 2.0 token endpoint."
        )
    kind = answer.at("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise SourceError(f"The token endpoint {endpoint} granted a token of another type than Bearer, unknown here.")
    seconds = _seconds(answer.at("expires_in", None))
    return AccessToken(value, None if seconds is None else asked + seconds, asked)


def _seconds(told: Any) -> timedelta | None:
    """A lifetime; some servers write the number as a text. None where there is none: the token's end is a 401."""
    try:
        return timedelta(seconds=max(0.0, float(told)))
    except (TypeError, ValueError, OverflowError):
        return None
