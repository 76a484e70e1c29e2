"""What the tests of extracts share."""

from collections.abc import Iterator

import pytest

from tests.extract.shop import Serve
from tests.scripted_server import Script, ScriptedServer


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve an API as the connection `shop`."""
    servers: list[ScriptedServer] = []

    def start(script: Script) -> ScriptedServer:
        servers.append(ScriptedServer(script))
        monkeypatch.setenv("TIDEGATE_SHOP_URL", servers[-1].url)
        return servers[-1].__enter__()

    yield start
    for server in servers:
        server.__exit__(None, None, None)
