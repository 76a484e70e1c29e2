"""Real servers that grant tokens, and a home for what is kept of them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers.tokens import TokenSite


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    """This machine's time, until it is moved."""
    return Clock()


@pytest.fixture(scope="session")
def token_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenSite]:
    """One site for the session; each test makes clients and users of its own."""
    with TokenSite(tmp_path_factory.mktemp("token-site")) as site:
        yield site


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `TIDEGATE_HOME` in which nothing is kept yet."""
    monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
