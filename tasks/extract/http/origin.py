"""Origins: the scheme, host and port that requests, and credentials, never leave."""

import httpx

from tasks.errors import ConfigError, redact


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether scheme, host and port agree."""
    return _origin(one) == _origin(other)


def checked_url(text: str) -> httpx.URL:
    """The URL of a connection, checked.

    Raises:
        ConfigError: it is none of an API.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        # Its text may quote a part of the password.
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        # Only what follows the last @ is sure to hold no part of a password.
        place = redact(text.partition("?")[0].rpartition("@")[2])
        raise ConfigError(
            f"The URL of the API at {place!r} is not one. Write it as https://host/path, without a query; a user and "
            "password are percent-encoded."
        )
    return url


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
