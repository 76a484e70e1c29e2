"""Secrets from `Secret` blocks on a real Prefect server, and rotated ones that go back there."""

import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.blocks.system import Secret as SecretBlock
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from deployments.prefect_server import PrefectServer
from tasks import errors
from tasks.errors import ConfigError, SourceUnavailable, redact
from tasks.extract.http.auth.oauth import RefreshToken
from tasks.extract.http.client import HttpClient
from tasks.kept import KeptFile
from tasks.secret import Secret
from tests.scripted_server import Reply, ScriptedServer, Seen
from tests.servers.tokens import TokenSite

pytestmark = pytest.mark.prefect


@pytest.fixture
def server(prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectServer]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / "home"))
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield prefect_server


@pytest.fixture(scope="module")
def token_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenSite]:
    with TokenSite(tmp_path_factory.mktemp("token-site")) as site:
        yield site


def save(name: str, value: Any) -> None:
    cast(Any, SecretBlock(value=value)).save(name, overwrite=True, _sync=True)


def saved(name: str) -> Any:
    return cast(Any, SecretBlock).load(name, _sync=True).value.get_secret_value()


@pytest.mark.smoke
def test_a_block_of_that_name_is_the_secret(server: PrefectServer) -> None:
    save("block-shop-key", "of-the-block-1")
    assert Secret("block_shop_key").value() == "of-the-block-1"
    assert redact("it said of-the-block-1") == "it said ***"


def test_the_environment_wins_over_a_block(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    save("block-key-both", "of-the-block-2")
    monkeypatch.setenv("TIDEGATE_SECRET_BLOCK_KEY_BOTH", "of-the-environment-2")
    assert Secret("block_key_both").value() == "of-the-environment-2"


def test_neither_is_a_config_error(server: PrefectServer) -> None:
    with pytest.raises(
        ConfigError, match="TIDEGATE_SECRET_BLOCK_KEY_NONE or the Prefect Secret block 'block-key-none'"
    ):
        Secret("block_key_none").value()


@pytest.mark.parametrize("value", ["1e5", "0815", "true", '"quoted"'])
def test_a_text_that_looks_like_json_stays_the_text(
    server: PrefectServer, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else every later test of this process would read *** for a plain "true".
    monkeypatch.setattr(errors, "_secrets", set())
    save("block-key-json", value)
    assert Secret("block_key_json").value(fresh=True) == value


def test_a_block_that_holds_no_text_is_a_config_error(server: PrefectServer) -> None:
    save("block-key-object", {"user": "ann", "password": "of-an-object-3"})
    with pytest.raises(ConfigError, match="holds dict, not a text") as caught:
        Secret("block_key_object").value()
    assert "of-an-object" not in str(caught.value)


def test_a_block_is_read_once_a_minute_and_at_once_when_it_has_to_be(server: PrefectServer) -> None:
    save("block-key-fresh", "before-4")
    assert Secret("block_key_fresh").value() == "before-4"
    save("block-key-fresh", "after-4")
    assert Secret("block_key_fresh").value() == "before-4"
    assert Secret("block_key_fresh").value(fresh=True) == "after-4"


def test_a_stored_value_goes_back_into_the_block_and_not_onto_this_machine(server: PrefectServer) -> None:
    save("block-key-stored", "before-5")
    Secret("block_key_stored").store("after-5")
    assert saved("block-key-stored") == Secret("block_key_stored").value(fresh=True) == "after-5"
    assert not KeptFile("block-key-stored").path.exists()


def test_a_value_that_the_server_did_not_take_is_kept_here_and_goes_there_next_time(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads, and refuses to write; what it says of that quotes the value."""
    secret, value = Secret("block_key_away"), "after-6"
    save("block-key-away", "before-6")

    def refuse(block: SecretBlock[str], *_: Any, **__: Any) -> None:
        raise RuntimeError(f"no place for {block.value.get_secret_value()}")

    with (
        monkeypatch.context() as patch,
        pytest.raises(
            SourceUnavailable, match=r"did not take the new value.*'block-key-away' \(RuntimeError\)"
        ) as caught,
    ):
        patch.setattr(SecretBlock, "save", refuse)
        secret.store(value)
    assert value not in "".join(traceback.format_exception(caught.value))
    assert saved("block-key-away") == "before-6"
    assert secret.value(fresh=True) == value
    secret.store("third-6")
    assert saved("block-key-away") == "third-6"


def test_a_server_that_does_not_answer_is_unavailable_and_not_a_missing_secret(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        ScriptedServer({}, up=False) as nobody,
        temporary_settings({PREFECT_API_URL: f"{nobody.url}/api"}),
        pytest.raises(SourceUnavailable, match="Check that the server is up"),
    ):
        Secret("block_key_unreachable").value()


def test_machines_that_share_a_block_take_over_each_others_refresh_token(
    server: PrefectServer, token_site: TokenSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two machines are two homes. The API sees each new access token only when the block holds its refresh token."""
    client = token_site.client("hush-4711", user=True)
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", "hush-4711")
    save("block-grant", token_site.grant(client))
    in_block = []

    def look(_seen: Seen) -> Reply:
        in_block.append(([_read_block("block-grant")], token_site.live_refresh_tokens(client)))
        return Reply({})

    with ScriptedServer({"/look": [look]}) as api:
        for machine in ("one", "other", "one"):
            monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / machine))
            auth = RefreshToken(token_site.token_url, client, Secret("block_grant"), Secret("hush"))
            with HttpClient(api.url, auth=auth) as http:
                http.get_json("/look")
    assert len(in_block) == 3
    assert all(block == live for block, live in in_block)
    assert len({block[0] for block, _ in in_block}) == 3


def _read_block(name: str) -> str:
    """Read in a process of its own: Prefect's settings of this one belong to the thread that made them."""
    code = (
        "import sys; from prefect.blocks.system import Secret; "
        "print(Secret.load(sys.argv[1], _sync=True).value.get_secret_value())"
    )
    return subprocess.check_output([sys.executable, "-c", code, name], text=True, env=dict(os.environ)).strip()
