"""`TokenAuth`: what all authentication by access token has in common.

A token is fetched when it is first needed, kept for this process, replaced ahead of its expiry, by one thread while the
others wait, and once more when the API does not accept it. The request for it goes through the API's own client, with
its time-outs, and its retries: a token endpoint that is down fails the attempt, and the next one asks it again.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from tasks.errors import ConfigError, SourceError
from tasks.extract.http.auth.credentials import AuthFlow, set_header
from tasks.extract.http.auth.token_endpoint import Asking, check_endpoint
from tasks.secret import remember_forms

_UNAUTHORIZED = 401


@dataclass(frozen=True)
class AccessToken:
    """A token and its time.

    Attributes:
        value: as it is sent; masked from the moment that this object exists.
        expires: when the source stops to accept it (UTC), by this machine's clock; None where it does not say.
        asked: when it was asked for (UTC).
    """

    value: str = field(repr=False)
    expires: datetime | None
    asked: datetime

    def __post_init__(self) -> None:
        remember_forms(self.value)

    def fresh(self, now: datetime, ahead: timedelta) -> bool:
        """Whether it can be used at `now`; one that lives shorter than twice `ahead` is used for half its life."""
        if self.expires is None:
            return True
        return now < self.expires - min(ahead, (self.expires - self.asked) / 2)


class TokenCell:
    """The access token of one declaration and endpoint in this process, and who fetches the next one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.token: AccessToken | None = None
        self.refusals = 0
        self.refusal = ""


class TokenCells:
    """A `TokenCell` for each token endpoint: a path stands for another one with every API.

    A copy, pickled or not, starts empty: no token travels with a declaration.
    """

    def __init__(self) -> None:
        self._cells: dict[str, TokenCell] = {}

    def at(self, url: httpx.URL) -> TokenCell:
        """The cell of `url`."""
        return self._cells.setdefault(str(url), TokenCell())

    def __reduce__(self) -> tuple[type["TokenCells"], tuple[()]]:
        return TokenCells, ()


def now() -> datetime:
    """This machine's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class TokenAuth(httpx.Auth, ABC):
    """Authentication by an access token, which `_granted` gets.

    Attributes:
        ahead: how long before its expiry a token is replaced, so that none expires on its way.
        clock: this machine's time, aware.
    """

    ahead: timedelta = timedelta(seconds=60)
    clock: Callable[[], datetime] = field(default=now, repr=False, compare=False)
    _cells: TokenCells = field(default_factory=TokenCells, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_endpoint(self._endpoint)
        if self.ahead < timedelta(0):
            raise ConfigError(f"ahead={self.ahead!r} would use tokens that have expired. It is not negative.")

    @property
    @abstractmethod
    def _endpoint(self) -> str:
        """The URL that grants tokens, or its path at the API's origin."""

    @property
    def _header(self) -> tuple[str, str]:
        """The header that takes the token, and the scheme before it."""
        return "Authorization", "Bearer"

    @abstractmethod
    def _granted(self, url: httpx.URL, asked: httpx.Request, rejected: AccessToken | None) -> Asking[AccessToken]:
        """Ask for a token.

        Args:
            url: where to.
            asked: the API's request; only its time-outs and its User-Agent may be taken from it.
            rejected: a token that the API does not accept.
        """

    def auth_flow(self, request: httpx.Request) -> AuthFlow:
        """See `httpx.Auth.auth_flow`.

        Raises:
            Broken: the token endpoint may answer next time.
            SourceError: it refused.
            SourceUnavailable: the Prefect server, where a secret is looked up, does not answer.
            ConfigError: a secret is not to be found.
        """
        url = request.url.join(self._endpoint)
        token = yield from self._current(url, request, None)
        self._apply(request, token)
        response = yield request
        if response.status_code == _UNAUTHORIZED:
            # Revoked, or expired before its time. Once: what comes back then is the source's last word.
            self._apply(request, (yield from self._current(url, request, token)))
            yield request

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """See `httpx.Auth.sync_auth_flow`; closing this one closes `auth_flow`, and lets go of its locks, at once."""
        yield from self.auth_flow(request)

    def _current(self, url: httpx.URL, request: httpx.Request, rejected: AccessToken | None) -> Asking[AccessToken]:
        """A token that is not about to expire, and not `rejected`."""
        cell = self._cells.at(url)
        refusals = cell.refusals
        # Without the lock where none has to be fetched, so that a slow refresh of another thread holds nobody up.
        if (token := self._usable(cell.token, rejected)) is not None:
            return token
        with cell.lock:
            if (token := self._usable(cell.token, rejected)) is not None:
                return token
            if cell.refusals != refusals:
                # Refused while this thread waited: asking again would only be counted as one more wrong password.
                raise SourceError(cell.refusal)
            try:
                cell.token = token = yield from self._granted(url, request, rejected)
            except SourceError as error:
                cell.refusal = str(error)
                cell.refusals += 1
                raise
            return token

    def _usable(self, token: AccessToken | None, rejected: AccessToken | None) -> AccessToken | None:
        """`token`, if it can be sent."""
        if token is None or (rejected is not None and token.value == rejected.value):
            return None
        return token if token.fresh(self.clock(), self.ahead) else None

    def _apply(self, request: httpx.Request, token: AccessToken) -> None:
        header, scheme = self._header
        value = f"{scheme} {token.value}" if scheme else token.value
        set_header(request, header, value, f"the token of {self._endpoint!r}")
