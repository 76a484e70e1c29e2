"""`RefreshToken` against a real authorisation server that replaces a refresh token with each use.

It also revokes the access token that came before, so that processes which did not share theirs would fight.
"""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from tasks.errors import ConfigError, SourceError, redact
from tasks.extract.http.auth.oauth import RefreshToken
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.retry import Retry
from tasks.secret import Secret
from tests.extract.http.conftest import Clock
from tests.scripted_server import Reply, ScriptedServer, Seen
from tests.servers.tokens import TokenSite

HUSH = "hush-4711-client"
PATH = "/readings"
GOOD = Reply({"rows": [1]})
FIRST_PAGE = "{'rows': [{'id': 1}], 'next_url': '/items?page=2'}"

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def granted(token_site: TokenSite, monkeypatch: pytest.MonkeyPatch) -> str:
    """A client that a user has granted access; the first refresh token is in the environment."""
    client = token_site.client(HUSH, user=True)
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", HUSH)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", token_site.grant(client))
    return client


def refresh(token_url: str, client_id: str = "etl", **more: Any) -> RefreshToken:
    return RefreshToken(token_url, client_id, Secret("grant"), Secret("hush"), **more)


def ask(url: str, auth: httpx.Auth, path: str = PATH) -> object:
    with HttpClient(url, auth=auth, retry=Retry(attempts=1)) as client:
        return client.get_json(path).body


def kept(home: Path) -> str:
    """The refresh token on disk."""
    value: str = json.loads((home / "secrets" / "grant.json").read_text())["value"]
    return value


