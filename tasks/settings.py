"""The only reader of the environment.

| variable | meaning |
|---|---|
| `TIDEGATE_<NAME>_URL` | the database or API called `<name>` in a declaration |
| `TIDEGATE_SECRET_<NAME>` | the secret called `<name>` in a declaration, as it is sent |
| `TIDEGATE_ALERTS_URL` | the webhook that `tidegate deploy` has alerts sent to |
| `TIDEGATE_HOME` | where PostgreSQL, the demo and rotated secrets keep their files; `.tidegate` by default |
| `TIDEGATE_CODE_VERSION` | the version written to the ledger; the installed package's by default |
"""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tasks.errors import redact, remember_secret

__all__ = [
    "alerts_url",
    "api_server_known",
    "bare_environment",
    "code_version",
    "connection_url",
    "home",
    "secret",
    "secret_variable",
    "url_variable",
]

_BARE = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "JAVA_HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")


def url_variable(connection: str) -> str:
    """The environment variable that holds the URL of `connection`."""
    return f"TIDEGATE_{connection.upper().replace('-', '_')}_URL"


def connection_url(connection: str) -> str | None:
    """The URL of `connection` from the environment, or None; its password is masked from then on."""
    url = os.environ.get(url_variable(connection))
    if url and "@" in url:
        credentials = url.split("://", 1)[-1].rsplit("@", 1)[0]
        remember_secret(credentials.partition(":")[2])
    return url or None


def secret_variable(name: str) -> str:
    """The environment variable that holds the secret `name`."""
    return f"TIDEGATE_SECRET_{name.upper().replace('-', '_')}"


def secret(name: str) -> str | None:
    """The secret `name` from the environment, or None; it is masked from then on."""
    value = os.environ.get(secret_variable(name))
    if value:
        remember_secret(value)
    return value or None


def alerts_url() -> str | None:
    """The webhook for alerts from the environment, or None; it may hold a token, so it is masked from then on."""
    url = os.environ.get("TIDEGATE_ALERTS_URL")
    if url:
        remember_secret(url)
    return url or None


def home() -> Path:
    """The folder for everything tidegate keeps on this machine."""
    return Path(os.environ.get("TIDEGATE_HOME", ".tidegate")).absolute()


def code_version() -> str:
    """The version that the ledger records."""
    try:
        installed = version("tidegate")
    except PackageNotFoundError:
        installed = "unknown"
    return redact(os.environ.get("TIDEGATE_CODE_VERSION") or installed)


def api_server_known() -> bool:
    """Whether a Prefect server is named; without one, asking for a block would start a server of its own."""
    return bool(os.environ.get("PREFECT_API_URL"))


def bare_environment() -> dict[str, str]:
    """What a process of ours needs to find its programs, and nothing that could be a secret."""
    return {name: os.environ[name] for name in _BARE if name in os.environ}
