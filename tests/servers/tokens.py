"""`TokenSite`: real authorisation servers on a free loopback port, and the APIs that they guard.

`/token` is django-oauth-toolkit: it rejects wrong secrets, and a refresh replaces the refresh token and revokes the
access token before. `/login` is simplejwt. `/items` and `/jwt-items` are three pages each, for a token of the one or of
the other.
"""

import json
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

_numbers = count(1)


class TokenSite:
    """The site, in a process of its own, while it is entered.

    Args:
        folder: for its database; exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def token_url(self) -> str:
        """The OAuth 2.0 token endpoint."""
        return f"{self.url}/token"

    def user(self, password: str) -> str:
        """A new user who can log in; returns the name."""
        name = f"user-{next(_numbers)}"
        self._do("user", username=name, password=password)
        return name

    def client(self, secret: str = "", user: bool = False) -> str:
        """A new client, a public one without a secret, for its own data or a user's; returns its id."""
        # With a colon, which separates nothing as long as both sides encode it.
        name = f"client:{next(_numbers)}"
        self._do("client", client_id=name, client_secret=secret, user=user)
        return name

    def grant(self, client: str) -> str:
        """Have a user grant `client` access, as in a browser; returns the first refresh token."""
        token = f"first-refresh-token-{next(_numbers)}"
        self._do("grant", client_id=client, token=token)
        return token

    def expire(self, client: str) -> None:
        """Have the server take back every access token of `client`, before its time."""
        self._do("expire", client_id=client)

    def live_refresh_tokens(self, client: str) -> list[str]:
        """The refresh tokens of `client` that would be accepted."""
        tokens: list[str] = self._do("live tokens", client_id=client)["refresh"]
        return tokens

    def seen(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for `path`, from the beginning of the session, names with underscores."""
        lines = (self._folder / "requests").read_text().splitlines()
        return [entry["headers"] for entry in map(json.loads, lines) if entry["path"] == path]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.token_site", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        (self._folder / "requests").touch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.communicate()

    def _do(self, order: str, **values: Any) -> dict[str, Any]:
        response = httpx.post(f"{self.url}/administration", json={"do": order, **values}, timeout=60)
        done: dict[str, Any] = response.raise_for_status().json()
        return done