@contextlib.contextmanager
def process(api: str, site: TokenSite, client: str, path: str = "items") -> Iterator[subprocess.Popen[str]]:
    """A process of its own that reads `path` for each line."""
    command = [sys.executable, "-m", "tests.extract.http.refreshing", api, site.token_url, client, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.communicate()


def read(running: subprocess.Popen[str]) -> str:
    start_reading(running)
    return finish_reading(running)


def start_reading(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    print(file=running.stdin, flush=True)


def finish_reading(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def test_a_refresh_token_is_exchanged_for_a_token_that_the_api_accepts_and_its_successor_is_kept(
    token_site: TokenSite, granted: str, home: Path
) -> None:
    first = Secret("grant").value()
    ask(token_site.url, refresh(token_site.token_url, granted), "items")
    assert token_site.live_refresh_tokens(granted) == [kept(home)] != [first]
    assert Secret("grant").value() == kept(home)


def test_a_public_client_has_no_secret(token_site: TokenSite, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    client = token_site.client(user=True)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", token_site.grant(client))
    ask(token_site.url, RefreshToken(token_site.token_url, client, Secret("grant")), "items")
    assert token_site.live_refresh_tokens(client) == [kept(home)]


def test_a_new_process_goes_on_with_the_successor(token_site: TokenSite, granted: str) -> None:
    """Three generations of processes; the environment still holds the first token, which is spent."""
    used = []
    for _ in range(3):
        with process(token_site.url, token_site, granted) as running:
            assert read(running) == FIRST_PAGE
        used += token_site.live_refresh_tokens(granted)
        token_site.expire(granted)
    assert len(set(used)) == 3


def test_a_new_process_uses_the_access_token_of_the_one_before(token_site: TokenSite, granted: str) -> None:
    before = len(token_site.seen("/token"))
    for _ in range(2):
        with process(token_site.url, token_site, granted) as running:
            assert read(running) == FIRST_PAGE
    assert len(token_site.seen("/token")) == before + 1


def test_the_successor_is_on_disk_before_the_api_sees_the_new_access_token(
    token_site: TokenSite, granted: str, home: Path
) -> None:
    """The API itself looks when the token arrives; the server says which refresh token it would accept."""
    found = []

    def look(seen: Seen) -> Reply:
        found.append((kept(home), token_site.live_refresh_tokens(granted)))
        return GOOD if len(found) != 2 else Reply(status=401)

    with ScriptedServer({PATH: [look]}) as api:
        auth = refresh(token_site.token_url, granted)
        ask(api.url, auth)
        ask(api.url, auth)
    assert len(found) == 3
    assert all([on_disk] == live for on_disk, live in found)
    assert found[0] == found[1] != found[2]


def test_a_kill_after_the_successor_is_kept_and_before_the_new_token_is_used_loses_nothing(
    token_site: TokenSite, granted: str
) -> None:
    """The API kills the process as soon as it hears from it, and never answers; another one goes on."""
    killed: list[subprocess.Popen[str]] = []

    def kill(_seen: Seen) -> Reply:
        os.kill(killed[0].pid, signal.SIGKILL)
        return Reply(fault="reset")

    with ScriptedServer({PATH: [kill]}) as api, process(api.url, token_site, granted, PATH) as running:
        killed.append(running)
        assert read(running) == ""
        assert running.wait() == -signal.SIGKILL
    for _ in range(2):
        with process(token_site.url, token_site, granted) as running:
            assert read(running) == FIRST_PAGE
        token_site.expire(granted)


def test_two_processes_with_one_refresh_token_both_go_on(token_site: TokenSite, granted: str) -> None:
    """Both start at once, and each time that their token is taken from them, one fetches another for both."""
    before = len(token_site.seen("/token"))
    with (
        process(token_site.url, token_site, granted) as one,
        process(token_site.url, token_site, granted) as other,
    ):
        for fetched in (1, 2, 3, 4):
            for running in (one, other):
                start_reading(running)
            assert [finish_reading(running) for running in (one, other)] == [FIRST_PAGE] * 2
            assert len(token_site.seen("/token")) == before + fetched
            token_site.expire(granted)


def test_a_refresh_token_that_has_been_used_is_a_source_error_that_says_what_to_do(
    token_site: TokenSite, granted: str
) -> None:
    spent = Secret("grant").value()
    form = {"grant_type": "refresh_token", "refresh_token": spent}
    httpx.post(token_site.token_url, data=form, auth=(granted.replace(":", "%3A"), HUSH)).raise_for_status()
    with pytest.raises(SourceError) as caught:
        ask(token_site.url, refresh(token_site.token_url, granted), "items")
    for part in ("invalid_grant", "'grant' has been used before", "grant access again", "TIDEGATE_SECRET_GRANT"):
        assert part in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert spent not in shown and HUSH not in shown


def test_a_new_grant_in_the_environment_wins_over_the_kept_successor(
    token_site: TokenSite, granted: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """The remedy works: not the kept token is used, nor an access token that came of it."""
    ask(token_site.url, refresh(token_site.token_url, granted), "items")
    old = kept(home)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", token_site.grant(granted))
    ask(token_site.url, refresh(token_site.token_url, granted), "items")
    assert kept(home) != old
    assert set(token_site.live_refresh_tokens(granted)) == {old, kept(home)}


def test_a_token_that_another_machine_has_replaced_in_the_meantime_is_read_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What both machines read changes while this one asks with the spent token."""
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", HUSH)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", "spent-grant-1")

    def replaced(_seen: Seen) -> Reply:
        monkeypatch.setenv("TIDEGATE_SECRET_GRANT", "grant-of-the-other-2")
        return Reply({"error": "invalid_grant"}, 400)

    with ScriptedServer({"/token": [replaced, Reply({"access_token": "granted-token-1"})], PATH: [GOOD]}) as server:
        assert ask(server.url, refresh("/token")) == {"rows": [1]}
    asked = [parse_qs(seen.body.decode())["refresh_token"] for seen in server.seen if seen.target == "/token"]
    assert asked == [["spent-grant-1"], ["grant-of-the-other-2"]]


def test_another_refusal_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", HUSH)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", "a-grant-1")
    for code in ("invalid_client", "invalid_grant"):
        with ScriptedServer({"/token": [Reply({"error": code}, 400)]}) as server:
            with pytest.raises(SourceError, match=code):
                ask(server.url, refresh("/token"))
            assert server.targets == ["/token"]


def test_a_server_that_replaces_nothing_leaves_nothing_to_keep(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", HUSH)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", "lasting-grant-1")
    for extra in ({}, {"refresh_token": ""}, {"refresh_token": None}, {"refresh_token": "lasting-grant-1"}):
        answer = Reply({"access_token": "granted-token-1", "expires_in": 0, **extra})
        with ScriptedServer({"/token": [answer], PATH: [GOOD]}) as server:
            ask(server.url, refresh("/token"))
    assert not (home / "secrets" / "grant.json").exists()


def test_a_successor_is_kept_even_if_the_access_token_beside_it_is_of_no_use(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", HUSH)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", "spent-grant-1")
    answer = Reply({"access_token": "granted-token-1", "token_type": "mac", "refresh_token": "next-grant-2"})
    with ScriptedServer({"/token": [answer]}) as server, pytest.raises(SourceError, match="another type"):
        ask(server.url, refresh("/token"))
    assert kept(home) == "next-grant-2"


def test_no_refresh_token_is_spent_where_its_successor_could_not_be_kept(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", HUSH)
    monkeypatch.setenv("TIDEGATE_SECRET_GRANT", "a-grant-1")
    (home / "secrets" / "grant.lock").mkdir(parents=True)
    with ScriptedServer({"/token": [GOOD]}) as server:
        with pytest.raises(ConfigError, match="TIDEGATE_HOME"):
            ask(server.url, refresh("/token"))
        assert server.seen == []


def test_a_token_is_refreshed_ahead_of_its_expiry_with_the_successor(
    token_site: TokenSite, granted: str, clock: Clock
) -> None:
    auth = refresh(token_site.token_url, granted, clock=clock)
    before = len(token_site.seen("/token"))
    for seconds, fetched in ((0, 1), (3600 - 62, 1), (3600 - 59, 2), (3600 - 59, 3)):
        clock.ahead = timedelta(seconds=seconds)
        ask(token_site.url, auth, "items")
        assert len(token_site.seen("/token")) == before + min(fetched, 2)


def test_all_that_is_kept_is_for_this_user_only_and_masked(token_site: TokenSite, granted: str, home: Path) -> None:
    ask(token_site.url, refresh(token_site.token_url, granted), "items")
    files = list((home / "secrets").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    kept_secrets = [json.loads(file.read_text()) for file in files if file.suffix == ".json"]
    assert sorted(redact(one.get("token") or one["value"]) for one in kept_secrets) == ["***", "***"]
